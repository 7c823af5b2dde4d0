"""Units, homes and what is pending: arithmetic over columns."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from dawnchorus import plan
from dawnchorus.config import PublishConfig, ResumeConfig
from tables import PRINT, failure, manifest, recording, transcripts

NOBODY = pa.array([], pa.string())


def units(rows: pa.Table, unit_seconds: float, alone: pa.Array = NOBODY) -> list[int]:
    return plan.assign_units(rows, plan.estimated_seconds(rows), unit_seconds, alone).tolist()


def row(name: str, **columns: object) -> dict[str, object]:
    return {**dict.fromkeys(transcripts().column_names), **recording(name), "fingerprint": PRINT, **columns}


def transcript_table(*rows: dict[str, object]) -> pa.Table:
    schema = transcripts().schema
    return pa.Table.from_pylist([{k: r.get(k) for k in schema.names} for r in rows], schema=schema)


def test_short_recordings_fill_units_in_manifest_order() -> None:
    rows = manifest(*(recording(str(i), claimed_duration=10.0) for i in range(9)))
    assert units(rows, 30.0) == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_long_recordings_start_first_and_alone() -> None:
    rows = manifest(*(recording(str(i), claimed_duration=d) for i, d in enumerate([5, 100, 5, 300, 5])))
    assert units(rows, 30.0) == [2, 1, 2, 0, 2]


def test_slices_of_one_object_share_a_unit() -> None:
    same = [
        recording("x") | {"recording_id": str(i), "offset": float(i), "duration": 10.0} for i in range(50)
    ]
    other = recording("y", claimed_duration=1.0)
    numbers = units(manifest(*same[:25], other, *same[25:]), 30.0)
    assert len(set(numbers[:25] + numbers[26:])) == 1
    assert numbers[25] != numbers[0]


def test_suspects_get_a_unit_each() -> None:
    rows = manifest(*(recording(str(i), claimed_duration=1.0) for i in range(6)))
    suspects = rows["recording_id"].take(pa.array([1, 4])).combine_chunks()
    numbers = units(rows, 30.0, suspects)
    assert numbers[1] != numbers[4]
    assert numbers.count(numbers[1]) == 1
    assert numbers.count(numbers[0]) == 4


def test_the_snapshot_gives_each_unit_back_alone(tmp_path: Path) -> None:
    rows = manifest(*(recording(f"{i:04d}", claimed_duration=10.0) for i in range(1000)))
    numbers = plan.assign_units(rows, plan.estimated_seconds(rows), 30.0, NOBODY)
    tries = {rows["recording_id"][0].as_py(): 2}
    committed = {rows["recording_id"][0].as_py(): ["c1", "c2"]}
    snapshot = plan.write_snapshot(plan.unit_rows(rows, numbers, tries, committed), "unit", str(tmp_path))
    assert snapshot.num_groups == 334
    assert len(list(tmp_path.iterdir())) == 2, "row groups are spread over few files"
    back = [snapshot.read(i) for i in range(snapshot.num_groups)]
    assert [b["unit"].unique().to_pylist() for b in back] == [[i] for i in range(334)]
    assert sum(len(b) for b in back) == 1000
    first = back[0].to_pylist()[0]
    assert (first["attempts"], first["committed_chunk_ids"]) == (2, ["c1", "c2"])


def test_an_unknown_length_is_estimated_from_the_size_then_from_the_others() -> None:
    rows = manifest(
        recording("a", claimed_duration=20.0),
        recording("b") | {"audio_filepath": "file:///b.MP3", "size_bytes": 80_000},
        recording("c"),
    )
    assert plan.estimated_seconds(rows).tolist() == [20.0, 10.0, 15.0]
    assert plan.estimated_seconds(manifest(recording("c"))).tolist() == [plan.UNKNOWN_SECONDS]


def test_done_is_every_final_row_of_this_fingerprint() -> None:
    table = transcript_table(
        row("ok", status="ok"),
        row("empty", status="empty"),
        row("gone", status="failed", failure=failure("not_found", False)),
        row("net", status="failed", failure=failure("network", True, attempts=1)),
        row("tired", status="failed", failure=failure("network", True, attempts=3)),
        row("old", status="ok", fingerprint="other"),
    )
    ids = {n: recording(n)["recording_id"] for n in ("ok", "empty", "gone", "net", "tired", "old")}

    def names(**settings: object) -> set[str]:
        done = plan.done(table, PRINT, ResumeConfig.model_validate(settings)).to_pylist()
        return {n for n, i in ids.items() if i in done}

    assert names() == {"ok", "empty", "gone", "tired"}
    assert names(other_fingerprint="keep-old") == {"ok", "empty", "gone", "tired", "old"}
    assert names(retry_failed=[]) == {"ok", "empty"}
    assert names(retry_failed=["not_found"]) == {"ok", "empty", "tired"}


def test_pending_leaves_out_bad_lines_and_what_is_settled() -> None:
    bad = recording("bad", failure=failure("invalid_json", False, stage="manifest"))
    rows = manifest(recording("a"), recording("b"), bad, recording("c"))
    ids = rows["recording_id"].combine_chunks()
    left = plan.pending(rows, ids.slice(0, 1), ids.slice(1, 1))
    assert left["recording_id"].to_pylist() == [ids[3].as_py()]


def test_a_recording_stays_in_the_file_that_holds_it() -> None:
    rows = manifest(*(recording(str(i), claimed_duration=10.0) for i in range(6)))
    seconds = plan.estimated_seconds(rows)
    publish = PublishConfig(recordings_per_file=2)
    fresh = plan.assign_homes(rows, seconds, None, "r1", publish).to_pylist()
    assert fresh == [f"part-r1-0000{i}.parquet" for i in (0, 0, 1, 1, 2, 2)]
    held = pa.table({"recording_id": rows["recording_id"].slice(3, 1), "home": ["part-r0-00007.parquet"]})
    moved = plan.assign_homes(rows, seconds, held, "r1", publish).to_pylist()
    assert moved == [*fresh[:3], "part-r0-00007.parquet", *fresh[4:]]


def test_home_rows_keep_manifest_order_and_name_the_parts() -> None:
    rows = manifest(*(recording(str(i)) for i in range(4)))
    homes = pa.chunked_array([["h2", "h1", "h2", "h1"]])
    ids = rows["recording_id"].to_pylist()
    parts = pa.table({"recording_id": [ids[0], ids[0], ids[2]], "part": ["p1", "p2", "p2"]})
    made = plan.home_rows(rows, homes, pa.array([ids[0], ids[2]]), parts).to_pylist()
    assert [(r["home"], r["recording_id"], r["publish"]) for r in made] == [
        ("h2", ids[0], True),
        ("h2", ids[2], True),
    ]
    assert [sorted(r["parts"]) for r in made] == [["p1", "p2"], ["p2"]]


@pytest.mark.slow
def test_more_text_than_one_arrow_array_holds() -> None:
    """References or other columns of over 2 GiB in all."""
    count = 2_300
    base = manifest(recording("x")).schema
    ids = pa.array([f"id{i}" for i in range(count)])
    text = pa.chunked_array([pa.array(["x" * (1 << 20)] * 100)] * (count // 100))
    columns = {n: pa.nulls(count, base.field(n).type) for n in base.names}
    columns |= {"recording_id": ids, "audio_filepath": ids, "metadata": text}
    rows = pa.table(columns, schema=base)
    units = plan.unit_rows(rows, np.arange(count)[::-1].astype(np.int32), {}, {})
    assert units["recording_id"].to_pylist() == ids.to_pylist()[::-1]
    del units
    homes = plan.assign_homes(rows, np.full(count, 10.0), None, "r", PublishConfig())
    assert plan.home_rows(rows, homes, ids, None)["recording_id"].to_pylist() == ids.to_pylist()


@pytest.mark.slow
def test_a_million_recordings_are_a_few_arrays() -> None:
    count = 1_000_000
    ids = pa.array(np.char.add("id", np.arange(count).astype(str)))
    base = manifest(recording("x"))
    columns = {n: pa.nulls(count, base.schema.field(n).type) for n in base.column_names}
    columns |= {
        "recording_id": ids,
        "audio_filepath": ids,
        "claimed_duration": pa.array(np.full(count, 10.0)),
    }
    rows = pa.table(columns, schema=base.schema)
    began = time.perf_counter()
    numbers = plan.assign_units(rows, plan.estimated_seconds(rows), 900.0, NOBODY)
    table = plan.unit_rows(rows, numbers, {}, {})
    homes = plan.assign_homes(rows, plan.estimated_seconds(rows), None, "r", PublishConfig())
    assert len(table) == count
    assert len(homes) == count
    assert time.perf_counter() - began < 60
