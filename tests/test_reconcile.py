"""Mutations of committed tables that reconcile must see."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dawnchorus.assemble import RunFacts, assemble
from dawnchorus.reconcile import Reconciliation, reconcile
from tables import PRINT, RATE, chunk, chunks, end, failed_end, manifest, recording, transcripts

A, B, C = recording("a"), recording("b"), recording("c")
FACTS = RunFacts("fake", "model", "rev", "run", PRINT)
Rows = list[dict[str, Any]]


def committed() -> tuple[Rows, Rows]:
    """Chunk rows and transcript rows of three recordings: spoken, silent, missing from disk."""
    mine = [chunk(A, 0, 0, 2), chunk(A, 1, 3, 4)]
    endings = {"a": end(A, mine, 10), "b": end(B, [], 5), "c": failed_end(C, "not_found", False)}
    rows = [assemble(A, endings["a"], mine, FACTS), assemble(B, endings["b"], [], FACTS)]
    rows.append(assemble(C, endings["c"], [], FACTS))
    return [*mine, *endings.values()], rows


def check(folder: Path, chunk_rows: Rows, transcript_rows: Rows) -> Reconciliation:
    for name, table in (("chunks", chunks(*chunk_rows)), ("transcripts", transcripts(*transcript_rows))):
        (folder / name).mkdir()
        pq.write_table(table, folder / name / "part-0.parquet")
    return reconcile(str(folder), manifest(A, B, C), PRINT)


def test_an_untouched_output_adds_up(tmp_path: Path) -> None:
    found = check(tmp_path, *committed())
    assert (found.num_ok, found.num_empty, found.num_failed) == (1, 1, 1)
    assert (found.num_problems, found.num_missing, found.num_transient) == (0, 0, 0), found.problems


def drop_chunk(rows: Rows) -> None:
    del rows[1]


def shift_boundary(rows: Rows) -> None:
    rows[1]["end"] += 1 / RATE


def move_chunk(rows: Rows) -> None:
    """Both ends moved: the sums still balance, the id does not."""
    rows[1]["start"] += 1.0
    rows[1]["end"] += 1.0


def miscount_silence(rows: Rows) -> None:
    rows[2]["channels"][0]["silent_samples"] += 1


def drop_end(rows: Rows) -> None:
    del rows[2]


@pytest.mark.parametrize("mutate", [drop_chunk, shift_boundary, move_chunk, miscount_silence, drop_end])
def test_a_mutated_chunks_table_is_seen(tmp_path: Path, mutate: Callable[[Rows], None]) -> None:
    rows, published = committed()
    mutate(rows)
    found = check(tmp_path, rows, published)
    assert found.num_problems >= 1
    assert A["recording_id"] in found.problems[0]


def test_a_missing_and_a_doubled_transcript_are_seen(tmp_path: Path) -> None:
    rows, published = committed()
    found = check(tmp_path, rows, [published[0], published[0], published[1]])
    assert found.num_missing == 1
    assert "2 transcript rows" in found.problems[0]


def test_rows_of_another_fingerprint_do_not_count(tmp_path: Path) -> None:
    rows, published = committed()
    found = check(tmp_path, rows, [{**r, "fingerprint": "other"} for r in published])
    assert found.num_missing == 3
    assert reconcile(str(tmp_path), manifest(A, B, C), PRINT, keep_old=True).num_missing == 0
    assert pa.types.is_string(transcripts().schema.field("fingerprint").type)
