"""The manifest as it was when the run was planned: Parquet parts in a local folder, and a summary."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dawnchorus import storage
from dawnchorus.config import ManifestConfig, RunConfig
from dawnchorus.errors import ManifestError
from dawnchorus.manifest.stream import Counts, read
from dawnchorus.wording import many

PART_ROWS = 100_000
_FEW_LINES = 10
_DIGEST_COLUMNS = ("recording_id", "claimed_duration", "text", "metadata")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was written. `num_rows = num_recordings + num_bad`; `num_duplicates` identical rows were left
    out; `known_seconds` sums slices' durations and claimed durations, and `num_unknown_duration`
    recordings have neither. `digest` depends on the rows and their order. `files` are the input's;
    `skipped` the files of a folder that are none of it, by extension."""

    num_rows: int
    num_bad: int
    num_duplicates: int
    num_recordings: int
    known_seconds: float
    num_unknown_duration: int
    digest: str
    files: list[str]
    skipped: Counter[str] = field(default_factory=Counter)


def snapshot(config: RunConfig, folder: str) -> Snapshot:
    """Write the deduplicated manifest into the local `folder` (`part-00000.parquet`, ... of at most
    100,000 rows, schema RECORDINGS) and sum it up.

    Raises:
        ManifestError: the input does not exist, holds nothing, or too much of it is bad
            (`ManifestConfig.max_bad_share`): names the first bad lines and the fix.
        StorageUnavailable: the input cannot be reached.
    """
    counts = Counts()
    digest = hashlib.blake2b(digest_size=16)
    num_rows = num_bad = num_unknown = 0
    known_seconds = 0.0
    for number, table in enumerate(_parts(read(config, counts))):
        storage.put_atomic(storage.join(folder, f"part-{number:05d}.parquet"), storage.parquet_bytes(table))
        _update(digest, table)
        good = table.filter(pc.is_null(table["failure"]))
        lengths = pc.coalesce(good["duration"], good["claimed_duration"])
        num_rows += table.num_rows
        num_bad += table.num_rows - good.num_rows
        num_unknown += lengths.null_count
        known_seconds += pc.sum(lengths).as_py() or 0.0
    _judge(counts, config.manifest, config.input)
    if num_rows == 0:
        raise ManifestError(
            f"The sample {config.sample} of {counts.num_lines} lines is empty.", "Take a larger one."
        )
    return Snapshot(
        num_rows=num_rows,
        num_bad=num_bad,
        num_duplicates=counts.num_duplicates,
        num_recordings=num_rows - num_bad,
        known_seconds=known_seconds,
        num_unknown_duration=num_unknown,
        digest=digest.hexdigest(),
        files=counts.files,
        skipped=counts.skipped,
    )


def _parts(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Tables of PART_ROWS rows, and a last one with the rest."""
    held: list[pa.RecordBatch] = []
    num_held = 0
    for batch in batches:
        held.append(batch)
        num_held += batch.num_rows
        if num_held >= PART_ROWS:
            table = pa.Table.from_batches(held)
            yield table.slice(0, PART_ROWS)
            held, num_held = table.slice(PART_ROWS).to_batches(), num_held - PART_ROWS
    if num_held:
        yield pa.Table.from_batches(held)


def _update(digest: hashlib.blake2b, table: pa.Table) -> None:
    """Feed what says which recordings these are; lengths before contents, so that no two tables agree."""
    for name in _DIGEST_COLUMNS:
        column = table[name].combine_chunks()
        digest.update(np.packbits(np.asarray(column.is_valid())).tobytes())
        if pa.types.is_floating(column.type):
            digest.update(np.asarray(column.fill_null(0.0)).tobytes())
            continue
        lengths = pc.binary_length(column).fill_null(0)
        digest.update(np.asarray(lengths).tobytes())
        digest.update("".join(column.fill_null("").to_pylist()).encode())


def _judge(counts: Counts, config: ManifestConfig, address: str) -> None:
    """The rule for bad manifests, over all lines that were read."""
    place = storage.redact(address)
    if counts.num_lines == 0:
        raise ManifestError(f"{place} lists no recordings.", "Check that it is the right file.")
    share = counts.num_bad / counts.num_lines
    limit = config.max_bad_share if counts.num_lines >= _FEW_LINES else 1.0
    if counts.num_bad == counts.num_lines or share > limit:
        more, hopeless = counts.num_bad - len(counts.examples), counts.num_bad == counts.num_lines
        examples = "\n  ".join([*counts.examples, *([f"and {more:,} more"] if more else [])])
        raised = f"Mend them, or raise manifest.max_bad_share (now {config.max_bad_share:g})."
        lists = " `dawnchorus plan` with manifest.max_bad_share=1 lists them all." if more else ""
        raise ManifestError(
            f"{place}: {counts.num_bad:,} of {many(counts.num_lines, 'line')} are bad:\n  {examples}\n",
            "Mend them." if hopeless else raised + lists,
        )
