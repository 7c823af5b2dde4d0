"""What counts as committed, which duplicate wins, and when a recording is settled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dawnchorus import duplicates, ledger
from dawnchorus.assemble import account
from tables import PRINT, chunk, chunks, end, failed_end, failure, recording

A, B = recording("a"), recording("b")


def settled(*rows: dict[str, Any]) -> dict[str, dict[str, Any]]:
    table = ledger.settle(duplicates.resolve(chunks(*rows)))
    return {r["recording_id"]: r for r in table.to_pylist()}


def test_a_recording_is_complete_with_its_end_row_and_exactly_the_chunks_it_counts() -> None:
    mine = [chunk(A, 0, 0, 1), chunk(A, 1, 2, 3)]
    assert settled(*mine, end(A, mine, 4))[A["recording_id"]]["complete"]
    assert not settled(mine[0], end(A, mine, 4))[A["recording_id"]]["complete"]
    assert settled(*mine) == {}, "chunks without an end row settle nothing"


def test_order_and_duplicates_of_rows_do_not_matter() -> None:
    mine = [chunk(A, 0, 0, 1), chunk(A, 1, 2, 3)]
    assert settled(end(A, mine, 4), mine[1], mine[0], mine[1])[A["recording_id"]]["complete"]


def test_chunks_of_different_decodes_never_meet() -> None:
    old = [chunk(A, 0, 0, 1), chunk(A, 1, 2, 3)]
    new = [chunk(A, 0, 0, 1, decode_id="d2"), chunk(A, 1, 2, 3, decode_id="d2")]
    assert not settled(old[0], new[1], end(A, old, 4))[A["recording_id"]]["complete"]
    both = settled(*old, end(A, old, 4), new[0], end(A, new, 4, decode_id="d2", attempt=2))
    assert both[A["recording_id"]]["decode_id"] == "d1", "the complete decode counts, not the later one"


def test_of_duplicates_ok_wins_over_failed_and_then_the_latest() -> None:
    failed = chunk(A, 0, 0, 1, status="failed", failure=failure("oom", True), attempt=3)
    good = [chunk(A, 0, 0, 1, attempt=1, num_tokens=1), chunk(A, 0, 0, 1, attempt=2, num_tokens=2)]
    kept = duplicates.resolve(chunks(failed, *good))
    assert kept["num_tokens"].to_pylist() == [2]


def test_a_transient_decode_failure_is_not_complete_and_counts_its_tries() -> None:
    row = settled(failed_end(A, "network", True, attempts=2))[A["recording_id"]]
    assert (row["complete"], row["transient"], row["attempts"]) == (False, True, 2)
    row = settled(failed_end(A, "not_found", False))[A["recording_id"]]
    assert (row["complete"], row["transient"]) == (True, False)


def test_a_later_good_decode_replaces_a_failed_one() -> None:
    mine = [chunk(A, 0, 0, 1, attempt=2)]
    row = settled(failed_end(A, "network", True), *mine, end(A, mine, 4, attempt=2))[A["recording_id"]]
    assert row["complete"]
    assert row["status"] == "ok"


def test_committed_ids_leave_out_what_deserves_another_try() -> None:
    good, passing = chunk(A, 0, 0, 1), chunk(A, 1, 2, 3, status="failed", failure=failure("oom", True))
    final = chunk(A, 2, 4, 5, status="failed", failure=failure("not_finite", False))
    other = chunk(B, 0, 0, 1)
    table = duplicates.resolve(chunks(good, passing, final, other))
    wanted = pa.array([A["recording_id"]])
    kept = ledger.committed_ids(table, wanted)[A["recording_id"]]
    assert sorted(kept) == sorted([good["chunk_id"], final["chunk_id"]])
    assert ledger.committed_ids(table, wanted, without_failed=True) == {A["recording_id"]: [good["chunk_id"]]}


def test_reading_back_what_was_committed(tmp_path: Path) -> None:
    assert ledger.read_chunks(str(tmp_path)) is None
    folder = tmp_path / "chunks"
    folder.mkdir()
    mine = [chunk(A, 0, 0, 1), chunk(A, 1, 2, 3)]
    pq.write_table(chunks(*mine), folder / "part-1.parquet")
    pq.write_table(chunks(end(A, mine, 4), mine[0]), folder / "part-2.parquet")
    pq.write_table(chunks(chunk(B, 0, 0, 1, fingerprint="other")), folder / "part-3.parquet")
    table = ledger.read_chunks(str(tmp_path), PRINT)
    assert table is not None
    assert len(table) == 3
    assert set(table["part"].to_pylist()) <= {"part-1.parquet", "part-2.parquet"}
    assert ledger.settle(table)["complete"].to_pylist() == [True]


# A decode that broke off, and another one of the same file


def whole(attempt: int) -> list[dict[str, Any]]:
    mine = [chunk(A, i, 10 * i, 10 * i + 9, attempt=attempt) for i in range(4)]
    return [*mine, end(A, mine, 40, attempt=attempt)]


def broken_off(attempt: int, transient: bool = False) -> list[dict[str, Any]]:
    """After 25 s, of which the last chunk is cut where it broke."""
    mine = [*(chunk(A, i, 10 * i, 10 * i + 9, attempt=attempt) for i in range(2))]
    mine.append(chunk(A, 2, 20, 25, attempt=attempt))
    return [*mine, end(A, mine, 25, attempt=attempt, failure=failure("crash", transient, stage="decode"))]


@pytest.mark.parametrize("transient", [False, True])
@pytest.mark.parametrize("tries", [(1, 2), (2, 1)])
def test_a_whole_decode_takes_nothing_from_one_that_broke_off(
    transient: bool, tries: tuple[int, int]
) -> None:
    found = chunks(*broken_off(tries[0], transient), *whole(tries[1]))
    kept = duplicates.resolve(found)
    assert sorted(kept["end"].drop_null().to_pylist()) == [9, 19, 29, 39]
    (row,) = ledger.settle(kept).to_pylist()
    assert (row["complete"], row["transient"], row["status"]) == (True, False, "ok")


def test_chunks_that_a_broken_decode_had_committed_stay_and_are_not_heard_again() -> None:
    """The second decode does not commit what the first one has."""
    *_, third, last, finish = whole(2)
    kept = duplicates.resolve(chunks(*broken_off(1), third, last, finish))
    assert sorted(kept["end"].drop_null().to_pylist()) == [9, 19, 29, 39]
    assert ledger.settle(kept)["complete"].to_pylist() == [True]


def test_of_two_decodes_that_broke_off_the_one_that_got_further_counts() -> None:
    mine = [chunk(A, 0, 0, 9, attempt=2), chunk(A, 1, 10, 12, attempt=2)]
    again = [*mine, end(A, mine, 12, attempt=2, failure=failure("crash", False, stage="decode"))]
    kept = duplicates.resolve(chunks(*broken_off(1), *again))
    assert sorted(kept["end"].drop_null().to_pylist()) == [9, 19, 25]
    assert ledger.settle(kept)["complete"].to_pylist() == [True]


def test_a_decode_that_broke_off_ends_where_it_broke() -> None:
    """A try before it got further, was stopped, and has no end row."""
    early = [chunk(A, 2, 20, 29, attempt=1), chunk(A, 3, 30, 39, attempt=1)]
    kept = duplicates.resolve(chunks(*early, *broken_off(2)))
    assert sorted(kept["end"].drop_null().to_pylist()) == [9, 19, 25]
    assert ledger.settle(kept)["complete"].to_pylist() == [True]
    assert adds_up(kept)


def test_a_decode_that_is_cut_short_changes_nothing_of_the_one_that_broke_off() -> None:
    """Tried again by --retry-failed, it had committed chunks and no end: the tables never added up again."""
    *_, third, last, _ = whole(2)
    kept = duplicates.resolve(chunks(*broken_off(1), third, last))
    assert sorted(kept["end"].drop_null().to_pylist()) == [9, 19, 25]
    assert ledger.settle(kept)["complete"].to_pylist() == [True]
    assert adds_up(kept)


def adds_up(kept: pa.Table) -> bool:
    """As `reconcile` looks at it."""
    rows = kept.to_pylist()
    [ending] = [r for r in rows if r["kind"] == "end"]
    return all(a.balanced for a in account(ending, [r for r in rows if r["kind"] == "chunk"]))


def test_what_deserves_another_try_counts_the_tries_of_every_decode() -> None:
    mine = [chunk(A, 0, 0, 1, status="failed", failure=failure("out_of_memory", True))]
    gone = [failed_end(A, "not_found", False, attempts=3, attempt=3)]
    row = settled(*mine, end(A, mine, 4), *gone)[A["recording_id"]]
    assert (row["decode_id"], row["transient"], row["attempts"]) == ("d1", True, 3)
