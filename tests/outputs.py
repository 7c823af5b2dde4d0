"""Outputs made without a run: tables of given rows where a run would have put them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dawnchorus import ids, schema

FINGERPRINT = "f" * 16
RUN_ID = "r" * 16


def segment(start: float, end: float, text: str, **more: Any) -> dict[str, Any]:
    """A value of `schema.CHANNEL_SEGMENT`."""
    return {
        "channel": None,
        "start": start,
        "end": end,
        "text": text,
        "avg_logprob": -0.2,
        "speaker": None,
        "words": [],
        **more,
    }


def failure(kind: str, message: str, stage: str = "decode", transient: bool = False) -> dict[str, Any]:
    """A value of `schema.FAILURE`."""
    return {"stage": stage, "kind": kind, "message": message, "transient": transient, "attempts": 1}


def transcript(address: str, *segments: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """A row of `schema.TRANSCRIPTS`: ok, as long as its last segment says, unless `more` says otherwise."""
    end = max((s["end"] for s in segments), default=0.0)
    return {
        "recording_id": ids.recording_id(address, more.get("offset"), more.get("duration")),
        "audio_filepath": address,
        "offset": None,
        "duration": end,
        "claimed_duration": None,
        "num_channels": 1,
        "text": None,
        "pred_text": " ".join(s["text"] for s in segments),
        "segments": list(segments),
        "answers": [],
        "coverage": {"decoded": end, "transcribed": end, "silent": 0.0, "failed": 0.0},
        "flags": [],
        "status": "ok" if segments else "empty",
        "failure": None,
        "metadata": "{}",
        "decode_id": "d",
        "engine": "fake",
        "model": "fake",
        "model_revision": "1",
        "run_id": RUN_ID,
        "fingerprint": FINGERPRINT,
        "schema_version": schema.SCHEMA_VERSION,
        **more,
    }


def failed(address: str, kind: str, message: str, **more: Any) -> dict[str, Any]:
    """A failed row of `schema.TRANSCRIPTS`."""
    facts = {"status": "failed", "failure": failure(kind, message), "coverage": None, "duration": None}
    return transcript(address, **{**facts, **more})


def write(folder: Path, table: str, rows: Iterable[Mapping[str, Any]], name: str = "part-0") -> None:
    """Rows as one Parquet file of `<folder>/<table>/`."""
    kinds = {"transcripts": schema.TRANSCRIPTS, "chunks": schema.CHUNKS}
    (folder / table).mkdir(parents=True, exist_ok=True)
    made = pa.Table.from_pylist([dict(r) for r in rows], schema=kinds[table])
    pq.write_table(made, folder / table / f"{name}.parquet")


def lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
