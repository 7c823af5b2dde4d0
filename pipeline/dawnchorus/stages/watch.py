"""Who is told how an engine works while it works, and the loading of an engine, which is told too.

Knows no metrics system: what is told where is the run's choice.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Protocol

from dawnchorus import logs
from dawnchorus.config import EngineConfig
from dawnchorus.engines import devices
from dawnchorus.records import Counted, Seconds


class Watch(Protocol):
    """Hears of an engine, in the engine's process; picklable, and quick: the GPU waits meanwhile."""

    def loaded(self, worker: str) -> None:
        """An engine is ready in process `worker` ("host:pid")."""

    def called(self, batches: Counted, queued: Seconds | None) -> None:
        """An engine has worked on a window whose chunks had waited for `queued` on average."""


class Loadable(Protocol):
    """An engine or a language model."""

    def load(self) -> None:
        """Make ready; takes up to minutes."""


def load(engine: Loadable, config: EngineConfig, run_id: str, worker: str, watch: Watch | None) -> None:
    """Load an engine, and say so.

    Raises:
        UserError: what is wrong with its device, its package or its weights.
    """
    began = time.perf_counter()
    devices.require(config.name, config.device)
    engine.load()
    spent = round(time.perf_counter() - began, 3)
    about = {"engine": config.name, "model": config.model, "device": config.device, "worker": worker}
    logs.event("engine_loaded", run_id=run_id, **about, seconds=spent)
    if watch is not None:
        watch.loaded(worker)


def mean_wait(rows: Sequence[dict[str, Any]], now: float) -> Seconds | None:
    """How long the chunks of a window had waited since they were decoded, on average; None where that is not
    known. The clocks of two nodes may differ: never below 0."""
    since = [r["timing"]["started_at"] for r in rows if r["timing"]]
    return max(0.0, now - sum(since) / len(since)) if since else None
