"""kill -9 the driver at any moment, run the same command again: the same table, and no chunk paid twice."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from kit import Command, archive, chunk_rows, comparable, decoders, hashes, kill, parts, wait_for

MOMENTS = ("decode", "engine", "sink", "between", "publish")
LENGTHS = (48.0, 8.0, 12.0, 5.0, 27.0, 7.0, 9.0, 15.0, 6.0, 11.0)
SETTINGS = {
    "publish.recordings_per_file": 2,
    "workers.window_rows": 3,
    "plan.unit_seconds": 30.0,
    "engine.options": {"seconds_per_audio_second": 0.03},
}


def command(folder: Path, audio: Path) -> Command:
    return Command(str(audio), folder / "out", dict(SETTINGS))


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = archive(tmp_path_factory.mktemp("audio"), LENGTHS)
    (folder / "broken.mp3").write_text("this is a letter, not a recording")
    (folder / "silence.flac").write_bytes((folder / "001.flac").read_bytes()[:2000])
    return folder


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, audio: Path) -> Path:
    mine = command(tmp_path_factory.mktemp("unbroken"), audio)
    mine.run()
    assert len(mine.calls()) == len({c["hash"] for c in mine.calls()}) == len(hashes(chunk_rows(mine.output)))
    return mine.output


def moment(
    kind: str, rng: random.Random, mine: Command, process: subprocess.Popen[str]
) -> Callable[[], bool]:
    """When to kill."""
    out = mine.output
    count = rng.randint(1, 6)
    if kind == "decode":
        return lambda: bool(decoders(process))
    if kind == "engine":
        return lambda: len(mine.calls()) >= 2 * count
    if kind == "sink":
        return lambda: len(parts(out)) >= count
    if kind == "between":
        return lambda: any(out.glob("_runs/*/attempts/*/homes/*.parquet"))
    return lambda: len(list(out.glob("transcripts/*.parquet"))) >= min(count, 4)


def kill_and_resume(seed: int, folder: Path, audio: Path, unbroken: Path) -> None:
    rng = random.Random(seed)
    mine = command(folder, audio)
    kinds = MOMENTS[seed % len(MOMENTS) :] + MOMENTS[: seed % len(MOMENTS)]
    for kind in (*kinds[: rng.randint(1, 2)], None):
        committed, paid = hashes(chunk_rows(mine.output)), len(mine.calls())
        process = mine.start()
        try:
            if kind is None:
                process.wait(180)
            else:
                came = wait_for(moment(kind, rng, mine, process), process)
                assert came or kind is not kinds[0], f"the run ended before {kind}"
                assert kill(process) == came
        finally:
            kill(process)
        again = [c["hash"] for c in mine.calls()[paid:]]
        assert not committed & set(again), f"before {kind}: transcribed again"
        assert len(again) == len(set(again))
    assert process.returncode == 0, mine.said.read_text()
    assert comparable(mine.output) == comparable(unbroken)


def test_kill_and_resume(tmp_path: Path, audio: Path, unbroken: Path) -> None:
    kill_and_resume(2, tmp_path, audio, unbroken)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 20))
def test_kill_and_resume_ten_more(seed: int, tmp_path: Path, audio: Path, unbroken: Path) -> None:
    kill_and_resume(seed, tmp_path, audio, unbroken)
