"""The Transcriber: holds one Engine, turns windows of decoded chunks into windows of results.

A window comes in as one table and leaves as one table with the same rows; a chunk that fails is a row
that says so, one that ends the process too (`quarantine`). Knows no storage and no plan.
"""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dawnchorus.chunking import owned
from dawnchorus.config import EngineConfig
from dawnchorus.engines import create
from dawnchorus.engines.batching import counted
from dawnchorus.errors import UserError
from dawnchorus.records import Hypothesis
from dawnchorus.schema import CHUNKS, SCHEMA_VERSION, failure_row, segment_row
from dawnchorus.stages.quarantine import Quarantine, Words
from dawnchorus.stages.watch import Watch, load, mean_wait

_WORDS = Words("transcribe", "chunk", "transcribing", "transcribed", "the audio")


@dataclass(frozen=True, slots=True)
class TranscribeSettings:
    """What a Transcriber needs: the engine, whose rows these are, a local folder for its notes, who is told
    how it works, and the SHA-256 of the weights that the fingerprint stands for, where they have one."""

    engine: EngineConfig
    run_id: str
    fingerprint: str
    scratch: str
    watch: Watch | None = None
    weights: str | None = None


class Transcriber:
    """Callable class for `map_batches`: `schema.DECODED` in, `schema.CHUNKS` out, row for row.

    Returns one table a call and is never a generator, so that Ray keeps calls one at a time.
    """

    def __init__(self, settings: TranscribeSettings) -> None:
        self.settings = settings
        self.worker = f"{socket.gethostname()}:{os.getpid()}"
        self.refusal: UserError | None = None
        try:
            self.engine = create(settings.engine)
            load(
                self.engine,
                settings.engine,
                settings.run_id,
                self.worker,
                settings.watch,
                settings.weights,
            )
        except UserError as e:
            # Raised here, Ray would build the actor again and again; a call's error ends the graph.
            self.refusal = e.with_traceback(None)
        self.quarantine = Quarantine(Path(settings.scratch), _WORDS)
        self.last_end = time.perf_counter()

    def __call__(self, window: pa.Table) -> pa.Table:
        """Transcribe the chunk rows of a window; end rows pass through.

        Raises:
            UserError: the engine could not be loaded.
        """
        if self.refusal is not None:
            raise self.refusal
        began = time.perf_counter()
        wait = began - self.last_end
        is_chunk = [k == "chunk" for k in window["kind"].to_pylist()]
        at = [i for i, chunk in enumerate(is_chunk) if chunk]
        waveforms = _waveforms(window["waveform"], at)
        chunk_ids = [window["chunk_id"][i].as_py() for i in at]
        started = time.time()
        with counted() as batches:
            hypotheses = self.quarantine.call(chunk_ids, waveforms, self.engine.transcribe)
        spent = time.perf_counter() - began
        rows = window.drop_columns(["waveform"]).to_pylist()
        share = spent / max(1, sum(len(w) for w in waveforms))
        if self.settings.watch is not None and at:
            self.settings.watch.called(batches, mean_wait([rows[i] for i in at], started))
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
