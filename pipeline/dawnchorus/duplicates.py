"""Which of several committed rows about one thing counts: parts are at-least-once. Pure, columnar."""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_ROUNDING = 1e-6
"""Seconds; a sample at 48 kHz is twenty times as long."""


def first_of_each(table: pa.Table, order: Mapping[str, Any]) -> pa.Table:
    """The first row of each value of the first column of `order`, when rows are sorted by all of them;
    rows keep their places."""
    if not len(table):
        return table
    sorted_ = pa.table({**order, "row": pa.array(np.arange(len(table)))})
    sorted_ = sorted_.sort_by([(name, "ascending") for name in sorted_.column_names])
    keys = sorted_[0].combine_chunks().dictionary_encode().indices.to_numpy()
    first = np.concatenate([[True], keys[1:] != keys[:-1]])
    return table.take(pa.array(np.sort(sorted_["row"].to_numpy()[first])))


def resolve_steps(table: pa.Table) -> pa.Table:
    """One row per step of answers: not failed before failed, then the latest attempt and try. Recordings
    that say the same have the same steps: each is answered."""
    tries = pc.fill_null(pc.struct_field(table["failure"], "attempts"), 0)
    order = {
        "key": pc.binary_join_element_wise(table["recording_id"], table["step_id"], "/"),
        "failed": pc.equal(table["status"], "failed"),
        "attempt": pc.negate(table["attempt"]),
        "tries": pc.negate(tries),
    }
    return first_of_each(table, order)


def resolve(table: pa.Table) -> pa.Table:
    """One row per chunk id, and one end row per (recording, decode): the best of its duplicates, and no
    chunk that only a decode which broke off has."""
    if not len(table):
        return table
    is_end = pc.equal(table["kind"], "end")
    decode = _decode(table)
    broke = pc.and_(is_end, pc.is_valid(table["failure"]))
    reach = pc.if_else(is_end, pc.fill_null(table["num_chunks"], 0), 0)
    order = {
        "key": pc.if_else(is_end, decode, table["chunk_id"]),
        "broke": broke,
        "reach": pc.negate(reach),
        "failed": pc.equal(table["status"], "failed"),
        "attempt": pc.negate(table["attempt"]),
    }
    best = first_of_each(table, order)
    broken = table.filter(pc.and_(broke, pc.greater(reach, 0)))
    return _without_breaks(best, broken) if len(broken) else best


def _decode(table: pa.Table) -> Any:
    return pc.binary_join_element_wise(table["recording_id"], pc.fill_null(table["decode_id"], ""), "/")


def _without_breaks(best: pa.Table, broken: pa.Table) -> pa.Table:
    """`best` without chunks that overlap better ones, or begin behind the end of their decode.

    A decode that breaks off (its decoder crashed, once) cuts a chunk where it broke. Decoded again, and
    whole, the recording has others there: those of the attempt that did not break count.
    """
    breaks: dict[str, set[int]] = {}
    for decode, attempt in zip(_decode(broken).to_pylist(), broken["attempt"].to_pylist(), strict=True):
        breaks.setdefault(decode, set()).add(attempt)
    decodes = _decode(best)
    at = pa.array(np.flatnonzero(pc.is_in(decodes, value_set=pa.array(list(breaks)))))
    names = ["kind", "channel", "start", "end", "attempt", "sampling_rate", "channels", "failure"]
    doubtful = best.select(names).append_column("decode", decodes).take(at).append_column("place", at)
    found: dict[str, list[dict[str, Any]]] = {d: [] for d in breaks}
    for row in doubtful.to_pylist():
        found[row["decode"]].append(row)
    lost = [place for decode, rows in found.items() for place in _lost(rows, breaks[decode])]
    return best.take(pa.array(np.setdiff1d(np.arange(len(best)), lost)))


def _lost(rows: list[dict[str, Any]], breaks: set[int]) -> Iterator[int]:
    """Places of the chunks of one decode that do not count; it broke off in the attempts `breaks`."""
    end = next((r for r in rows if r["kind"] == "end"), None)
    stop = last = math.inf
    if end is not None:
        breaks, last = breaks - {end["attempt"]}, end["attempt"]
        if end["failure"] is not None:
            stop = max((c["decoded_samples"] for c in end["channels"]), default=0) / end["sampling_rate"]
    chunks = [r for r in rows if r["kind"] == "chunk"]
    kept: dict[int | None, list[tuple[float, float]]] = {}

    def doubt(row: dict[str, Any]) -> bool:
        """Whether the end that counts cannot mean this chunk: it came later, or reaches beyond it."""
        return row["attempt"] in breaks or row["attempt"] > last or row["end"] > stop + _ROUNDING

    for row in sorted(chunks, key=lambda r: (doubt(r), r["start"], -r["end"])):
        spans = kept.setdefault(row["channel"], [])
        i = bisect(spans, (row["start"], math.inf))
        before, after = spans[max(0, i - 1) : i], spans[i : i + 1]
        overlaps = any(e > row["start"] for _, e in before) or any(s < row["end"] for s, _ in after)
        if overlaps or row["start"] >= stop:
            yield row["place"]
        else:
            spans.insert(i, (row["start"], row["end"]))
