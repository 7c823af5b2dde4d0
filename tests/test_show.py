"""`show`: rows, reasons, totals and places, on a terminal of any width."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

import outputs
from dawnchorus.errors import ConfigError, UserError
from dawnchorus.show import clock, show_table
from outputs import failed, segment, transcript


def shown(
    output: Path | str,
    width: int | None = 100,
    limit: int = 20,
    status: str | None = None,
    answers: bool = False,
) -> str:
    page = io.StringIO()
    console = Console(file=page, width=width or 80)
    for part in show_table(str(output), limit, status, answers, width):
        console.print(part, soft_wrap=width is None)
    return page.getvalue()


def archive(folder: Path) -> Path:
    long = "A sentence that goes on and on, far beyond the width of any terminal that people use today. " * 3
    rows = [
        transcript("file:///data/calls/a.wav", segment(0, 65, long)),
        transcript("file:///data/notes/b.wav", segment(0, 2, "Hi."), offset=90.0, duration=2.0),
        transcript("file:///data/notes/c.wav", duration=3.0),
        transcript("file:///data/d.wav", segment(0, 1, "Part."), flags=["partial"]),
        failed("file:///data/e.mp3", "not_audio", "This is no audio: it looks like a text file."),
    ]
    rows[3]["failure"] = outputs.failure("damaged_audio", "Two seconds are damaged.")
    outputs.write(folder, "transcripts", rows)
    return folder


def test_rows_reasons_totals_and_places(tmp_path: Path) -> None:
    page = shown(archive(tmp_path))
    assert "1:05" in page
    assert "notes/b.wav @1:30" in page
    assert "…" in page
    (line,) = (row for row in page.splitlines() if "d.wav" in row)
    assert line.split() == ["ok", "1.0", "s", "!1", "d.wav", "Part."], "flags do not stand before the words"
    assert "damaged_audio: Two seconds are damaged." in [row.strip() for row in page.splitlines()]
    assert "! flagged in the rows above: partial 1" in page
    assert "not_audio: This is no audio: it looks like a text file." in " ".join(page.split())
    assert "5 recordings, 1:11 of audio: 3 ok, 1 empty, 1 failed (1 of the ok ones in part)" in page
    assert f"{tmp_path}/transcripts/*.parquet" in page.replace("\n", "")


@pytest.mark.parametrize("width", [60, 80, 200])
def test_no_line_is_wider_than_the_terminal(tmp_path: Path, width: int) -> None:
    assert max(map(len, shown(archive(tmp_path), width).splitlines())) <= width


def test_nothing_is_cut_where_nobody_looks(tmp_path: Path) -> None:
    address = f"s3://bucket/{'a-long-folder/' * 12}"
    rows = [
        transcript(f"{address}a.wav", segment(0, 65, "word " * 60), flags=["low_logprob", "omission"]),
        failed(f"{address}deep/b.wav", "not_found", f"There is nothing at {address}deep/b.wav."),
    ]
    outputs.write(tmp_path, "transcripts", rows)
    page = shown(tmp_path, None)
    assert ("word " * 60).strip() in page
    assert f"deep/b.wav  not_found: There is nothing at {address}deep/b.wav." in page
    assert "!2 " in page
    narrow = shown(tmp_path, 80)
    assert sum("a-long-folder" in line for line in narrow.splitlines()) <= 4, "folded at the whole width"


def test_limit_and_status(tmp_path: Path) -> None:
    assert "2 of 5 rows" in shown(archive(tmp_path), limit=2)
    only = shown(tmp_path, status="failed")
    assert "e.mp3" in only
    assert "c.wav" not in only
    with pytest.raises(ConfigError, match="ok, empty, failed"):
        shown(tmp_path, status="broken")


def test_terminal_escapes_of_strangers_do_not_reach_the_terminal(tmp_path: Path) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J[red]x\u009b31m"
    rows = [
        transcript(f"s3://b/{evil}.wav", segment(0, 1, evil), flags=[evil]),
        failed("s3://b/x.wav", "crash", evil),
        failed("", "bad_json", "calls.jsonl:3: this is no JSON"),
    ]
    outputs.write(tmp_path, "transcripts", rows)
    page = shown(tmp_path, width=160)
    assert not any(c in page for c in "\x1b\x07\x9b")
    assert "[red]x" in page
    assert "calls.jsonl:3" in page


def test_word_error_rate_and_rtfx_of_the_newest_report(tmp_path: Path) -> None:
    archive(tmp_path)
    for run_id, made_at, rtfx in (("old", 1.0, 3.0), ("new", 2.0, 21.0)):
        wer = {"wer": 0.0832, "num_words": 1234, "num_recordings": 12}
        report = {"run_id": run_id, "made_at": made_at, "wer": wer, "time": {"rtfx": rtfx}}
        folder = tmp_path / "_runs" / run_id
        folder.mkdir(parents=True)
        (folder / "report.json").write_text(json.dumps(report))
    page = shown(tmp_path)
    assert "8.3% of 1,234 reference words in 12 recordings" in page
    assert "21.0 seconds of audio per second" in page
    assert "_runs/new/report.html" in page.replace("\n", "")


def test_no_transcripts_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        shown(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no transcripts"):
        shown(tmp_path)
    outputs.write(tmp_path, "chunks", [])
    with pytest.raises(UserError, match="is published yet"):
        shown(tmp_path)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (59.96, "60.0 s"), (65, "1:05"), (7325, "2:02:05")]
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_answers_in_place_of_transcripts(tmp_path: Path) -> None:
    said = {"name": "summary", "text": "About\x1b[31m lamps.", "status": "ok", "flags": ["partial"]}
    bad = {
        "name": "qa-1",
        "question": "Who?",
        "status": "failed",
        "failure": outputs.failure("crash", "It died."),
    }
    rows = [
        transcript("file:///d/a.wav", segment(0, 1, "the words"), answers=[said, bad]),
        transcript("file:///d/b.wav", segment(0, 1, "more words")),
        failed("file:///d/e.mp3", "not_audio", "A text file."),
    ]
    outputs.write(tmp_path, "transcripts", rows)
    page = shown(tmp_path, answers=True)
    assert "summary: [partial] About [31m lamps." in page
    assert "Who?: crash: It died." in page
    assert "no answers" in page
    assert "not_audio: A text file." in page
    assert "words" not in page
    assert "\x1b" not in page
