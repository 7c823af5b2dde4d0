"""The decode stage alone: rows, accounts, replay, damage; no Ray."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from dawnchorus import plan
from dawnchorus.assemble import account
from dawnchorus.config import AudioConfig, ChunkingConfig, VadConfig
from dawnchorus.errors import RunPaused
from dawnchorus.schema import DECODED, RECORDINGS
from dawnchorus.stages import decode as decoding
from dawnchorus.stages.decode import Decode
from dawnchorus.stages.decoded import DecodeSettings
from kit import speech
from web import answering

Rows = list[dict[str, Any]]


@pytest.fixture(autouse=True)
def forgetful() -> Iterator[None]:
    """What a worker keeps between its tasks is no other test's."""
    yield
    for tools in decoding._tools.values():
        tools.decoder.close()
    decoding._tools.clear()


def settings(pause_after: int = 20, **audio: Any) -> DecodeSettings:
    parts = (AudioConfig(**audio), VadConfig(), ChunkingConfig())
    return DecodeSettings(*parts, 16_000, 30.0, 1, pause_after)


def decode(
    folder: Path,
    rows: Rows,
    how: DecodeSettings,
    committed: dict[str, list[str]] | None = None,
    meanwhile: Callable[[], object] = int,
) -> Rows:
    """Every row that decoding these recordings in one unit yields; `waveform` becomes its length. After
    every table `meanwhile` happens."""
    base = dict.fromkeys(RECORDINGS.names) | {"metadata": "{}"}
    work = pa.Table.from_pylist([base | r for r in rows], schema=RECORDINGS)
    table = plan.unit_rows(work, np.zeros(len(work), np.int32), {}, committed or {})
    units = plan.write_snapshot(table, "unit", str(folder / f"plan{len(list(folder.iterdir()))}"))
    found = []
    for made in Decode(units, how)(pa.table({"id": [0]})):
        assert made.schema.equals(DECODED)
        lengths = pa.compute.list_value_length(made["waveform"]).to_pylist()
        found += [r | {"waveform": n} for r, n in zip(made.to_pylist(), lengths, strict=True)]
        meanwhile()
    return found


def of(rows: Rows, recording: str) -> tuple[Rows, dict[str, Any]]:
    """Chunk rows and the end row of one recording; the end row is the last."""
    mine = [r for r in rows if r["recording_id"] == recording]
    assert [r["kind"] for r in mine] == ["chunk"] * (len(mine) - 1) + ["end"]
    return mine[:-1], mine[-1]


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return speech(tmp_path_factory.mktemp("audio") / "a.flac", 40.0, seed=51)


def test_samples_are_accounted_for_and_waveforms_are_what_the_rows_say(audio: Path, tmp_path: Path) -> None:
    chunks, end = of(decode(tmp_path, [{"recording_id": "a", "audio_filepath": str(audio)}], settings()), "a")
    assert end["num_chunks"] == len(chunks) > 1
    assert end["channels"][0]["decoded_samples"] == 40 * 16_000
    heard = [c | {"status": "ok"} for c in chunks]
    assert all(a.balanced for a in account(end, heard))
    for chunk in chunks:
        assert chunk["waveform"] == round((chunk["input_end"] - chunk["input_start"]) * 16_000)


def test_a_replay_yields_the_same_rows(audio: Path, tmp_path: Path) -> None:
    row = {"recording_id": "a", "audio_filepath": str(audio)}
    twice = [decode(tmp_path, [row], settings()) for _ in range(2)]
    for rows in twice:
        for r in rows:
            r.pop("timing")
    assert twice[0] == twice[1]


def test_committed_chunks_are_decoded_but_not_yielded(audio: Path, tmp_path: Path) -> None:
    row = {"recording_id": "a", "audio_filepath": str(audio)}
    chunks, _ = of(decode(tmp_path, [row], settings()), "a")
    done = [c["chunk_id"] for c in chunks[:-1]]
    left, end = of(decode(tmp_path, [row], settings(), {"a": done}), "a")
    assert [c["chunk_id"] for c in left] == [chunks[-1]["chunk_id"]]
    assert end["num_chunks"] == len(chunks)


def test_overlapping_slices_are_cut_from_one_pass(audio: Path, tmp_path: Path) -> None:
    rows: Rows = [
        {"recording_id": "x", "audio_filepath": str(audio), "offset": 1.0, "duration": 20.0},
        {"recording_id": "y", "audio_filepath": str(audio), "offset": 10.0, "duration": 12.5},
        {"recording_id": "z", "audio_filepath": str(audio), "offset": 35.0},
    ]
    found = decode(tmp_path, rows, settings())
    for name, seconds in (("x", 20.0), ("y", 12.5), ("z", 5.0)):
        chunks, end = of(found, name)
        assert end["channels"][0]["decoded_samples"] == round(seconds * 16_000)
        assert all(a.balanced for a in account(end, [c | {"status": "ok"} for c in chunks]))


def with_hole(audio: Path, folder: Path) -> Path:
    """`whole.mp3`, and `holed.mp3`, which has 5,000 bad bytes in its middle; the path of that."""
    samples, rate = soundfile.read(audio, dtype="int16")
    whole, holed = folder / "whole.mp3", folder / "holed.mp3"
    soundfile.write(whole, samples, rate, format="MP3")
    data = bytearray(whole.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 5_000] = bytes([0xA5]) * 5_000
    holed.write_bytes(bytes(data))
    return holed


