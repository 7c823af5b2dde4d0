"""Does the run's manifest match the committed tables? Recomputed from rows, in integer samples.

Returns what it found; decides nothing. Knows no Ray and no engine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dawnchorus import ids, ledger, tracing
from dawnchorus.assemble import account, samples
from dawnchorus.records import Chunk

_SHOWN = 20


@dataclass(slots=True)
class Reconciliation:
    """`problems`: what does not add up (the first 20 in words, `num_problems` in all). `missing`:
    recordings without a row yet. `transient`: rows that another try may mend. `num_answers`: those that were
    asked for, where LLM mode is on; `answer_failures` by kind, with a reason; `answer_flags` by name."""

    num_recordings: int = 0
    num_ok: int = 0
    num_empty: int = 0
    num_failed: int = 0
    num_partial: int = 0
    num_missing: int = 0
    num_transient: int = 0
    num_answers: int = 0
    num_failed_answers: int = 0
    num_transient_answers: int = 0
    num_missing_answers: int = 0
    num_flagged_answers: int = 0
    answer_failures: dict[str, tuple[int, str]] = field(default_factory=dict)
    answer_flags: dict[str, int] = field(default_factory=dict)
    num_problems: int = 0
    problems: list[str] = field(default_factory=list)

    def problem(self, text: str) -> None:
        """Note something that does not add up."""
        self.num_problems += 1
        if len(self.problems) < _SHOWN:
            self.problems.append(text)


@tracing.span("reconcile")
def reconcile(output: str, manifest: pa.Table, fingerprint: str, keep_old: bool = False) -> Reconciliation:
    """Compare the manifest with `transcripts/`, and those with `chunks/`.

    `keep_old`: rows of other fingerprints are accepted (and their chunks are checked as well).
    """
    found = Reconciliation(num_recordings=len(manifest))
    transcripts = ledger.read_transcripts(output)
    if transcripts is None:
        found.num_missing = len(manifest)
        return found
    wanted = manifest["recording_id"].combine_chunks()
    rows = transcripts.filter(pc.is_in(transcripts["recording_id"], value_set=wanted))
    if not keep_old:
        rows = rows.filter(pc.equal(rows["fingerprint"], fingerprint))
    _count(rows, found)
    found.num_missing = len(wanted) - len(pc.unique(rows["recording_id"]))
    _no_duplicates(rows, found)
    for print_ in pc.unique(rows["fingerprint"]).to_pylist():
        mine = rows.filter(pc.equal(rows["fingerprint"], print_))
        chunks = ledger.read_chunks(output, print_)
        for row, of_row in _with_chunks(mine, chunks):
            _check(row, of_row, found)
    return found


def _count(rows: pa.Table, found: Reconciliation) -> None:
    counts = {v["values"]: v["counts"] for v in pc.value_counts(rows["status"]).to_pylist()}
    found.num_ok, found.num_empty = counts.get("ok", 0), counts.get("empty", 0)
    found.num_failed = counts.get("failed", 0)
    transient = pc.fill_null(pc.struct_field(rows["failure"], "transient"), False)
    found.num_transient = pc.sum(transient).as_py() or 0
    partial = pc.and_(pc.equal(rows["status"], "ok"), pc.is_valid(rows["failure"]))
    found.num_partial = pc.sum(partial).as_py() or 0


def _no_duplicates(rows: pa.Table, found: Reconciliation) -> None:
    counts = pc.value_counts(rows["recording_id"])
    twice = counts.filter(pc.greater(pc.struct_field(counts, "counts"), 1))
    for entry in twice.to_pylist():
        found.problem(f"recording {entry['values']} has {entry['counts']} transcript rows")


def _with_chunks(
    rows: pa.Table, chunks: pa.Table | None
) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Each transcript row with the chunk rows of its decode, a batch of recordings at a time."""
    if chunks is None:
        yield from ((r, []) for r in rows.to_pylist())
        return
    chunks = chunks.drop_columns(["part"])
    order = chunks.append_column("row", pa.array(np.arange(len(chunks)))).sort_by(
        [("recording_id", "ascending"), ("row", "ascending")]
    )
    rows = rows.sort_by("recording_id")
    size = 2000
    for at in range(0, len(rows), size):
        batch = rows.slice(at, size)
        mine = order.filter(pc.is_in(order["recording_id"], value_set=batch["recording_id"].combine_chunks()))
        held: dict[tuple[str, str | None], list[dict[str, Any]]] = {}
        for chunk in mine.to_pylist():
            held.setdefault((chunk["recording_id"], chunk["decode_id"]), []).append(chunk)
        for row in batch.to_pylist():
            yield row, held.get((row["recording_id"], row["decode_id"]), [])


def _check(row: dict[str, Any], rows: list[dict[str, Any]], found: Reconciliation) -> None:
    """One transcript row against the committed rows it was made from."""
    name = f"recording {row['recording_id']}"
    ends = [r for r in rows if r["kind"] == "end"]
    chunks = [r for r in rows if r["kind"] == "chunk"]
    if not ends:
        if row["failure"] is None or row["failure"]["stage"] != "manifest":
            found.problem(f"{name} has a transcript, but no end row is committed")
        return
    end = ends[0]
    if end["channels"] and len(chunks) != end["num_chunks"]:
        found.problem(f"{name}: {len(chunks)} chunks are committed, its end row counts {end['num_chunks']}")
    for chunk in chunks:
        if _recomputed_id(chunk) != chunk["chunk_id"]:
            found.problem(f"{name}: chunk {chunk['chunk_index']} does not span what its id says")
    _check_samples(name, row, end, chunks, found)


def _recomputed_id(chunk: dict[str, Any]) -> str:
    rate = chunk["sampling_rate"]
    spans = (samples(chunk[k], rate) for k in ("start", "end", "input_start", "input_end"))
    return ids.chunk_id(
        chunk["recording_id"], chunk["decode_id"], Chunk(chunk["channel"], chunk["chunk_index"], *spans)
    )


def _check_samples(
    name: str, row: dict[str, Any], end: dict[str, Any], chunks: list[dict[str, Any]], found: Reconciliation
) -> None:
    accounts = account(end, chunks)
    for a in accounts:
        if not a.balanced:
            channel = "mix" if a.channel is None else a.channel
            found.problem(
                f"{name}, channel {channel}: transcribed {a.transcribed} + failed {a.failed} + "
                f"silent {a.silent} samples are not the {a.decoded} decoded"
            )
    spans = sorted((c["channel"] is not None, c["channel"] or 0, c["start"], c["end"]) for c in chunks)
    for left, right in pairwise(spans):
        if left[:2] == right[:2] and right[2] < left[3]:
            found.problem(f"{name}: chunks overlap at {right[2]:.3f} s")
    if row["coverage"] is not None and accounts:
        transcribed = sum(a.transcribed for a in accounts) / end["sampling_rate"]
        said = row["coverage"]["transcribed"]
        if abs(transcribed - said) > 1e-6:
            found.problem(f"{name}: its row says {said:.3f} s transcribed, its chunks {transcribed:.3f} s")
