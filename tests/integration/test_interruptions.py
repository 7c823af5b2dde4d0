"""Faults of the world around a run: stores that refuse, people who press Ctrl-C, two runs at once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dawnchorus.errors import EngineUnavailable, OutputOwned, Transient
from dawnchorus.interview import hold, prepare
from dawnchorus.run import Exit
from kit import Command, archive, chunk_rows, comparable, decoders, kill, parts, speech, transcripts, wait_for
from runner import Runner, Silent
from web import Web, serving

HOLD = """
import sys, time
from dawnchorus.fence import Fence
fence = Fence(sys.argv[1], "other")
fence.acquire()
print("held", flush=True)
time.sleep(99)
"""


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return archive(tmp_path_factory.mktemp("audio"), [9.0, 5.0, 14.0, 6.0], seed=8)


@pytest.fixture
def web(audio: Path) -> Iterator[Web]:
    with serving(audio) as served:
        yield served


def manifest(runner: Runner, web: Web, **columns: object) -> Path:
    path = runner.folder / "manifest.jsonl"
    names = sorted(p.name for p in web.folder.iterdir())
    path.write_text("\n".join(json.dumps({"audio_filepath": f"{web.url}/{n}", **columns}) for n in names))
    return path


@pytest.mark.slow
def test_a_disk_that_is_full_ends_the_run_in_words_and_loses_nothing(runner: Runner) -> None:
    source = archive(runner.folder / "audio", [9.0, 5.0, 14.0, 6.0] * 5, seed=8)
    runner(source, output=runner.folder / "whole")
    runner.output.mkdir()
    small = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(runner.output)]
    if subprocess.run(small, capture_output=True, check=False).returncode:
        pytest.skip("no leave to mount a small disk")
    how = {"workers__window_rows": 2, "resume__backoff_seconds": 0.1}
    try:
        try:
            said = runner(source, **how).message  # where a worker met it
        except Transient as e:
            said = e.message  # where the driver did
        assert "No space is left on the disk for" in said
        subprocess.run(["mount", "-o", "remount,size=9m", str(runner.output)], check=True)
        assert runner(source, **how).exit is Exit.OK
        assert comparable(runner.output) == comparable(runner.folder / "whole")
    finally:
        subprocess.run(["umount", "--lazy", str(runner.output)], check=True)


def test_a_store_that_refuses_is_asked_again_later(runner: Runner, web: Web) -> None:
    source = manifest(runner, web)
    web.refuse = {"001.flac"}
    outcome = runner(source, resume__max_attempts=1)
    assert outcome.exit is Exit.INCOMPLETE
    rows = {r["audio_filepath"].rpartition("/")[2]: r for r in transcripts(runner.output).to_pylist()}
    assert rows["001.flac"]["failure"]["kind"] == "throttled"
    assert rows["001.flac"]["failure"]["transient"]
    assert [r["status"] for r in rows.values()].count("ok") == 3
    web.refuse = set()
    paid = len(runner.calls())
    assert runner(source, resume__max_attempts=2).exit is Exit.OK
    assert all(r["status"] == "ok" for r in transcripts(runner.output).to_pylist())
    assert len({c["hash"] for c in runner.calls()}) == len(runner.calls()) > paid


def test_a_short_read_is_never_a_short_recording(runner: Runner, web: Web) -> None:
    web.cut = {"002.flac"}
    outcome = runner(manifest(runner, web), resume__max_attempts=1)
    assert outcome.exit is Exit.INCOMPLETE
    (row,) = [r for r in transcripts(runner.output).to_pylist() if r["failure"]]
    assert row["failure"]["transient"]
    assert row["pred_text"] == ""
    web.cut = set()
    assert runner(manifest(runner, web), resume__max_attempts=2).exit is Exit.OK


@pytest.mark.slow
def test_many_alike_failures_pause_the_run(runner: Runner, web: Web) -> None:
    source = runner.folder / "manifest.jsonl"
    lines = [json.dumps({"audio_filepath": f"{web.url}/{i}.flac"}) for i in range(30)]
    source.write_text("\n".join(lines))
    web.refuse = {f"{i}.flac" for i in range(30)}
    outcome = runner(source, resume__pause_after=3, workers__decoders=1)
    assert outcome.exit is Exit.INCOMPLETE
    assert "Paused: 3 recordings in a row failed alike (throttled)" in outcome.message
    ends = [r for r in chunk_rows(runner.output) if r["kind"] == "end"]
    assert len(ends) < 3, "they did not become rows"


def test_slices_of_an_object_fetch_it_once(runner: Runner, web: Web) -> None:
    source = runner.folder / "manifest.jsonl"
    lines = [{"audio_filepath": f"{web.url}/000.flac", "offset": i / 10, "duration": 0.1} for i in range(80)]
    source.write_text("\n".join(json.dumps(line) for line in lines))
    assert runner(source).exit is Exit.OK
    assert web.fetched["000.flac"] <= 3
    assert len(transcripts(runner.output)) == 80


def test_a_living_owner_is_not_disturbed(runner: Runner, audio: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(runner.output)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(OutputOwned):
            runner(audio)
        assert not (runner.output / "chunks").exists()
    finally:
        holder.kill()
        holder.wait()
    assert runner(audio).exit is Exit.OK


@pytest.mark.slow
def test_ctrl_c_publishes_what_is_complete_and_says_how_to_go_on(tmp_path: Path) -> None:
    audio = archive(tmp_path / "audio", [6.0] * 12, seed=10)
    settings = {
        "engine.options": {"seconds_per_audio_second": 0.2},
        "plan.unit_seconds": 5.0,
        "workers.window_rows": 2,
    }
    mine = Command(str(audio), tmp_path / "out", settings)
    said = mine.interrupted(lambda: len(parts(mine.output)) >= 2)
    assert "run the same command to go on" in said
    assert "Traceback" not in said
    assert len(transcripts(mine.output)) >= 1
    mine.settings["engine.options"] = {}
    mine.run()
    assert len(transcripts(mine.output)) == 12


@pytest.mark.slow
def test_what_a_killed_run_left_can_be_assembled_by_hand(tmp_path: Path) -> None:
    folder = archive(tmp_path / "audio", [6.0] * 10, seed=9)
    settings = {
        "engine.options": {"seconds_per_audio_second": 0.15},
        "plan.unit_seconds": 5.0,
        "workers.window_rows": 4,
    }
    mine = Command(str(folder), tmp_path / "out", settings)
    process = mine.start()
    try:
        half = lambda: sum(r["kind"] == "end" for r in chunk_rows(mine.output)) >= 5  # noqa: E731
        assert wait_for(half, process)
    finally:
        kill(process)
    assert not (mine.output / "transcripts").exists()
    command = [sys.executable, "-m", "dawnchorus.cli", "assemble", str(mine.output)]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    rows = transcripts(mine.output).to_pylist()
    assert len(rows) >= 4
    assert f"{len(rows)} transcripts published" in said
    assert all(r["status"] == "ok" for r in rows)


@pytest.mark.slow
def test_a_decode_worker_killed_late_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "audio"
    speech(folder / "first.flac", 1800.0, seed=21)
    speech(folder / "second.flac", 900.0, seed=22)
    settings = {
        "workers.window_rows": 4,
        "workers.decoders": 1,
    }  # of 20 s of decoding 6 go by to the first part
    calm, hit = (Command(str(folder), tmp_path / name, dict(settings)) for name in ("calm", "hit"))
    calm.run()
    process = hit.start()
    try:
        assert wait_for(lambda: bool(parts(hit.output)), process)
        [worker] = decoders(process)
        worker.kill()
        assert process.wait(180) == 0, hit.said.read_text()
    finally:
        kill(process)
    committed = [(r["recording_id"], r["chunk_index"]) for r in chunk_rows(hit.output)]
    assert len(committed) == len(set(committed)), "what had been committed before was not committed again"
    assert len(hit.calls()) == len(calm.calls())
    assert comparable(hit.output) == comparable(calm.output)


@pytest.mark.slow
def test_a_run_that_commits_nothing_ends_by_itself(runner: Runner, audio: Path) -> None:
    one = audio / "001.flac"
    runner(one, output=runner.folder / "clean")
    runner.tell(stall_hashes=[runner.calls()[0]["hash"]], stall_seconds=12)
    outcome = runner(one, resume__stall_seconds=3.0)
    assert outcome.exit is Exit.INCOMPLETE
    assert "nothing was committed for" in outcome.message
    runner.tell()
    assert runner(one).exit is Exit.OK


@pytest.mark.slow
def test_an_engine_that_cannot_be_loaded_ends_the_run_at_once_with_its_fix(
    tmp_path: Path, audio: Path
) -> None:
    """One sentence: no retries, no pages of Ray."""
    command = Command(str(audio), tmp_path / "out")
    command.tell(no_load="The weights are torn.")
    process = subprocess.run(
        [a for a in command.arguments() if a != "--debug"], capture_output=True, text=True, timeout=120
    )
    assert process.returncode == 2
    assert process.stderr.strip().splitlines()[-1] == "Error: The weights are torn. Change the script."
    assert "Traceback" not in process.stderr
    assert "(raylet)" not in process.stderr
    assert len(process.stderr.splitlines()) < 20, process.stderr
    assert not parts(command.output)


def test_a_language_model_that_cannot_be_loaded_ends_it_with_its_fix(runner: Runner, audio: Path) -> None:
    assert runner(audio).exit is Exit.OK
    runner.tell(no_load="The weights are torn.")
    held = prepare(str(runner.output), names=["summary"])
    with pytest.raises(EngineUnavailable, match="The weights are torn"):
        hold(held, Silent())
