"""What a run tells Prometheus, through Ray's metrics agent, as `ray_<name>`.

Counts of audio and recordings are read from committed rows, one observation per commit, so metrics and tables
cannot disagree; engines tell of their batches, the driver of what is left. Knows no storage.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from threading import Thread
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from ray.util import metrics as ray_metrics

from dawnchorus.records import Counted, Seconds

_WINDOW_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_CHUNK_SECONDS = (1, 2, 5, 10, 15, 20, 25, 30, 40)
_LIVE_SECONDS: Seconds = 1.0
_QUEUE_SECONDS = (0.5, 1, 2, 5, 10, 20, 40, 80, 160, 320)
_WINDOW_SECONDS = (0.1, 0.5, 1, 2, 5, 10, 20, 40, 80, 160)


@dataclass(frozen=True, slots=True)
class Metric:
    """One time series: `kind`, what it counts with its unit, labels beside `run_id`, histogram bounds."""

    kind: Literal["counter", "histogram", "gauge"]
    text: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()


METRICS: dict[str, Metric] = {
    "dawnchorus_audio_decoded_seconds": Metric("counter", "Audio decoded, all channels, s"),
    "dawnchorus_audio_silent_seconds": Metric("counter", "Audio without speech, skipped, s"),
    "dawnchorus_audio_transcribed_seconds": Metric("counter", "Audio in committed chunks, s"),
    "dawnchorus_engine_seconds": Metric("counter", "Engine time spent on committed chunks, s"),
    "dawnchorus_engine_wait_seconds": Metric("counter", "Time engines waited for audio, s"),
    "dawnchorus_decode_seconds": Metric("counter", "Time spent decoding and finding speech, s"),
    "dawnchorus_recordings": Metric("counter", "Recordings ended, by status", ("status",)),
    "dawnchorus_failures": Metric("counter", "Failures of recordings and chunks", ("stage", "kind")),
    "dawnchorus_retries": Metric("counter", "Commits of something that had been tried before"),
    "dawnchorus_redone_splits": Metric("counter", "Times an engine cut a chunk and did it again"),
    "dawnchorus_tokens": Metric("counter", "Tokens that engines wrote"),
    "dawnchorus_window_rows": Metric("histogram", "Chunks in one engine call", (), _WINDOW_ROWS),
    "dawnchorus_window_seconds": Metric("histogram", "Engine time of one call, s", (), _WINDOW_SECONDS),
    "dawnchorus_chunk_seconds": Metric("histogram", "Length of committed chunks, s", (), _CHUNK_SECONDS),
    "dawnchorus_batch_rows": Metric("histogram", "Chunks in one model call", (), _WINDOW_ROWS),
    "dawnchorus_batch_audio_seconds": Metric("counter", "Audio in model calls, s"),
    "dawnchorus_batch_padding_seconds": Metric("counter", "Padding in model calls, s"),
    "dawnchorus_batches_halved": Metric("counter", "Batches halved: memory did not suffice"),
    "dawnchorus_queue_seconds": Metric(
        "histogram", "Time from a chunk's decoding to its engine, a window's mean, s", (), _QUEUE_SECONDS
    ),
    "dawnchorus_engines": Metric("gauge", "1 for each engine that is loaded", ("worker",)),
    "dawnchorus_audio_remaining_seconds": Metric("gauge", "Audio that is left to do, s"),
    "dawnchorus_eta_seconds": Metric("gauge", "Time until all is transcribed, or answered, s"),
    "dawnchorus_commit_age_seconds": Metric("gauge", "Time since the latest commit, s"),
    "dawnchorus_deadline": Metric("gauge", "When the run should be done, s since the epoch"),
    "dawnchorus_answers": Metric("counter", "Answers committed", ("name", "status")),
    "dawnchorus_answer_tokens": Metric("counter", "Tokens of answers and notes"),
}


@cache
def _instrument(name: str) -> Any:
    """The instrument of one name; Ray wants one object per name and process."""
    metric = METRICS[name]
    labels = ("run_id", *metric.labels)
    if metric.kind == "counter":
        return ray_metrics.Counter(name, metric.text, labels)
    if metric.kind == "gauge":
        return ray_metrics.Gauge(name, metric.text, labels)
    return ray_metrics.Histogram(name, metric.text, list(metric.bounds), labels)


Observation = tuple[str, float, Mapping[str, str]]
"""A metric's name, a value and its labels beside `run_id`."""


def tell(run_id: str, observations: list[Observation]) -> None:
    """Hand observations to Ray."""
    for name, value, labels in observations:
        tags = {"run_id": run_id, **labels}
        instrument = _instrument(name)
        if METRICS[name].kind == "histogram":
            instrument.observe(value, tags=tags)
        elif METRICS[name].kind == "gauge":
            instrument.set(value, tags=tags)
        elif value > 0:
            instrument.inc(value, tags=tags)


