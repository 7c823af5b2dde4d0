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
from dawnchorus.engines.base import Identity
from dawnchorus.engines.batching import is_out_of_memory
from dawnchorus.errors import EngineUnavailable
from dawnchorus.records import Counted, Seconds


class Watch(Protocol):
    """Hears of an engine, in the engine's process; picklable, and quick: the GPU waits meanwhile."""

    def loaded(self, worker: str) -> None:
        """An engine is ready in process `worker` ("host:pid")."""

    def called(self, batches: Counted, queued: Seconds | None) -> None:
        """An engine has worked on a window whose chunks had waited for `queued` on average."""


class Loadable(Protocol):
    """An engine or a language model."""

    def identity(self) -> Identity:
        """Which model it is."""

    def load(self) -> None:
        """Make ready; takes up to minutes."""


def load(
    engine: Loadable,
    config: EngineConfig,
    run_id: str,
    worker: str,
    watch: Watch | None = None,
    weights: str | None = None,
) -> None:
    """Load an engine, and say so. `weights` is the SHA-256 that the run identified, where there is one.

    Raises:
        UserError: what is wrong with its device, its package or its weights.
    """
    began = time.perf_counter()
    devices.require(config.name, config.device)
    try:
        engine.load()
    except (RuntimeError, MemoryError) as e:
        if not is_out_of_memory(e):
            raise
        # A refusal: whatever else is raised here has Ray build the actor again, dozens of times.
        fix = (
            devices.ADVICE if config.device == "cuda" else "Choose a smaller model, or fewer of them at once."
        )
        raise EngineUnavailable(f"There is no memory for the model: {e}.", fix) from e
    if weights is not None:
        _refuse_another_model(engine, worker, weights)
    spent = round(time.perf_counter() - began, 3)
    about = {"engine": config.name, "model": config.model, "device": config.device, "worker": worker}
    logs.event("engine_loaded", run_id=run_id, **about, seconds=spent)
    if watch is not None:
        watch.loaded(worker)


def _refuse_another_model(engine: Loadable, worker: str, weights: str) -> None:
    """A bucket, a hub's branch or a node's own disk may hold another model by now than the run identified:
    its rows would stand under the fingerprint of the first.

    Raises:
        EngineUnavailable: this one has other weights.
    """
    here = engine.identity().facts.get("weights_sha256")
    if here != weights:
        raise EngineUnavailable(
            f"The model on {worker.partition(':')[0]} is not the one that this run began with "
            f"(weights SHA-256 {str(here)[:16]}, not {weights[:16]}).",
            "Give every node the same model, or set engine.revision.",
        )


def mean_wait(rows: Sequence[dict[str, Any]], now: float) -> Seconds | None:
    """How long the chunks of a window had waited since they were decoded, on average; None where that is not
    known. The clocks of two nodes may differ: never below 0."""
    since = [r["timing"]["started_at"] for r in rows if r["timing"]]
    return max(0.0, now - sum(since) / len(since)) if since else None
