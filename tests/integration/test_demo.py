"""The demo, as a user runs it: the sample archive through the embedded engine, by the command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jiwer
import pyarrow.dataset as ds
import pytest
from whisper_normalizer.english import EnglishTextNormalizer

ROOT = Path(__file__).parents[2]
COMMAND = Path(sys.executable).parent / "dawnchorus"
MAX_WER = 0.10
"""Plain faster-whisper, greedy, file by file, has 7.0 % on these voices."""

Rows = dict[tuple[str, float | None], dict[str, Any]]


def run(output: Path) -> subprocess.CompletedProcess[str]:
    words = [COMMAND, "run", "configs/demo.yaml", f"output={output}"]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=240)


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's output, made once."""
    folder = tmp_path_factory.mktemp("demo") / "out"
    done = run(folder)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return folder


@pytest.fixture(scope="module")
def rows(output: Path) -> Rows:
    """The transcripts by file name and offset."""
    table = ds.dataset(output / "transcripts").to_table().to_pylist()
    return {(Path(row["audio_filepath"]).name, row["offset"]): row for row in table}


def test_every_manifest_row_is_a_transcript(rows: Rows) -> None:
    lines = (ROOT / "tests/data/sample/manifest.jsonl").read_text(encoding="utf-8").splitlines()
    asked = [json.loads(line) for line in lines]
    assert set(rows) == {(Path(row["audio_filepath"]).name, row.get("offset")) for row in asked}
    for row in asked:
        got = rows[Path(row["audio_filepath"]).name, row.get("offset")]
        assert got["text"] == row.get("text")
        assert json.loads(got["metadata"]).get("show") == row["show"]


def test_what_cannot_be_transcribed_says_why(rows: Rows) -> None:
    failed = {name: row["failure"] for (name, _), row in rows.items() if row["status"] == "failed"}
    assert {name: failure["kind"] for name, failure in failed.items()} == {
        "letter-called-audio.mp3": "not_audio",
        "never-uploaded.flac": "not_found",
    }
    assert "text file" in failed["letter-called-audio.mp3"]["message"]
    assert [name for (name, _), row in rows.items() if row["status"] == "empty"] == [
        "birds-without-words.ogg"
    ]


def test_each_voice_of_the_call_is_on_its_channel(rows: Rows) -> None:
    call = rows["an-order-for-two-lamps.flac", None]
    said = {
        channel: " ".join(s["text"].lower() for s in call["segments"] if s["channel"] == channel)
        for channel in (0, 1)
    }
    assert "how can i help you" in said[0]
    assert "my sister" in said[1]
    assert "my sister" not in said[0]


def test_words_are_right(rows: Rows) -> None:
    plain = EnglishTextNormalizer()
    pairs = [(plain(r["text"]), plain(r["pred_text"])) for r in rows.values() if r["text"] and r["pred_text"]]
    assert len(pairs) == 14
    assert jiwer.wer([a for a, _ in pairs], [b for _, b in pairs]) < MAX_WER


def test_the_same_command_again_changes_nothing(output: Path, rows: Rows) -> None:
    before = {p: p.read_bytes() for folder in ("chunks", "transcripts") for p in (output / folder).iterdir()}
    done = run(output)
    assert done.returncode == 0, done.stderr
    after = {p: p.read_bytes() for folder in ("chunks", "transcripts") for p in (output / folder).iterdir()}
    assert after == before
