"""A cluster that begins with nothing, and grows while the run goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path

import pytest

import head
from kit import PATIENCE, archive, chunk_rows, kill, transcripts

pytestmark = pytest.mark.slow


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    port = head.free_port()
    with head.running(tmp_path, num_cpus=0, port=port):
        yield f"127.0.0.1:{port}"


@contextmanager
def started(address: str, folder: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    options = json.dumps({"seconds_per_audio_second": 0.5, "log": str(folder / "calls.jsonl")})
    command = [
        *(sys.executable, "-m", "dawnchorus.cli", "run", "--input", str(folder / "audio")),
        *("--output", str(folder / "out"), "--engine", "fake", f"engine.options={options}"),
        *(f"workers.address={address}", "workers.window_rows=1", "plan.unit_seconds=1", *words),
    ]
    env = {**os.environ, "COLUMNS": "160", "RAY_AUTH_MODE": "disabled"}
    with open(folder / "said.txt", "w") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, text=True, env=env)
    try:
        yield process
    finally:
        kill(process)


def until_said(folder: Path, words: str) -> None:
    until = time.monotonic() + PATIENCE
    while words not in (said := (folder / "said.txt").read_text()):
        assert time.monotonic() < until, said
        time.sleep(0.2)


def num_parts(folder: Path) -> int:
    return len(list((folder / "out" / "chunks").glob("*.parquet")))


def most_at_once(folder: Path) -> int:
    """Engines that were at work at the same moment; Ray may have replaced one that was idle. Two clocks tell
    of three seconds of work: the last tenth is left out, where the next may have begun."""
    timings = [c["timing"] for c in chunk_rows(folder / "out") if c["kind"] == "chunk"]
    begun = [(t["started_at"], 1) for t in timings]
    ended = [(t["started_at"] + t["engine_seconds"] - 0.1, -1) for t in timings]
    return max(accumulate(step for _, step in sorted(begun + ended)))


@pytest.mark.timeout(420)
def test_a_run_waits_for_nodes_and_uses_those_that_join_later(address: str, tmp_path: Path) -> None:
    archive(tmp_path / "audio", [6.0] * 60, seed=5)
    words = ["workers.wait_seconds=120", "workers.engines=3", "workers.min_engines=1"]
    words += ["workers.cpus_per_engine=1", "workers.decode_labels={role: decode}"]
    with started(address, tmp_path, *words) as running:
        until_said(tmp_path, "Waiting up to 120 s for nodes")
        with head.joined(tmp_path, "one", address, 3, "--labels", "role=decode"):
            until_said(tmp_path, "Plan of run")
            said = (tmp_path / "said.txt").read_text()
            assert "to 3 engines x 1 CPU" in said
            assert "1 x 3 CPUs: room for 3 engines" in said
            while not num_parts(tmp_path):
                time.sleep(0.2)
                assert running.poll() is None, (tmp_path / "said.txt").read_text()
            # More slots than the third engine takes: of new ones Ray keeps a part for the other stages.
            with head.joined(tmp_path, "two", address, 6, "--labels", "role=engine"):
                assert running.wait(timeout=300) == 0, (tmp_path / "said.txt").read_text()
    assert transcripts(tmp_path / "out")["status"].to_pylist() == ["ok"] * 60
    assert most_at_once(tmp_path) == 3, "the node that joined was used"


@pytest.mark.timeout(120)
def test_a_cluster_that_does_not_grow_pauses_the_run(address: str, tmp_path: Path) -> None:
    archive(tmp_path / "audio", [3.0], seed=6)
    with started(address, tmp_path, "workers.wait_seconds=3") as running:
        assert running.wait(timeout=100) == 3, (tmp_path / "said.txt").read_text()
    said = (tmp_path / "said.txt").read_text()
    assert "the cluster is too small after 3 s" in said
    assert "run the same command" in said
