"""The budget of one model call: arithmetic, and what is run to find it."""

from __future__ import annotations

import pytest

from dawnchorus.config import EngineConfig
from dawnchorus.engines.batching import run_in_batches
from dawnchorus.engines.memory import DEFAULT_SECONDS, fitting, noise, settle

GIB = 1 << 30


class Ledger:
    """A device of `room` bytes on which a call takes `fixed`, and `each` a padded second."""

    def __init__(self, room: int, fixed: int, each: int) -> None:
        self.left, self.fixed, self.each = room, fixed, each
        self.last = 0.0
        self.calls: list[float] = []

    def run(self, seconds: float) -> None:
        self.calls.append(seconds)
        self.last = self.fixed + self.each * seconds

    def begin(self) -> None:
        self.last = 0.0

    def peak(self) -> int:
        return int(self.last)

    def room(self) -> int:
        return self.left


@pytest.mark.parametrize(("gib", "expected"), [(80, 3276.0), (24, 982.0), (1, 41.0)])
def test_the_budget_follows_the_memory_that_is_free(gib: int, expected: float) -> None:
    device = Ledger(gib * GIB, fixed=0, each=20 * GIB // 1024)
    found = settle(EngineConfig(), device, 40.0, device.run)
    assert found == pytest.approx(expected, rel=0.01)
    assert device.calls == [40.0, 40.0, 160.0], "once for the kernels, then twice to measure"


def test_what_a_call_takes_whatever_its_size_is_set_aside() -> None:
    each = GIB // 100
    assert fitting(40.0, GIB + 40 * each, GIB + 160 * each, 10 * GIB) == pytest.approx(700.0, rel=0.01)


def test_more_than_keeps_a_gpu_busy_is_not_taken() -> None:
    assert fitting(40.0, 40, 160, 80 * GIB) == 3840.0


def test_a_budget_that_somebody_gave_is_kept_and_tried() -> None:
    device = Ledger(GIB, 0, 1)
    assert settle(EngineConfig(batch_seconds=960.0), device, 40.0, device.run) == 960.0
    assert device.calls == [960.0]


def test_without_a_gpu_nothing_is_run_unless_asked() -> None:
    device = Ledger(GIB, 0, 1)
    assert settle(EngineConfig(), None, 40.0, device.run) == DEFAULT_SECONDS
    assert device.calls == []
    settle(EngineConfig(warm_up=True), None, 40.0, device.run)
    assert device.calls == [DEFAULT_SECONDS]
    assert settle(EngineConfig(warm_up=False), device, 40.0, device.run) == DEFAULT_SECONDS
    assert device.calls == [DEFAULT_SECONDS]


def test_memory_that_ends_while_measuring_leaves_one_chunk_a_call() -> None:
    device = Ledger(GIB, 0, 1)

    def run(seconds: float) -> None:
        chunks = [40.0] * int(seconds // 40)

        def call(batch: list[float]) -> list[float]:
            if len(batch) > 1:
                raise RuntimeError("CUDA out of memory")
            return batch

        run_in_batches(chunks, chunks, seconds, call, lambda e: "memory" in str(e), lambda c, _: c)

    assert settle(EngineConfig(), device, 40.0, run) == 40.0


def test_noise_is_always_the_same_and_fills_the_batch() -> None:
    first, again = noise(100.0, 40.0, 16_000), noise(100.0, 40.0, 16_000)
    assert [len(w) for w in first] == [640_000] * 3
    assert (first[0] == again[0]).all()
