"""The Transcriber: holds one Engine, turns windows of decoded chunks into windows of results.

A window comes in as one table and leaves as one table with the same rows; a chunk that fails is a row
that says so. Remembers on local disk what it was doing, so that a chunk which ends its process twice
when alone is quarantined instead of being tried for ever. Knows no storage and no plan.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dawnchorus import ids
from dawnchorus.chunking import owned
from dawnchorus.config import EngineConfig
from dawnchorus.engines import create
from dawnchorus.errors import RunPaused, Terminal
from dawnchorus.records import Hypothesis
from dawnchorus.schema import CHUNKS, SCHEMA_VERSION, failure_row, segment_row


@dataclass(frozen=True, slots=True)
class TranscribeSettings:
    """What a Transcriber needs: the engine, whose rows these are, and a local folder for its notes."""

    engine: EngineConfig
    run_id: str
    fingerprint: str
    scratch: str


class Transcriber:
    """Callable class for `map_batches`: `schema.DECODED` in, `schema.CHUNKS` out, row for row.

    Returns one table a call and is never a generator, so that Ray keeps calls one at a time.
    """

    def __init__(self, settings: TranscribeSettings) -> None:
        self.settings = settings
        self.engine = create(settings.engine)
        self.engine.load()
        self.notes = _Notes(Path(settings.scratch))
        self.worker = f"{socket.gethostname()}:{os.getpid()}"
        self.last_end = time.perf_counter()

    def __call__(self, window: pa.Table) -> pa.Table:
        """Transcribe the chunk rows of a window; end rows pass through."""
        began = time.perf_counter()
        wait = began - self.last_end
        is_chunk = [k == "chunk" for k in window["kind"].to_pylist()]
        at = [i for i, chunk in enumerate(is_chunk) if chunk]
        waveforms = _waveforms(window["waveform"], at)
        chunk_ids = [window["chunk_id"][i].as_py() for i in at]
        started = time.time()
        hypotheses = self._transcribe(chunk_ids, waveforms)
        spent = time.perf_counter() - began
        rows = window.drop_columns(["waveform"]).to_pylist()
        share = spent / max(1, sum(len(w) for w in waveforms))
        for n, i in enumerate(at):
            timing = {
                "worker": self.worker,
                "started_at": started,
                "decode_seconds": None,
                "engine_seconds": share * len(waveforms[n]),
                "wait_seconds": wait if n == 0 else 0.0,
            }
            rows[i] |= _result(rows[i], hypotheses[n], timing)
        self.last_end = time.perf_counter()
        stamp = {
            "run_id": self.settings.run_id,
            "fingerprint": self.settings.fingerprint,
            "schema_version": SCHEMA_VERSION,
        }
        return pa.Table.from_pylist([r | stamp for r in rows], schema=CHUNKS)

    def _transcribe(self, chunk_ids: list[str], waveforms: Sequence[NDArray[np.float32]]) -> list[Hypothesis]:
        """All at once; one by one where this window has ended a process before."""
        if not waveforms:
            return []
        deaths = self.notes.deaths(ids.part_id("window", chunk_ids))
        if not deaths:
            with self.notes.during(ids.part_id("window", chunk_ids)):
                return _checked(self.engine.transcribe(waveforms), len(waveforms))
        return [self._alone(i, w) for i, w in zip(chunk_ids, waveforms, strict=True)]

    def _alone(self, chunk_id: str, waveform: NDArray[np.float32]) -> Hypothesis:
        """Raises RunPaused when every chunk so far ended its process."""
        if self.notes.deaths(chunk_id) >= 2:
            if self.notes.num_killers() > 1 and not self.notes.any_success():
                raise RunPaused(
                    f"the engine's process died at each of {self.notes.num_killers()} chunks and transcribed "
                    "none: that is the engine, not the audio (is its memory enough?)"
                )
            message = "transcribing this chunk alone ended the engine's process twice"
            return Hypothesis(finish_reason="error", error=Terminal("crash", message, "transcribe").failure())
        with self.notes.during(chunk_id):
            return _checked(self.engine.transcribe([waveform]), 1)[0]


def _checked(hypotheses: list[Hypothesis], count: int) -> list[Hypothesis]:
    if len(hypotheses) != count:
        raise AssertionError(f"the engine returned {len(hypotheses)} hypotheses for {count} waveforms")
    return hypotheses


def _waveforms(column: pa.ChunkedArray, at: list[int]) -> list[NDArray[np.float32]]:
    """The int16 waveforms of rows `at` as float32 in [-1, 1), shape `(num_samples,)` each."""
    lists = column.combine_chunks()
    flat = lists.values.to_numpy(zero_copy_only=True)
    offsets = lists.offsets.to_numpy()
    return [flat[offsets[i] : offsets[i + 1]].astype(np.float32) / 32768.0 for i in at]


def _result(row: dict[str, Any], hypothesis: Hypothesis, timing: dict[str, Any]) -> dict[str, Any]:
    """The result columns of one chunk; times become seconds from the start of the recording."""
    shift = row["input_start"]
    segments = owned(hypothesis.segments, row["start"] - shift, row["end"] - shift)
    failure = failure_row(hypothesis.error)
    if failure is not None:
        failure["attempts"] = (row["tries"] or 0) + 1
    return {
        "segments": [segment_row(s, shift) for s in segments],
        "avg_logprob": hypothesis.avg_logprob,
        "num_tokens": hypothesis.num_tokens,
        "num_splits": hypothesis.num_splits,
        "finish_reason": hypothesis.finish_reason,
        "flags": list(hypothesis.flags),
        "status": "failed" if hypothesis.error else "ok" if hypothesis.text else "empty",
        "failure": failure,
        "timing": timing,
    }


_SUCCESS = "succeeded"


class _Notes:
    """What was being transcribed when a process ended: one small local file per window or chunk.

    A file that is still there when the same work comes again means that the process died of it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def deaths(self, name: str) -> int:
        """How often a process ended during `name`."""
        path = self.folder / name
        return path.stat().st_size if path.exists() else 0

    def num_killers(self) -> int:
        """How many chunks ended their process twice, each alone."""
        return sum(p.stat().st_size >= 2 for p in self.folder.iterdir())

    def any_success(self) -> bool:
        """Whether any call has returned since this folder was made."""
        return (self.folder / _SUCCESS).exists()

    def during(self, name: str) -> _Note:
        """A context: noted while it runs, forgotten when it returns or raises."""
        return _Note(self.folder / name)


class _Note:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        with open(self.path, "ab") as f:
            f.write(b"x")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            (self.path.parent / _SUCCESS).touch()
        size = self.path.stat().st_size
        if size <= 1:
            self.path.unlink()
        else:
            os.truncate(self.path, size - 1)
