"""A cluster of nodes with addresses of their own: Ray in network namespaces, joined by a bridge.

Needs root and `ip`; `available()` says why not. The host itself is the laptop and the S3 server's place.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from kit import end

# Each run has a network and names of its own, with its pid in them: a run that was killed leaves its own
# behind, and must not stand in the way of the next.
_PREFIX = "dc"
_PID = os.getpid()
_NET = f"10.231.{_PID % 250}"
HOST = f"{_NET}.1"
_BRIDGE = f"{_PREFIX}{_PID}"
_JOB_PORT = 8265
_MARK = "DAWNCHORUS_TEST_NODES"
_STORE_BYTES = 150 * 1024 * 1024


def available() -> str | None:
    """None, or why there can be no namespaces here."""
    if shutil.which("ip") is None:
        return "the command `ip` is missing (apt-get install iproute2)"
    try:
        for words in (["netns", "add", _space("probe")], ["link", "add", _BRIDGE, "type", "bridge"]):
            probe = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
            if probe.returncode:
                return f"no network of our own: {probe.stderr.strip()}"
    finally:
        _remove(_PID)
    return None


def _ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


def _space(name: str) -> str:
    return f"{_PREFIX}{_PID}-{name}"


def _cable(name: str) -> str:
    return f"v{_space(name)}"[:15]  # a link's name is no longer


def _owned(listed: str, pattern: str) -> Iterator[tuple[str, int]]:
    """Names at the beginnings of lines that a run of these tests gave, each with that run's pid."""
    for match in re.finditer(pattern, listed, re.MULTILINE):
        yield match[1], int(match[2])


def _remove(*pids: int) -> None:
    """Take away these runs' links, then their namespaces (each lives while a process of its own does)."""
    links = rf"^\d+: (v?{_PREFIX}(\d+)(?:-\w+)?)[@:]"
    for link, pid in _owned(_ip("-o", "link"), links):
        if pid in pids:
            _ip("link", "del", link)
    for name, pid in _owned(_ip("netns", "list"), rf"^({_PREFIX}(\d+)-\w+)"):
        if pid in pids:
            _ip("netns", "del", name)


def _sweep() -> None:
    """Take away what runs that were killed left here."""
    found = [pid for _, pid in _owned(_ip("netns", "list"), rf"^({_PREFIX}(\d+)-\w+)")]
    _remove(*(pid for pid in found if not psutil.pid_exists(pid)))


_IMPATIENT = {"RAY_health_check_timeout_ms": "5000", "RAY_health_check_failure_threshold": "3"}
"""A node that is cut off is dead after 24 s and not 65: that is Ray's patience, and not what is tested."""


class Nodes:
    """A running head and its workers, by name."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.folder = folder
        self.env = {**os.environ, "RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1", **_IMPATIENT, **env}
        self.env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.temporary = Path(tempfile.mkdtemp(prefix="dc-ray-"))
        self.env[_MARK] = str(self.temporary)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def address(self) -> str:
        """The job server's, as a laptop sees it."""
        return f"http://{_NET}.2:{_JOB_PORT}"

    def plug(self, name: str, number: int) -> None:
        """Make a namespace with an address, joined to the bridge."""
        space, cable = _space(name), _cable(name)
        _ip("netns", "add", space)
        _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", space)
        _ip("link", "set", cable, "master", _BRIDGE, "up")
        _ip("-n", space, "addr", "add", f"{_NET}.{number}/24", "dev", "eth0")
        _ip("-n", space, "link", "set", "eth0", "up")
        _ip("-n", space, "link", "set", "lo", "up")

    def pids(self, name: str) -> set[int]:
        """The processes of a node."""
        return {int(pid) for pid in _ip("netns", "pids", _space(name)).split()}

    def cut_off(self, name: str) -> None:
        """Pull the cable: the node lives on, and nobody hears of it."""
        _ip("link", "set", _cable(name), "down")

    def start(self, name: str, number: int, *words: str) -> None:
        """`ray start` in a namespace."""
        command = ["ip", "netns", "exec", _space(name), "ray", "start", "--block", "--disable-usage-stats"]
        command += ["--node-ip-address", f"{_NET}.{number}", "--object-store-memory", str(_STORE_BYTES)]
        with open(self.folder / f"{name}.txt", "w") as said:
            self.processes[name] = subprocess.Popen(
                [*command, *words], stdout=said, stderr=said, env=self.env, start_new_session=True
            )

    def wait(self, num_nodes: int) -> None:
        """Until so many nodes are there."""
        until = time.monotonic() + 180
        while time.monotonic() < until:
            for name, process in self.processes.items():
                assert process.poll() is None, (self.folder / f"{name}.txt").read_text()
            try:
                with urllib.request.urlopen(f"{self.address}/nodes?view=summary", timeout=5) as answer:
                    if answer.read().decode().count('"nodeManagerAddress"') >= num_nodes:
                        return
            except (urllib.error.URLError, OSError):
                pass
            time.sleep(1)
        raise AssertionError(f"not {num_nodes} nodes after 180 s")

    def _is_mine(self, process: psutil.Process) -> bool:
        """Started by `start`, or by what that started: Ray's processes outlive their parents."""
        try:
            return process.environ().get(_MARK) == str(self.temporary)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            return False

    def close(self) -> None:
        """End every process, whatever it has become."""
        mine = [p for p in psutil.process_iter() if self._is_mine(p)]
        for one in mine:
            with suppress(psutil.NoSuchProcess):
                one.terminate()
        end(mine)
        for process in self.processes.values():
            process.wait()
        shutil.rmtree(self.temporary, ignore_errors=True)


@contextmanager
def bridge() -> Iterator[None]:
    """The switch that all nodes and the host are plugged into; takes the namespaces with it at the end."""
    _sweep()
    _ip("link", "add", _BRIDGE, "type", "bridge")
    try:
        _ip("addr", "add", f"{HOST}/24", "dev", _BRIDGE)
        _ip("link", "set", _BRIDGE, "up")
        yield
    finally:
        _remove(_PID)


@contextmanager
def cluster(folder: Path, env: dict[str, str], cpus: dict[str, int]) -> Iterator[Nodes]:
    """A head without slots and one worker per entry of `cpus`."""
    nodes = Nodes(folder, env)
    try:
        nodes.plug("head", 2)
        nodes.start(
            *("head", 2, "--head", "--port", "6379", "--num-cpus", "0"),
            *("--temp-dir", str(nodes.temporary), "--dashboard-host", "0.0.0.0"),
            *("--dashboard-port", str(_JOB_PORT)),
        )
        nodes.wait(1)
        for number, (name, count) in enumerate(cpus.items(), start=3):
            nodes.plug(name, number)
            nodes.start(name, number, "--address", f"{_NET}.2:6379", "--num-cpus", str(count))
            # One after the other: they share a folder here, and two at once take the same socket's name.
            nodes.wait(number - 1)
        yield nodes
    finally:
        nodes.close()