def test_a_hole_is_counted_as_failed_and_later_times_stay(audio: Path, tmp_path: Path) -> None:
    with_hole(audio, tmp_path)
    rows: Rows = [
        {"recording_id": n, "audio_filepath": str(tmp_path / f"{n}.mp3")} for n in ("whole", "holed")
    ]
    found = decode(tmp_path, rows, settings())
    (_, sound), (chunks, end) = of(found, "whole"), of(found, "holed")
    count = end["channels"][0]
    assert end["flags"] == ["damaged_audio"]
    assert 0 < count["damaged_samples"] < 5 * 16_000
    assert abs(count["decoded_samples"] - sound["channels"][0]["decoded_samples"]) < 1_600
    sums = account(end, [c | {"status": "ok"} for c in chunks])
    assert all(a.balanced for a in sums)
    assert sums[0].failed == count["damaged_samples"]


def test_damage_is_flagged_on_the_slices_that_have_it(audio: Path, tmp_path: Path) -> None:
    base = {"audio_filepath": str(with_hole(audio, tmp_path))}
    spans = {"before": (0.0, 10.0), "in": (12.0, 16.0), "behind": (32.0, 8.0)}
    rows: Rows = [base | {"recording_id": n, "offset": a, "duration": b} for n, (a, b) in spans.items()]
    found = decode(tmp_path, rows, settings())
    assert {n: of(found, n)[1]["flags"] for n in spans} == {
        "before": [],
        "in": ["damaged_audio"],
        "behind": [],
    }


class Killer:
    """Kills the decoder's process, and the one that takes its place, as a kernel short of memory does."""

    def __init__(self) -> None:
        self.killed: set[int] = set()

    def __call__(self) -> None:
        for tools in decoding._tools.values():
            pid = tools.decoder.pid
            if pid is not None and pid not in self.killed and len(self.killed) < 2:
                self.killed.add(pid)
                os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return speech(tmp_path_factory.mktemp("long") / "long.flac", 600.0, seed=53)


def test_where_decoding_broke_off_nothing_is_cut_and_nothing_counted(long: Path, tmp_path: Path) -> None:
    rows: Rows = [{"recording_id": "a", "audio_filepath": str(long)}]
    killer = Killer()
    part, end = of(decode(tmp_path, rows, settings(), meanwhile=killer), "a")
    assert len(killer.killed) == 2
    assert (end["decode_id"], end["num_chunks"], end["status"]) == (None, 0, "failed")
    assert (end["failure"]["kind"], end["failure"]["transient"]) == ("killed", True)
    whole, _ = of(decode(tmp_path, rows, settings()), "a")
    assert 0 < len(part) < len(whole)
    assert [c["chunk_id"] for c in part] == [c["chunk_id"] for c in whole[: len(part)]]


def test_slices_behind_a_break_are_not_outside_the_audio(long: Path, tmp_path: Path) -> None:
    rows: Rows = [
        {"recording_id": str(n), "audio_filepath": str(long), "offset": n, "duration": 20.0}
        for n in (0.0, 500.0, 700.0)
    ]
    rows.append({"recording_id": "whole", "audio_filepath": str(long)})
    found = decode(tmp_path, rows, settings(), meanwhile=Killer())
    failures = {r["recording_id"]: r["failure"] for r in found if r["kind"] == "end"}
    assert failures.pop("0.0") is None
    assert {n: (f["kind"], f["transient"]) for n, f in failures.items()} == dict.fromkeys(
        ("500.0", "700.0", "whole"), ("killed", True)
    )


def test_each_recording_of_a_missing_object_ends_as_a_row(tmp_path: Path) -> None:
    rows: Rows = [
        {"recording_id": str(i), "audio_filepath": str(tmp_path / "gone.wav"), "offset": float(i)}
        for i in range(3)
    ]
    found = decode(tmp_path, rows, settings())
    assert [(r["kind"], r["status"], r["failure"]["kind"]) for r in found] == [
        ("end", "failed", "not_found")
    ] * 3


class Forbidden(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *args: object) -> None:
        return


def test_slices_of_one_object_out_of_reach_count_once_towards_a_pause(tmp_path: Path) -> None:
    with answering(Forbidden) as port:
        url = f"http://127.0.0.1:{port}"
        slices: Rows = [
            {"recording_id": str(i), "audio_filepath": f"{url}/x.wav", "offset": float(i)} for i in range(9)
        ]
        assert len(decode(tmp_path, slices, settings(pause_after=2))) == 9
        others: Rows = [{"recording_id": str(i), "audio_filepath": f"{url}/{i}.wav"} for i in range(2)]
        with pytest.raises(RunPaused, match=r"2 recordings in a row failed alike \(credentials\)"):
            decode(tmp_path, others, settings(pause_after=2))


@pytest.mark.slow
def test_alike_passing_failures_pause_before_they_become_rows(tmp_path: Path) -> None:
    rows: Rows = [{"recording_id": str(i), "audio_filepath": f"http://127.0.0.1:9/{i}"} for i in range(4)]
    with pytest.raises(RunPaused, match=r"2 recordings in a row failed alike \(network\)"):
        decode(tmp_path, rows, settings(pause_after=2))
