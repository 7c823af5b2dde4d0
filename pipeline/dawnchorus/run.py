"""One run: prepare -> fence -> (plan -> graph 1 -> graph 2) until nothing is pending -> reconcile -> report.

Whatever ends graph 1 (done, Ctrl-C, a pause, an abort), what is complete gets published. Knows the
order of things and leaves each thing to its module.
"""

from __future__ import annotations

import itertools
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from threading import Event, Thread
from types import FrameType
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from dawnchorus import cluster, fence, graph, ledger, plan, publishing, report, storage
from dawnchorus.cluster import Progress, Resources
from dawnchorus.config import RunConfig
from dawnchorus.errors import DawnChorusError, Fenced, RunPaused
from dawnchorus.prepare import Prepared, Survey, prepare, survey
from dawnchorus.reconcile import Reconciliation, reconcile
from dawnchorus.records import Seconds
from dawnchorus.sink import ChunkSink
from dawnchorus.stages.decode import DecodeSettings
from dawnchorus.stages.transcribe import TranscribeSettings

_MAX_ABORTS = 3
_UNITS_PER_DECODER = 4
_SHORTEST_UNIT: Seconds = 30.0


class Exit(IntEnum):
    """Exit codes of the command."""

    OK = 0
    """Every recording is accounted for; some may be listed as failed."""
    ERROR = 1
    """A bug or an unforeseen fault."""
    USAGE = 2
    """The configuration, the manifest, the engine or the storage: nothing was started."""
    INCOMPLETE = 3
    """Paused, or some failures are passing ones: run the same command again."""
    UNRECONCILED = 4
    """The tables do not add up; the report lists where."""
    OWNED = 5
    """Another run owns the output, or took it over."""
    INTERRUPTED = 130
    """Ctrl-C or SIGTERM; what was complete is published."""


class Ui(Protocol):
    """What a run shows a person while it goes on."""

    def say(self, text: str) -> None:
        """One line of news."""

    def plan(self, prepared: Prepared, survey: Survey, use: Resources) -> None:
        """What is about to be done, before anything is spent."""

    def progress(self, survey: Survey, progress: Progress, elapsed: Seconds) -> None:
        """Called about once a second while graph 1 runs."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: exit code, one sentence, and where to look."""

    exit: Exit
    run_id: str
    message: str
    reconciliation: Reconciliation
    report: dict[str, Any]
    output: str
    report_url: str

    def rows(self) -> list[tuple[str, str]]:
        """The closing table, as label and value."""
        found, made = self.reconciliation, self.report
        partial = f" ({found.num_partial:,} in part)" if found.num_partial else ""
        counts = f"{found.num_ok:,} ok{partial}, {found.num_empty:,} empty, {found.num_failed:,} failed"
        spent, wer = made["time"], made["wer"]
        rows = [("recordings", f"{found.num_recordings:,}: {counts}")]
        rows += [
            (f"  {k['kind']}", f"{k['num']:,}: {k['examples'][0]['message']}")
            for k in made["failures"]["kinds"]
        ]
        if spent["rtfx"]:
            rows.append(
                ("rtfx", f"{spent['rtfx']:.1f} audio seconds per second, reading and decoding included")
            )
        if wer["wer"] is not None:
            words = f"{wer['num_words']:,} words of {wer['num_recordings']:,} recordings with a reference"
            rows.append(("WER", f"{wer['wer']:.1%} over {words}"))
        elif wer["note"]:
            rows.append(("WER", wer["note"]))
        rows.append(("transcripts", storage.shown(storage.join(self.output, "transcripts"))))
        rows.append(("report", storage.shown(self.report_url)))
        return rows


def run(config: RunConfig, ui: Ui, take_over: bool = False) -> Outcome:
    """Bring a run as far as it can go.

    Raises:
        UserError: nothing was started; the message says what to mend.
        Fenced: another run took the output over.
    """
    started = time.time()
    prepared = prepare(config)
    storage.check_writable(prepared.output)
    survey(prepared)  # refuses another fingerprint before anything is created
    owner = fence.Fence(prepared.output, prepared.facts.run_id)
    owner.acquire(take_over)
    with owner:
        prepared.save()
        ui.say("Starting Ray ...")
        cluster.start(config)
        with _terminable():
            use = cluster.resources(config)
            ending = _passes(prepared, owner, use, ui)
            _publish(prepared, owner.epoch)
            found = reconcile(
                prepared.output,
                prepared.manifest,
                prepared.facts.fingerprint,
                keep_old=config.resume.other_fingerprint == "keep-old",
            )
            made = report.make(
                prepared.output,
                prepared.facts.run_id,
                found,
                started,
                cpus_per_engine=use.cpus_per_engine,
                gpus_per_engine=use.gpus_per_engine,
            )
    code = _exit(ending, found)
    where = report.page_url(prepared.output, prepared.facts.run_id)
    message = _message(code, ending, found)
    return Outcome(code, prepared.facts.run_id, message, found, made, prepared.output, where)


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends a run like Ctrl-C. Installed after `ray.init`, which replaces the handler."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _passes(prepared: Prepared, owner: fence.Fence, use: Resources, ui: Ui) -> BaseException | None:
    """Attempt after attempt until nothing is pending (returns None) or something stops the run."""
    aborts, alone = 0, pa.array([], pa.string())
    for number in itertools.count():
        work = survey(prepared, first=number == 0, alone=alone)
        if number == 0:
            ui.plan(prepared, work, use)
        if not len(work.pending):
            return None
        if number:
            ui.say(f"{len(work.pending):,} recordings are tried again.")
            time.sleep(prepared.config.resume.backoff_seconds)
            owner.advance()
        attempt = _Attempt(prepared, work, owner.epoch, use)
        try:
            attempt.transcribe(ui)
        except KeyboardInterrupt as e:
            return e
        except Exception as e:
            known = _our_error(e)
            if isinstance(known, RunPaused):
                return known
            aborts += 1
            if known is not None or aborts >= _MAX_ABORTS:
                raise known or e from e
            alone = attempt.in_flight()
            ui.say(f"The graph stopped ({_first_line(e)}); {len(alone):,} recordings are tried one by one.")
    raise AssertionError("unreachable")


