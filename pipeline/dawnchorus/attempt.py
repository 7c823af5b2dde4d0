"""One attempt: an immutable plan of what is pending, and graph 1 over it, watched while it runs.

Knows how to run the graph once; what to do about its end is `run`'s.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from threading import Event, Thread
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from dawnchorus import (
    cluster,
    graph,
    ledger,
    logs,
    metrics,
    plan,
    publishing,
    signals,
    tracing,
)
from dawnchorus.answers import Answered, Asking
from dawnchorus.cluster import Progress
from dawnchorus.config import EngineConfig
from dawnchorus.errors import DataError, Fenced, RunPaused
from dawnchorus.expected import Expected
from dawnchorus.faults import first_line
from dawnchorus.placement import WRITE_CPUS, Resources
from dawnchorus.prepare import Prepared, Survey
from dawnchorus.records import Seconds
from dawnchorus.sink import ChunkSink
from dawnchorus.stages.decoded import DecodeSettings
from dawnchorus.stages.transcribe import TranscribeSettings

_UNITS_PER_DECODER = 4
_SHORTEST_UNIT: Seconds = 30.0


class Ui(Protocol):
    """What a run shows a person while it goes on."""

    def say(self, text: str) -> None:
        """One line of news."""

    def plan(self, prepared: Prepared, survey: Survey, use: Resources | None) -> None:
        """What is about to be done, before anything is spent."""

    def progress(self, survey: Survey, progress: Progress, elapsed: Seconds) -> None:
        """Called about once a second while graph 1 runs."""

    def asking(self, left: Asking, use: Resources) -> None:
        """What graph 3 is about to ask, before its model is loaded."""

    def answering(self, left: int, answered: Answered, elapsed: Seconds) -> None:
        """Called about once a second while graph 3 runs; `left` answers were to be given when it began."""


def _thread(name: str, target: Callable[..., None], *args: Any) -> Thread:
    """A thread that knows what it belongs to: spans made in it are below this one's."""
    return Thread(target=copy_context().run, args=(target, *args), daemon=True, name=name)


