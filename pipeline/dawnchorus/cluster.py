"""The Ray side of a run: start or join a cluster, set Ray Data up, share out what it has, count progress.

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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.data import DataContext

from dawnchorus import auth, logs
from dawnchorus.config import RunConfig
from dawnchorus.errors import ConfigError
from dawnchorus.records import Seconds

_MIB = 1024 * 1024
CPU_WINDOW_ROWS = 16
GPU_WINDOW_ROWS = 384
WRITE_CPUS = 0.1
_DECODE_SHARE = 0.5
_ENGINE_SHARE = 0.7
"""Of the slots without GPUs: decoding and VAD run at 240 x real time, tiny.en at 23 x."""
_ACCELERATOR = "accelerator_type:"
"""Ray's resource of a node with that GPU, such as `accelerator_type:H100`."""
_WORKER_ENV = {"OMP_NUM_THREADS": "1"}


@dataclass(frozen=True, slots=True)
class Resources:
    """What of the cluster each stage may use."""

    engines: int
    cpus_per_engine: float
    gpus_per_engine: float
    decoders: int
    cpus_per_decoder: float
    window_rows: int
    decode_memory_bytes: int
    accelerator: str | None = None

    @property
    def gpus(self) -> float:
        """GPUs of all engines together."""
        return self.engines * self.gpus_per_engine


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
    address = config.workers.address or os.environ.get("RAY_ADDRESS")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address:
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
    return max(3, math.ceil(len(os.sched_getaffinity(0)) / _ENGINE_SHARE))


def tune(block_bytes: int) -> None:
    """Set Ray Data's context for the graphs of this process."""
    # The retry arguments have no other way in until Ray 2.64, which is why Ray is pinned.
    warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.target_max_block_size = max(2 * _MIB, min(32 * _MIB, block_bytes))
    # Our own watchdog decides; 30 minutes without a block is a spot drought, not a fault.
    context.execution_no_progress_timeout_s = -1
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


def resources(config: RunConfig) -> Resources:
    """What each stage may use of the cluster that is up now."""
    cluster: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    kinds = sorted(k.removeprefix(_ACCELERATOR) for k in cluster if k.startswith(_ACCELERATOR))
    use = share_out(config, cluster.get("CPU", 1.0), cluster.get("GPU", 0.0))
    # Of a mix of GPUs none is taken for the price of all: `cost.gpu` says.
    return replace(use, accelerator=kinds[0] if len(kinds) == 1 else None)


def resources_here(config: RunConfig) -> Resources | None:
    """What a run on this machine would use, without starting Ray; None where it would join a cluster."""
    if config.workers.address or os.environ.get("RAY_ADDRESS"):
        return None
    return share_out(config, float(_local_cpus()), float(len(list(Path("/dev").glob("nvidia[0-9]*")))))


def share_out(config: RunConfig, cpus: float, gpus: float) -> Resources:
    """Engines, decoders and window of a cluster of `cpus` and `gpus` slots.

    Raises:
        ConfigError: they do not fit.
    """
    workers = config.workers
    gpus_each = workers.gpus_per_engine if workers.gpus_per_engine is not None else (1.0 if gpus else 0.0)
    if gpus_each:
        engines, cpus_each = workers.engines or max(1, int(gpus / gpus_each)), workers.cpus_per_engine or 1.0
    else:
        engines, cpus_each = _cpu_engines(cpus, workers.engines, workers.cpus_per_engine)
    _refuse_what_cannot_fit(engines, cpus_each, gpus_each, cpus, gpus)
    decode_each = 1.0 if gpus_each else _DECODE_SHARE
    room = cpus - engines * cpus_each - WRITE_CPUS
    decoders = workers.decoders or max(1, int(room / decode_each))
    rows = workers.window_rows or (GPU_WINDOW_ROWS if gpus_each else CPU_WINDOW_ROWS)
    memory = config.audio.max_memory_bytes // 2
    return Resources(engines, cpus_each, gpus_each, decoders, decode_each, rows, memory)


def _refuse_what_cannot_fit(
    engines: int, cpus_each: float, gpus_each: float, cpus: float, gpus: float
) -> None:
    """Ray waits without a word for slots that will never be there.

    Raises:
        ConfigError: the engines and one decode task do not fit the cluster.
    """
    for name, each, all_ in (
        ("cpus_per_engine", cpus_each, cpus - 1.0),
        ("gpus_per_engine", gpus_each, gpus),
    ):
        if each > 1 and each != int(each):
            raise ConfigError(f"workers.{name} = {each} is not a whole number.", "Above 1, slots are whole.")
        if engines * each > max(all_, 0.0):
            spare = " beside the one for decoding" if name == "cpus_per_engine" else ""
            raise ConfigError(
                f"{engines} engines with workers.{name} = {each:g} need {engines * each:g} slots; "
                f"the cluster has {max(all_, 0.0):g}{spare}.",
                f"Lower workers.engines or workers.{name}.",
            )


def _cpu_engines(cpus: float, engines: int | None, cpus_each: float | None) -> tuple[int, float]:
    """Replicas without a GPU, and the CPU slots of each: by default single-threaded ones in most slots,
    which a small model uses better than threads (tiny.en, 12 minutes on a shared core pair: rtfx 23
    with one thread, 16 with two). Whole slots: Ray waits for ever for 1.4 CPUs, and its budget for
    decoding falls below one task when the replicas leave less than a slot."""
    for_engines = max(1.0, cpus * _ENGINE_SHARE)
    if engines is None:
        engines = max(1, int(for_engines / max(1.0, cpus_each or 1.0)))
    return engines, cpus_each if cpus_each is not None else max(1.0, float(int(for_engines / engines)))


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


class Tally:
    """Counts commits. Lives as a Ray actor that sinks tell of every part and the driver asks for the sum."""

    def __init__(self) -> None:
        self.progress = Progress()
        self.reached: dict[str, Seconds] = {}
        self.ended: set[str] = set()
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
        for recording in ended:
            self.ended.add(recording)
            self.reached.pop(recording, None)
        p.num_recordings = len(self.ended)
        p.last_commit = time.time()

    def read(self) -> Progress:
        """The sum so far."""
        return self.progress

    def take(self) -> list[dict[str, Any]]:
        """What traces tell of the windows since this was asked last."""
        taken, self.windows = self.windows, []
        return taken


def start_tally() -> Any:
    """The handle of a new Tally actor."""
    return ray.remote(num_cpus=0)(Tally).remote()
