"""How many padded seconds of audio one model call may hold: measured at load, on the GPU that there is.

A cluster may mix GPUs of 24 and of 80 GB, and several replicas may share one. What a second of audio takes
is measured on noise, which is also the warm-up. Knows no model.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import numpy as np

from dawnchorus.config import EngineConfig
from dawnchorus.engines.base import Engine, Waveform
from dawnchorus.engines.batching import counted
from dawnchorus.records import Seconds

DEFAULT_SECONDS: Seconds = 240.0
"""Where nothing is measured: eight chunks of 30 s."""
_MOST_SECONDS: Seconds = 3840.0
"""128 chunks of 30 s: more keeps no GPU busier."""
_USED_SHARE = 0.8
"""Of the free memory; fragmentation and longer texts than those of noise have the rest."""
_LARGE = 4


class Gauge(Protocol):
    """The memory of one device, as one process sees it; bytes."""

    def begin(self) -> None:
        """Forget the peak so far."""

    def peak(self) -> int:
        """The most held at once since `begin`, beyond what was held then."""

    def room(self) -> int:
        """What this process may still take."""


class TorchGauge:
    """torch's own count of the current CUDA device, and a limit to this process's share of it, so that
    replicas which share a GPU do not take each other's part."""

    def __init__(self, share: float) -> None:
        import torch

        self._cuda, self._share, self._before = torch.cuda, min(1.0, share), 0
        if share < 1.0:
            torch.cuda.set_per_process_memory_fraction(share)

    def begin(self) -> None:
        """See `Gauge`."""
        self._cuda.synchronize()
        self._cuda.reset_peak_memory_stats()
        self._before = self._cuda.memory_allocated()

    def peak(self) -> int:
        """See `Gauge`."""
        self._cuda.synchronize()
        return int(self._cuda.max_memory_allocated() - self._before)

    def room(self) -> int:
        """See `Gauge`."""
        free, total = self._cuda.mem_get_info()
        held, kept = self._cuda.memory_allocated(), self._cuda.memory_reserved()
        return int(min(free + kept, total * self._share) - held)


def gauge(config: EngineConfig, device: str) -> Gauge | None:
    """The gauge of a loaded torch model's device; None without a GPU."""
    return TorchGauge(config.memory_share or 1.0) if device.startswith("cuda") else None


def settle(
    config: EngineConfig,
    gauge: Gauge | None,
    longest: Seconds,
    run: Callable[[Seconds], object],
    on_gpu: bool = False,
) -> Seconds:
    """Warm a loaded model up, and say how many padded seconds one call of it may hold.

    `run(seconds)` transcribes noise in batches of so many seconds; `longest` is the longest chunk.
    `engine.batch_seconds` is taken as it is; without it a GPU with a gauge is measured.
    """
    warm = on_gpu or gauge is not None if config.warm_up is None else config.warm_up
    if config.batch_seconds is not None or gauge is None or not warm:
        budget = config.batch_seconds or DEFAULT_SECONDS
        if warm:
            run(budget)
        return budget
    run(longest)  # kernels are loaded and chosen here, and take memory of their own
    needs = []
    for seconds in (longest, _LARGE * longest):
        gauge.begin()
        with counted() as seen:
            run(seconds)
        if seen.num_halved:
            return longest
        needs.append(gauge.peak())
    return fitting(longest, needs[0], needs[1], gauge.room())


def by_transcribing(engine: Engine) -> Callable[[Seconds], object]:
    """A `run` for `settle`."""
    longest, rate = engine.max_chunk_seconds, engine.sampling_rate
    return lambda seconds: engine.transcribe(noise(seconds, longest, rate))


def noise(budget: Seconds, longest: Seconds, sampling_rate: int) -> list[Waveform]:
    """As many of the longest chunks as a batch of `budget` seconds has, of white noise, always the same."""
    samples = np.random.default_rng(0).normal(0.0, 0.1, int(longest * sampling_rate))
    return [samples.astype(np.float32)] * math.ceil(budget / longest)


def fitting(longest: Seconds, need: int, need_large: int, room: int) -> Seconds:
    """Padded seconds that fit `room` bytes, when a call of `longest` seconds took `need` and one of four
    times that `need_large`: a line through both, never below `longest`."""
    slope = max((need_large - need) / ((_LARGE - 1) * longest), 1.0)
    always = max(0.0, need - slope * longest)
    return float(min(max((_USED_SHARE * room - always) / slope, longest), _MOST_SECONDS))
