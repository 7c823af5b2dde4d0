"""Which recordings are meant, what a forgotten id covers, and who is asked."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

import outputs
from dawnchorus import config, forget, forgotten, ids
from dawnchorus.errors import UserError
from dawnchorus.forgotten import Tombstone
from dawnchorus.prepare import prepare, survey, without_forgotten
from dawnchorus.schema import RECORDINGS
from outputs import failed, segment, transcript

TAPE = "s3://b/tapes/tape.wav"


def archive(folder: Path) -> str:
    """Two recordings of one name, a tape in two slices that begin a blink apart, and a bad line."""
    rows = [transcript(f"s3://b/{day}/a.wav", segment(0, 1, day)) for day in ("monday", "tuesday")]
    rows += [transcript(TAPE, segment(0, 1, "x"), offset=o, duration=1.0) for o in (60.0, 60.4, 90.0)]
    rows.append(failed("", "invalid_json", "list.jsonl:7 is no JSON.", recording_id="0" * 32))
    outputs.write(folder, "transcripts", rows)
    outputs.save_run(folder, rows)
    return str(folder)


def meant(folder: Path, *names: str) -> set[str]:
    return set(forget.plan(str(folder), names).targets)


def test_names_that_fit_several_recordings_are_refused(tmp_path: Path) -> None:
    archive(tmp_path)
    with pytest.raises(UserError, match=r"fits 2 recordings: s3://b/monday/a.wav, s3://b/tuesday/a.wav"):
        meant(tmp_path, "a.wav")
    with pytest.raises(UserError, match="fits 2 slices"):
        meant(tmp_path, "tape.wav @1:00")
    with pytest.raises(UserError, match=r"No recording 'Tape'.* Near it: s3://b/tapes/tape.wav"):
        meant(tmp_path, "Tape")
    with pytest.raises(UserError, match=r"No recording 'ape.wav'"):
        meant(tmp_path, "ape.wav")
    with pytest.raises(UserError, match=r"Near it: s3://b/monday/a.wav"):
        meant(tmp_path, "s3://b/mondy/a.wav")


def test_what_names_mean(tmp_path: Path) -> None:
    archive(tmp_path)
    monday = ids.recording_id("s3://b/monday/a.wav")
    for name in ("monday/a.wav", "s3://b/monday/a.wav", "s3a://b/monday/a.wav", monday):
        assert meant(tmp_path, name) == {monday}
    late = ids.recording_id(TAPE, 90.0, 1.0)
    assert meant(tmp_path, "tapes/tape.wav @1:30") == {late}
    plan = forget.plan(str(tmp_path), [late])
    assert (plan.num_staying, plan.counts["transcripts"], plan.counts["manifests"]) == (2, 1, 1)
    slices = {ids.recording_id(TAPE, o, 1.0) for o in (60.0, 60.4, 90.0)}
    assert meant(tmp_path, "tape.wav") == slices | {ids.recording_id(TAPE)}
    whole = forget.plan(str(tmp_path), ["tape.wav"]).targets[ids.recording_id(TAPE)]
    assert str(whole) == TAPE, "though no row has the whole of it"
    assert meant(tmp_path, "0" * 32) == {"0" * 32}, "a line that nobody could read has an id as well"


def test_what_came_in_after_the_plan_goes_too(tmp_path: Path) -> None:
    slices = [transcript(TAPE, segment(0, 1, "x"), offset=o, duration=1.0) for o in (60.0, 90.0)]
    outputs.write(tmp_path, "transcripts", slices[:1])
    plan = forget.plan(str(tmp_path), [TAPE])
    outputs.write(tmp_path, "transcripts", slices, "part-1")
    assert forget.forget(plan).counts["transcripts"] == 3
    assert {t.recording_id for t in forgotten.read(plan.output)} == {
        ids.recording_id(TAPE),
        *(s["recording_id"] for s in slices),
    }


def test_an_id_covers_slices_and_bad_lines_of_its_audio() -> None:
    signed = "https://h/a.wav?X-Amz-Signature=1"
    slip = outputs.failure("conflicting_duplicate", "It was listed before.", "manifest")
    rows = [
        {"recording_id": "1" * 32, "audio_filepath": signed, "offset": 2.0},
        {"recording_id": "2" * 32, "audio_filepath": signed, "failure": slip},
        {"recording_id": "3" * 32, "audio_filepath": signed.replace("a.wav", "b.wav"), "offset": 2.0},
        {"recording_id": "4" * 32, "audio_filepath": "memory://x", "failure": slip},
        {"recording_id": "5" * 32, "audio_filepath": None, "failure": slip},
    ]
    table = pa.Table.from_pylist(rows, schema=RECORDINGS)
    whole = forgotten.audio_id("https://h/a.wav")
    assert whole is not None
    assert forgotten.covered(table, [whole]).to_pylist() == [True, True, False, False, False]
    assert forgotten.covered(table, ["3" * 32]).to_pylist() == [False, False, True, False, False]
    assert not any(forgotten.covered(table, []).to_pylist())


def test_what_is_forgotten_after_a_run_was_prepared_is_left_out_too(tmp_path: Path) -> None:
    (tmp_path / "list.jsonl").write_text('{"audio_filepath": "a.wav"}\n{"audio_filepath": "b.wav"}\n')
    tree = {"input": f"{tmp_path}/list.jsonl", "output": f"{tmp_path}/out", "engine": {"name": "fake"}}
    settings = config.build(tree)
    before = prepare(settings)
    forgotten.write(before.output, [Tombstone(ids.recording_id(f"file://{tmp_path}/a.wav"), None, (), 1.0)])
    for prepared in (without_forgotten(before), prepare(settings), without_forgotten(prepare(settings))):
        assert (len(prepared.manifest), prepared.num_forgotten) == (1, 1)
        assert prepared.facts.run_id == before.facts.run_id
        before.save()
        prepared.save()
        assert forgotten.saved(prepared.run_url) == (1, 1, before.summary.digest)
    (tmp_path / "out" / forgotten.FILE).write_text("\n")
    prepare(settings).save()
    assert forgotten.saved(before.run_url) == (2, 0, before.summary.digest), (
        "it is back once its line is gone"
    )


def test_a_forgotten_line_is_no_unreadable_one(tmp_path: Path) -> None:
    lines = ('{"audio_filepath": "a.wav"}', '{"audio_filepath": "a.wav", "text": "x"}', "{")
    (tmp_path / "list.jsonl").write_text("\n".join(lines))
    tree = {"input": f"{tmp_path}/list.jsonl", "output": f"{tmp_path}/out", "engine": {"name": "fake"}}
    settings = config.build(tree | {"manifest": {"max_bad_share": 1.0}})
    assert survey(prepare(settings)).num_bad == 2
    whole = ids.recording_id(f"file://{tmp_path}/a.wav")
    forgotten.write(f"{tmp_path}/out", [Tombstone(whole, whole, (), 1.0)])
    assert survey(prepare(settings)).num_bad == 1


def test_a_name_that_is_no_address_allows_nothing_again(tmp_path: Path) -> None:
    """Neither does the line of which nobody knows the audio."""
    forgotten.write(archive(tmp_path), [Tombstone("1" * 32, None, (), 1.0)])
    with pytest.raises(UserError, match=r"'zip::s3://b/a.zip' was not forgotten here"):
        forget.allow_again(str(tmp_path), ["zip::s3://b/a.zip"])
    assert len(forgotten.read(str(tmp_path))) == 1
    assert forget.allow_again(str(tmp_path), ["1" * 32]) == 1


@pytest.mark.parametrize("line", ["{}", "a5", '"a5"', '{"recording_id": "a5", "path": "x"}'])
def test_a_line_that_is_no_tombstone_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / forgotten.FILE).write_text(f'\n{{"recording_id": "{"a" * 32}"}}\n{line}\n')
    with pytest.raises(UserError, match=r"forgotten.jsonl:3 is no line of an erasure"):
        forgotten.read(f"file://{tmp_path}")


@pytest.mark.parametrize(("said", "code", "left"), [("n\n", 2, 1), ("y\n", 0, 0)])
def test_a_person_is_asked(tmp_path: Path, said: str, code: int, left: int) -> None:
    row = transcript("s3://b/monday/a.wav", segment(0, 1, "x"))
    outputs.write(tmp_path, "transcripts", [row])
    ours, theirs = pty.openpty()
    line = [sys.executable, "-m", "dawnchorus.cli", "forget", str(tmp_path), "a.wav"]
    with subprocess.Popen(line, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        os.write(ours, said.encode())
        out, err = process.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)
    assert b"cannot be undone" in err
    assert row["recording_id"] in out.decode()
    assert process.returncode == code
    assert len(list(tmp_path.glob("transcripts/*.parquet"))) == left
