"""What is committed: key columns of the chunks and transcripts tables, read back as Arrow tables.

The ledger is the tables themselves; there is no other state. It resolves duplicates (parts are
at-least-once) and says which recordings are settled. Columnar: no Python object per row is kept.
"""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dawnchorus import storage
from dawnchorus.duplicates import resolve, resolve_steps
from dawnchorus.schema import ANSWER

_READERS = 16

CHUNK_COLUMNS = [
    "kind",
    "recording_id",
    "decode_id",
    "chunk_id",
    "channel",
    "chunk_index",
    "start",
    "end",
    "input_start",
    "input_end",
    "damaged_samples",
    "status",
    "failure",
    "attempt",
    "num_chunks",
    "sampling_rate",
    "num_channels",
    "channels",
    "fingerprint",
]
TRANSCRIPT_COLUMNS = [
    "recording_id",
    "status",
    "failure",
    "fingerprint",
    "decode_id",
    "coverage",
    "duration",
    "flags",
    "num_channels",
    "run_id",
]
ANSWER_COLUMNS = [
    "kind",
    "recording_id",
    "transcript_hash",
    "name",
    "answer_fingerprint",
    "step_id",
    "flags",
    "status",
    "failure",
    "attempt",
]
FOLDED_FIELDS = ["name", "fingerprint", "flags", "status", "failure"]
"""What of the answers in `transcripts/` says whether they are those that are wanted."""


NO_FOLDED = pa.schema(
    [("recording_id", pa.string()), *(ANSWER.field(n) for n in FOLDED_FIELDS)]
).empty_table()


def chunks_url(output: str) -> str:
    """Folder of the committed windows."""
    return storage.join(output, "chunks")


def transcripts_url(output: str) -> str:
    """Folder of the home files."""
    return storage.join(output, "transcripts")


def answers_url(output: str) -> str:
    """Folder of the committed windows of answers."""
    return storage.join(output, "answers")


def part_name(url: str) -> str:
    """File name of a part."""
    return url.rpartition("/")[2]


def _read_all(folder: str, columns: list[str], label: str) -> pa.Table | None:
    urls = [f.url for f in storage.list_files(folder, ".parquet")]

    def read(url: str) -> pa.Table:
        table = storage.read_table(url, columns)
        name = pa.DictionaryArray.from_arrays(
            pa.array(np.zeros(len(table), np.int32)), pa.array([part_name(url)])
        )
        return table.append_column(label, name)

    if not urls:
        return None
    with ThreadPoolExecutor(_READERS) as pool:
        return pa.concat_tables(list(pool.map(read, urls))).unify_dictionaries()


def read_transcripts(output: str) -> pa.Table | None:
    """`TRANSCRIPT_COLUMNS` plus `home` (file name) of every transcript row; None when there is none."""
    return _read_all(transcripts_url(output), TRANSCRIPT_COLUMNS, "home")


def read_chunks(output: str, fingerprint: str | None = None) -> pa.Table | None:
    """`CHUNK_COLUMNS` plus `part` (file name) of every committed row, duplicates resolved.

    With a `fingerprint`, only rows of that fingerprint. Of rows with one chunk id the best stays:
    not failed before failed, then the latest attempt.
    """
    table = _read_all(chunks_url(output), CHUNK_COLUMNS, "part")
    if table is None:
        return None
    if fingerprint is not None:
        table = table.filter(pc.equal(table["fingerprint"], fingerprint))
    return resolve(table)


def read_answers(output: str) -> pa.Table | None:
    """`ANSWER_COLUMNS` plus `part` (file name) of every committed step, duplicates resolved."""
    table = _read_all(answers_url(output), ANSWER_COLUMNS, "part")
    return None if table is None else resolve_steps(table)


def read_folded(output: str) -> pa.Table | None:
    """The answers in `transcripts/`, one row each: recording_id and `FOLDED_FIELDS`; None without rows."""
    columns = ["recording_id", *(f"answers.list.element.{n}" for n in FOLDED_FIELDS)]
    table = _read_all(transcripts_url(output), columns, "home")
    if table is None:
        return None
    lists = pa.concat_arrays(
        [c.cast(pa.list_(ANSWER)) for c in table["answers"].chunks] or [pa.array([], pa.list_(ANSWER))]
    )
    at = pc.list_parent_indices(lists)
    fields = pc.list_flatten(lists)
    named = {n: pc.struct_field(fields, n) for n in FOLDED_FIELDS}
    return pa.table({"recording_id": table["recording_id"].combine_chunks().take(at), **named})


def failures(
    manifest: pa.Table, transcripts: pa.Table | None, chunks: pa.Table | None, done: pa.Array, ready: pa.Array
) -> Counter[str]:
    """Recordings of a manifest with nothing left to do that failed, by kind: those that are `done` by their
    rows, those that are `ready` to be published by their ends, and bad lines."""
    ids = manifest["recording_id"].combine_chunks()
    undone = pc.invert(pc.is_in(ids, value_set=done))
    bad = manifest.filter(pc.and_(pc.is_valid(manifest["failure"]), undone))
    ends = None if chunks is None else chunks.filter(pc.equal(chunks["kind"], "end"))
    due = ids.filter(pc.and_(pc.is_in(ids, value_set=ready), undone))
    return (
        _failed(transcripts, ids.filter(pc.invert(undone)))
        + _failed(ends, due)
        + Counter(pc.struct_field(bad["failure"], "kind").to_pylist())
    )


