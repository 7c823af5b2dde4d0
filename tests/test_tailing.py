"""Asynchronous pieces in a plain loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from dawnchorus import tailing


def test_pieces_come_in_order_and_all() -> None:
    async def pieces() -> AsyncIterator[str]:
        for n in range(100):
            yield str(n)
            await asyncio.sleep(0)

    assert list(tailing.read(pieces())) == [str(n) for n in range(100)]
    assert not [t for t in threading.enumerate() if t.name == "tailing"]


def test_what_ends_them_is_raised_after_what_came_before() -> None:
    async def pieces() -> AsyncIterator[str]:
        yield "one"
        raise OSError("the line is dead")

    heard = []
    with pytest.raises(OSError, match="the line is dead"):
        heard.extend(tailing.read(pieces()))
    assert heard == ["one"]
    assert not [t for t in threading.enumerate() if t.name == "tailing"]


def test_who_stops_listening_closes_them() -> None:
    closed = threading.Event()

    async def pieces() -> AsyncIterator[str]:
        try:
            yield "one"
            await asyncio.sleep(60)
        finally:
            closed.set()

    reader = tailing.read(pieces())
    assert next(reader) == "one"
    reader.close()
    assert closed.is_set()
    assert not [t for t in threading.enumerate() if t.name == "tailing"]
