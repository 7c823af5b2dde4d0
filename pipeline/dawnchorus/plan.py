"""Recordings -> units of work and home files: the attempt's immutable snapshot.

Pure and columnar: Arrow tables in, Arrow tables out; a million recordings are a few numpy arrays. Touches
storage only to write and read its own snapshot.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dawnchorus import fence, storage
from dawnchorus.config import PublishConfig, ResumeConfig
from dawnchorus.records import Seconds
from dawnchorus.schema import HOME_ROWS, UNIT_ROWS

GROUPS_PER_FILE = 256  # units, or home files, of one snapshot file

BYTES_PER_SECOND = {
    ".wav": 32_000.0,
    ".flac": 20_000.0,
    ".mp3": 8_000.0,
    ".m4a": 8_000.0,
    ".aac": 8_000.0,
    ".ogg": 8_000.0,
    ".opus": 4_000.0,
    ".webm": 40_000.0,
    ".mp4": 125_000.0,
    ".mkv": 125_000.0,
    ".wma": 8_000.0,
    ".amr": 1_600.0,
}
"""Usual byte rates of speech, to estimate a duration nobody has told."""
OTHER_BYTES_PER_SECOND = 16_000.0
UNKNOWN_SECONDS: Seconds = 300.0
"""Estimate of a recording about which nothing is known."""


def known_seconds(
    manifest: pa.Table, lengths: pa.Table | None = None, transcripts: pa.Table | None = None
) -> pa.ChunkedArray:
    """The length of each recording in seconds: that of its transcript, else what the manifest says, else what
    its header says (`lengths.LENGTHS`; of a slice without an end, the rest); null where nothing does."""
    known = pc.coalesce(manifest["duration"], manifest["claimed_duration"])
    if lengths is not None and len(lengths):
        at = pc.index_in(manifest["audio_filepath"], value_set=lengths["audio_filepath"].combine_chunks())
        whole = lengths["seconds"].combine_chunks().take(at.combine_chunks())
        rest = pc.subtract(whole, pc.fill_null(manifest["offset"], 0.0))
        known = pc.coalesce(known, pc.if_else(pc.greater(rest, 0.0), rest, None))
    if transcripts is not None:
        at = pc.index_in(manifest["recording_id"], value_set=transcripts["recording_id"].combine_chunks())
        known = pc.coalesce(transcripts["duration"].combine_chunks().take(at.combine_chunks()), known)
    return known


def byte_rates(lengths: pa.Table | None) -> dict[str, float]:
    """Bytes per second by extension: those of the files whose headers were read, else the usual ones."""
    rates = dict(BYTES_PER_SECOND)
    if lengths is not None and len(lengths):
        table = pa.table(
            {
                "e": _extension(lengths["audio_filepath"]),
                "b": lengths["size_bytes"],
                "s": lengths["seconds"],
            }
        )
        for row in table.group_by("e").aggregate([("b", "sum"), ("s", "sum")]).to_pylist():
            rates[row["e"] or ""] = row["b_sum"] / row["s_sum"]
    return rates


def _extension(addresses: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.utf8_lower(pc.struct_field(pc.extract_regex(addresses, r"(?P<e>\.[A-Za-z0-9]+)$"), "e"))


def estimated_seconds(
    manifest: pa.Table,
    lengths: pa.Table | None = None,
    transcripts: pa.Table | None = None,
) -> NDArray[np.float64]:
    """Length of each recording: what is known, else bytes over the format's rate, else the mean of the known
    ones, else 300 s."""
    known = known_seconds(manifest, lengths, transcripts).to_numpy(zero_copy_only=False).astype(np.float64)
    sizes = manifest["size_bytes"].to_numpy(zero_copy_only=False).astype(np.float64)
    if np.isnan(known).any() and not np.isnan(sizes).all():
        extension = pc.fill_null(_extension(manifest["audio_filepath"]), "")
        rates = np.full(len(known), OTHER_BYTES_PER_SECOND)
        for name, rate in byte_rates(lengths).items():
            rates[pc.equal(extension, name).to_numpy(zero_copy_only=False)] = rate
        known = np.where(np.isnan(known), sizes / rates, known)
    has = ~np.isnan(known)
    rest = float(known[has].mean()) if has.any() else UNKNOWN_SECONDS
    return np.where(has, known, rest)


def retried(transcripts: pa.Table | None, resume: ResumeConfig) -> pa.Array:
    """Recording ids with a failure of a kind that `resume.retry_failed` names, final or not."""
    if transcripts is None or resume.retry_failed is None:
        return pa.array([], pa.string())
    failed = pc.is_valid(transcripts["failure"])
    if resume.retry_failed:
        kind = pc.struct_field(transcripts["failure"], "kind")
        named = pc.is_in(kind, value_set=pa.array(resume.retry_failed))
        failed = pc.and_(failed, pc.fill_null(named, False))
    return transcripts.filter(failed)["recording_id"].combine_chunks()


def done(transcripts: pa.Table | None, fingerprint: str, resume: ResumeConfig) -> pa.Array:
    """Recording ids whose transcript row is final under this configuration: not a transient failure
    within its budget, nor one that `resume.retry_failed` names."""
    if transcripts is None:
        return pa.array([], pa.string())
    failure = transcripts["failure"]
    transient = pc.fill_null(pc.struct_field(failure, "transient"), False)
    tries = pc.fill_null(pc.struct_field(failure, "attempts"), 0)
    again = pc.or_(
        pc.and_(transient, pc.less(tries, resume.max_attempts)),
        pc.is_in(transcripts["recording_id"], value_set=retried(transcripts, resume)),
    )
    keep = pc.invert(again)
    if resume.other_fingerprint != "keep-old":
        keep = pc.and_(keep, pc.equal(transcripts["fingerprint"], fingerprint))
    return transcripts.filter(keep)["recording_id"].combine_chunks()


def pending(manifest: pa.Table, done_ids: pa.Array, ready_ids: pa.Array) -> pa.Table:
    """Manifest rows that graph 1 has to work on: readable, not done, and not settled in `chunks/`
    (`ready_ids`: complete there and only waiting to be assembled)."""
    settled = pa.concat_arrays([done_ids.cast(pa.string()), ready_ids.cast(pa.string())])
    keep = pc.and_(
        pc.is_null(manifest["failure"]), pc.invert(pc.is_in(manifest["recording_id"], value_set=settled))
    )
    return manifest.filter(keep)


def assign_units(
    work: pa.Table, seconds: NDArray[np.float64], unit_seconds: Seconds, alone: pa.Array
) -> NDArray[np.int32]:
    """A unit number per row of `work`.

    Rows of one audio object share a unit (it is fetched and decoded once). Objects of at least
    `unit_seconds` and those in `alone` (recording ids suspected of ending a process) get a unit each;
    the longest come first so that the tail is short; the rest fill units in manifest order.
    """
    if not len(work):
        return np.zeros(0, np.int32)
    objects = work["audio_filepath"].combine_chunks().dictionary_encode().indices.to_numpy()
    weight = np.bincount(objects, weights=seconds)
    suspect = pc.is_in(work["recording_id"], value_set=alone).to_numpy(zero_copy_only=False)
    single = (weight >= unit_seconds) | (np.bincount(objects, weights=suspect) > 0)
    unit = np.empty(len(weight), np.int64)
    lone = np.flatnonzero(single)
    unit[lone[np.argsort(-weight[lone], kind="stable")]] = np.arange(len(lone))
    rest = np.flatnonzero(~single)
    before = np.cumsum(weight[rest]) - weight[rest]
    slots = np.floor(before / unit_seconds).astype(np.int64)
    unit[rest] = len(lone) + np.unique(slots, return_inverse=True)[1]
    numbers: NDArray[np.int32] = unit[objects].astype(np.int32)
    return numbers


def unit_rows(
    work: pa.Table, units: NDArray[np.int32], tries: dict[str, int], committed: dict[str, list[str]]
) -> pa.Table:
    """`work` as `schema.UNIT_ROWS`, sorted by unit, then audio object, then offset."""
    order = np.lexsort(
        (
            np.arange(len(work)),
            np.nan_to_num(work["offset"].to_numpy(zero_copy_only=False).astype(np.float64), nan=-1.0),
            work["audio_filepath"].combine_chunks().dictionary_encode().indices.to_numpy(),
            units,
        )
    )
    rows = _taken(work, pa.array(order))
    ids = rows["recording_id"].to_pylist() if tries or committed else []
    attempts = [tries.get(i, 0) for i in ids] if tries else [0] * len(rows)
    chunks = [committed.get(i, []) for i in ids] if committed else [[]] * len(rows)
    extra = {
        "unit": pa.array(units[order]),
        "attempts": pa.array(attempts, pa.int32()),
        "committed_chunk_ids": pa.array(chunks, pa.list_(pa.string())),
    }
    columns = [extra[f.name] if f.name in extra else rows[f.name] for f in UNIT_ROWS]
    return pa.table(columns, schema=UNIT_ROWS)


def assign_homes(
    manifest: pa.Table,
    seconds: NDArray[np.float64],
    transcripts: pa.Table | None,
    run_id: str,
    publish: PublishConfig,
) -> pa.ChunkedArray:
    """The home file of every manifest row: the file that holds its row already, else
    `part-<run_id>-<shard>.parquet`, shards filled in manifest order."""
    position = np.arange(len(manifest)) / publish.recordings_per_file
    hours = (np.cumsum(seconds) - seconds) / 3600 / publish.hours_per_file
    shard = np.floor(position + hours).astype(np.int64)
    names = pc.binary_join_element_wise(
        f"part-{run_id}-", pc.utf8_lpad(pa.array(shard).cast(pa.string()), 5, "0"), ".parquet", ""
    )
    if transcripts is None:
        return pa.chunked_array([names])
    at = pc.index_in(manifest["recording_id"], value_set=transcripts["recording_id"])
    home = transcripts["home"].cast(pa.string()).take(at.combine_chunks())
    return pc.coalesce(home, pa.chunked_array([names]))


def home_rows(
    manifest: pa.Table, homes: pa.ChunkedArray, publish: pa.Array, parts: pa.Table | None
) -> pa.Table:
    """The manifest rows of every home file that has something to publish, as `schema.HOME_ROWS`: sorted
    by home, manifest order within.

    `publish` are the recording ids to assemble; `parts` has recording_id and part of committed rows.
    """
    rows = manifest.append_column("home", homes).append_column("row", pa.array(np.arange(len(manifest))))
    rows = rows.append_column("publish", pc.is_in(rows["recording_id"], value_set=publish))
    touched = pc.unique(rows.filter(rows["publish"])["home"])
    rows = rows.filter(pc.is_in(rows["home"], value_set=touched))
    if parts is None or not len(parts):
        lists = pa.array([[]] * len(rows), pa.list_(pa.string()))
    else:
        wanted = parts.filter(pc.is_in(parts["recording_id"], value_set=publish))
        slim = pa.table({"recording_id": wanted["recording_id"], "part": wanted["part"].cast(pa.string())})
        grouped = slim.group_by("recording_id").aggregate([("part", "distinct")])
        at = pc.index_in(rows["recording_id"], value_set=grouped["recording_id"].combine_chunks())
        lists = grouped["part_distinct"].combine_chunks().take(at.combine_chunks())
    at = pc.sort_indices(rows, sort_keys=[("home", "ascending"), ("row", "ascending")])
    rows = _taken(rows.append_column("parts", lists), at)
    return rows.select(HOME_ROWS.names).cast(HOME_ROWS)


def _taken(table: pa.Table, order: pa.Array) -> pa.Table:
    """`table.take(order)`, also of more text than the 2 GiB that one Arrow array of strings holds."""
    wide = [f.with_type(pa.large_string()) if pa.types.is_string(f.type) else f for f in table.schema]
    whole = table.cast(pa.schema(wide)).combine_chunks()
    pieces = (whole.take(order.slice(i, 1000)).cast(table.schema) for i in range(0, len(order), 1000))
    return pa.concat_tables([table.slice(0, 0), *pieces])


def _groups(table: pa.Table, key: str) -> Iterator[pa.Table]:
    """Slices of a table sorted by `key`, one per value."""
    codes = table[key].combine_chunks().dictionary_encode().indices.to_numpy()
    starts = np.flatnonzero(np.concatenate([[len(codes) > 0], codes[1:] != codes[:-1]]))
    for start, end in zip(starts, [*starts[1:], len(table)], strict=True):
        yield table.slice(int(start), int(end - start))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Where one kind of an attempt's plan lies: files of `GROUPS_PER_FILE` row groups each."""

    url: str
    num_groups: int

    def read(self, group: int) -> pa.Table:
        """The rows of one unit (or of one home file)."""
        file, index = divmod(group, GROUPS_PER_FILE)
        with storage.open_input(storage.join(self.url, f"plan-{file:05d}.parquet")) as f:
            return pq.ParquetFile(f).read_row_group(index)


