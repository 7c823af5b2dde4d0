"""LLM mode end to end, with the fake language model: asked once, kept, folded, and said when it failed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from dawnchorus.run import Exit
from kit import archive, transcripts
from runner import Runner


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = archive(tmp_path_factory.mktemp("audio"), [9.0, 5.0, 14.0], seed=31)
    (folder / "letter.mp3").write_text("this is a letter, not a recording")
    return folder


def heard(runner: Runner) -> list[dict[str, Any]]:
    return [c for c in runner.calls() if "num_samples" in c]


def asked(runner: Runner) -> list[dict[str, Any]]:
    return [c for c in runner.calls() if "num_prompt_characters" in c]


def answer_rows(output: Path) -> list[dict[str, Any]]:
    return [r for p in sorted((output / "answers").glob("part-*.parquet")) for r in pq.read_table(p).to_pylist()]


def folded(output: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Answers by recording and name."""
    return {
        r["audio_filepath"].rpartition("/")[2]: {a["name"]: a for a in r["answers"]}
        for r in transcripts(output).to_pylist()
    }


def test_a_run_answers_what_it_transcribed_and_no_more_the_second_time(runner: Runner, audio: Path) -> None:
    outcome = runner(audio, llm__prompts=["summary"])
    assert outcome.exit is Exit.OK, outcome.message
    assert ("answers", "3: 3 ok, 0 failed") in outcome.rows()
    found = folded(runner.output)
    assert {n: list(a) for n, a in found.items()} == {
        "000.flac": ["summary"],
        "001.flac": ["summary"],
        "002.flac": ["summary"],
        "letter.mp3": [],
    }
    hashes = {c["hash"] for c in asked(runner)}
    assert {a["summary"]["text"] for a in found.values() if a} == {f"answer {h}" for h in hashes}
    assert len(asked(runner)) == 3
    rows = answer_rows(runner.output)
    assert {(r["kind"], r["status"], r["engine"], r["num_tokens"]) for r in rows} == {("answer", "ok", "fake", 2)}
    before = {p: p.stat().st_mtime_ns for p in runner.output.rglob("*.parquet") if "_runs" not in p.parts}
    assert runner(audio, llm__prompts=["summary"]).exit is Exit.OK
    assert len(asked(runner)) == 3
    after = {p: p.stat().st_mtime_ns for p in runner.output.rglob("*.parquet") if "_runs" not in p.parts}
    assert after == before