def of_window(table: pa.Table) -> list[Observation]:
    """What one committed window of `schema.CHUNKS` rows says."""
    chunk = table.filter(pc.equal(table["kind"], "chunk"))
    end = table.filter(pc.equal(table["kind"], "end"))
    lengths = pc.subtract(chunk["end"], chunk["start"]).to_pylist()
    engine = _sum(pc.struct_field(chunk["timing"], "engine_seconds"))
    again = pc.greater(pc.fill_null(pc.struct_field(table["failure"], "attempts"), 0), 1)
    decoded, silent = _of_channels(end)
    said: list[Observation] = [
        ("dawnchorus_audio_decoded_seconds", decoded, {}),
        ("dawnchorus_audio_silent_seconds", silent, {}),
        ("dawnchorus_audio_transcribed_seconds", sum(lengths), {}),
        ("dawnchorus_engine_seconds", engine, {}),
        ("dawnchorus_engine_wait_seconds", _sum(pc.struct_field(chunk["timing"], "wait_seconds")), {}),
        ("dawnchorus_decode_seconds", _sum(pc.struct_field(end["timing"], "decode_seconds")), {}),
        ("dawnchorus_retries", _sum(again), {}),
        ("dawnchorus_redone_splits", _sum(chunk["num_splits"]), {}),
        ("dawnchorus_tokens", _sum(chunk["num_tokens"]), {}),
    ]
    if len(chunk):
        said.append(("dawnchorus_window_rows", float(len(chunk)), {}))
        said.append(("dawnchorus_window_seconds", engine, {}))
    said += [("dawnchorus_chunk_seconds", length, {}) for length in lengths]
    said += [("dawnchorus_recordings", n, {"status": s}) for s, n in _counts(end["status"])]
    for failure in table["failure"].drop_null().to_pylist():
        said.append(("dawnchorus_failures", 1.0, {"stage": failure["stage"], "kind": failure["kind"]}))
    return said


@dataclass(frozen=True, slots=True)
class EngineWatch:
    """A `stages.watch.Watch` that tells Prometheus, from the engine's own process."""

    run_id: str

    def loaded(self, worker: str) -> None:
        """An engine is ready; its series ends with its process."""
        Thread(target=self._live, args=(worker,), daemon=True, name="metrics").start()

    def _live(self, worker: str) -> None:
        # Ray forgets a gauge that was not set again for two of its reports.
        while True:
            tell(self.run_id, [("dawnchorus_engines", 1.0, {"worker": worker})])
            time.sleep(_LIVE_SECONDS)

    def called(self, batches: Counted, queued: Seconds | None) -> None:
        """See `of_batches`."""
        tell(self.run_id, of_batches(batches, queued))


def of_batches(batches: Counted, queued: Seconds | None) -> list[Observation]:
    """What one engine call says of its model calls, and of the time that its chunks had waited."""
    said: list[Observation] = [
        ("dawnchorus_batch_audio_seconds", batches.content, {}),
        ("dawnchorus_batch_padding_seconds", batches.padding, {}),
        ("dawnchorus_batches_halved", float(batches.num_halved), {}),
    ]
    said += [("dawnchorus_batch_rows", float(n), {}) for n in batches.num_items]
    if queued is not None:
        said.append(("dawnchorus_queue_seconds", queued, {}))
    return said


def of_progress(
    left: Seconds | None, eta: Seconds | None, commit_age: Seconds, deadline: float | None
) -> list[Observation]:
    """What the driver says now and then: audio that is left, time until the end, time since a commit, and
    when it should be done (since the epoch); None where it is not known."""
    values = {
        "dawnchorus_audio_remaining_seconds": left,
        "dawnchorus_eta_seconds": eta,
        "dawnchorus_commit_age_seconds": commit_age,
        "dawnchorus_deadline": deadline,
    }
    return [(name, value, {}) for name, value in values.items() if value is not None]


def of_answers(table: pa.Table) -> list[Observation]:
    """What one committed window of `schema.ANSWERS` rows says."""
    said: list[Observation] = [("dawnchorus_answer_tokens", _sum(table["num_tokens"]), {})]
    for row in table.filter(pc.equal(table["kind"], "answer")).select(["name", "status"]).to_pylist():
        said.append(("dawnchorus_answers", 1.0, {"name": row["name"], "status": row["status"]}))
    return said


def _of_channels(end: pa.Table) -> tuple[float, float]:
    decoded = silent = 0.0
    for row in end.select(["channels", "sampling_rate"]).to_pylist():
        for channel in row["channels"] or ():
            decoded += channel["decoded_samples"] / row["sampling_rate"]
            silent += channel["silent_samples"] / row["sampling_rate"]
    return decoded, silent


def _sum(column: pa.ChunkedArray) -> float:
    return float(pc.sum(column).as_py() or 0.0)


def _counts(column: pa.ChunkedArray) -> list[tuple[str, float]]:
    return [(c["values"], float(c["counts"])) for c in pc.value_counts(column).to_pylist()]
