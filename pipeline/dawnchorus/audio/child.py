"""The process that decodes: `python -m dawnchorus.audio.child`, one file after another, behind limits.

It reads requests from stdin and writes messages (`wire.py`) to stdout, and ends when stdin does, that is
when its parent is gone. A library that crashes or runs away takes this process with it and nothing else;
the parent (`decoder.py`) keeps the clock and starts another.
"""

from __future__ import annotations

import ctypes
import json
import os
import queue
import resource
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from importlib.metadata import version
from typing import Any, BinaryIO

from dawnchorus.audio import wire
from dawnchorus.audio.shape import QUALITY, Piece, Shaper
from dawnchorus.audio.source import Source
from dawnchorus.audio.sources import open_file, open_source
from dawnchorus.errors import DataError, Terminal, Transient

RULE = 2
"""Raised whenever the same bytes may give other samples than before, for a reason no library's version
shows: part of every decode_id."""
CRASH_MAGIC = b"DAWNCHORUS-CRASH"
CRASH_SWITCH = "DAWNCHORUS_TEST_CRASH"
"""A file that begins with the magic ends this process with a real SIGSEGV, in tests that set the switch."""

_TICK_SECONDS = 2.0
_PR_SET_NO_NEW_PRIVS = 38


def main() -> None:
    """Serve until stdin ends."""
    out = _private_streams()
    _limit()
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests,), daemon=True).start()
    wire.send(out, wire.HELLO)
    out.flush()
    while True:
        _serve(json.loads(requests.get()), out)
        out.flush()


def _private_streams() -> BinaryIO:
    """Keep stdout for messages and stderr for tracebacks; what C libraries print goes nowhere."""
    out = os.fdopen(os.dup(1), "wb", buffering=1 << 16)
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    return out


def _limit() -> None:
    """Memory as told, no core dumps, no writing of files, no way to gain privileges."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if sys.platform == "linux":  # macOS knows RLIMIT_AS but refuses to lower it.
        max_memory = int(sys.argv[1])
        resource.setrlimit(resource.RLIMIT_AS, (max_memory, max_memory))
        ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def _listen(requests: queue.SimpleQueue[bytes]) -> None:
    """Pass requests on; end the process when the parent is gone, whatever a library is doing."""
    while True:
        head = _read_exactly(wire.HEADER.size)
        requests.put(_read_exactly(wire.HEADER.unpack(head)[1]))


def _read_exactly(num_bytes: int) -> bytes:
    # Not through sys.stdin: its lock, held by this thread, would abort the interpreter's own shutdown.
    data = b""
    while len(data) < num_bytes:
        part = os.read(0, num_bytes - len(data))
        if not part:
            os._exit(0)
        data += part
    return data


def _serve(request: dict[str, Any], out: BinaryIO) -> None:
    """Decode one file: facts, blocks, and an end that always comes."""
    failure: DataError | None = None
    flags: set[str] = set()
    try:
        with open_file(request["path"]) as fd:
            _maybe_crash(fd)
            _decode(fd, request, flags, out)
    except DataError as e:
        failure = e
    except MemoryError:
        failure = Terminal("memory", "Decoding the file needs more memory than the limit.")
    except OSError as e:
        failure = Transient("io", f"The file cannot be read: {e.strerror}.")
    told = None if failure is None else [failure.kind, failure.message, failure.transient]
    wire.send_json(out, wire.END, {"flags": sorted(flags), "failure": told, "memory_bytes": _memory()})


def _decode(fd: int, request: dict[str, Any], flags: set[str], out: BinaryIO) -> None:
    source, pieces = open_source(fd)
    with closing(source):
        _pump(source, pieces, request, flags, out)


def _pump(
    source: Source, pieces: Iterator[Piece], request: dict[str, Any], flags: set[str], out: BinaryIO
) -> None:
    """Send the facts and the blocks; collect the flags."""
    facts, rate = source.facts, request["sampling_rate"]
    shaper = Shaper(request["channels"], facts.num_channels, rate, request["max_samples"])
    info = {
        "decoder": f"{facts.decoder} + soxr {version('soxr')} {QUALITY} + rule {RULE}",
        "format": facts.format,
        "codec": facts.codec,
        "num_channels": facts.num_channels,
        "source_rate": facts.rate,
        "claimed_seconds": facts.claimed_seconds,
        "channels": shaper.channels,
    }
    told, last = False, time.monotonic()

    def deliver(blocks: Iterator[wire.Block]) -> None:
        nonlocal told, last
        for block in blocks:
            if not told:
                wire.send_json(out, wire.INFO, info)
                told = True
            if block.damaged:
                flags.add("damaged_audio")
            wire.send(out, wire.BLOCK, wire.pack_block(block))
            last = time.monotonic()

    try:
        for piece in pieces:
            deliver(shaper.feed(piece))
            if time.monotonic() - last > _TICK_SECONDS:
                wire.send(out, wire.TICK)
                out.flush()
                last = time.monotonic()
    except (DataError, OSError):
        deliver(shaper.flush())
        raise
    finally:
        flags |= source.flags
    deliver(shaper.finish())
    decoded, claimed = float(shaper.seconds), facts.claimed_seconds
    if claimed is not None and abs(decoded - claimed) > 0.1:
        flags.add("truncated_audio" if decoded < claimed else "duration_mismatch")


def _maybe_crash(fd: int) -> None:
    if os.environ.get(CRASH_SWITCH) == "1" and os.pread(fd, len(CRASH_MAGIC), 0) == CRASH_MAGIC:
        os.kill(os.getpid(), signal.SIGSEGV)


def _memory() -> int:
    """Resident bytes of this process; 0 where the system does not say."""
    try:
        with open("/proc/self/statm", "rb") as f:
            return int(f.read().split()[1]) * resource.getpagesize()
    except OSError:
        return 0


if __name__ == "__main__":
    main()
