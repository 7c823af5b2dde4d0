"""What a run says of itself in the bucket while it works: `_runs/<run_id>/progress.json`.

Written at a bounded rate, whole, by one atomic PUT, so that whoever looks (a laptop, a dashboard, a person)
needs the bucket only, whether the cluster is up or gone. Also where a run hears that it should stop.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from threading import Lock
from typing import Any

from dawnchorus import storage
from dawnchorus.errors import DataError
from dawnchorus.records import Seconds

EVERY_SECONDS: Seconds = 10.0
"""How often a run writes: 360 PUTs an hour cost 0.2 cents on S3."""
_NOW_SECONDS: Seconds = 120.0
FILE = "progress.json"
_STOP = "stop.json"
SUBMISSION_VARIABLE = "DAWNCHORUS_SUBMISSION_ID"
"""Set in the environment of a submitted run."""


@dataclass(frozen=True, slots=True)
class Status:
    """A run at one moment. Audio and times in seconds, `*_at` since the epoch; `total_audio` is an estimate
    until every length is known; `rtfx_now` is over the last two minutes, of audio committed."""

    run_id: str
    state: str
    epoch: int
    started_at: float
    updated_at: float
    host: str = ""
    submission_id: str = ""
    engine: str = ""
    model: str = ""
    num_recordings: int = 0
    num_done: int = 0
    num_failed: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)
    num_answers: int = 0
    num_asked: int = 0
    total_audio: Seconds = 0.0
    done_audio: Seconds = 0.0
    rtfx: float | None = None
    rtfx_now: float | None = None
    eta_seconds: Seconds | None = None
    engines: int = 0
    gpus: float = 0.0
    engine_busy: float | None = None
    cost: float | None = None
    exit: int | None = None
    message: str = ""

    @property
    def is_over(self) -> bool:
        """Whether the run has ended, well or not."""
        return self.state == "ended"


def write(run_url: str, status: Status) -> None:
    """Put the status in its place."""
    text = storage.redact(json.dumps(asdict(status), indent=1))
    storage.put_atomic(storage.join(run_url, FILE), text.encode())


def read(run_url: str) -> Status | None:
    """The latest status of a run; None where there is none, or nothing that is one: a broken file must not
    hide the other runs of an output. Fields of a newer version are left out."""
    known = {f.name for f in fields(Status)}
    try:
        found = dict(json.loads(storage.read_bytes(storage.join(run_url, FILE))))
        return Status(**{k: v for k, v in found.items() if k in known})
    except (FileNotFoundError, ValueError, TypeError):
        return None


def ask_to_stop(run_url: str, epoch: int) -> None:
    """Ask the run that owns `epoch`, or an older one, to stop as by Ctrl-C; a later start is not meant."""
    storage.put_atomic(storage.join(run_url, _STOP), json.dumps({"epoch": epoch}).encode())


def is_asked_to_stop(run_url: str, epoch: int) -> bool:
    """Whether somebody asked the owner of `epoch` to stop."""
    try:
        asked = json.loads(storage.read_bytes(storage.join(run_url, _STOP)))
    except (FileNotFoundError, ValueError):
        return False
    return bool(asked["epoch"] >= epoch)


class Pace:
    """Audio committed over time: the rate since the start and over the last two minutes."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, Seconds]] = deque()

    def add(self, now: float, audio: Seconds) -> None:
        """`audio` seconds are committed at `now`; every attempt begins at none."""
        if self._seen and audio < self._seen[-1][1]:
            self._seen.clear()
        self._seen.append((now, audio))
        while self._seen[0][0] < now - _NOW_SECONDS and len(self._seen) > 2:
            self._seen.popleft()

    def recent(self) -> float | None:
        """Audio seconds per wall second of the last two minutes; None when there is nothing to go by."""
        if len(self._seen) < 2:
            return None
        (t0, a0), (t1, a1) = self._seen[0], self._seen[-1]
        return (a1 - a0) / (t1 - t0) if t1 > t0 else None


class Writer:
    """Writes a run's status at a bounded rate, whichever thread has news. Losing one because storage is away
    for a moment is no fault: the next one says more."""

    def __init__(self, run_url: str, status: Status, every: Seconds = EVERY_SECONDS) -> None:
        self.run_url, self.status, self.every = run_url, status, every
        self._written = 0.0
        self._lock = Lock()

    def update(self, at_once: bool = False, **changes: Any) -> None:
        """Note changes; write them when it is time, or `at_once`."""
        with self._lock:
            now = time.time()
            self.status = replace(self.status, **(changes | {"updated_at": now}))
            if not at_once and now - self._written < self.every:
                return
            self._written = now
            try:
                if self._is_mine():
                    write(self.run_url, self.status)
            except DataError:
                if at_once:
                    raise

    def _is_mine(self) -> bool:
        """Whether no later owner has written: one that was taken over may not know it yet."""
        found = read(self.run_url)
        return found is None or found.epoch <= self.status.epoch

    def stop_asked(self) -> bool:
        """Whether somebody asked this run to stop; asks storage."""
        try:
            return is_asked_to_stop(self.run_url, self.status.epoch)
        except DataError:
            return False


def begin(run_url: str, run_id: str, epoch: int, **about: Any) -> Writer:
    """The writer of a run that starts now; writes its first status."""
    now = time.time()
    submission = os.environ.get(SUBMISSION_VARIABLE, "")
    first = Status(
        run_id, "starting", epoch, now, now, socket.gethostname(), submission_id=submission, **about
    )
    writer = Writer(run_url, first)
    writer.update(at_once=True)
    return writer
