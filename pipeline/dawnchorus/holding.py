"""What a run holds of its cluster while it works: the engines that are up, their GPUs, and for how long.

A pool that grows has fewer engines than it may have while nodes are still to come, or were taken away: those
that never came are neither busy nor paid for.
"""

from __future__ import annotations

import time

from dawnchorus import cluster
from dawnchorus.placement import Resources, room
from dawnchorus.records import Seconds


class Held:
    """Engines of one command, from one look at the cluster to the next. `looked` is monotonic."""

    def __init__(self, use: Resources) -> None:
        self.use = use
        self.engines = use.engines if use.first_engines is None else use.first_engines
        self.gpu_hours = 0.0
        self.looked = time.monotonic()
        self._elapsed: Seconds = 0.0
        self._offered: Seconds = 0.0

    @property
    def gpus(self) -> float:
        """GPUs of the engines that are up."""
        return self.engines * self.use.gpus_per_engine

    def look(self, elapsed: Seconds) -> None:
        """Count what was held since the last look; `elapsed` is since the present graph began."""
        now = time.monotonic()
        seconds, self.looked = now - self.looked, now
        self.gpu_hours += seconds / 3600 * self.gpus
        if elapsed < self._elapsed:  # another graph
            self._offered = 0.0
        self._offered += min(seconds, elapsed) * self.engines
        self._elapsed = elapsed
        if self.use.first_engines is not None:
            each = self.use.cpus_per_engine, self.use.gpus_per_engine
            self.engines = min(self.use.engines, sum(room(n, *each) for n in cluster.nodes()))

    def busy(self, engine_seconds: Seconds) -> float | None:
        """Which share of the present graph the engines were at work, which is `engine_seconds` in sum."""
        return min(1.0, engine_seconds / self._offered) if self._offered else None