def _failed(rows: pa.Table | None, ids: pa.Array) -> Counter[str]:
    if rows is None:
        return Counter()
    mine = pc.and_(pc.is_in(rows["recording_id"], value_set=ids), pc.equal(rows["status"], "failed"))
    failed = rows.filter(mine)
    kinds = pa.table({"id": failed["recording_id"], "kind": pc.struct_field(failed["failure"], "kind")})
    return Counter(kinds.group_by("id").aggregate([("kind", "min")])["kind_min"].to_pylist())


_SETTLED = pa.schema(
    [
        ("recording_id", pa.string()),
        ("decode_id", pa.string()),
        ("status", pa.string()),
        ("complete", pa.bool_()),
        ("transient", pa.bool_()),
        ("attempts", pa.int32()),
    ]
)


def settle(chunks: pa.Table | None) -> pa.Table:
    """Recordings that have an outcome, one row each, from `read_chunks` of one fingerprint.

    Columns: recording_id, decode_id, status (of the end row), complete (all its chunks are committed),
    transient (something in it deserves another try), attempts (most tries of anything that failed: where
    that deserves another one, by any decode, for the next may not get as far as the last).

    A decode is complete when its end row and exactly the chunks it counts are committed. Of several
    decodes of one recording (its audio changed) a complete one wins, then the latest attempt.
    """
    if chunks is None or not len(chunks):
        return _SETTLED.empty_table()
    ends = chunks.filter(pc.equal(chunks["kind"], "end"))
    rows = chunks.filter(pc.equal(chunks["kind"], "chunk"))
    counted = _per_decode(rows)
    failure = ends["failure"]
    joined = ends.select(["recording_id", "decode_id", "status", "num_chunks", "attempt"])
    transient = pc.fill_null(pc.struct_field(failure, "transient"), False)
    joined = joined.append_column("end_transient", transient)
    joined = joined.append_column("end_tries", pc.fill_null(pc.struct_field(failure, "attempts"), 0))
    joined = joined.join(counted, keys=["recording_id", "decode_id"], join_type="left outer")
    found = pc.fill_null(joined["found"], 0)
    complete = pc.and_(pc.equal(found, joined["num_chunks"]), pc.invert(joined["end_transient"]))
    table = pa.table(
        {
            "recording_id": joined["recording_id"],
            "decode_id": joined["decode_id"],
            "status": joined["status"],
            "complete": complete,
            "transient": pc.or_(joined["end_transient"], pc.fill_null(joined["any_transient"], False)),
            "attempts": pc.max_element_wise(joined["end_tries"], pc.fill_null(joined["tries"], 0)).cast(
                pa.int32()
            ),
            "failed": pc.equal(joined["status"], "failed"),
            "attempt": joined["attempt"],
        }
    ).sort_by(
        [
            ("recording_id", "ascending"),
            ("complete", "descending"),
            ("failed", "ascending"),
            ("attempt", "descending"),
        ]
    )
    ids = table["recording_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    first = np.concatenate([[True], ids[1:] != ids[:-1]]) if len(ids) else np.zeros(0, bool)
    best = table.filter(pa.array(first))
    most = table.group_by("recording_id").aggregate([("attempts", "max")])
    at = pc.index_in(best["recording_id"], value_set=most["recording_id"].combine_chunks())
    tries = pc.if_else(best["transient"], most["attempts_max"].take(at.combine_chunks()), best["attempts"])
    best = best.set_column(best.column_names.index("attempts"), "attempts", tries)
    return best.select(_SETTLED.names).cast(_SETTLED)


def _per_decode(rows: pa.Table) -> pa.Table:
    """Chunks found per (recording, decode), and what of them is transient."""
    failure = rows["failure"]
    transient = pc.fill_null(pc.struct_field(failure, "transient"), False)
    tries = pc.fill_null(pc.struct_field(failure, "attempts"), 0)
    slim = pa.table(
        {
            "recording_id": rows["recording_id"],
            "decode_id": rows["decode_id"],
            "found": rows["chunk_index"],
            "any_transient": transient,
            "tries": tries,
        }
    )
    grouped = slim.group_by(["recording_id", "decode_id"]).aggregate(
        [("found", "count"), ("any_transient", "any"), ("tries", "max")]
    )
    return grouped.rename_columns(
        {"found_count": "found", "any_transient_any": "any_transient", "tries_max": "tries"}
    )


def committed_ids(
    chunks: pa.Table | None, recording_ids: pa.Array, without_failed: bool = False
) -> dict[str, list[str]]:
    """Chunk ids of these recordings that need no transcription again: all but transient failures, or
    (`without_failed`) all but failures."""
    if chunks is None or not len(chunks):
        return {}
    wanted = pc.is_in(chunks["recording_id"], value_set=recording_ids)
    again = pc.fill_null(pc.struct_field(chunks["failure"], "transient"), False)
    if without_failed:
        again = pc.equal(chunks["status"], "failed")
    keep = chunks.filter(pc.and_(pc.and_(wanted, pc.equal(chunks["kind"], "chunk")), pc.invert(again)))
    found: dict[str, list[str]] = {}
    for recording, chunk in zip(keep["recording_id"].to_pylist(), keep["chunk_id"].to_pylist(), strict=True):
        found.setdefault(recording, []).append(chunk)
    return found
