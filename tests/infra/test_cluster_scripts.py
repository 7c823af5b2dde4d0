"""infra/cluster: waiting for nodes, and leaving, on a real Ray head in a namespace of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sandbox import enclosed

FOLDER = Path(__file__).parents[2] / "infra" / "cluster"
BIN = Path(sys.executable).parent
ADDRESS = "127.0.0.1:6379"
HEAD = (
    "ray start --head --node-ip-address 127.0.0.1 --port 6379 --num-cpus 1 --include-dashboard false "
    "--disable-usage-stats --object-store-memory 80000000 --temp-dir {scratch} >&2 || exit 9; "
    f"export RAY_ADDRESS={ADDRESS}; "
)
BEGUN = "dawnchorus & until [ -e ready ]; do sleep 0.05; done;"


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder with a short path, for Ray's sockets."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="dc-") as folder:
        yield Path(folder)


def _inside(script: str, folder: Path, *path: Path) -> subprocess.CompletedProcess[str]:
    """What a shell script does in a sandbox; `path` goes before everything else."""
    env = {
        **os.environ,
        "PATH": os.pathsep.join([*map(str, path), str(BIN), os.environ["PATH"]]),
        "RAY_AUTH_MODE": "disabled",
        "OMP_NUM_THREADS": "1",
    }
    command = enclosed("bash", "-c", script)
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, env=env, cwd=folder, check=False
    )


def _tool(folder: Path, name: str, script: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/bash\n{script}\n")
    path.chmod(0o755)
    return path


def test_shellcheck_finds_nothing() -> None:
    done = subprocess.run(
        [BIN / "shellcheck", FOLDER / "leave.sh"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_driver_is_told_and_waited_for(tmp_path: Path) -> None:
    """Where a run is, it gets SIGTERM and the time to publish; no node is drained."""
    _tool(
        tmp_path,
        "dawnchorus",
        "trap 'sleep 1; echo published; exit 130' TERM; touch ready; while :; do sleep 0.1; done",
    )
    _tool(tmp_path, "ray", "echo drained")
    done = _inside(f"{BEGUN} {FOLDER}/leave.sh 20; echo left", tmp_path, tmp_path)
    assert done.stdout.split() == ["published", "left"], done.stderr


def test_leaving_ends_in_time_whatever_the_driver_does(tmp_path: Path) -> None:
    _tool(tmp_path, "dawnchorus", "trap '' TERM; touch ready; while :; do sleep 0.1; done")
    done = _inside(f"{BEGUN} {FOLDER}/leave.sh 2; echo left; kill -KILL $!", tmp_path, tmp_path)
    assert (done.returncode, done.stdout) == (0, "left\n"), done.stderr


def test_leaving_nothing_is_no_error(tmp_path: Path) -> None:
    assert _inside(f"{FOLDER}/leave.sh 2", tmp_path).returncode == 0


@pytest.mark.slow
def test_idle_node_is_drained_and_gone_before_time_is_up(scratch: Path) -> None:
    script = HEAD.format(scratch=scratch) + f"{FOLDER}/leave.sh 40; cat /proc/[0-9]*/comm 2> /dev/null; true"
    done = _inside(script, scratch)
    assert done.returncode == 0, done.stderr
    assert "raylet" not in done.stdout.split(), "ended by itself: nobody killed it"
