"""kill -9 the driver while it asks, run the same command again: the same answers, none asked twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from kit import Command, archive, comparable, kill, transcripts, wait_for

SETTINGS = {
    "llm.prompts": ["summary", "topics"],
    "llm.window_rows": 2,
    "publish.recordings_per_file": 3,
    "engine.options": {"seconds_per_prompt": 0.15},
}


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return archive(tmp_path_factory.mktemp("audio"), [4.0] * 8, seed=51)


def steps(output: Path) -> list[dict[str, Any]]:
    return [r for p in (output / "answers").glob("part-*.parquet") for r in pq.read_table(p).to_pylist()]


def moment(name: str, out: Path) -> Callable[[], bool]:
    """When to kill."""
    if name == "asked":
        return lambda: len(list(out.glob("answers/part-*.parquet"))) >= 3
    return lambda: any(out.glob("_runs/*/attempts/*/folds/*.parquet"))


def asked(mine: Command) -> list[str]:
    return [c["hash"] for c in mine.calls() if "num_prompt_characters" in c]


def kill_and_resume(name: str, folder: Path, audio: Path) -> Command:
    mine = Command(str(audio), folder / "out", dict(SETTINGS))
    process = mine.start()
    try:
        assert wait_for(moment(name, mine.output), process)
        assert kill(process)
    finally:
        kill(process)
    rows = steps(mine.output)
    committed = {r["text"].removeprefix("answer ") for r in rows}
    heard, before = len(mine.calls()) - len(asked(mine)), len(asked(mine))
    mine.run()
    again = asked(mine)[before:]
    assert committed
    assert not committed & set(again), "a committed step was asked again"
    assert len(mine.calls()) - len(asked(mine)) == heard, "nothing was transcribed again"
    found = transcripts(mine.output).to_pylist()
    assert [[a["name"] for a in r["answers"]] for r in found] == [["summary", "topics"]] * 8
    assert {a["status"] for r in found for a in r["answers"]} == {"ok"}
    ids = [r["step_id"] for r in steps(mine.output)]
    assert len(ids) >= len(set(ids)) == 16
    return mine


@pytest.mark.slow
def test_killed_while_it_asks(tmp_path: Path, audio: Path) -> None:
    kill_and_resume("asked", tmp_path, audio)


@pytest.mark.slow
def test_killed_while_it_folds_it_has_what_an_unbroken_run_has(tmp_path: Path, audio: Path) -> None:
    hit = kill_and_resume("folded", tmp_path, audio)
    calm = Command(str(audio), tmp_path / "calm", dict(SETTINGS))
    calm.run()
    assert comparable(hit.output) == comparable(calm.output)


@pytest.mark.slow
def test_ctrl_c_while_it_asks_folds_what_is_there(tmp_path: Path, audio: Path) -> None:
    mine = Command(str(audio), tmp_path / "out", dict(SETTINGS))
    said = mine.interrupted(moment("asked", mine.output))
    assert "run the same command to go on" in said
    assert "Traceback" not in said
    answers = [a for r in transcripts(mine.output).to_pylist() for a in r["answers"]]
    assert 4 <= len(answers) < 16
    before = asked(mine)
    mine.run()
    kept = {a["text"].removeprefix("answer ") for a in answers}
    again = asked(mine)[len(before) :]
    assert not kept & set(again)
    answers = [a for r in transcripts(mine.output).to_pylist() for a in r["answers"]]
    assert again
    assert [a["status"] for a in answers] == ["ok"] * 16
