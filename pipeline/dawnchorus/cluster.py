"""The Ray side of a run: start or join a cluster, see or await what it has, set Ray Data up, count progress.

The settings here are those that measurement showed to matter. Knows nothing of recordings.
"""

from __future__ import annotations

import gc
import logging
import math
import os
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.autoscaler.sdk import request_resources
from ray.data import DataContext
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dawnchorus import auth, logs, storage
from dawnchorus.config import RunConfig
from dawnchorus.errors import RunPaused
from dawnchorus.placement import ENGINE_SHARE, Node, NoRoom, Resources, share_out, wanted
from dawnchorus.records import Seconds

_MIB = 1024 * 1024
_ACCELERATOR = "accelerator_type:"
"""Ray's resource of a node with that GPU, such as `accelerator_type:H100`."""
_LOOK_SECONDS = 1.0
_WORKER_ENV = {
    "OMP_NUM_THREADS": "1",
    # A cache that grows with every token leaves holes that the next size does not fit: in an emulation of
    # torch's allocator 11 GiB of Canary-Qwen's cache held all 60 GiB there were; so it holds 11.1.
    "PYTORCH_ALLOC_CONF": "expandable_segments:True",
}


def joined(config: RunConfig) -> str | None:
    """The address of the cluster that a run joins; None where it starts one on this machine."""
    return config.workers.address or os.environ.get("RAY_ADDRESS") or None


def beginning(config: RunConfig) -> str:
    """What `start` is about to do, in a few words."""
    address = joined(config)
    if address == "auto":
        return "Joining the cluster of this machine ..."
    return f"Joining the cluster at {storage.redact(address)} ..." if address else "Starting Ray ..."


def start(config: RunConfig) -> None:
    """Join the cluster at `workers.address` (or RAY_ADDRESS), else start one on this machine.

    One torch or BLAS thread per worker process: two on busy cores were 10-30 times slower than one.
    """
    if ray.is_initialized():
        return
    auth.set_mode()
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray's core logs its own retries as errors on the driver's terminal; ours are rows and messages.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    address = joined(config)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address:
        with _stderr_held_back():
            ray.init(address=address, runtime_env={"env_vars": _WORKER_ENV | logs.worker_env()}, **quiet)
        return
    # Inherited, not a runtime_env: with one, Ray cannot use the workers that it starts ahead.
    os.environ.update(_WORKER_ENV)
    store = int(min(2048 * _MIB, psutil.virtual_memory().available * 0.3))
    quiet |= {"object_store_memory": store, "include_dashboard": False}
    with _stderr_held_back():
        ray.init(address="local", num_cpus=_local_cpus(), **quiet)


@contextmanager
def _stderr_held_back() -> Iterator[None]:
    """Keep the lines of Ray's core from the terminal unless the block fails; it writes to the file
    descriptor itself, so nothing in Python can stop it."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held, os.fdopen(os.dup(2), "wb", 0) as terminal:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            terminal.write(held.read())
            raise
        finally:
            os.dup2(terminal.fileno(), 2)


def _local_cpus() -> int:
    """Slots of a local cluster: one per core for engines, and those that decoding needs beside them."""
    return max(3, math.ceil(len(os.sched_getaffinity(0)) / ENGINE_SHARE))


def tune(block_bytes: int) -> None:
    """Set Ray Data's context for the graphs of this process."""
    # The retry arguments have no other way in until Ray 2.64, which is why Ray is pinned.
    warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
    # A pilot has fewer units than there are slots: nothing to tell a person.
    warnings.filterwarnings("ignore", message="The maximum number of concurrent tasks")
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.target_max_block_size = max(2 * _MIB, min(32 * _MIB, block_bytes))
    # Our own watchdog decides; 30 minutes without a block is a spot drought, not a fault.
    context.execution_no_progress_timeout_s = -1
    # An engine with one window in work and one waiting is busy; at Ray's 1.75 a pool hardly ever grew.
    context.autoscaling_config.actor_pool_util_upscaling_threshold = 1.0
    context.actor_init_retry_on_errors = True
    context.max_consecutive_actor_init_deaths = 4
    context.raise_original_map_exception = True
    context.execution_options.preserve_order = False
    # What stops a graph reaches the user as one sentence of ours, not as Ray's page of traceback.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)


def free_stopped_graphs() -> None:
    """Let go of the actors of graphs that stopped with an error. Handles of theirs stay in reference
    cycles with the error's traceback, and Ray keeps an actor, and its slots, while a handle lives: the
    next graph would wait for them for ever."""
    gc.collect()


def nodes() -> list[Node]:
    """The nodes of the cluster that is up now, those without slots included."""
    found = []
    for node in ray.nodes():  # type: ignore[no-untyped-call]
        if node["Alive"]:
            slots: dict[str, float] = node["Resources"]
            kinds = sorted(k.removeprefix(_ACCELERATOR) for k in slots if k.startswith(_ACCELERATOR))
            kind = kinds[0] if kinds else None
            labels = dict(node.get("Labels") or {})
            found.append(Node(slots.get("CPU", 0.0), slots.get("GPU", 0.0), kind, labels))
    return found


