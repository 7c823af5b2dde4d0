"""What a run that was taken over still writes."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

import outputs
from dawnchorus import answers, config, publishing
from dawnchorus.attempt import Attempt
from dawnchorus.errors import Fenced
from dawnchorus.fence import Fence
from dawnchorus.placement import Node, share_out
from dawnchorus.prepare import Prepared, prepare, survey
from dawnchorus.schema import ANSWERS


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
