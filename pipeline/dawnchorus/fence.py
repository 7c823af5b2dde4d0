"""Who owns an output: a row of epochs, each created once, the highest of which owns.

`_runs/_fence/<epoch>.json` is created only if absent; every sink calls `check` just before its PUT, so
a run that was taken over stops at its next write. Knows nothing of what is written.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import psutil

from dawnchorus import storage
from dawnchorus.errors import DataError, Fenced, OutputOwned
from dawnchorus.records import Seconds

BEAT_SECONDS: Seconds = 15.0
"""How often an owner says that it lives."""
STALE_SECONDS: Seconds = 60.0
"""Silence after which an owner counts as gone."""
_DAY: Seconds = 86_400.0


def _folder(output: str) -> str:
    return storage.join(output, "_runs", "_fence")


def _names(output: str) -> list[str]:
    return [f.url.rpartition("/")[2] for f in storage.list_files(_folder(output))]


def _epochs(names: list[str]) -> list[int]:
    return sorted(int(n[:-5]) for n in names if n.endswith(".json"))


def newest_epoch(output: str) -> int:
    """The epoch that owns `output` now; 0 before the first."""
    return max(_epochs(_names(output)), default=0)


def check(output: str, epoch: int) -> None:
    """Make sure that `epoch` still owns `output`.

    Raises:
        Fenced: a newer epoch exists.
    """
    newest = newest_epoch(output)
    if newest != epoch:
        raise Fenced(f"attempt {newest} owns {output} now; attempt {epoch} stops writing")


@dataclass(frozen=True, slots=True)
class Owner:
    """The holder of an epoch, as it described itself."""

    epoch: int
    run_id: str
    host: str
    pid: int
    pid_started: float
    time: float

    def is_dead_here(self) -> bool:
        """True when the holder was a process of this machine and is no more."""
        if self.host != _host():
            return False
        try:
            return bool(abs(psutil.Process(self.pid).create_time() - self.pid_started) > 1.0)
        except psutil.NoSuchProcess:
            return True


def _host() -> str:
    """This machine, so that a restart counts as another, and so does a container with the same name: a
    process of another one is not to be seen here, alive or not."""
    try:
        space = os.stat("/proc/self/ns/pid").st_ino
    except OSError:  # no Linux
        space = 0
    return f"{socket.gethostname()}/{int(psutil.boot_time())}/{space}"


def _me(epoch: int, run_id: str) -> dict[str, Any]:
    pid = os.getpid()
    started = psutil.Process(pid).create_time()
    return {
        "epoch": epoch,
        "run_id": run_id,
        "host": _host(),
        "pid": pid,
        "pid_started": started,
        "time": time.time(),
    }


def _read_owner(output: str, epoch: int) -> Owner:
    url = storage.join(_folder(output), f"{epoch:08d}.json")
    try:
        return Owner(**json.loads(storage.read_bytes(url)))
    except (ValueError, TypeError) as e:
        raise OutputOwned(
            f"{storage.shown(url)} does not say who owns the output: {e}.",
            "It was damaged, or another version wrote it. If no run is at work there, add --take-over.",
        ) from e


def _last_beat(output: str, owner: Owner) -> float:
    url = storage.join(_folder(output), f"{owner.epoch:08d}.beat")
    return float(storage.read_bytes(url)) if storage.exists(url) else owner.time


def _beats(output: str, owner: Owner) -> bool:
    """Whether an owner is heard within the time of a beat: its clock, or ours, may be wrong by minutes."""
    before, until = _last_beat(output, owner), time.monotonic() + 1.5 * BEAT_SECONDS
    while time.monotonic() < until:
        time.sleep(0.5)
        if _last_beat(output, owner) != before:
            return True
    return False


class Fence:
    """Ownership of one output, held by this process; a context manager that beats and releases."""

    def __init__(self, output: str, run_id: str) -> None:
        self.output = output
        self.run_id = run_id
        self.epoch = 0
        self._stop = threading.Event()
        self._beater: threading.Thread | None = None

    def acquire(self, take_over: bool = False) -> int:
        """Become the owner and return the new epoch.

        Takes over at once when the last holder released it, died on this machine, or has been silent
        for a day; after listening to it for a beat when it has been silent for `STALE_SECONDS`; otherwise
        only with `take_over`.

        Raises:
            OutputOwned: another living run holds it.
        """
        names = _names(self.output)
        newest = max(_epochs(names), default=0)
        if newest and f"{newest:08d}.released" not in names and not take_over:
            self._refuse_if_alive(newest)
        return self._create(newest + 1)

    def _refuse_if_alive(self, newest: int) -> None:
        owner = _read_owner(self.output, newest)
        silent = time.time() - _last_beat(self.output, owner)
        if owner.is_dead_here() or silent > _DAY:
            return
        if silent > STALE_SECONDS:
            if not _beats(self.output, owner):
                return
            silent = 0.0
        raise OutputOwned(
            f"{self.output} is being written by run {owner.run_id} "
            f"(process {owner.pid} on {owner.host.partition('/')[0]}, last heard {silent:.0f} s ago).",
            "Wait for it to end, or add --take-over to stop it and go on from what it has committed.",
        )

    def _create(self, epoch: int) -> int:
        url = storage.join(_folder(self.output), f"{epoch:08d}.json")
        if not storage.put_new(url, json.dumps(_me(epoch, self.run_id)).encode()):
            raise OutputOwned(f"Another run took {self.output} at the same moment.", "Run the command again.")
        self.epoch = epoch
        return epoch

    def advance(self) -> int:
        """The next epoch, for the next attempt of the same owner.

        Raises:
            Fenced: somebody else took over meanwhile.
        """
        check(self.output, self.epoch)
        return self._create(self.epoch + 1)

    def __enter__(self) -> Fence:
        self._beater = threading.Thread(target=self._beat, name="fence-beat", daemon=True)
        self._beater.start()
        return self

    def _beat(self) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            self.beat()

    def beat(self) -> None:
        """Say that the owner lives, if that can be said now."""
        url = storage.join(_folder(self.output), f"{self.epoch:08d}.beat")
        # A missed beat is not a lost output: the sinks check the epoch themselves.
        with contextlib.suppress(DataError):
            storage.put_atomic(url, str(time.time()).encode())

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._beater is not None:
            self._beater.join()
        if kind is None or not issubclass(kind, Fenced):
            storage.put_atomic(storage.join(_folder(self.output), f"{self.epoch:08d}.released"), b"")
