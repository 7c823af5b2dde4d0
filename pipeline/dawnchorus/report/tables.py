"""The committed rows of a run, read once and folded into counts and arrays as they stream by.

Columnar: a million recordings are a few numpy arrays (8 bytes each a recording), never Python objects.
Knows tables and numbers; says nothing.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dawnchorus import export, ledger, storage
from dawnchorus.records import Seconds

MAX_FAILURES = 1_000
EXAMPLES = 3
LONGEST = 8
_READERS = 16
_BATCH_ROWS = 4_096
_ID_DIGITS = 32
_CHUNK_COLUMNS = ["kind", "recording_id", "start", "end", "status", "attempt", "timing", "run_id"]
_ROW_COLUMNS = [
    *("recording_id", "audio_filepath", "offset", "duration", "text", "pred_text", "coverage", "flags"),
    *("status", "failure", "run_id", "fingerprint"),
]
_KIND_FIELDS = ("stage", "kind", "transient")
WORDS_PER_MINUTE = np.arange(0, 401, 10)
CHUNK_SECONDS = np.arange(0, 120.5, 0.5)
_HAIR = 1e-6
"""Keeps a chunk of exactly 30 s in the bin that ends at 30 s."""


Kind = tuple[str, str, bool, bool]
"""Stage, kind, transient, and whether the recording is transcribed in part all the same."""


def keys(ids: pa.ChunkedArray | pa.Array) -> NDArray[np.uint64]:
    """The first 64 bits of recording ids (32 hex digits each), to look them up without strings."""
    array = ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
    if not len(array):
        return np.zeros(0, np.uint64)
    lengths = pc.min_max(pc.binary_length(array)).as_py()
    if lengths != {"min": _ID_DIGITS, "max": _ID_DIGITS} or array.null_count:
        raise ValueError("a recording_id is not 32 hex digits")
    fixed = array.cast(pa.binary()).cast(pa.binary(_ID_DIGITS))
    start = fixed.offset * _ID_DIGITS
    digits = np.frombuffer(fixed.buffers()[1], np.uint8)[start : start + len(array) * _ID_DIGITS]
    nibbles = digits.reshape(-1, _ID_DIGITS)[:, :16].astype(np.uint64)
    nibbles = np.where(nibbles >= ord("a"), nibbles - np.uint64(ord("a") - 10), nibbles - np.uint64(ord("0")))
    weights = np.uint64(1) << np.arange(60, -4, -4, dtype=np.uint64)
    found: NDArray[np.uint64] = (nibbles * weights).sum(axis=1, dtype=np.uint64)
    return found


def manifest_keys(run_url: str) -> NDArray[np.uint64]:
    """Sorted keys of the recordings in a run's manifest snapshot."""
    found = [np.zeros(0, np.uint64)]
    for info in storage.list_files(storage.join(run_url, "manifest"), ".parquet"):
        with storage.open_input(info.url) as f, pq.ParquetFile(f) as file:
            found += [keys(b["recording_id"]) for b in file.iter_batches(65_536, columns=["recording_id"])]
    return np.unique(np.concatenate(found))


