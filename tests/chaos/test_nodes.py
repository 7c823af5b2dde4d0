"""A laptop, a bucket, a head and two workers with addresses of their own; one worker is cut off half way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

import nodes
import s3_server
from dawnchorus import storage
from kit import archive, comparable_rows
from nodes import Nodes
from s3_server import S3Server

PATIENCE = 600.0
WORKERS = {"one": 2, "two": 3}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Nodes, S3Server]]:
    reason = nodes.available()
    if reason:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("nodes")
    with (
        nodes.bridge(),
        s3_server.running(tmp_path_factory.mktemp("s3"), nodes.HOST) as server,
        nodes.cluster(folder, dict(server.env), WORKERS) as running,
    ):
        yield running, server


def command(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "dawnchorus.cli", *words],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env={**os.environ, "COLUMNS": "120"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def table(url: str) -> pa.Table:
    files = sorted(f.url for f in storage.list_files(url, ".parquet"))
    return pa.concat_tables([storage.read_table(f) for f in files])


def at_work(running: Nodes, name: str, folder: Path) -> bool:
    """Whether an engine of this node has transcribed something."""
    whole = (folder / "calls.jsonl").read_text().rpartition("\n")[0]
    return not running.pids(name).isdisjoint(json.loads(line)["pid"] for line in whole.splitlines())


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_worker_is_cut_off_and_nothing_is_lost(
    place: tuple[Nodes, S3Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, server = place
    for name, value in server.env.items():
        monkeypatch.setenv(name, value)
    bucket = server.make_bucket()
    lengths = [12.0, 25.0, 9.0, 30.0, 14.0, 22.0, 8.0, 18.0, 27.0, 11.0]
    for path in archive(tmp_path / "audio", lengths, seed=71).iterdir():
        storage.put_atomic(f"{bucket}/audio/{path.name}", path.read_bytes())
    options = json.dumps({"seconds_per_audio_second": 0.4, "log": str(tmp_path / "calls.jsonl")})
    words = ("--input", f"{bucket}/audio", "--engine", "fake")
    small = ("workers.window_rows=2", "plan.unit_seconds=15")
    out = f"{bucket}/out"
    said = command(
        "submit", "--address", running.address, *words, f"engine.options={options}", "--output", out, *small
    )
    assert "is submitted" in said

    until = time.monotonic() + PATIENCE
    while len(storage.list_files(f"{out}/chunks", ".parquet")) < 3 or not at_work(running, "one", tmp_path):
        assert time.monotonic() < until, command("logs", out, "--address", running.address)
        time.sleep(0.5)
    running.cut_off("one")
    watched = command("status", out, "--watch", "--address", running.address)
    assert "All 10 recordings are accounted for." in watched
    print(watched, command("show", out), command("list", out), sep="\n")  # pytest -s
    rows = table(f"{out}/transcripts")
    assert rows["status"].to_pylist() == ["ok"] * 10

    whole = tmp_path / "whole"
    command("run", *words, "--output", str(whole), *small)
    assert comparable_rows(rows) == comparable_rows(table(str(whole / "transcripts")))
