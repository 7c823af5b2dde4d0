"""The parent's side of the decoding process: start it, ask it, watch the clock, tell why it is gone.

Knows messages by their tags only; what they mean is `decoder.py`'s.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import time
from typing import Any

from dawnchorus.audio import wire
from dawnchorus.errors import DataError, Terminal, Transient
from dawnchorus.records import Seconds

_FILES_PER_CHILD = 500
_CHILD_MEMORY_BYTES = 200 << 20
"""A child that still holds this much after a file is replaced; a fresh one holds 50 MB."""
_START_SECONDS = 60.0
_END_SECONDS = 10.0
_PIPE_BYTES = 1 << 20
_F_SETPIPE_SZ = 1031
_OUTSIDE = {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
"""Signals that come from outside (an operator, the kernel short of memory), not from the file."""
_KEPT_ENVIRONMENT = (
    "PATH",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
    "DAWNCHORUS_TEST_CRASH",
)


class Lost(Exception):
    """The child is gone or was ended, in the middle of a file."""

    def __init__(self, verdict: DataError) -> None:
        super().__init__(verdict)
        self.verdict = verdict


class Child:
    """The process, its pipes and its deadlines. Raises `Lost` when it dies or stalls."""

    def __init__(self, max_memory_bytes: int, stall_seconds: Seconds) -> None:
        self._stall_seconds = stall_seconds
        self._num_files = 0
        self._memory_bytes = 0
        command = [sys.executable, "-P", "-m", "dawnchorus.audio.child", str(max_memory_bytes)]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=_environment(),
                start_new_session=True,
                bufsize=0,
            )
        except OSError as e:
            raise Transient("decoder_unavailable", f"The decoder cannot be started: {e.strerror}.") from e
        streams = (self._process.stdin, self._process.stdout, self._process.stderr)
        self._in, self._out, self._errors = (s.fileno() for s in streams if s is not None)
        _widen(self._out)
        try:
            tag, _ = self.receive(_START_SECONDS)
            ready = tag == wire.HELLO
        except Lost:
            ready = False
        if not ready:
            why = self._last_words()
            self.kill()
            raise Transient("decoder_unavailable", f"The decoder could not be started: {why}")

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def worn(self) -> bool:
        """True when a fresh process is due."""
        return self._num_files >= _FILES_PER_CHILD or self._memory_bytes > _CHILD_MEMORY_BYTES

    def note(self, memory_bytes: int) -> None:
        """Count a finished file and what memory it left behind."""
        self._num_files += 1
        self._memory_bytes = memory_bytes

    def ask(self, request: dict[str, Any]) -> None:
        """Send a request; smaller than a pipe, so it cannot block."""
        body = json.dumps(request).encode()
        try:
            os.write(self._in, wire.HEADER.pack(wire.REQUEST, len(body)) + body)
        except BrokenPipeError:
            raise Lost(self._died()) from None

    def receive(self, seconds: Seconds | None = None) -> tuple[bytes, bytearray]:
        """The next message: its tag and payload."""
        seconds = self._stall_seconds if seconds is None else seconds
        tag, length = wire.HEADER.unpack(self._read(wire.HEADER.size, seconds))
        if length > wire.MAX_MESSAGE_BYTES:
            raise Lost(Terminal("crash", "The decoder process sent nonsense."))
        return tag, self._read(length, seconds)

    def kill(self) -> None:
        """End the process and wait for it."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    def _read(self, num_bytes: int, seconds: Seconds) -> bytearray:
        data = bytearray(num_bytes)
        view, got = memoryview(data), 0
        poll = select.poll()
        poll.register(self._out, select.POLLIN)
        deadline = time.monotonic() + seconds
        while got < num_bytes:
            if not poll.poll(max(0, deadline - time.monotonic()) * 1000):
                raise Lost(Terminal("timeout", f"The decoder delivered nothing for {seconds:g} seconds."))
            n = os.readv(self._out, [view[got:]])
            if not n:
                raise Lost(self._died())
            got += n
            deadline = time.monotonic() + seconds
        return data

    def _died(self) -> DataError:
        """The verdict on a process that ended by itself."""
        try:
            code = self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            return Terminal("crash", "The decoder process closed its output and went on.")
        if code < 0 and -code in _OUTSIDE:
            name = signal.Signals(-code).name
            return Transient("killed", f"The decoder process was ended from outside ({name}).")
        if code < 0:
            name = signal.Signals(-code).name
            return Terminal("crash", f"The file makes the decoder crash ({name}).")
        return Terminal("crash", f"The file makes the decoder fail: {self._last_words()}")

    def _last_words(self) -> str:
        """The last line the process wrote to stderr."""
        poll = select.poll()
        poll.register(self._errors, select.POLLIN)
        text = os.read(self._errors, 1 << 16) if poll.poll(0) else b""
        lines = text.decode(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else "it said nothing."


def _environment() -> dict[str, str]:
    """What the child needs and no more: no credentials reach a process that parses hostile bytes."""
    kept = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
    paths = os.pathsep.join(p for p in sys.path if p)
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
    return {**kept, **threads, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}


def _widen(fd: int) -> None:
    """Let the pipe hold three blocks, so that decoding goes on while the parent thinks. Linux only."""
    if sys.platform == "linux":
        try:
            fcntl.fcntl(fd, _F_SETPIPE_SZ, _PIPE_BYTES)
        except PermissionError:
            return
