"""A real Ray head on loopback, with its dashboard and job server, as a process of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil

from kit import end


def free_port() -> int:
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens at, no two alike: all are held until the last is found."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


@contextmanager
def running(
    folder: Path,
    num_cpus: int = 3,
    env: dict[str, str] | None = None,
    metrics_port: int | None = None,
    port: int | None = None,
) -> Iterator[str]:
    """The job server's address while the head is up; drivers and nodes join it at `port`."""
    gcs, dashboard, agent, metrics = free_ports(4)
    scripts = Path(sys.executable).parent
    # Ray's sockets lie below it, and a socket's path may have 107 characters.
    temporary = Path(tempfile.mkdtemp(prefix="dc-ray-"))
    # As after `/path/to/venv/bin/ray start`: `python` on the PATH is another one, or none.
    elsewhere = [p for p in os.environ["PATH"].split(os.pathsep) if p != str(scripts)]
    here = {"PATH": os.pathsep.join(elsewhere), "OMP_NUM_THREADS": "1"}
    command = [
        *(str(scripts / "ray"), "start", "--head", "--block", "--disable-usage-stats"),
        *("--port", str(port or gcs), "--num-cpus", str(num_cpus), "--temp-dir", str(temporary)),
        *("--dashboard-host", "127.0.0.1", "--dashboard-port", str(dashboard)),
        # Its agent takes jobs; the usual port may be held by another Ray of this machine.
        *("--dashboard-agent-listen-port", str(agent)),
        *("--metrics-export-port", str(metrics_port or metrics)),
    ]
    with open(folder / "head.txt", "w") as said:
        process = subprocess.Popen(
            command,
            stdout=said,
            stderr=said,
            env={**os.environ, "RAY_AUTH_MODE": "disabled", **here, **(env or {})},
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{dashboard}"
    try:
        _wait(address, process, folder / "head.txt")
        yield address
    finally:
        _end(process)
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def joined(folder: Path, name: str, address: str, num_cpus: int, *words: str) -> Iterator[None]:
    """A worker node while it is up, which is soon."""
    scripts = Path(sys.executable).parent
    command = [str(scripts / "ray"), "start", "--block", "--disable-usage-stats", "--address", address]
    command += ["--num-cpus", str(num_cpus), "--object-store-memory", str(100 * 1024 * 1024), *words]
    here = {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    with open(folder / f"{name}.txt", "w") as said:
        process = subprocess.Popen(
            command,
            stdout=said,
            stderr=said,
            env={**os.environ, "RAY_AUTH_MODE": "disabled", **here},
            start_new_session=True,
        )
    try:
        yield
    finally:
        _end(process)


def _wait(address: str, process: subprocess.Popen[bytes], said: Path) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until:
        assert process.poll() is None, said.read_text()
        try:
            with urllib.request.urlopen(f"{address}/api/jobs/", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise AssertionError(f"no job server after 120 s: {said.read_text()}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the head and everything it started, which lives in sessions of its own."""
    family = []
    if process.poll() is None:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        process.terminate()
    end(family)
    process.wait()
