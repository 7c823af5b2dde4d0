"""Manifest, audio and output on a real S3 server; the driver killed half way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa

from dawnchorus import ledger, storage
from kit import PATIENCE, archive, kill, wait_for
from s3_server import S3Server


def arguments(bucket: str, log: Path) -> list[str]:
    options = {"log": str(log), "seconds_per_audio_second": 0.1}
    settings = {"workers.window_rows": 4, "plan.unit_seconds": 10.0, "engine.options": options}
    words = ["run", "--input", f"s3://{bucket}/archive/manifest.jsonl", "--output", f"s3://{bucket}/out"]
    given = [f"{k}={json.dumps(v)}" for k, v in settings.items()]
    return [sys.executable, "-m", "dawnchorus.cli", *words, "--engine", "fake", *given]


def test_a_run_in_a_bucket_survives_its_driver(s3_environment: S3Server, tmp_path: Path) -> None:
    bucket = s3_environment.make_bucket().removeprefix("s3://")
    folder = archive(tmp_path / "audio", [6.0, 17.0, 8.0, 5.0, 11.0, 9.0], seed=31)
    for path in folder.iterdir():
        storage.put_atomic(f"s3://{bucket}/archive/audio/{path.name}", path.read_bytes())
    lines = [{"audio_filepath": f"audio/{p.name}"} for p in sorted(folder.iterdir())]
    lines.append({"audio_filepath": "audio/gone.flac"})
    manifest = "\n".join(json.dumps(line) for line in lines)
    storage.put_atomic(f"s3://{bucket}/archive/manifest.jsonl", manifest.encode())

    log, output = tmp_path / "calls.jsonl", f"s3://{bucket}/out"
    command = arguments(bucket, log)
    with open(tmp_path / "said.txt", "w") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, text=True, env=dict(os.environ))
        try:
            wait_for(lambda: len(storage.list_files(f"{output}/chunks", ".parquet")) >= 2, process)
        finally:
            kill(process)
    before = ledger.read_chunks(output)
    assert before is not None
    paid = log.read_text().splitlines()
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    assert "secret" not in done.stderr.lower()

    table = pa.concat_tables(
        [storage.read_table(f.url) for f in storage.list_files(f"{output}/transcripts", ".parquet")]
    )
    assert table["status"].to_pylist() == ["ok"] * 6 + ["failed"]
    assert table["audio_filepath"][0].as_py() == f"s3://{bucket}/archive/audio/000.flac"
    parts = [storage.read_table(f.url) for f in storage.list_files(f"{output}/chunks", ".parquet")]
    texts = {r["segments"][0]["text"][1:] for t in parts for r in t.to_pylist() if r["segments"]}
    again = [json.loads(line)["hash"] for line in log.read_text().splitlines()[len(paid) :]]
    kept = set(before.filter(pa.compute.equal(before["kind"], "chunk"))["chunk_id"].to_pylist())
    assert len(texts) == len({json.loads(line)["hash"] for line in log.read_text().splitlines()})
    assert len(again) <= len(texts) - len(kept)
