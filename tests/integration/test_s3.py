"""Manifest, audio and output on a real S3 server; the driver killed half way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from dawnchorus import storage
from kit import PATIENCE, archive, hashes, kill, wait_for
from s3_server import S3Server


def arguments(bucket: str, output: str, log: Path) -> list[str]:
    options = {"log": str(log), "seconds_per_audio_second": 0.1}
    settings = {"workers.window_rows": 4, "plan.unit_seconds": 10.0, "engine.options": options}
    words = ["run", "--input", f"s3://{bucket}/archive/manifest.jsonl", "--output", output]
    given = [f"{k}={json.dumps(v)}" for k, v in settings.items()]
    return [sys.executable, "-m", "dawnchorus.cli", *words, "--engine", "fake", *given]


def tables(folder: str) -> pa.Table:
    """Every Parquet file of a folder in the bucket, in order of name."""
    files = sorted(f.url for f in storage.list_files(folder, ".parquet"))
    return pa.concat_tables([storage.read_table(url) for url in files])


def heard(log: Path) -> list[str]:
    return [json.loads(line)["hash"] for line in log.read_text().splitlines()]


@pytest.mark.slow
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
    command = arguments(bucket, output, log)
    with open(tmp_path / "said.txt", "w") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, text=True, env=dict(os.environ))
        try:
            assert wait_for(lambda: len(storage.list_files(f"{output}/chunks", ".parquet")) >= 2, process)
            assert kill(process)
        finally:
            kill(process)
    committed = hashes(tables(f"{output}/chunks").to_pylist())
    num_before = len(heard(log))
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    assert "secret" not in done.stderr.lower()
    assert committed
    assert not committed & {*heard(log)[num_before:]}, "what was committed is not transcribed again"

    table = tables(f"{output}/transcripts")
    assert table["status"].to_pylist() == ["ok"] * 6 + ["failed"]
    assert table["audio_filepath"][0].as_py() == f"s3://{bucket}/archive/audio/000.flac"
    assert hashes(tables(f"{output}/chunks").to_pylist()) == {*heard(log)}