def write_attempt(table: pa.Table, key: str, run_url: str, owner: tuple[str, int], name: str) -> Snapshot:
    """`write_snapshot` among the notes `name` of an attempt, for who owns the output: `owner` is its URL and
    the epoch. They have addresses and references, and days may have passed since they were read: what was
    forgotten meanwhile must not come back by them.

    Raises:
        Fenced: another run owns the output by now.
    """
    output, epoch = owner
    fence.check(output, epoch)
    return write_snapshot(table, key, storage.join(run_url, "attempts", f"{epoch:08d}", name))


def write_snapshot(table: pa.Table, key: str, url: str) -> Snapshot:
    """Write a table sorted by `key`, one row group per value of it, below `url`."""
    num_groups, held, sizes = 0, [], list[int]()
    for group in _groups(table, key):
        held.append(group)
        sizes.append(len(group))
        num_groups += 1
        if len(held) == GROUPS_PER_FILE:
            _put_file(url, num_groups // GROUPS_PER_FILE - 1, held, sizes)
            held, sizes = [], []
    if held:
        _put_file(url, num_groups // GROUPS_PER_FILE, held, sizes)
    return Snapshot(url, num_groups)


def _put_file(url: str, index: int, groups: list[pa.Table], sizes: list[int]) -> None:
    data = storage.parquet_bytes(pa.concat_tables(groups), row_groups=sizes)
    storage.put_atomic(storage.join(url, f"plan-{index:05d}.parquet"), data)
