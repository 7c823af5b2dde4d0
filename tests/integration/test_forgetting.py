"""`forget`: nothing of a recording is left, all else is as it was, and no run brings it back."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from dawnchorus import fence, forgotten, ids, storage
from dawnchorus.cli import app
from dawnchorus.run import Exit, Outcome
from kit import archive, comparable, hashes, kill, parts, transcripts, wait_for
from runner import Runner
from s3_server import S3Server

RUN = "0123456789abcdef"


class Made:
    """An output that holds: three recordings, one of them with a conflicting second line; two slices of one
    audio; a file that is missing. With answers to all that was said."""

    def __init__(self, folder: Path) -> None:
        self.audio = archive(folder / "audio", [9.0, 5.0, 14.0, 12.0], seed=77)
        self.source = folder / "list.jsonl"
        lines: list[dict[str, Any]] = [
            {"audio_filepath": self.path(0), "text": "first reference", "caller": "Ada Alpha"},
            {"audio_filepath": self.path(1), "text": "second reference", "caller": "Bob Beta"},
            {"audio_filepath": self.path(2), "text": "third reference", "caller": "Cy Gamma"},
            {"audio_filepath": self.path(3), "offset": 0.0, "duration": 6.0, "text": "early reference"},
            {"audio_filepath": self.path(3), "offset": 6.0, "duration": 6.0, "text": "late reference"},
            {"audio_filepath": str(self.audio / "gone.flac"), "caller": "Dee Delta"},
            {"audio_filepath": self.path(1), "text": "quite another reference"},
        ]
        self.source.write_text("\n".join(json.dumps(line) for line in lines))
        self.runner = Runner(folder)

    def path(self, number: int) -> str:
        return str(self.audio / f"{number:03d}.flac")

    def id(self, name: str) -> str:
        return ids.recording_id(storage.canonical_uri(str(self.audio / name)))

    def run(self, output: Path) -> Outcome:
        return self.runner(
            self.source, output, run_id=RUN, manifest__max_bad_share=0.5, llm__prompts=["summary"]
        )


@pytest.fixture(scope="module")
def made(one_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Made:
    found = Made(tmp_path_factory.mktemp("forget"))
    outcome = found.run(found.runner.output)
    assert outcome.exit is Exit.OK, outcome.message
    assert outcome.report["wer"]["worst"]
    return found


@pytest.fixture
def output(made: Made, tmp_path: Path) -> Path:
    """A copy of the output that a test may change."""
    shutil.copytree(made.runner.output, tmp_path / "out")
    return tmp_path / "out"


def command(output: Path | str, *words: str) -> Result:
    return CliRunner().invoke(app, ["forget", str(output), *words])


def bytes_of(output: Path) -> Iterator[tuple[str, str]]:
    """Name and content of every file below a folder, hidden ones too, tables decompressed, but for the list
    of what is forgotten."""
    for path in output.rglob("*"):
        if not path.is_file() or path.name == forgotten.FILE:
            continue
        name = str(path.relative_to(output))
        text = path.read_bytes().decode("utf-8", "replace")
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            text += json.dumps(table.to_pylist()) + str(table.schema.metadata)
        yield name, text


def holding(output: Path, *words: str) -> list[tuple[str, str]]:
    """Where any of these words stands."""
    return [(name, w) for name, text in bytes_of(output) for w in words if w in text]


def traces(output: Path, recording: str) -> list[str]:
    """What the tables say of a recording: its id, its texts, its answers."""
    [row] = [r for r in transcripts(output).to_pylist() if r["recording_id"] == recording]
    chunks = [
        r for p in parts(output) for r in pq.read_table(p).to_pylist() if r["recording_id"] == recording
    ]
    said = [a["text"] for a in row["answers"]] + sorted(hashes(chunks))
    return [recording, *said, *([row["text"]] if row["text"] else [])]


def test_nothing_is_left_and_the_others_are_as_they_were(made: Made, output: Path) -> None:
    mine = made.id("001.flac")
    words = [*traces(output, mine), made.path(1), "Bob Beta"]
    assert len(words) >= 6
    assert {w for _, w in holding(output, *words)} == {*words}
    before = [r for r in comparable(output) if r["audio_filepath"] != f"file://{made.path(1)}"]
    names = {p.name for p in parts(output)}

    said = command(output, made.path(1), "--yes")
    assert said.exit_code == 0, said.output
    assert "001.flac" in said.output
    assert "2 of transcripts" in said.output, "its own row, and that of the line that contradicts it"
    assert holding(output, *words) == []
    assert [r for r in before if r["audio_filepath"] != made.path(1)] == comparable(output)
    assert {p.name for p in parts(output)} <= names
    lines = (output / forgotten.FILE).read_text()
    assert mine in lines
    assert "001" not in lines.replace(mine, "")
    report = json.loads((output / "_runs" / RUN / "report.json").read_text())
    assert report["totals"]["forgotten"] == 2
    assert report["totals"]["recordings"] == 5
    assert report["totals"]["missing"] == report["reconciliation"]["num_problems"] == 0
    assert "2 forgotten" in (output / "_runs" / RUN / "report.html").read_text()

    files = {p: p.stat().st_mtime_ns for p in output.rglob("*")}
    for name in (made.path(1), mine, f"file://{made.path(1)}"):
        again = command(output, name, "--yes")
        assert again.exit_code == 0, name
        assert again.output.startswith("Forgotten already")
    assert command(output, "001.flac", "--yes").exit_code == 2, "nobody knows that name any more"
    assert {p: p.stat().st_mtime_ns for p in output.rglob("*")} == files


def test_a_run_leaves_it_forgotten_until_it_is_allowed_again(made: Made, output: Path) -> None:
    mine = made.id("001.flac")
    whole = comparable(output)
    rest = [r for r in whole if r["audio_filepath"] != made.path(1)]
    assert command(output, mine, "--yes").exit_code == 0
    calls = len(made.runner.calls())
    outcome = made.run(output)
    assert outcome.exit is Exit.OK, outcome.message
    assert len(made.runner.calls()) == calls
    assert outcome.reconciliation.num_recordings == 5
    assert ("forgotten", "2, not counted above") in outcome.rows()
    assert outcome.report["totals"]["forgotten"] == 2
    assert comparable(output) == rest
    assert holding(output, mine, made.path(1)) == []
    CliRunner().invoke(app, ["assemble", str(output)])
    assert comparable(output) == rest

    assert command(output, made.path(1), "--allow-again").exit_code == 0
    assert command(output, made.path(1), "--allow-again").exit_code == 2
    assert made.run(output).exit is Exit.OK
    assert len(made.runner.calls()) > calls
    by_id = {r["recording_id"]: r for r in comparable(output)}
    assert by_id == {r["recording_id"]: r for r in whole}


def test_a_slice_goes_alone_and_the_audio_takes_its_slices(made: Made, output: Path) -> None:
    late = ids.recording_id(storage.canonical_uri(made.path(3)), 6.0, 6.0)
    words = traces(output, late)
    others = [r for r in comparable(output) if r["recording_id"] != late]
    said = command(output, "003.flac @6.0 s", "--yes")
    assert said.exit_code == 0, said.output
    assert "1 other recordings of the same audio" in said.output
    assert holding(output, *words) == []
    assert comparable(output) == others
    assert command(output, "003.flac @6.0 s", "--yes").output.startswith("Forgotten already")
    assert made.run(output).exit is Exit.OK
    assert comparable(output) == others

    early = ids.recording_id(storage.canonical_uri(made.path(3)), 0.0, 6.0)
    words = [*traces(output, early), made.path(3)]
    assert command(output, "003.flac", "--yes").exit_code == 0
    assert holding(output, *words) == []
    assert command(output, "003.flac").exit_code == 0
    text = command(output, late, "--allow-again")
    assert text.exit_code == 2, "its whole audio is forgotten"


def test_what_failed_is_forgotten_with_its_reason_and_all_may_go(made: Made, output: Path) -> None:
    gone = str(made.audio / "gone.flac")
    assert {n.partition("/")[0] for n, _ in holding(output, gone)} == {"chunks", "transcripts", "_runs"}
    assert command(output, "gone.flac", "--yes").exit_code == 0
    assert holding(output, gone, "Dee Delta") == []
    everything = [made.path(n) for n in range(4)]
    assert command(output, *everything, "--yes").exit_code == 0
    assert holding(output, "reference", *everything, made.id("000.flac")) == []
    outcome = made.run(output)
    assert outcome.exit is Exit.OK, outcome.message
    assert outcome.report["headline"] == "All was forgotten."


def test_what_is_unclear_changes_nothing(made: Made, output: Path) -> None:
    files = {p: p.stat().st_mtime_ns for p in output.rglob("*")}
    for words, expected in {
        ("0O1.flac", "--yes"): "Near it: ",
        ("f" * 32, "--yes"): "No recording",
        (made.path(0), "nobody.wav", "--yes"): "No recording 'nobody.wav'",
        (made.path(0),): "Add --yes",
    }.items():
        said = command(output, *words)
        assert said.exit_code == 2
        assert expected in said.output
    assert {p: p.stat().st_mtime_ns for p in output.rglob("*")} == files
    assert command(output / "nowhere", "a", "--yes").exit_code == 2


def test_refused_while_a_run_owns_the_output(made: Made, output: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", _HOLD, str(output)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "holding\n"
        said = command(output, made.path(0), "--yes")
        assert said.exit_code == 5, said.output
        assert "is being written by run other" in said.output
        assert holding(output, made.path(0))
        assert not (output / forgotten.FILE).exists()
        assert command(output, made.path(0), "--yes", "--take-over").exit_code == 0
        assert holding(output, made.path(0)) == []
    finally:
        holder.kill()
        holder.wait()


_HOLD = """
import sys, time
from dawnchorus.fence import Fence
with Fence("file://" + sys.argv[1], "other") as f:
    f.acquire()
    print("holding", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize(
    "place", [forgotten.FILE, "chunks/*", "transcripts/*", "_runs/*/manifest/*", "_runs/*/report.json"]
)
def test_killed_half_way_and_repeated_it_finishes(made: Made, output: Path, place: str) -> None:
    words = [*traces(output, made.id("002.flac")), made.path(2), "Cy Gamma"]
    others = [r for r in comparable(output) if r["audio_filepath"] != made.path(2)]
    (output / "chunks" / ".part-x.parquet.0123456789abcdef.tmp").write_text(made.path(2))
    shutil.copytree(output, output.with_name("before"))
    while not _forgotten_in_part(output, place):  # it has but 0.2 s to go on, and 10 ms after the report
        shutil.rmtree(output)
        shutil.copytree(output.with_name("before"), output)
    unfinished = [t for t in forgotten.read(f"file://{output}") if t.forgotten_at is None]
    assert unfinished or "report" in place, "after the report there is but a moment"
    said = command(output, "002.flac", "--yes")
    assert said.exit_code == 0, said.output
    assert holding(output, *words) == []
    assert comparable(output) == others
    assert all(t.forgotten_at for t in forgotten.read(f"file://{output}"))
    assert json.loads((output / "_runs" / RUN / "report.json").read_text())["totals"]["forgotten"] == 1


def _forgotten_in_part(output: Path, place: str) -> bool:
    """Whether `forget 002.flac` was killed once it had changed a place, and before it ended."""
    before = stamps(output, place)
    line = [sys.executable, "-m", "dawnchorus.cli", "forget", str(output), "002.flac", "--yes"]
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        return wait_for(lambda: stamps(output, place) != before, process) and kill(process)
    finally:
        kill(process)


def stamps(output: Path, place: str) -> dict[Path, int]:
    """When the visible files of a place changed; those that vanish under the look are left out."""
    found = {}
    for path in output.glob(place):
        if not path.name.startswith("."):
            with contextlib.suppress(FileNotFoundError):
                found[path] = path.stat().st_mtime_ns
    return found


def test_another_erasure_finishes_one_that_was_cut_off(made: Made, output: Path) -> None:
    url = f"file://{output}"
    forgotten.write(url, [forgotten.Tombstone(made.id("000.flac"))])
    said = command(output, made.path(2), "--yes")
    assert "1 that were begun before" in said.output
    assert holding(output, made.id("000.flac"), made.id("002.flac"), made.path(0), made.path(2)) == []


def test_notes_and_a_single_input_are_forgotten_too(made: Made, output: Path) -> None:
    run = output / "_runs" / RUN
    about = json.loads((run / "run.json").read_text())
    about["config"]["input"] = "audio/000.flac"
    (run / "run.json").write_text(json.dumps(about))
    progress = json.loads((run / "progress.json").read_text())
    messages = {"message": f"Read {made.path(0)}.", "submission_id": f"{made.path(0)}.bak"}
    (run / "progress.json").write_text(json.dumps(progress | messages))
    assert command(output, made.path(0), "--yes").exit_code == 0
    after = json.loads((run / "progress.json").read_text())
    assert after["message"] == "(forgotten)"
    assert after["submission_id"] == f"{made.path(0)}.bak", "that is another file"
    assert json.loads((run / "run.json").read_text())["config"]["input"] == "(forgotten)"
    assert "audio/000.flac" not in (run / "report.html").read_text()


def test_in_a_bucket(made: Made, output: Path, s3_environment: S3Server, tmp_path: Path) -> None:
    url = f"{s3_environment.make_bucket()}/deep/out"
    for path in output.rglob("*"):
        if path.is_file() and not path.name.startswith("."):
            storage.put_atomic(f"{url}/{path.relative_to(output)}", path.read_bytes())
    words = [*traces(output, made.id("001.flac")), made.path(1)]
    said = command(url, "001.flac", "--yes")
    assert said.exit_code == 0, said.output
    copy = tmp_path / "copy"
    for info in storage.list_files(url):
        target = copy / info.url.removeprefix(f"{url}/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(storage.read_bytes(info.url))
    assert holding(copy, *words) == []
    assert comparable(copy) == [r for r in comparable(output) if r["audio_filepath"] != made.path(1)]
    assert command(url, "001.flac", "--yes").output.startswith("Forgotten already")
    assert fence.newest_epoch(url) > 0