class Attempt:
    """One pass of graph 1 over what is pending: an immutable snapshot, then the graph.

    `scratch` is a local folder of the command: what the engines note there about chunks that end their
    process outlives a graph that stopped, but not a driver that was killed, which says nothing of them.
    """

    def __init__(self, prepared: Prepared, work: Survey, epoch: int, use: Resources, scratch: str) -> None:
        self.prepared, self.work, self.epoch, self.scratch = prepared, work, epoch, scratch
        config = prepared.config
        share = float(work.pending_seconds.sum()) / (use.decoders * _UNITS_PER_DECODER)
        unit_seconds = min(config.plan.unit_seconds, max(share, _SHORTEST_UNIT))
        self.unit_of = plan.assign_units(work.pending, work.pending_seconds, unit_seconds, work.alone)
        rows = plan.unit_rows(work.pending, self.unit_of, work.tries, work.committed)
        owner = (prepared.output, epoch)
        self.units = plan.write_attempt(rows, "unit", prepared.run_url, owner, "plan")
        self.use = use.at_most(self.units.num_groups)
        self.stalled: RunPaused | None = None

    @tracing.span("attempt")
    def transcribe(self, ui: Ui) -> None:
        """Run graph 1 to its end; publishes now and then in long runs."""
        tracing.describe(**self._about())
        prepared, config = self.prepared, self.prepared.config
        window_bytes = int(self.use.window_rows * prepared.max_chunk_seconds * prepared.sampling_rate * 2)
        cluster.tune(window_bytes // 2)
        decode = DecodeSettings(
            config.audio,
            config.vad,
            config.chunking,
            prepared.sampling_rate,
            prepared.max_chunk_seconds,
            self.epoch,
            config.resume.pause_after,
            prepared.facts.run_id,
        )
        tally = cluster.start_tally()
        facts = prepared.facts
        watch = metrics.EngineWatch(facts.run_id)
        weights = prepared.identity.facts.get("weights_sha256")
        transcribe = TranscribeSettings(
            self._engine(), facts.run_id, facts.fingerprint, self.scratch, watch, weights
        )
        sink = ChunkSink(prepared.output, self.epoch, facts.fingerprint, prepared.metadata(), tally)
        with self._told(), self._watched(tally, ui):
            windows = graph.windows(self.units, decode, transcribe, self.use)
            windows.write_datasink(sink, ray_remote_args={"num_cpus": WRITE_CPUS})

    def _engine(self) -> EngineConfig:
        """The engine's configuration with its share of CPUs and of a GPU's memory, unless it says."""
        return self.use.shares(self.prepared.config.engine)

    @contextmanager
    def _watched(self, tally: Any, ui: Ui) -> Iterator[None]:
        """While the graph runs: progress once a second, publishing every `publish.every_seconds`."""
        over = Event()
        threads = [_thread("progress", self._show, tally, ui, over)]
        if self.prepared.config.publish.every_seconds:
            threads.append(_thread("publish", self._publish_often, ui, over))
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            over.set()
            for thread in threads:
                thread.join()

    def _show(self, tally: Any, ui: Ui, over: Event) -> None:
        began = time.monotonic()
        expected = Expected(self.work.pending["recording_id"].to_pylist(), self.work.pending_seconds)
        while not over.wait(1.0):
            progress = self._progress(tally, expected)
            ui.progress(self.work, progress, time.monotonic() - began)
            self._trace(tally)
            self._watch(time.time() - progress.last_commit)
        self._trace(tally)
        ui.progress(self.work, self._progress(tally, expected), time.monotonic() - began)

    def _progress(self, tally: Any, expected: Expected) -> Progress:
        progress: Progress = ray.get(tally.read.remote())
        expected.learn(ray.get(tally.take_ended.remote()))
        progress.expected_seconds = expected.total(progress.audio_seconds)
        return progress

    def _trace(self, tally: Any) -> None:
        if tracing.enabled():
            tracing.windows(ray.get(tally.take.remote()))

    @contextmanager
    def _told(self) -> Iterator[None]:
        """The log is told of the attempt's begin and end."""
        began = time.monotonic()
        logs.event("attempt_started", **self._about())
        ending = "interrupted"
        try:
            yield
            ending = "done"
        except Exception as e:
            ending = first_line(e)
            raise
        finally:
            seconds = round(time.monotonic() - began, 3)
            logs.event("attempt_ended", attempt=self.epoch, ending=ending, seconds=seconds)

    def _about(self) -> dict[str, Any]:
        return {
            "attempt": self.epoch,
            "num_pending": len(self.work.pending),
            "pending_seconds": round(float(self.work.pending_seconds.sum()), 3),
            "num_units": self.units.num_groups,
            "engines": self.use.engines,
            "decoders": self.use.decoders,
        }

    def _watch(self, silent: Seconds) -> None:
        """Interrupt the graph when nothing was committed for `resume.stall_seconds`."""
        limit = self.prepared.config.resume.stall_seconds
        if limit and silent > limit and self.stalled is None:
            self.stalled = RunPaused(f"nothing was committed for {silent:.0f} s (resume.stall_seconds)")
            signals.interrupt()

    def _publish_often(self, ui: Ui, over: Event) -> None:
        while not over.wait(self.prepared.config.publish.every_seconds):
            try:
                publishing.publish(publishing.job(self.prepared), self.epoch)
            except DataError as e:
                ui.say(f"Not published this time: {e.message}")
            except Fenced:
                return  # the sinks find out as well, and end the graph

    def in_flight(self) -> pa.Array:
        """Recordings that may have been in work when the graph stopped: those of units up to a few
        beyond the last one of which anything is committed."""
        chunks = ledger.read_chunks(self.prepared.output, self.prepared.facts.fingerprint)
        last = -1
        if chunks is not None:
            begun = pc.is_in(self.work.pending["recording_id"], value_set=pc.unique(chunks["recording_id"]))
            units = self.unit_of[begun.to_numpy(zero_copy_only=False)]
            last = int(units.max()) if len(units) else -1
        near = self.unit_of <= last + 2 * self.use.decoders + 2
        return self.work.pending.filter(pa.array(np.asarray(near)))["recording_id"].combine_chunks()
