"""`ask` before anything is asked: what it takes from the newest run, what it is told, what it refuses."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dawnchorus.answers import Answered
from dawnchorus.cli import app
from dawnchorus.errors import ConfigError, UserError
from dawnchorus.interview import prepare
from dawnchorus.terminal import answers_line
from outputs import save_run, segment, transcript, write

ROWS = [transcript(f"s3://in/{i}.mp3", segment(0.0, 60.0, "they talk")) for i in range(3)]


def output(folder: Path, **llm: Any) -> Path:
    write(folder, "transcripts", ROWS)
    save_run(folder, ROWS, engine={"name": "fake", "options": {"context_tokens": 3000}}, llm=llm)
    return folder


def asked(folder: Path, *overrides: str, **given: Any) -> dict[str, tuple[int, str | None]]:
    found = prepare(str(folder), overrides, **given).job.asked
    return {p.name: (p.max_tokens, p.question) for p in found.prompts}


def test_what_the_newest_run_says_unless_told_otherwise(tmp_path: Path) -> None:
    output(tmp_path, prompts={"summary": {"max_tokens": 77}, "mine": {"template": "say {transcript}"}})
    assert asked(tmp_path) == {"summary": (77, None), "mine": (300, None)}
    assert asked(tmp_path, names=["summary"]) == {"summary": (77, None)}
    assert asked(tmp_path, "llm.prompts.summary.max_tokens=9", names=["summary", "topics"]) == {
        "summary": (9, None),
        "topics": (500, None),
    }
    assert list(asked(tmp_path, question="Who?").values()) == [(300, "Who?")]
    assert asked(tmp_path, names=["qa"], question="Who?") == {"qa": (300, "Who?")}
    assert prepare(str(tmp_path)).job.asked.engine.options == {"context_tokens": 3000}


def test_a_question_beside_a_prompt_is_asked_too(tmp_path: Path) -> None:
    """It was the summary's label, and never asked."""
    output(tmp_path)
    found = asked(tmp_path, names=["summary"], question="Who?")
    assert [(q, n.startswith("qa-")) for n, (_, q) in found.items()] == [(None, False), ("Who?", True)]
    found = asked(tmp_path, names=["summary", "qa"], question="Who?")
    assert found == {"summary": (300, None), "qa": (300, "Who?")}


def test_what_the_run_tried_again_is_not_tried_again_by_every_ask(tmp_path: Path) -> None:
    write(tmp_path, "transcripts", ROWS)
    save_run(tmp_path, ROWS, engine={"name": "fake"}, resume={"retry_failed": []})
    assert prepare(str(tmp_path)).job.resume.retry_failed is None
    assert prepare(str(tmp_path), given={"resume.retry_failed": []}).job.resume.retry_failed == []


def test_a_summary_where_nothing_was_ever_asked(tmp_path: Path) -> None:
    assert asked(output(tmp_path)) == {"summary": (300, None)}


def test_another_engine_takes_no_settings_of_the_first(tmp_path: Path) -> None:
    output(tmp_path, engine="hf", model="some/model", dtype="float32")
    engine = prepare(str(tmp_path), given={"llm.engine": "fake"}).job.asked.engine
    assert (engine.name, engine.model, engine.dtype) == ("fake", None, "auto")


def test_another_model_takes_no_revision_of_the_first(tmp_path: Path) -> None:
    output(
        tmp_path,
        engine="fake",
        model="org/a",
        revision="aaaa",
        options={"context_tokens": 99},
        dtype="float32",
    )
    same = prepare(str(tmp_path), given={"llm.model": "org/a"}).config.llm
    assert (same.revision, same.options) == ("aaaa", {"context_tokens": 99})
    other = prepare(str(tmp_path), given={"llm.model": "org/b"}).config.llm
    assert (other.model, other.revision, other.options, other.dtype) == ("org/b", None, {}, "float32")


def test_some_of_the_transcripts(tmp_path: Path) -> None:
    output(tmp_path)
    ids = [r["recording_id"] for r in ROWS]
    for given, wanted in (
        ({"limit": 2}, ids[:2]),
        ({"recording": "in/1"}, ids[1:2]),
        ({"recording": ids[2]}, ids[2:]),
    ):
        chosen = prepare(str(tmp_path), **given).job.recordings
        assert chosen is not None
        assert chosen.to_pylist() == wanted
    with pytest.raises(UserError, match="No transcript"):
        prepare(str(tmp_path), recording="nobody")


def test_a_plan_says_what_there_is_to_do_and_writes_nothing(tmp_path: Path) -> None:
    output(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    done = CliRunner().invoke(app, ["ask", str(tmp_path), "--plan", "-p", "summary", "-p", "topics"])
    assert done.exit_code == 0
    said = dict(line.split(None, 1) for line in done.output.splitlines() if line.strip())
    assert said["prompts"].strip() == "summary, topics"
    assert "6 answers" in done.output
    assert "6 min of speech, about 1,224 tokens" in done.output
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-p", "sumary"], "There is no prompt named 'sumary'"),
        (["--engine", "whisper"], "--engine hf --model Qwen/Qwen3-1.7B"),
        (["llm.promts=[]"], "there is no key"),
        (["-p", "qa"], "needs a question"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence(tmp_path: Path, words: list[str], said: str) -> None:
    done = CliRunner().invoke(app, ["ask", str(output(tmp_path)), *words])
    assert done.exit_code == 2
    assert said in done.output
    assert "Traceback" not in done.output


def test_an_output_without_transcripts_is_refused(tmp_path: Path) -> None:
    with pytest.raises((UserError, ConfigError)):
        prepare(str(tmp_path))


def test_a_prompt_of_ones_own_as_the_readme_has_it(tmp_path: Path) -> None:
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    (line,) = [x for x in text.splitlines() if x.startswith("dawnchorus ask") and "template" in x]
    words = shlex.split(line)[3:]
    given = [w for w in words if "=" in w]
    (prompt,) = prepare(str(output(tmp_path)), given, names=["mood"]).job.asked.prompts
    assert prompt.whole("they talk") == "In one word, how do they feel?\n\nthey talk"


def test_the_live_line() -> None:
    line = answers_line(40, Answered(num_steps=14, num_answers=10, num_failed=1, num_tokens=630), 20.0).plain
    assert line.startswith("█████░")
    assert "10 of 40 answers  31.5 tokens/s  ETA 60 s, 1 failed" in line
    assert "starting" in answers_line(3, Answered(), 0.0).plain
    assert "4 notes on long ones" in answers_line(3, Answered(num_steps=4), 9.0).plain


def test_an_output_without_speech_has_nothing_to_ask_about(tmp_path: Path) -> None:
    rows = [transcript("s3://in/a.mp3", status="empty", pred_text="")]
    write(tmp_path, "transcripts", rows)
    save_run(tmp_path, rows, engine={"name": "fake"})
    with pytest.raises(UserError, match=r"No transcript of .* is ok"):
        prepare(str(tmp_path), limit=2)
