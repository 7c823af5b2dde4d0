"""What a run that was taken over still writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import outputs
from dawnchorus import answers, config, duplicates, ledger, publishing
from dawnchorus.assemble import RunFacts, assemble
from dawnchorus.attempt import Attempt
from dawnchorus.errors import Fenced
from dawnchorus.fence import Fence
from dawnchorus.placement import Node, share_out
from dawnchorus.prepare import Prepared, prepare, survey
from dawnchorus.schema import ANSWERS
from tables import PRINT, chunk, chunks, end, failure, manifest, recording, transcripts


def taken_over(folder: Path) -> tuple[Prepared, int]:
    """A run over a recording and a line that nobody can read, and the epoch that it had."""
    (folder / "list.jsonl").write_text('{"audio_filepath": "a.wav", "text": "a secret"}\n{\n')
    tree = {"input": f"{folder}/list.jsonl", "output": f"{folder}/out", "engine": {"name": "fake"}}
    prepared = prepare(config.build(tree | {"manifest": {"max_bad_share": 0.6}}))
    mine = Fence(prepared.output, prepared.facts.run_id).acquire()
    prepared.save()
    Fence(prepared.output, "forget").acquire(take_over=True)
    return prepared, mine


def test_who_was_taken_over_plans_nothing_more(tmp_path: Path) -> None:
    """Plans hold addresses and references: what was forgotten meanwhile would be back."""
    prepared, mine = taken_over(tmp_path)
    use = share_out(prepared.config, [Node(4.0)])
    with pytest.raises(Fenced):
        Attempt(prepared, survey(prepared), mine, use, str(tmp_path))
    with pytest.raises(Fenced):
        publishing.publish(publishing.job(prepared), mine)
    row = outputs.transcript(f"{tmp_path}/a.wav", outputs.segment(0, 1, "x"))
    outputs.write(tmp_path / "out", "transcripts", [row])
    words = {f.name: "" for f in ANSWERS if pa.types.is_string(f.type)}
    said = words | {"kind": "answer", "recording_id": row["recording_id"], "status": "ok", "attempt": 1}
    outputs.write(tmp_path / "out", "answers", [said | {"flags": [], "inputs": [], "schema_version": 1}])
    with pytest.raises(Fenced):
        answers.fold(prepared.output, prepared.run_url, mine)
    assert not list(tmp_path.glob("out/_runs/*/attempts"))


def test_bad_lines_are_due_once(tmp_path: Path) -> None:
    prepared, _ = taken_over(tmp_path)
    job = publishing.job(prepared)
    epoch = Fence(prepared.output, "assemble").acquire(take_over=True)
    assert [publishing.publish(job, epoch) for _ in range(2)] == [1, 0]


def test_what_was_mended_beside_what_stays_broken_is_due() -> None:
    """A decoder crashed, finally; a chunk before that was out of memory, and now is not."""
    heard, crash = recording("a"), failure("crash", False, stage="decode")
    first = chunk(heard, 0, 0, 5)
    short = chunk(heard, 1, 5, 10, status="failed", segments=[], failure=failure("out_of_memory", True))
    mended = chunk(heard, 1, 5, 10, attempt=2)
    ends = [end(heard, [first, short], 10.0, failure=crash, attempt=n) for n in (1, 2)]

    def settled(*rows: dict[str, Any]) -> pa.Table:
        return ledger.settle(duplicates.resolve(chunks(*rows)))

    row = assemble(heard, ends[0], [first, short], RunFacts("e", "m", "r", "run", PRINT))
    assert row["failure"]["transient"]
    published, listed = transcripts(row), manifest(heard)
    before, after = settled(first, short, ends[0]), settled(first, short, mended, *ends)
    assert publishing.due(before, published, listed, PRINT).to_pylist() == []
    assert publishing.due(after, published, listed, PRINT).to_pylist() == [heard["recording_id"]]