def positions(wanted: NDArray[np.uint64], found: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Where each of `found` stands in the sorted `wanted`; -1 where it does not."""
    if not len(wanted):
        return np.full(len(found), -1, np.int64)
    at = np.minimum(np.searchsorted(wanted, found), len(wanted) - 1)
    return np.where(wanted[at] == found, at, -1).astype(np.int64)


def among(wanted: NDArray[np.uint64], ids: pa.Array) -> pa.Array:
    """Which of these recording ids have their key in the sorted `wanted`."""
    return pa.array(positions(wanted, keys(ids)) >= 0)


@dataclass(slots=True)
class Work:
    """What engines and decoders did for a run. `windows` has one row per engine call: attempt, worker,
    started_at, engine_seconds, wait_seconds, speech_seconds, num_chunks; the arrays stand beside the
    manifest's keys."""

    windows: pa.Table
    engine_seconds: NDArray[np.float64]
    decode_seconds: float
    ends_of_attempt: dict[int, int]
    chunk_counts: NDArray[np.int64]
    num_chunks: int
    num_failed_chunks: int


_WINDOW_KEYS = ["attempt", "worker", "started_at"]
_WINDOW_SUMS = ["engine_seconds", "wait_seconds", "speech_seconds", "num_chunks"]


def read_work(output: str, run_id: str, wanted: NDArray[np.uint64]) -> Work:
    """Fold every committed part that holds rows of this run."""
    windows: list[pa.Table] = []
    engine = np.zeros(len(wanted))
    decode, ends = 0.0, Counter[int]()
    lengths, num_chunks, num_failed = np.zeros(len(CHUNK_SECONDS) - 1, np.int64), 0, 0
    for part in _parts(output):
        mine = part.filter(pc.equal(part["run_id"], run_id))
        is_end = pc.equal(mine["kind"], "end")
        end, chunk = mine.filter(is_end), mine.filter(pc.invert(is_end))
        decode += pc.sum(pc.struct_field(end["timing"], "decode_seconds")).as_py() or 0.0
        ends.update(end["attempt"].to_pylist())
        if not len(chunk):
            continue
        windows.append(_windows(chunk.filter(pc.is_valid(pc.struct_field(chunk["timing"], "started_at")))))
        at = positions(wanted, keys(chunk["recording_id"]))
        spent = pc.fill_null(pc.struct_field(chunk["timing"], "engine_seconds"), 0.0).to_numpy()
        np.add.at(engine, at[at >= 0], spent[at >= 0])
        spans = pc.subtract(chunk["end"], chunk["start"]).to_numpy()
        lengths += np.histogram(np.clip(spans - _HAIR, 0.0, CHUNK_SECONDS[-1]), CHUNK_SECONDS)[0]
        num_chunks += len(chunk)
        num_failed += pc.sum(pc.equal(chunk["status"], "failed")).as_py() or 0
    table = _merged(windows)
    return Work(table, engine, decode, dict(ends), lengths, num_chunks, num_failed)


def _parts(output: str) -> Iterator[pa.Table]:
    urls = iter([f.url for f in storage.list_files(ledger.chunks_url(output), ".parquet")])

    def read(url: str) -> pa.Table:
        return storage.read_table(url, _CHUNK_COLUMNS)

    with ThreadPoolExecutor(_READERS) as pool:
        while some := list(islice(urls, 4 * _READERS)):
            yield from pool.map(read, some)


def _windows(chunk: pa.Table) -> pa.Table:
    timing = chunk["timing"]
    table = pa.table(
        {
            "attempt": chunk["attempt"],
            "worker": pc.fill_null(pc.struct_field(timing, "worker"), ""),
            "started_at": pc.struct_field(timing, "started_at"),
            "engine_seconds": pc.fill_null(pc.struct_field(timing, "engine_seconds"), 0.0),
            "wait_seconds": pc.fill_null(pc.struct_field(timing, "wait_seconds"), 0.0),
            "speech_seconds": pc.subtract(chunk["end"], chunk["start"]),
            "num_chunks": pa.array(np.ones(len(chunk), np.int64)),
        }
    )
    return _grouped(table)


def _grouped(table: pa.Table) -> pa.Table:
    sums = table.group_by(_WINDOW_KEYS).aggregate([(c, "sum") for c in _WINDOW_SUMS])
    return sums.select([*_WINDOW_KEYS, *(f"{c}_sum" for c in _WINDOW_SUMS)]).rename_columns(
        [*_WINDOW_KEYS, *_WINDOW_SUMS]
    )


def _merged(windows: list[pa.Table]) -> pa.Table:
    """One row per engine call, in order of time; a call's rows may lie in several parts."""
    if not windows:
        kinds = [pa.int32(), pa.string(), *[pa.float64()] * 4, pa.int64()]
        names = [*_WINDOW_KEYS, *_WINDOW_SUMS]
        return pa.schema(list(zip(names, kinds, strict=True))).empty_table()
    return _grouped(pa.concat_tables(windows)).sort_by("started_at")


@dataclass(slots=True)
class Rows:
    """What the transcript rows of a run say, folded."""

    statuses: Counter[str] = field(default_factory=Counter)
    kinds: Counter[Kind] = field(default_factory=Counter)
    examples: dict[Kind, list[dict[str, Any]]] = field(default_factory=dict)
    failures: list[dict[str, Any]] = field(default_factory=list)
    longest: list[dict[str, Any]] = field(default_factory=list)
    picked: dict[int, dict[str, Any]] = field(default_factory=dict)
    coverage: dict[str, Seconds] = field(default_factory=dict)
    audio_seconds: Seconds = 0.0
    num_words: int = 0
    num_with_text: int = 0
    pace_counts: NDArray[np.int64] = field(
        default_factory=lambda: np.zeros(len(WORDS_PER_MINUTE) - 1, np.int64)
    )

    def add(self, rows: pa.RecordBatch, at: NDArray[np.int64], pick: NDArray[np.int64]) -> None:
        """Fold one batch of rows that stand at `at` in the manifest's keys; remember those in `pick`."""
        self.statuses.update(_counts(rows["status"]))
        for name in ("decoded", "transcribed", "silent", "failed"):
            seconds = pc.sum(pc.struct_field(rows["coverage"], name)).as_py() or 0.0
            self.coverage[name] = self.coverage.get(name, 0.0) + seconds
        self.audio_seconds += pc.sum(export.heard(rows)).as_py() or 0.0
        self.num_with_text += len(rows) - rows["text"].null_count
        self._pace(rows)
        self._failures(rows)
        self._longest(rows)
        for i in np.flatnonzero(np.isin(at, pick)):
            self.picked[int(at[i])] = brief(rows, int(i))

    def _pace(self, rows: pa.RecordBatch) -> None:
        said = pc.fill_null(pc.not_equal(rows["pred_text"], ""), False)
        words = pc.if_else(said, pc.add(pc.count_substring(rows["pred_text"], " "), 1), 0).to_numpy(
            zero_copy_only=False
        )
        self.num_words += int(words.sum())
        heard = pc.fill_null(pc.struct_field(rows["coverage"], "transcribed"), 0.0).to_numpy(
            zero_copy_only=False
        )
        # Below five seconds of speech a pace says nothing.
        long = heard >= 5.0
        pace = np.minimum(words[long] / heard[long] * 60, WORDS_PER_MINUTE[-1])
        self.pace_counts += np.histogram(pace, WORDS_PER_MINUTE)[0]

    def _failures(self, rows: pa.RecordBatch) -> None:
        failed = rows.filter(pc.is_valid(rows["failure"]))
        room = MAX_FAILURES - len(self.failures)
        self.failures += [brief(failed, i) for i in range(min(room, len(failed)))]
        kinds = pa.table({n: pc.struct_field(failed["failure"], n) for n in _KIND_FIELDS})
        kinds = kinds.append_column("partial", pc.equal(failed["status"], "ok"))
        kinds = kinds.append_column("row", pa.array(np.arange(len(failed))))
        names = [*_KIND_FIELDS, "partial"]
        for group in kinds.group_by(names).aggregate([("row", "count")]).to_pylist():
            kind = _kind_of(group)
            self.kinds[kind] += group["row_count"]
            examples = self.examples.setdefault(kind, [])
            if len(examples) < EXAMPLES:
                alike = [pc.equal(kinds[n], pa.scalar(group[n])).combine_chunks() for n in names]
                mine = failed.filter(functools.reduce(pc.and_, alike))
                examples += [brief(mine, i) for i in range(min(EXAMPLES - len(examples), len(mine)))]

    def _longest(self, rows: pa.RecordBatch) -> None:
        seconds = pc.fill_null(export.heard(rows), 0.0).to_numpy(zero_copy_only=False)
        least = self.longest[-1]["duration"] if len(self.longest) >= LONGEST else 0.0
        for i in np.argsort(-seconds)[:LONGEST]:
            if seconds[i] > least:
                self.longest.append(brief(rows, int(i)))
        self.longest = sorted(self.longest, key=lambda r: -r["duration"])[:LONGEST]


def _counts(array: pa.Array) -> dict[str, int]:
    return {v["values"]: v["counts"] for v in pc.value_counts(array).to_pylist() if v["values"] is not None}


def _kind_of(row: Mapping[str, Any]) -> Kind:
    return (row["stage"], row["kind"], row["transient"], row["partial"])


def brief(rows: pa.RecordBatch, i: int) -> dict[str, Any]:
    """One row for the report: which recording, how it went, and why it failed."""
    names = ("audio_filepath", "offset", "duration", "status")
    row = {n: rows[n][i].as_py() for n in names}
    row["audio_filepath"] = storage.redact(row["audio_filepath"] or "")
    failure = rows["failure"][i].as_py()
    if failure is None:
        return row
    why = {n: failure[n] for n in (*_KIND_FIELDS, "message", "attempts")}
    return row | why | {"partial": row["status"] == "ok"}


def rows_of_run(
    output: str, wanted: NDArray[np.uint64], fingerprint: str | None
) -> Iterator[tuple[pa.RecordBatch, NDArray[np.int64]]]:
    """Transcript rows of the manifest's recordings (of one fingerprint), and where they stand in it."""
    for batch in export.rows(output, _ROW_COLUMNS, _BATCH_ROWS):
        at = positions(wanted, keys(batch["recording_id"]))
        keep = at >= 0
        if fingerprint is not None:
            keep &= pc.equal(batch["fingerprint"], fingerprint).to_numpy(zero_copy_only=False)
        if keep.any():
            yield batch.filter(pa.array(keep)), at[keep]


def num_elsewhere(output: str, wanted: NDArray[np.uint64]) -> int:
    """How many transcript rows are of recordings that this manifest does not have."""
    batches = export.rows(output, ["recording_id"], 65_536)
    return sum(int((positions(wanted, keys(b["recording_id"])) < 0).sum()) for b in batches)