def resources(config: RunConfig, say: Callable[[str], None]) -> Resources:
    """What each stage may use of the cluster that is up; one that is too small as yet is asked to grow, and
    awaited for `workers.wait_seconds`.

    Raises:
        NoRoom: it is too small, and nobody said to wait.
        RunPaused: it was still too small after waiting.
    """
    limit = config.workers.wait_seconds
    use, lack = _sized(config)
    if lack is None or not limit:
        return _settled(use, lack)
    say(f"Waiting up to {limit:.0f} s for nodes: {lack.message}")
    # Where no autoscaler listens nobody hears this, and nodes come by themselves.
    request_resources(bundles=wanted(config))
    end = time.monotonic() + limit
    try:
        while lack is not None and time.monotonic() < end:
            time.sleep(_LOOK_SECONDS)
            use, lack = _sized(config)
    finally:
        # Else the autoscaler would keep the nodes when the run no longer needs them.
        request_resources(bundles=[])
    if lack is not None:
        why = lack.message.removesuffix(".")
        if use is None:
            raise RunPaused(f"the cluster is too small after {limit:.0f} s: {why}")
        say(f"Going on after {limit:.0f} s, although {why}.")
    return _settled(use, None)


def _sized(config: RunConfig) -> tuple[Resources | None, NoRoom | None]:
    """What of the nodes that are up a run would use, if they suffice; and what is still lacking."""
    here = [n for n in nodes() if n.cpus or n.gpus]
    try:
        use = share_out(config, here)
    except NoRoom as e:
        return None, e
    number = config.workers.nodes or 0
    short = NoRoom(f"{len(here)} of {number} nodes are there (workers.nodes).")
    return use, short if len(here) < number else None


def _settled(use: Resources | None, lack: NoRoom | None) -> Resources:
    if use is None:
        raise lack or AssertionError("neither room nor the lack of it")
    return use


def resources_ahead(config: RunConfig) -> Resources:
    """What a run would use: of this machine without starting Ray, or of the cluster that it would join; of
    one that is still to grow what the run would begin with, and no nodes.

    Raises:
        NoRoom: nothing would fit.
    """
    if joined(config):
        start(config)
        try:
            return share_out(config, nodes())
        except NoRoom:
            if not config.workers.wait_seconds:
                raise
        bundles = wanted(config)
        all_ = Node(sum(b["CPU"] for b in bundles) + 1.0, sum(b.get("GPU", 0.0) for b in bundles))
        return replace(share_out(config, [all_]), nodes=())
    gpus = len(list(Path("/dev").glob("nvidia[0-9]*")))
    return share_out(config, [Node(float(_local_cpus()), float(gpus))])


@dataclass(slots=True)
class Progress:
    """What this attempt has committed so far; seconds of audio, wall and engine time."""

    num_recordings: int = 0
    num_failed: int = 0
    num_chunks: int = 0
    audio_seconds: Seconds = 0.0
    engine_seconds: Seconds = 0.0
    last_commit: float = field(default_factory=time.time)
    failures: Counter[str] = field(default_factory=Counter)
    expected_seconds: Seconds | None = None
    """What `audio_seconds` will come to, by what was learned so far (`expected`); the driver knows it."""


class Tally:
    """Counts commits. Lives as a Ray actor that sinks tell of every part and the driver asks for the sum."""

    def __init__(self) -> None:
        self.progress = Progress()
        self.reached: dict[str, Seconds] = {}
        self.ended: set[str] = set()
        self.fresh: dict[str, Seconds] = {}
        self.windows: list[dict[str, Any]] = []

    def add(
        self,
        counts: dict[str, float],
        reached: dict[str, Seconds],
        ended: dict[str, Seconds],
        failures: dict[str, int],
        windows: list[dict[str, Any]],
    ) -> None:
        """Count one committed window: `reached` and `ended` are seconds into (and of) its recordings,
        `failures` the recordings that failed in it, by kind, `windows` what a trace tells of it."""
        self.windows += windows
        p = self.progress
        p.failures.update(failures)
        p.num_chunks += int(counts["num_chunks"])
        p.num_failed += int(counts["num_failed"])
        p.engine_seconds += counts["engine_seconds"]
        for recording, seconds in {**reached, **ended}.items():
            if recording in self.ended:
                continue
            before = self.reached.get(recording, 0.0)
            self.reached[recording] = max(before, seconds)
            p.audio_seconds += self.reached[recording] - before
        self.fresh |= {r: s for r, s in ended.items() if r not in self.ended}
        for recording in ended:
            self.ended.add(recording)
            self.reached.pop(recording, None)
        p.num_recordings = len(self.ended)
        p.last_commit = time.time()

    def read(self) -> Progress:
        """The sum so far."""
        return self.progress

    def take_ended(self) -> dict[str, Seconds]:
        """The recordings that have ended since this was asked last, and how long they were."""
        taken, self.fresh = self.fresh, {}
        return taken

    def take(self) -> list[dict[str, Any]]:
        """What traces tell of the windows since this was asked last."""
        taken, self.windows = self.windows, []
        return taken


def start_tally() -> Any:
    """The handle of a new Tally actor."""
    return beside_driver(Tally)


def beside_driver(kind: type) -> Any:
    """The handle of a new actor on the node of this process. Ray puts one without slots anywhere: on a spot
    node, with which the run's progress, its watchdog and its ear for `stop` would go."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor: Any = ray.remote(num_cpus=0)(kind)
    return actor.options(scheduling_strategy=here).remote()
