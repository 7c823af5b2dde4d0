"""Rows that earlier inputs left in an output: which of them are void by now, and how many stay.

A line that nobody could read is a row until its manifest is read again: then it is void, mended or not,
unless the new reading has the same line. Recordings stay whatever a later manifest says; they are counted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dawnchorus import fence, ledger, storage

_AT_ONCE = 4
_NO_IDS = pa.array([], pa.string())


@dataclass(frozen=True, slots=True)
class Reading:
    """One run's reading of its input: the files, and whether it was read to its end (no pilot)."""

    run_id: str
    run_url: str
    saved_at: float
    files: frozenset[str]
    whole: bool

    def voids(self, other: Reading) -> bool:
        """Whether all that `other` could not read has been read again."""
        again = bool(other.files) and other.files <= self.files
        return self.whole and again and (self.run_id == other.run_id or self.saved_at > other.saved_at)


def reading_of(about: dict[str, Any], run_url: str) -> Reading:
    """The reading that a `run.json` tells of."""
    config = about["config"]
    whole = config.get("limit") is None and config.get("sample") is None
    files = frozenset(about.get("files", ()))
    return Reading(about["run_id"], run_url, about.get("saved_at", 0.0), files, whole)


def readings(output: str) -> list[Reading]:
    """Every run's, the newest first."""
    listed = storage.list_files(storage.join(output, "_runs"), "/run.json")
    found = [reading_of(json.loads(storage.read_bytes(f.url)), storage.parent(f.url)) for f in listed]
    return sorted(found, key=lambda r: -r.saved_at)


def manifest_ids(run_url: str) -> pa.Array:
    """The recording ids of a run's manifest snapshot."""
    listed = storage.list_files(storage.join(run_url, "manifest"), ".parquet")
    tables = [storage.read_table(f.url, ["recording_id"])["recording_id"].combine_chunks() for f in listed]
    return pa.concat_arrays(tables) if tables else _NO_IDS


def without_void(manifest: pa.Table, mine: Reading, newer: Iterable[Reading]) -> pa.Table:
    """A run's manifest without the bad lines that newer runs have read again."""
    bad = is_bad_line(manifest)
    if not pc.any(bad).as_py():
        return manifest
    for other in newer:
        if other.voids(mine):
            there = pc.is_in(manifest["recording_id"], value_set=manifest_ids(other.run_url))
            manifest = manifest.filter(pc.or_(pc.invert(is_bad_line(manifest)), there))
    return manifest


def is_bad_line(rows: pa.Table) -> pa.ChunkedArray:
    """Which rows (with a `failure`) stand for a line of a manifest that nobody could read."""
    return pc.fill_null(pc.equal(pc.struct_field(rows["failure"], "stage"), "manifest"), False)


def remove(output: str, run_id: str, manifest: pa.Table, epoch: int) -> int:
    """Take the rows that a run has made void out of `transcripts/`, each file in one step; returns how many.
    Repeating it finds nothing to do. Only rows without audio go: nothing has to be transcribed again.

    Raises:
        Fenced: another run owns the output by now.
    """
    known = readings(output)
    me = next((r for r in known if r.run_id == run_id), None)
    transcripts = ledger.read_transcripts(output)
    if me is None or transcripts is None:
        return 0
    void_runs = pa.array([r.run_id for r in known if me.voids(r)], pa.string())
    void = pc.and_(is_bad_line(transcripts), pc.is_in(transcripts["run_id"], value_set=void_runs))
    mine = pc.is_in(transcripts["recording_id"], value_set=manifest["recording_id"].combine_chunks())
    gone = transcripts.filter(pc.and_(void, pc.invert(mine)))
    ids = gone["recording_id"].combine_chunks()
    urls = [storage.join(ledger.transcripts_url(output), h) for h in pc.unique(gone["home"]).to_pylist()]

    def act(url: str) -> int:
        return remove_rows(url, ids, lambda: fence.check(output, epoch))

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return sum(pool.map(act, urls))


def remove_rows(url: str, ids: pa.Array, check: Callable[[], None]) -> int:
    """A Parquet file without the rows of these ids, by one PUT; without rows it goes. Returns how many went.
    `check` is called just before, and raises when another run owns the output by now."""
    table = storage.read_table(url)
    kept = table.filter(pc.invert(pc.is_in(table["recording_id"], value_set=ids)))
    if len(kept) == len(table):
        return 0
    check()
    if len(kept):
        storage.put_atomic(url, storage.parquet_bytes(kept))
    else:
        storage.delete(url)
    return len(table) - len(kept)


def count(output: str, recording_ids: pa.Array | pa.ChunkedArray) -> int:
    """How many of these rows of `transcripts/` the newest run did not read in its input; 0 after a pilot,
    which says nothing of what it left out."""
    newest = next(iter(readings(output)), None)
    if newest is None or not newest.whole:
        return 0
    mine = pc.is_in(recording_ids, value_set=manifest_ids(newest.run_url))
    return len(recording_ids) - (pc.sum(mine).as_py() or 0)
