"""A run with a deadline that it cannot keep."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from kit import archive
from runner import Runner


def test_a_run_that_is_late_says_so_once(runner: Runner, tmp_path: Path) -> None:
    told = tmp_path / "told.jsonl"
    keep = f"import sys; open({str(told)!r}, 'a').write(sys.stdin.read() + '\\n')"
    command = [sys.executable, "-c", keep]
    audio = archive(tmp_path / "audio", [4.0, 3.0], seed=61)
    runner(audio, notify__command=command, notify__deadline="2026-01-31T07:00+01:00", options={})
    news = [json.loads(line) for line in told.read_text().splitlines()]
    assert [n["event"] for n in news] == ["late", "done"]
    assert "It will miss its deadline" in news[0]["message"]
