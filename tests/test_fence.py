"""Ownership of an output: one owner, immediate takeover from the dead, refusal while alive."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dawnchorus import fence, storage
from dawnchorus.errors import Fenced, OutputOwned
from dawnchorus.fence import Fence

HOLD = """
import sys, time
from dawnchorus.fence import Fence
f = Fence(sys.argv[1], "other"); f.acquire()
with f:
    print(f.epoch, flush=True); time.sleep(60)
"""


def test_a_released_output_is_free(tmp_path: Path) -> None:
    for epoch in (1, 2, 3):
        mine = Fence(str(tmp_path), "run")
        assert mine.acquire() == epoch
        with mine:
            fence.check(str(tmp_path), epoch)


def test_a_living_owner_is_respected_and_a_dead_one_is_not(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline().strip() == "1"
        with pytest.raises(OutputOwned, match=r"run other .*--take-over"):
            Fence(str(tmp_path), "run").acquire()
    finally:
        holder.kill()
        holder.wait()
    assert Fence(str(tmp_path), "run").acquire() == 2, "its process is dead: no waiting"


def test_an_owner_in_another_container_of_this_machine_may_live(tmp_path: Path) -> None:
    """Of one name, and with process ids of its own, which mean nothing here."""
    contained = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    try:
        subprocess.run([*contained, "true"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no leave to make a PID namespace")
    begun = [*contained, sys.executable, "-c", HOLD, str(tmp_path)]
    holder = subprocess.Popen(begun, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline().strip() == "1"
        with pytest.raises(OutputOwned, match="run other"):
            Fence(str(tmp_path), "run").acquire()
    finally:
        holder.kill()
        holder.wait()


def test_who_was_taken_over_stops_writing(tmp_path: Path) -> None:
    first, second = Fence(str(tmp_path), "one"), Fence(str(tmp_path), "two")
    first.acquire()
    with pytest.raises(OutputOwned):
        second.acquire()
    assert second.acquire(take_over=True) == 2
    with pytest.raises(Fenced, match="attempt 2 owns"):
        fence.check(str(tmp_path), 1)
    with pytest.raises(Fenced):
        first.advance()


def test_an_attempt_advances_its_own_epoch(tmp_path: Path) -> None:
    mine = Fence(str(tmp_path), "run")
    mine.acquire()
    assert mine.advance() == 2
    fence.check(str(tmp_path), 2)
    assert fence.newest_epoch(str(tmp_path)) == 2


def test_silence_counts_as_gone(tmp_path: Path) -> None:
    mine = Fence(str(tmp_path), "run")
    mine.acquire()
    folder = storage.join(str(tmp_path), "_runs", "_fence")
    storage.put_atomic(storage.join(folder, "00000001.beat"), b"1.0")
    assert Fence(str(tmp_path), "other").acquire() == 2


def test_an_owner_whose_clock_is_slow_is_heard(tmp_path: Path) -> None:
    mine = Fence(str(tmp_path), "run")
    mine.acquire()
    beat = storage.join(str(tmp_path), "_runs", "_fence", "00000001.beat")
    storage.put_atomic(beat, str(time.time() - 300).encode())
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(Fence(str(tmp_path), "other").acquire)
        while not other.done():
            storage.put_atomic(beat, str(time.time() - 300).encode())
            time.sleep(0.2)
        with pytest.raises(OutputOwned, match="last heard 0 s ago"):
            other.result()


def test_a_beat_that_cannot_be_told_is_missed_and_no_more(tmp_path: Path) -> None:
    """A store may say for a moment that there is no such place."""
    owner = Fence(str(tmp_path), "a")
    owner.acquire()
    owner.beat()
    folder = tmp_path / "_runs" / "_fence"
    [beat] = folder.glob("*.beat")
    said = beat.read_text()
    folder.rename(tmp_path / "away")
    folder.touch()
    owner.beat()
    folder.unlink()
    (tmp_path / "away").rename(folder)
    owner.beat()
    assert float(beat.read_text()) > float(said)


@pytest.mark.parametrize("text", ["{", "{}", '{"epoch": 1, "run_id": "r", "colour": "red"}', "[]"])
def test_an_owner_that_nobody_can_read_is_said_and_can_be_taken_over(tmp_path: Path, text: str) -> None:
    mine = Fence(str(tmp_path), "r")
    mine.acquire()
    [record] = [p for p in tmp_path.rglob("00000001.json")]
    record.write_text(text)
    with pytest.raises(OutputOwned, match="does not say who owns the output") as caught:
        Fence(str(tmp_path), "r2").acquire()
    assert "--take-over" in (caught.value.fix or "")
    assert Fence(str(tmp_path), "r2").acquire(take_over=True) == 2