def _our_error(error: BaseException) -> DawnChorusError | None:
    """Our own error inside what Ray raised, if there is one."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, DawnChorusError) and not isinstance(seen, ray.exceptions.RayTaskError):
            return seen
        seen = getattr(seen, "cause", None) or seen.__cause__
    return None


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__


class _Attempt:
    """One pass of graph 1 over what is pending: an immutable snapshot, then the graph."""

    def __init__(self, prepared: Prepared, work: Survey, epoch: int, use: Resources) -> None:
        self.prepared, self.work, self.epoch, self.use = prepared, work, epoch, use
        config = prepared.config
        share = float(work.pending_seconds.sum()) / (use.decoders * _UNITS_PER_DECODER)
        unit_seconds = min(config.plan.unit_seconds, max(share, _SHORTEST_UNIT))
        self.unit_of = plan.assign_units(work.pending, work.pending_seconds, unit_seconds, work.alone)
        rows = plan.unit_rows(work.pending, self.unit_of, work.tries, work.committed)
        url = storage.join(prepared.run_url, "attempts", f"{epoch:08d}", "plan")
        self.units = plan.write_snapshot(rows, "unit", url)

    def transcribe(self, ui: Ui) -> None:
        """Run graph 1 to its end; publishes now and then in long runs."""
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
        )
        tally = cluster.start_tally()
        facts = prepared.facts
        with tempfile.TemporaryDirectory(prefix=f"dawnchorus-{facts.run_id}-") as scratch:
            notes = str(Path(scratch) / "notes")
            transcribe = TranscribeSettings(config.engine, facts.run_id, facts.fingerprint, notes)
            sink = ChunkSink(prepared.output, self.epoch, facts.fingerprint, prepared.metadata(), tally)
            with self._watched(tally, ui):
                windows = graph.windows(self.units, decode, transcribe, self.use)
                windows.write_datasink(sink, ray_remote_args={"num_cpus": 0.1})

    @contextmanager
    def _watched(self, tally: Any, ui: Ui) -> Iterator[None]:
        """While the graph runs: progress once a second, publishing every `publish.every_seconds`."""
        over = Event()
        threads = [Thread(target=self._show, args=(tally, ui, over), daemon=True, name="progress")]
        if self.prepared.config.publish.every_seconds:
            threads.append(Thread(target=self._publish_often, args=(over,), daemon=True, name="publish"))
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
        while not over.wait(1.0):
            ui.progress(self.work, ray.get(tally.read.remote()), time.monotonic() - began)
        ui.progress(self.work, ray.get(tally.read.remote()), time.monotonic() - began)

    def _publish_often(self, over: Event) -> None:
        while not over.wait(self.prepared.config.publish.every_seconds):
            publishing.publish(publishing.job(self.prepared), self.epoch)

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


def _publish(prepared: Prepared, epoch: int) -> None:
    """Graph 2 over what is due."""
    staged = publishing.stage(publishing.job(prepared), epoch)
    if staged is not None:
        graph.transcripts(*staged).materialize()


def _exit(ending: BaseException | None, found: Reconciliation) -> Exit:
    if isinstance(ending, KeyboardInterrupt):
        return Exit.INTERRUPTED
    if found.num_problems:
        return Exit.UNRECONCILED
    if ending is not None or found.num_missing or found.num_transient:
        return Exit.INCOMPLETE
    return Exit.OK


def _message(code: Exit, ending: BaseException | None, found: Reconciliation) -> str:
    """One sentence on how the run ended, with what to do next."""
    done = found.num_recordings - found.num_missing
    if code is Exit.OK:
        return f"All {found.num_recordings:,} recordings are accounted for."
    if code is Exit.UNRECONCILED:
        return f"{found.num_problems} things do not add up, first: {found.problems[0]}."
    if code is Exit.INTERRUPTED:
        return f"Stopped. {done:,} of {found.num_recordings:,} are published; run the same command to go on."
    if isinstance(ending, RunPaused):
        return f"Paused: {ending}. Nothing was lost; mend it and run the same command."
    left = found.num_transient + found.num_missing
    return f"{left:,} recordings failed for reasons that may pass; run the same command to try them again."


__all__ = ["Exit", "Fenced", "Outcome", "Ui", "run"]
