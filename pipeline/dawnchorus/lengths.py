"""How long recordings are, as far as headers tell, for the plan alone: a few bytes of each file, for five
seconds at most.

All files of this machine up to 10,000, else an even share of them; of objects in buckets a handful, so that
the rest can be told by their sizes. Web servers are not asked. What cannot be read now says so when decoded.
"""

from __future__ import annotations

import os
import time
from threading import Thread

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dawnchorus import storage
from dawnchorus.audio.lengths import claimed_seconds
from dawnchorus.errors import DataError, UserError
from dawnchorus.records import Seconds

MAX_LOCAL = 10_000
MAX_REMOTE = 12
_LOOK_SECONDS: Seconds = 5.0
_AT_ONCE = 8
LENGTHS = pa.schema([("audio_filepath", pa.string()), ("seconds", pa.float64()), ("size_bytes", pa.int64())])
"""What headers said: one row per file of which one said something."""
_Row = tuple[str, Seconds, int]


def look(manifest: pa.Table, within: Seconds = _LOOK_SECONDS) -> pa.Table:
    """`LENGTHS` of the audio of recordings whose length the manifest does not tell."""
    unknown = pc.and_(pc.is_null(manifest["duration"]), pc.is_null(manifest["claimed_duration"]))
    readable = pc.and_(unknown, pc.is_null(manifest["failure"]))
    addresses = pc.unique(manifest.filter(readable)["audio_filepath"]).drop_null()
    plain = pc.invert(pc.match_substring(addresses, "://"))
    local = pc.or_(plain, pc.starts_with(addresses, "file://"))
    remote = pc.invert(pc.or_(local, pc.match_substring_regex(addresses, "^https?://")))
    few = _even(addresses.filter(local), MAX_LOCAL) + _even(addresses.filter(remote), MAX_REMOTE)
    found = _in_time(few, time.monotonic() + within)
    columns = zip(*found, strict=True) if found else [[], [], []]
    return pa.Table.from_arrays(
        [pa.array(c, f.type) for c, f in zip(columns, LENGTHS, strict=True)], schema=LENGTHS
    )


def _even(addresses: pa.Array, most: int) -> list[str]:
    """At most so many of them, spread evenly."""
    if len(addresses) > most:
        addresses = addresses.take(pa.array(np.linspace(0, len(addresses) - 1, most).astype(np.int64)))
    return list(addresses.to_pylist())


def _in_time(addresses: list[str], until: float) -> list[_Row]:
    """What was said until then; a store that does not answer is not waited for."""
    left, found = iter(addresses), list[_Row]()

    def ask() -> None:
        for address in left:
            if time.monotonic() > until:
                return
            row = _row(address)
            if row is not None:
                found.append(row)

    threads = [Thread(target=ask, daemon=True, name="lengths") for _ in range(_AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    return list(found)


def _row(address: str) -> _Row | None:
    try:
        with storage.open_input(address) as f:
            size = f.seek(0, os.SEEK_END)

            def read(position: int, num_bytes: int) -> bytes:
                f.seek(position)
                return f.read(num_bytes)

            seconds = claimed_seconds(read, size)
    except (OSError, DataError, UserError):
        # Decoding will say what is wrong with it, where it is done: another machine may have what lacks here.
        return None
    return None if seconds is None else (address, seconds, size)
