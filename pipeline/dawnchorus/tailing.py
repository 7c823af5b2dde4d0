"""An asynchronous iterator, read by a thread of its own for a plain loop to go over.

In the main thread Ctrl-C comes between any two steps of asyncio, which leaves tasks and warnings behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from queue import SimpleQueue
from threading import Event, Thread

from dawnchorus.records import Seconds

_CLOSE_SECONDS: Seconds = 5.0


def read(pieces: AsyncIterator[str]) -> Iterator[str]:
    """The pieces as they come. However the loop over them ends, they are closed.

    Raises:
        Exception: whatever `pieces` raises.
    """
    said: SimpleQueue[str | None] = SimpleQueue()
    over = Event()

    async def listen() -> None:
        try:
            async for piece in pieces:
                said.put(piece)
        finally:
            said.put(None)
            over.set()

    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever, daemon=True, name="tailing")
    thread.start()
    listening = asyncio.run_coroutine_threadsafe(listen(), loop)
    try:
        while (piece := said.get()) is not None:
            yield piece
        listening.result()  # raises what ended them
    finally:
        listening.cancel()
        over.wait(_CLOSE_SECONDS)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_CLOSE_SECONDS)
        if not loop.is_running():
            loop.close()
