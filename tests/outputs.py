"""Outputs made without a run: tables of given rows where a run would have put them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dawnchorus import config, ids, schema

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


def chunk(row: Mapping[str, Any], index: int, start: float, end: float, **more: Any) -> dict[str, Any]:
    """A chunk row of `schema.CHUNKS`; `worker`, `began`, `engine` and `wait` make its timing."""
    timing = {
        "worker": more.pop("worker", "host:1"),
        "started_at": more.pop("began", 0.0),
        "decode_seconds": None,
        "engine_seconds": more.pop("engine", 1.0),
        "wait_seconds": more.pop("wait", 0.0),
    }
    facts = {"kind": "chunk", "chunk_index": index, "start": start, "end": end, "status": "ok"}
    return {**_key(row, f"chunk{index}"), **facts, "timing": timing, **more}


def end_row(row: Mapping[str, Any], num_chunks: int, **more: Any) -> dict[str, Any]:
    """An end row of `schema.CHUNKS`."""
    timing = {"worker": None, "started_at": 0.0, "decode_seconds": more.pop("decode", 0.5)}
    return {
        **_key(row, "end"),
        "kind": "end",
        "num_chunks": num_chunks,
        "status": "ok",
        "timing": timing,
        **more,
    }


def _key(row: Mapping[str, Any], name: str) -> dict[str, Any]:
    recording = row["recording_id"]
    facts = {"run_id": RUN_ID, "fingerprint": FINGERPRINT, "attempt": 1, "sampling_rate": 16_000}
    return {"recording_id": recording, "decode_id": "d", "chunk_id": f"{recording}-{name}", **facts}


def save_run(folder: Path, rows: Iterable[Mapping[str, Any]], **tree: Any) -> Path:
    """The run's folder with its manifest of these recordings, its configuration, and the fence."""
    settings = config.build({"input": "s3://in/manifest.jsonl", "output": str(folder), **tree})
    about = {
        "run_id": RUN_ID,
        "fingerprint": FINGERPRINT,
        "engine": "fake",
        "model": "fake",
        "model_revision": "1",
        "config": settings.model_dump(mode="json"),
        "metadata": {"dawnchorus.licence": "CC-BY-4.0", "dawnchorus.attribution": "by nobody"},
        "num_duplicates": 2,
        "num_bad": 1,
    }
    run = folder / "_runs" / RUN_ID
    (run / "manifest").mkdir(parents=True)
    (run / "run.json").write_text(json.dumps(about), encoding="utf-8")
    names = [{"recording_id": r["recording_id"]} for r in rows]
    manifest = pa.Table.from_pylist(names, schema=schema.RECORDINGS)
    pq.write_table(manifest, run / "manifest" / "part-00000.parquet")
    return run


def write(folder: Path, table: str, rows: Iterable[Mapping[str, Any]], name: str = "part-0") -> None:
    """Rows as one Parquet file of `<folder>/<table>/`."""
    kinds = {"transcripts": schema.TRANSCRIPTS, "chunks": schema.CHUNKS, "answers": schema.ANSWERS}
    (folder / table).mkdir(parents=True, exist_ok=True)
    made = pa.Table.from_pylist([dict(r) for r in rows], schema=kinds[table])
    pq.write_table(made, folder / table / f"{name}.parquet")


def lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
