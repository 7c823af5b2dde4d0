"""Lengths by headers: near the truth where they are given, None for lies, and never an error."""

from __future__ import annotations

import random
import socket
import time
from pathlib import Path

import pytest

from audio_corpus import FORMATS, Format, signal
from dawnchorus import lengths, plan
from dawnchorus.audio.lengths import claimed_seconds
from tables import manifest, recording, transcripts

SECONDS = 4.0
SAYS_NOTHING = {"w64", "caf", "rifx", "mpegts", "avi", "mp4-fragmented"}


def claim(data: bytes) -> float | None:
    return claimed_seconds(lambda pos, num: data[pos : pos + num], len(data))


@pytest.mark.parametrize("kind", FORMATS, ids=lambda f: f.name)
def test_headers_of_every_format(tmp_path: Path, kind: Format) -> None:
    path = tmp_path / "x"
    kind.make(path, signal(SECONDS, kind.rate, kind.channels), kind.rate)
    data = path.read_bytes()
    said = claim(data)
    assert said is None if kind.name in SAYS_NOTHING else said == pytest.approx(SECONDS, abs=0.15)
    dice = random.Random(kind.name)
    for _ in range(40):
        broken = bytearray(data[: dice.randrange(len(data))])
        for _ in range(dice.randrange(20)):
            if broken:
                broken[dice.randrange(min(200, len(broken)))] = dice.randrange(256)
        said = claim(bytes(broken))
        assert said is None or 0 < said < len(broken)


def test_what_headers_say_is_believed_within_reason(tmp_path: Path) -> None:
    def wave(name: str, seconds: float) -> str:
        path = tmp_path / name
        FORMATS[1].make(path, signal(seconds, 8_000, 2), 8_000)
        return str(path)

    first, second = wave("a.wav", 3.0), wave("b.wav", 5.0)
    (tmp_path / "text.mp3").write_text("not audio at all")
    rows = manifest(
        recording("a") | {"audio_filepath": first},
        recording("b", offset=2.0) | {"audio_filepath": second},
        recording("c") | {"audio_filepath": "s3://nowhere-at-all/x.wav", "size_bytes": 64_000},
        recording("d") | {"audio_filepath": str(tmp_path / "text.mp3"), "size_bytes": 16_000},
        recording("e") | {"audio_filepath": str(tmp_path / "gone.mp3")},
        recording("f", claimed_duration=9.0) | {"audio_filepath": second},
    )
    found = lengths.look(rows.filter([True, True, False, True, True, True]))
    assert dict(zip(found["audio_filepath"].to_pylist(), found["seconds"].to_pylist(), strict=True)) == {
        first: pytest.approx(3.0),
        second: pytest.approx(5.0),
    }
    guessed = plan.estimated_seconds(rows, found)
    # Other files of the type give the byte rate: 32 kB/s here.
    assert guessed[:4].tolist() == pytest.approx([3.0, 3.0, 2.0, 2.0], abs=0.01)
    assert guessed[5] == 9.0
    assert plan.known_seconds(rows, found).null_count == 3


def test_what_was_transcribed_has_a_known_length() -> None:
    rows = manifest(recording("a"), recording("b", claimed_duration=3.0))
    done = transcripts(
        {"recording_id": rows["recording_id"][0].as_py(), "duration": 7.0},
        {"recording_id": rows["recording_id"][1].as_py(), "duration": 4.0},
    )
    assert plan.estimated_seconds(rows, None, done).tolist() == [7.0, 4.0]


def test_a_store_that_never_answers_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{deaf.getsockname()[1]}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
        rows = manifest(*(recording(n) | {"audio_filepath": f"s3://b/{n}.wav"} for n in "abc"))
        began = time.monotonic()
        assert len(lengths.look(rows, within=0.5)) == 0
        assert time.monotonic() - began < 3


@pytest.mark.parametrize("address", ["github://h/a.wav", "s4://b/a.wav", "hdfs://h/a.wav"])
def test_what_this_machine_cannot_reach_has_no_length(address: str) -> None:
    assert len(lengths.look(manifest(recording("a") | {"audio_filepath": address}))) == 0
