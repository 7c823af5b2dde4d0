"""Rows of the committed tables, made by hand: what a decode and an engine would have left."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from dawnchorus import ids
from dawnchorus.records import Chunk
from dawnchorus.schema import CHUNKS, RECORDINGS, TRANSCRIPTS

RATE = 16_000
PRINT = "f" * 16


def recording(name: str, **columns: Any) -> dict[str, Any]:
    """A manifest row."""
    row: dict[str, Any] = dict.fromkeys(RECORDINGS.names)
    uri = f"file:///audio/{name}.wav"
    return row | {"recording_id": ids.recording_id(uri), "audio_filepath": uri, "metadata": "{}"} | columns


def manifest(*rows: dict[str, Any]) -> pa.Table:
    """Manifest rows as a table."""
    return pa.Table.from_pylist(list(rows), schema=RECORDINGS)


def chunk(of: dict[str, Any], index: int, start: float, end: float, **columns: Any) -> dict[str, Any]:
    """A chunk row that succeeded, saying `word<index>`."""
    decode = columns.pop("decode_id", "d1")
    spans = [round(x * RATE) for x in (start, end, start, end)]
    key = Chunk(columns.get("channel"), index, *spans)
    said = {
        "start": start,
        "end": end,
        "text": f"word{index}",
        "words": [],
        "avg_logprob": -0.1,
        "speaker": None,
    }
    row: dict[str, Any] = dict.fromkeys(CHUNKS.names)
    return (
        row
        | {
            "kind": "chunk",
            "recording_id": of["recording_id"],
            "decode_id": decode,
            "chunk_id": ids.chunk_id(of["recording_id"], decode, key),
            "chunk_index": index,
            "start": start,
            "end": end,
            "input_start": start,
            "input_end": end,
            "damaged_samples": 0,
            "sampling_rate": RATE,
            "segments": [said],
            "finish_reason": "stop",
            "flags": [],
            "status": "ok",
            "attempt": 1,
            "fingerprint": PRINT,
            "schema_version": 1,
        }
        | columns
    )


def end(of: dict[str, Any], chunks: list[dict[str, Any]], seconds: float, **columns: Any) -> dict[str, Any]:
    """The end row of a recording of one channel that has these chunks."""
    heard = sum(round(c["end"] * RATE) - round(c["start"] * RATE) for c in chunks)
    decode = columns.pop("decode_id", "d1")
    status = columns.pop("status", "ok" if chunks else "empty")
    decoded = round(seconds * RATE)
    count = {
        "channel": None,
        "decoded_samples": decoded,
        "silent_samples": decoded - heard,
        "damaged_samples": 0,
    }
    row: dict[str, Any] = dict.fromkeys(CHUNKS.names)
    return (
        row
        | {
            "kind": "end",
            "recording_id": of["recording_id"],
            "decode_id": decode,
            "chunk_id": ids.end_row_id(of["recording_id"], decode or "", status),
            "num_chunks": len(chunks),
            "sampling_rate": RATE,
            "num_channels": 1,
            "channels": [count],
            "flags": [],
            "status": status,
            "attempt": 1,
            "fingerprint": PRINT,
            "schema_version": 1,
        }
        | columns
    )


def failed_end(
    of: dict[str, Any], kind: str, transient: bool, attempts: int = 1, **columns: Any
) -> dict[str, Any]:
    """The end row of a recording that could not be decoded."""
    return end(
        of,
        [],
        0.0,
        decode_id=None,
        status="failed",
        channels=[],
        failure=failure(kind, transient, attempts),
        **columns,
    )


def failure(kind: str, transient: bool, attempts: int = 1, stage: str = "fetch") -> dict[str, Any]:
    """A value of the FAILURE struct."""
    return {"stage": stage, "kind": kind, "message": kind, "transient": transient, "attempts": attempts}


def chunks(*rows: dict[str, Any]) -> pa.Table:
    """Chunk and end rows as a table."""
    return pa.Table.from_pylist(list(rows), schema=CHUNKS)


def transcripts(*rows: dict[str, Any]) -> pa.Table:
    """Transcript rows as a table."""
    return pa.Table.from_pylist(list(rows), schema=TRANSCRIPTS)
