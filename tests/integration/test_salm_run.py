"""The flagship's road from audio files to Parquet and answers, on a SALM small enough to understand here."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from kit import Command, transcripts

if importlib.util.find_spec("nemo") is None:
    pytest.skip("needs the nemo extra", allow_module_level=True)

TINY = Path(__file__).parents[1] / "tiny_salm"
ENDS = {"template": "Summarize the following transcript:\n\n{transcript}", "max_tokens": 16}
"""What the tiny model was taught: the first and the last word."""


@pytest.mark.slow
def test_unseen_voices_end_as_right_words_and_right_answers(tmp_path: Path) -> None:
    settings = {"engine.model": str(TINY / "checkpoint"), "llm.prompts": {"ends": ENDS}}
    mine = Command(
        str(TINY / "clips" / "manifest.jsonl"),
        tmp_path / "out",
        settings,
        env={"HF_HUB_OFFLINE": "1"},
        engine="salm",
    )
    said = mine.run()
    rows = transcripts(mine.output).to_pylist()
    lines = (TINY / "clips" / "manifest.jsonl").read_text().splitlines()
    assert [r["text"] for r in rows] == [json.loads(line)["text"] for line in lines]
    assert {r["status"] for r in rows} == {"ok"}
    [report] = mine.output.glob("_runs/*/report.json")
    found = json.loads(report.read_text())
    assert found["wer"]["wer"] < 0.05
    for row in rows:
        [answer] = row["answers"]
        assert (answer["name"], answer["status"], answer["finish_reason"]) == ("ends", "ok", "stop")
    ends = [f"{words[0]} {words[-1]}" for words in (r["pred_text"].split() for r in rows)]
    right = sum(r["answers"][0]["text"] == expected for r, expected in zip(rows, ends, strict=True))
    assert right >= len(rows) - 1, "the adapter is off when it answers"
    assert "26 ok, 0 failed" in said

    [part] = (mine.output / "transcripts").glob("*.parquet")
    metadata = pq.read_schema(part).metadata
    assert b"dawnchorus.licence" in metadata
    again = mine.run()
    assert "already done  26" in again
