"""Long recordings: bounded memory in the decode worker, and an early first commit."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from kit import Command, kill, parts, speech, transcripts, wait_for
from web import serving

SHIPPED = {"workers.window_rows": None}

DECODE = """
import json, sys, threading, time
import psutil
import pyarrow as pa
from dawnchorus import ids, plan, storage
from dawnchorus.config import AudioConfig, ChunkingConfig, VadConfig
from dawnchorus.schema import RECORDINGS
from dawnchorus.stages.decode import Decode
from dawnchorus.stages.decoded import DecodeSettings

audio, folder = sys.argv[1:]
row = dict.fromkeys(RECORDINGS.names) | {"recording_id": "r", "audio_filepath": audio, "metadata": "{}"}
work = pa.Table.from_pylist([row], schema=RECORDINGS)
import numpy as np
units = plan.write_snapshot(plan.unit_rows(work, np.zeros(1, np.int32), {}, {}), "unit", folder)
peak = {"worker": 0, "child": 0}
def watch():
    me = psutil.Process()
    while True:
        peak["worker"] = max(peak["worker"], me.memory_full_info().uss)
        for c in me.children():
            try:
                peak["child"] = max(peak["child"], c.memory_full_info().uss)
            except psutil.NoSuchProcess:
                continue
        time.sleep(0.5)
threading.Thread(target=watch, daemon=True).start()
settings = DecodeSettings(AudioConfig(), VadConfig(), ChunkingConfig(), 16000, 30.0, 1, 20)
chunks = longest = 0
began = time.time()
for table in Decode(units, settings)(pa.table({"id": [0]})):
    for r in table.drop_columns(["waveform"]).to_pylist():
        if r["kind"] == "chunk":
            chunks += 1
            longest = max(longest, r["input_end"] - r["input_start"])
        else:
            end = r
print(json.dumps({"worker_mb": peak["worker"] / 2**20, "child_mb": peak["child"] / 2**20, "chunks": chunks,
    "longest": longest, "seconds": time.time() - began, "decoded": end["channels"][0]["decoded_samples"],
    "counted": end["num_chunks"], "status": end["status"], "flags": end["flags"]}))
"""


def repeated(path: Path, piece: Path, seconds: float) -> Path:
    """A FLAC that repeats a piece of speech for `seconds`, written in pieces."""
    samples, rate = soundfile.read(piece, dtype="int16")
    with soundfile.SoundFile(path, "w", rate, 1, "PCM_16") as f:
        written = 0
        while written < seconds * rate:
            f.write(samples)
            written += len(samples)
    return path


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_ten_hours_stay_under_400_mb(tmp_path: Path) -> None:
    piece = speech(tmp_path / "piece.flac", 600.0, seed=41)
    audio = repeated(tmp_path / "ten_hours.flac", piece, 36_000.0)
    command = [sys.executable, "-c", DECODE, str(audio), str(tmp_path / "plan")]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=1400).stdout
    found = json.loads(said.splitlines()[-1])
    print(found)
    assert 20 < found["worker_mb"] < 400
    assert 20 < found["child_mb"] < 400
    assert found["decoded"] == 36_000 * 16_000
    assert found["chunks"] == found["counted"] > 36_000 / 30
    assert found["longest"] <= 30.0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_hour_commits_its_first_window_within_a_minute(tmp_path: Path) -> None:
    piece = speech(tmp_path / "piece.flac", 600.0, seed=42)
    audio = repeated(tmp_path / "hour.flac", piece, 3_600.0)
    assert np.isclose(soundfile.info(audio).duration, 3_600.0)
    took = [first_commit(Command(str(audio), tmp_path / "0", SHIPPED, engine="whisper"))]
    while min(took) >= 60.0 and len(took) < 3:  # the machine may have had other things to do: 37 s when idle
        took.append(first_commit(Command(str(audio), tmp_path / str(len(took)), SHIPPED, engine="whisper")))
    print(f"first commit after {', '.join(f'{t:.1f}' for t in took)} s")
    assert min(took) < 60.0


def first_commit(run: Command) -> float:
    """Seconds from the command to its first committed window; it is killed then."""
    began = time.monotonic()
    process = run.start()
    try:
        assert wait_for(lambda: bool(parts(run.output)), process, 240.0)
        return time.monotonic() - began
    finally:
        kill(process)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_thousand_slices_of_an_hour_of_mp3_open_it_at_most_three_times(tmp_path: Path) -> None:
    piece = speech(tmp_path / "piece.flac", 600.0, seed=43)
    samples, rate = soundfile.read(piece, dtype="int16")
    served = tmp_path / "served"
    served.mkdir()
    with soundfile.SoundFile(served / "hour.mp3", "w", rate, 1, format="MP3") as f:
        for _ in range(6):
            f.write(samples)
    with serving(served) as web:
        lines = [
            {"audio_filepath": f"{web.url}/hour.mp3", "offset": i * 3.6, "duration": 3.6} for i in range(1000)
        ]
        manifest = tmp_path / "slices.jsonl"
        manifest.write_text("\n".join(json.dumps(line) for line in lines))
        mine = Command(str(manifest), tmp_path / "out")
        mine.run()
        assert web.fetched["hour.mp3"] <= 3
    rows = transcripts(mine.output).to_pylist()
    assert [r["offset"] for r in rows] == [line["offset"] for line in lines]
    assert "ok" in {r["status"] for r in rows} <= {"ok", "empty"}
