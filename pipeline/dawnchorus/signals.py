"""How a run is interrupted: by SIGTERM like by Ctrl-C, and by a thread of its own."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import main_thread
from types import FrameType


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM ends a run like Ctrl-C. To be entered after `ray.init`, which replaces the handler."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def interrupt() -> None:
    """Interrupt the main thread, inside `terminable`, by a real signal: it waits on a lock, which nothing
    less would do. Not SIGINT: a process that a script put into the background ignores that."""
    signal.pthread_kill(main_thread().ident or 0, signal.SIGTERM)
