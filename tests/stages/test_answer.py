"""LLM mode's stages alone: which steps Cut finds, what the Answerer makes of them, how answers are folded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dawnchorus import answers, config, fence, ids, ledger, llm, plan, schema
from dawnchorus.answers import Job
from dawnchorus.config import ResumeConfig
from dawnchorus.engines.fake import prompt_hash
from dawnchorus.errors import EngineUnavailable
from dawnchorus.sink import AnswerSink
from dawnchorus.stages.answer import Answerer, AnswerSettings, Cut
from dawnchorus.stages.publish import fold, keep_answers
from outputs import RUN_ID, failed, segment, transcript, write

SHORT = transcript("s3://in/a.mp3", segment(0.0, 3.0, "the lamps cost ten"))
OTHER = transcript("s3://in/b.mp3", segment(0.0, 3.0, "nothing to say"))


def asked(**settings: Any) -> llm.Asked:
    given = {"input": "i", "output": "o", "engine.name": "fake", "llm.prompts": ["summary"]}
    found = llm.asked(config.build({}, (), given | {k.replace("__", "."): v for k, v in settings.items()}))
    assert found is not None
    return found


def job(folder: Path, of: llm.Asked | None = None, **more: Any) -> Job:
    return Job(str(folder), str(folder / "_runs" / RUN_ID), RUN_ID, of or asked(), ResumeConfig(), **more)


def cut(folder: Path, of: Job) -> list[dict[str, Any]]:
    rows = answers.survey(of).rows
    if not len(rows):
        return []
    homes = plan.write_snapshot(rows, "home", str(folder / "plan"))
    act = Cut(homes, of.output, of.asked, 3, None)
    tables = [t for home in range(homes.num_groups) for t in act(pa.table({"id": [home]}))]
    assert all(t.schema.equals(schema.STEPS) for t in tables)
    return [r for t in tables for r in t.to_pylist()]


def answerer(folder: Path, of: llm.Asked, attempt: int = 1) -> Answerer:
    return Answerer(AnswerSettings(of, RUN_ID, attempt, str(folder / "notes")))


def test_steps_of_what_was_said_and_only_of_that(tmp_path: Path) -> None:
    write(tmp_path, "transcripts", [SHORT, failed("s3://in/x.mp3", "not_audio", "A letter.")])
    write(tmp_path, "transcripts", [OTHER], "part-1")
    both = asked(llm__prompts=["summary", "topics"])
    steps = cut(tmp_path, job(tmp_path, both))
    assert sorted((s["recording_id"], s["name"]) for s in steps) == sorted(
        (r["recording_id"], n) for r in (SHORT, OTHER) for n in ("summary", "topics")
    )
    assert {s["kind"] for s in steps} == {"answer"}
    one = job(tmp_path, both, recordings=pa.array([OTHER["recording_id"]]))
    assert {s["recording_id"] for s in cut(tmp_path, one)} == {OTHER["recording_id"]}
    assert cut(tmp_path, job(tmp_path, both, fingerprint="other")) == []


def test_a_window_comes_back_row_for_row_and_is_not_asked_again(tmp_path: Path) -> None:
    write(tmp_path, "transcripts", [SHORT, OTHER])
    of = job(tmp_path)
    steps = cut(tmp_path, of)
    made = answerer(tmp_path, of.asked)(pa.Table.from_pylist(steps, schema=schema.STEPS))
    assert made.schema.equals(schema.ANSWERS)
    rows = made.to_pylist()
    assert [r["step_id"] for r in rows] == [s["step_id"] for s in steps]
    assert [r["text"] for r in rows] == [f"answer {prompt_hash(s['prompt'])}" for s in steps]
    assert {(r["run_id"], r["attempt"], r["model"], r["status"]) for r in rows} == {(RUN_ID, 1, "fake", "ok")}
    write(tmp_path, "answers", rows[:1])
    left = cut(tmp_path, of)
    assert [s["step_id"] for s in left] == [steps[1]["step_id"]]
    empty = answerer(tmp_path, of.asked)(schema.STEPS.empty_table())
    assert (len(empty), empty.schema) == (0, schema.ANSWERS)


def test_what_has_failed_already_passes_through_unasked(tmp_path: Path) -> None:
    long = transcript("s3://in/a.mp3", *(segment(i, i + 1.0, f"word{i} " * 9) for i in range(90)))
    write(tmp_path, "transcripts", [long])
    small = asked(engine__options={"context_tokens": 90, "log": str(tmp_path / "log")})
    [step] = cut(tmp_path, job(tmp_path, small))
    [row] = answerer(tmp_path, small)(pa.Table.from_pylist([step], schema=schema.STEPS)).to_pylist()
    assert (row["status"], row["failure"]["kind"], row["finish_reason"]) == ("failed", "too_long", "error")
    assert not (tmp_path / "log").exists()
    write(tmp_path, "answers", [row])
    assert cut(tmp_path, job(tmp_path, small)) == []


def test_a_prompt_that_ends_the_process_is_given_up(tmp_path: Path) -> None:
    write(tmp_path, "transcripts", [SHORT, OTHER])
    steps = cut(tmp_path, job(tmp_path))
    names = [s["step_id"] for s in steps]
    act = answerer(tmp_path, asked())
    (tmp_path / "notes" / ids.part_id("window", names)).write_bytes(b"x")
    (tmp_path / "notes" / names[0]).write_bytes(b"xx")
    rows = act(pa.Table.from_pylist(steps, schema=schema.STEPS)).to_pylist()
    assert [r["status"] for r in rows] == ["failed", "ok"]
    assert (rows[0]["failure"]["kind"], rows[0]["failure"]["stage"]) == ("crash", "answer")


def test_saying_nothing_is_no_answer(tmp_path: Path) -> None:
    (tmp_path / "script").write_text('{"say": {"lamps": ""}}')
    write(tmp_path, "transcripts", [SHORT])
    of = asked(engine__options={"script": str(tmp_path / "script")})
    steps = cut(tmp_path, job(tmp_path, of))
    [row] = answerer(tmp_path, of)(pa.Table.from_pylist(steps, schema=schema.STEPS)).to_pylist()
    assert (row["status"], row["failure"]["kind"]) == ("failed", "empty_answer")


def committed(of: dict[str, Any], name: str = "summary", **more: Any) -> dict[str, Any]:
    row = {
        "kind": "answer",
        "recording_id": of["recording_id"],
        "transcript_hash": ids.transcript_hash(of["segments"]),
        "name": name,
        "answer_fingerprint": "new",
        "step_id": f"{of['recording_id']}{name}{more}",
        "flags": [],
        "text": "said",
        "finish_reason": "stop",
        "status": "ok",
        "attempt": 1,
    }
    return {**row, **more}


@pytest.fixture
def owner(tmp_path: Path) -> int:
    return fence.Fence(str(tmp_path), "t").acquire()


def test_answers_are_folded_once_and_only_into_what_they_are_about(tmp_path: Path, owner: int) -> None:
    write(tmp_path, "transcripts", [SHORT, OTHER])
    stale = committed(OTHER, transcript_hash="of another transcript", text="stale")
    write(tmp_path, "answers", [committed(SHORT), committed(SHORT, kind="piece", text="a note"), stale])
    run = str(tmp_path / "_runs" / "r")
    assert answers.fold(str(tmp_path), run, owner) == 1
    rows = pq.read_table(tmp_path / "transcripts" / "part-0.parquet").to_pylist()
    assert [[a["text"] for a in r["answers"]] for r in rows] == [["said"], []]
    before = (tmp_path / "transcripts" / "part-0.parquet").stat().st_mtime_ns
    assert answers.fold(str(tmp_path), run, owner) == 0
    assert (tmp_path / "transcripts" / "part-0.parquet").stat().st_mtime_ns == before


def test_recordings_that_say_the_same_are_each_answered(tmp_path: Path, owner: int) -> None:
    """Their steps have the same ids: one was asked again and again, and never answered."""
    twins = [transcript(f"s3://in/{n}.mp3", segment(0.0, 3.0, "Yes.")) for n in range(3)]
    write(tmp_path, "transcripts", twins)
    of = job(tmp_path)
    asks = answerer(tmp_path, of.asked)
    sink = AnswerSink(str(tmp_path), owner, "answers", of.asked.metadata())
    steps = cut(tmp_path, of)
    assert len({s["step_id"] for s in steps}) == 1
    for step in steps:  # a window each
        sink.write([asks(pa.Table.from_pylist([step], schema=schema.STEPS))], None)
    assert len(list((tmp_path / "answers").glob("part-*.parquet"))) == 3
    assert cut(tmp_path, of) == []
    assert answers.fold(str(tmp_path), of.run_url, owner) == 3
    rows = pq.read_table(tmp_path / "transcripts" / "part-0.parquet").to_pylist()
    assert [len(r["answers"]) for r in rows] == [1, 1, 1]
    assert not len(answers.survey(of).rows)


def test_a_home_file_of_an_older_version_takes_answers_and_keeps_its_metadata(
    tmp_path: Path, owner: int
) -> None:
    old = pa.struct(
        [(n, pa.string()) for n in ("name", "text", "json", "finish_reason", "status", "fingerprint")]
    )
    at = schema.TRANSCRIPTS.get_field_index("answers")
    older = schema.TRANSCRIPTS.set(at, pa.field("answers", pa.list_(old))).with_metadata(
        {"dawnchorus.licence": "L"}
    )
    (tmp_path / "transcripts").mkdir()
    pq.write_table(pa.Table.from_pylist([SHORT], schema=older), tmp_path / "transcripts" / "part-0.parquet")
    assert ledger.read_folded(str(tmp_path)) is not None
    of = asked()
    write(tmp_path, "answers", [committed(SHORT, answer_fingerprint=of.fingerprints["summary"])])
    wanted = answers.stage_fold(str(tmp_path), str(tmp_path / "_runs" / "r"), owner, [of])
    assert wanted is not None
    assert answers.fold_staged(*wanted) == 1
    table = pq.read_table(tmp_path / "transcripts" / "part-0.parquet")
    assert table["answers"].to_pylist()[0][0]["text"] == "said"
    assert {b"dawnchorus.licence", b"dawnchorus.llm.model"} <= set(table.schema.metadata)


def test_the_wanted_answer_counts_else_the_latest() -> None:
    a1, b2 = (
        committed(SHORT, answer_fingerprint="a", attempt=1),
        committed(SHORT, answer_fingerprint="b", attempt=2),
    )
    assert fold([], [a1, b2], {"summary": "a"})[0]["fingerprint"] == "a"
    assert fold([], [a1, b2], {})[0]["fingerprint"] == "b"
    assert fold([], [a1, b2], {"summary": "c"})[0]["fingerprint"] == "b"
    bad = committed(SHORT, answer_fingerprint="a", attempt=3, status="failed")
    assert fold([], [a1, bad], {"summary": "a"})[0]["status"] == "ok"
    other = {"name": "mine", "text": "stays", "fingerprint": "m"}
    assert [x["name"] for x in fold([other], [a1], {})] == ["mine", "summary"]


def test_a_transcript_made_anew_keeps_its_answers_while_it_says_the_same() -> None:
    answer = {"name": "summary", "text": "said", "status": "ok"}
    old = pa.Table.from_pylist(
        [{**SHORT, "answers": [answer]}, {**OTHER, "answers": [answer]}], schema=schema.TRANSCRIPTS
    )
    changed = transcript("s3://in/b.mp3", segment(0.0, 3.0, "something else"))
    new = pa.Table.from_pylist([SHORT, changed], schema=schema.TRANSCRIPTS)
    assert [len(r) for r in keep_answers(old, new)["answers"].to_pylist()] == [1, 0]


def test_what_is_done_is_known_from_the_rows(tmp_path: Path) -> None:
    of = job(tmp_path)
    mine = of.asked.fingerprints["summary"]
    why = {"stage": "answer", "kind": "memory", "message": "m", "transient": True, "attempts": 2}
    ok = {"name": "summary", "status": "ok", "fingerprint": mine}
    rows = [
        transcript("s3://in/0", segment(0, 1, "a"), answers=[ok]),
        transcript("s3://in/1", segment(0, 1, "a"), answers=[{**ok, "fingerprint": "older"}]),
        transcript("s3://in/2", segment(0, 1, "a"), answers=[{**ok, "status": "failed", "failure": why}]),
        transcript(
            "s3://in/3",
            segment(0, 1, "a"),
            answers=[{**ok, "status": "failed", "failure": {**why, "attempts": 3}}],
        ),
    ]
    write(tmp_path, "transcripts", rows)
    left = answers.survey(of)
    assert set(left.rows["recording_id"].to_pylist()) == {rows[i]["recording_id"] for i in (1, 2)}
    assert (left.num_transcripts, left.num_done, left.num_failed, left.num_transient, left.num_left) == (
        4,
        2,
        2,
        2,
        2,
    )


def test_a_node_with_another_model_answers_nothing(tmp_path: Path) -> None:
    """Its answers would bear the fingerprint of the model that was asked for."""
    other = replace(asked(), weights="0" * 64)
    with pytest.raises(EngineUnavailable, match="is not the one that this run began with"):
        answerer(tmp_path, other)(pa.table({}))
