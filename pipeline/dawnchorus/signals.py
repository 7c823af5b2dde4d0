"""How a run is interrupted: by SIGTERM like by Ctrl-C, and by a thread of its own."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import main_thread
from types import FrameType

_terminable = False
"""Whether the main thread is where an interruption is what `terminable` says."""


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM ends a run like Ctrl-C. To be entered after `ray.init`, which replaces the handler."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    global _terminable
    before = signal.signal(signal.SIGTERM, stop)
    _terminable = True
    try:
        yield
    finally:
        _terminable = False
        signal.signal(signal.SIGTERM, before)


def interrupt() -> bool:
    """Interrupt the main thread, inside `terminable`, by a real signal: it waits on a lock, which nothing
    less would do. Not SIGINT: a process that a script put into the background ignores that. Elsewhere the
    signal would end the process: nothing is done, and False returned."""
    if _terminable:
        signal.pthread_kill(main_thread().ident or 0, signal.SIGTERM)
    return _terminable
