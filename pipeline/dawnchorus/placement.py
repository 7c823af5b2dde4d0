"""Sharing out a cluster's slots: how many engines and decoders, of what size, and on which nodes they fit.

Pure arithmetic over what the nodes have; Ray itself is `cluster`'s.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from dawnchorus.config import EngineConfig, RunConfig, WorkersConfig
from dawnchorus.errors import ConfigError
from dawnchorus.wording import many

# Whisper tiny.en, 32 files on 2 cores, medians of three: rtfx 25.5 with 16 rows, 25.8 with 8, 26.0 with 4.
CPU_WINDOW_ROWS = 8
GPU_WINDOW_ROWS = 384
WRITE_CPUS = 0.1
ENGINE_SHARE = 0.7
"""Of the slots without GPUs: decoding and VAD run at 240 x real time, tiny.en at 23 x."""
_DECODE_SHARE = 0.5


class NoRoom(ConfigError):
    """What was asked for does not fit the cluster as it is; it may when nodes join."""


@dataclass(frozen=True, slots=True)
class Node:
    """What one node offers: slots, the name of its GPUs, and its labels."""

    cpus: float
    gpus: float = 0.0
    accelerator: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict, compare=False)

    def __str__(self) -> str:
        gpus = f"{self.gpus:g} {self.accelerator or 'GPU'} and " if self.gpus else ""
        return f"{gpus}{self.cpus:g} CPU{'' if self.cpus == 1 else 's'}"


@dataclass(frozen=True, slots=True)
class Resources:
    """What of the cluster each stage may use. `engines` are the most there will be; `first_engines`, where
    it is given, are those to begin with, and more come with nodes."""

    engines: int
    cpus_per_engine: float
    gpus_per_engine: float
    decoders: int
    cpus_per_decoder: float
    window_rows: int
    decode_memory_bytes: int
    first_engines: int | None = None
    decode_labels: Mapping[str, str] = field(default_factory=dict)
    nodes: tuple[Node, ...] = ()

    @property
    def gpus(self) -> float:
        """GPUs of all engines together."""
        return self.engines * self.gpus_per_engine

    @property
    def accelerator(self) -> str | None:
        """The name of the GPUs; None where there are none, or several kinds: of a mix none is taken for
        the price of all (`cost.gpu` says)."""
        kinds = {n.accelerator for n in self.nodes if n.accelerator}
        return kinds.pop() if len(kinds) == 1 else None

    def at_most(self, engines: int) -> Resources:
        """The same with no more engines than there is work for."""
        most = max(1, min(self.engines, engines))
        first = self.first_engines
        return replace(self, engines=most, first_engines=None if first is None else min(first, most))

    def shares(self, engine: EngineConfig) -> EngineConfig:
        """An engine's configuration with as many threads as a replica has CPUs, and as much of a GPU's
        memory as it has of the GPU, unless it says. One that has a GPU uses it, or fails: on a node with a
        broken driver it would else hold the GPU for a night and work on the CPU. One that has none leaves
        the node's alone: Ray hides no GPU from it, and as many as there are cores would share the first."""
        each = self.gpus_per_engine
        share = engine.memory_share or (each if 0 < each < 1 else None)
        threads = engine.threads or max(1, int(self.cpus_per_engine))
        own = "cuda" if each else "cpu"
        device = own if engine.device == "auto" else engine.device
        return engine.model_copy(update={"threads": threads, "memory_share": share, "device": device})

    def sentence(self) -> str:
        """Such as `1 to 8 engines x 1 CPU, 0.5 GPU; 24 decoding`."""
        begin = f"{self.first_engines:,} to " if self.first_engines not in (None, self.engines) else ""
        gpu = f", {self.gpus_per_engine:g} GPU" if self.gpus_per_engine else ""
        return (
            f"{begin}{_engines(self.engines)} x {self.cpus_per_engine:g} CPU{gpu}; {self.decoders:,} decoding"
        )

    def placement(self) -> list[str]:
        """One line per kind of node: how many there are and what each has room for."""
        lines = []
        kinds = Counter((n, _has_labels(n, self.decode_labels)) for n in self.nodes)
        for (node, decodes), count in kinds.items():
            engines = room(node, self.cpus_per_engine, self.gpus_per_engine)
            left = node.cpus - min(engines, self.engines) * self.cpus_per_engine
            decoders = int(left / self.cpus_per_decoder) if decodes else 0
            what = [_engines(engines)] if engines else []
            what += [f"{decoders} decoding"] if decoders > 0 else []
            each = " each" if count > 1 else ""
            lines.append(f"{count:,} x {node}: room for {', '.join(what) or 'nothing'}{each}")
        return lines


def _has_labels(node: Node, labels: Mapping[str, str]) -> bool:
    return all(node.labels.get(k) == v for k, v in labels.items())


def _engines(num: int) -> str:
    return many(num, "engine")


def room(node: Node, cpus_each: float, gpus_each: float) -> int:
    """Engines that fit on a node. Ray never spreads a share of a GPU over two."""
    by_cpu = int(node.cpus / cpus_each + 1e-9) if cpus_each else None
    if not gpus_each:
        return by_cpu or 0
    by_gpu = (
        int(node.gpus) * int(1 / gpus_each + 1e-9) if gpus_each < 1 else int(node.gpus / gpus_each + 1e-9)
    )
    return by_gpu if by_cpu is None else min(by_gpu, by_cpu)


def share_out(config: RunConfig, nodes: Sequence[Node]) -> Resources:
    """Engines, decoders and window of a cluster of these nodes.

    Raises:
        NoRoom: they do not fit. ConfigError: they fit no cluster.
    """
    workers = config.workers
    cpus, gpus = sum(n.cpus for n in nodes), sum(n.gpus for n in nodes)
    gpus_each = gpus_per_engine(config, gpus)
    if gpus_each:
        cpus_each = 1.0 if workers.cpus_per_engine is None else workers.cpus_per_engine
        fit = sum(room(n, cpus_each, gpus_each) for n in nodes)
        # Nodes with no more CPUs than GPUs: one CPU somewhere has to decode.
        beside = int((cpus - 1.0) / cpus_each) if cpus_each else fit
        engines = workers.engines or max(1, min(fit, beside))
    else:
        engines, cpus_each = _cpu_engines(cpus, workers)
        fit = sum(room(n, cpus_each, 0.0) for n in nodes)
    _refuse_nonsense(workers, cpus_each, gpus_each)
    least = workers.min_engines or engines
    _refuse_what_cannot_fit(least, cpus_each, gpus_each, cpus, gpus, fit)
    first = max(least, min(engines, fit, int((cpus - 1.0) / cpus_each) if cpus_each else engines))
    decode_each = 1.0 if gpus_each else _DECODE_SHARE
    labels = workers.decode_labels
    if nodes and not any(_has_labels(n, labels) for n in nodes):
        said = ", ".join(f"{k}: {v}" for k, v in labels.items())
        raise NoRoom(
            f"No node has the labels of workers.decode_labels ({said}).",
            "Start nodes with them (ray start --labels), or wait for some: workers.wait_seconds.",
        )
    spare = min(cpus - first * cpus_each - WRITE_CPUS, sum(n.cpus for n in nodes if _has_labels(n, labels)))
    # Nodes that join are taken to be like those that are here.
    decoders = workers.decoders or max(1, int(spare / decode_each)) * math.ceil(engines / first)
    rows = workers.window_rows or (GPU_WINDOW_ROWS if gpus_each else CPU_WINDOW_ROWS)
    return Resources(
        engines,
        cpus_each,
        gpus_each,
        decoders,
        decode_each,
        rows,
        config.audio.max_memory_bytes // 2,
        first if workers.min_engines is not None else None,
        dict(labels),
        tuple(n for n in nodes if n.cpus or n.gpus),
    )


def gpus_per_engine(config: RunConfig, gpus: float) -> float:
    """GPUs of one engine; one told to use a GPU waits for it, and one told to use the CPU takes none."""
    if config.workers.gpus_per_engine is not None:
        return config.workers.gpus_per_engine
    device = config.engine.device
    return 1.0 if device == "cuda" or (gpus and device == "auto") else 0.0


def wanted(config: RunConfig) -> list[dict[str, float]]:
    """Slots that this run would use, one engine or decoder each: what an autoscaler is asked for."""
    workers = config.workers
    gpus_each = gpus_per_engine(config, 0.0)
    cpus_each = 1.0 if workers.cpus_per_engine is None else workers.cpus_per_engine
    engine = {"CPU": cpus_each} | ({"GPU": gpus_each} if gpus_each else {})
    decoder = {"CPU": 1.0 if gpus_each else _DECODE_SHARE}
    return [engine] * (workers.engines or 1) + [decoder] * (workers.decoders or 1)


def _refuse_nonsense(workers: WorkersConfig, cpus_each: float, gpus_each: float) -> None:
    """What fits no cluster of any size.

    Raises:
        ConfigError: says which key.
    """
    for name, each in (("cpus_per_engine", cpus_each), ("gpus_per_engine", gpus_each)):
        if each > 1 and each != int(each):
            raise ConfigError(f"workers.{name} = {each} is not a whole number.", "Above 1, slots are whole.")
    if workers.min_engines is not None and workers.engines is None:
        raise ConfigError(
            "workers.min_engines says with how many engines to begin, and nothing how many there may be.",
            "Set workers.engines as well.",
        )
    if workers.min_engines is not None and workers.min_engines > (workers.engines or 0):
        raise ConfigError(
            f"workers.min_engines = {workers.min_engines} is more than workers.engines = {workers.engines}.",
            "Begin with fewer, or allow more.",
        )


def _refuse_what_cannot_fit(
    engines: int, cpus_each: float, gpus_each: float, cpus: float, gpus: float, fit: int
) -> None:
    """Ray waits without a word for slots that will never be there.

    Raises:
        NoRoom: the engines and one decode task do not fit the cluster.
    """
    fix = "Lower workers.engines or workers.{name}, or wait for nodes: workers.wait_seconds."
    for name, each, all_ in (
        ("cpus_per_engine", cpus_each, cpus - 1.0),
        ("gpus_per_engine", gpus_each, gpus),
    ):
        if engines * each > max(all_, 0.0):
            spare = " beside the one for decoding" if name == "cpus_per_engine" else ""
            raise NoRoom(
                f"{_engines(engines)} with workers.{name} = {each:g} need {engines * each:g} slots; "
                f"the cluster has {max(all_, 0.0):g}{spare}.",
                fix.format(name=name),
            )
    if engines > fit:
        raise NoRoom(
            f"{_engines(engines)} of {cpus_each:g} CPU and {gpus_each:g} GPU do not fit: the cluster's nodes "
            f"have room for {fit}.",
            "Lower workers.engines, or what each takes: one engine is never spread over two nodes.",
        )


def _cpu_engines(cpus: float, workers: WorkersConfig) -> tuple[int, float]:
    """Replicas without a GPU, and the CPU slots of each: by default single-threaded ones in most slots,
    which a small model uses better than threads (tiny.en, 12 minutes on a shared core pair: rtfx 23
    with one thread, 16 with two). Whole slots: Ray waits for ever for 1.4 CPUs, and its budget for
    decoding falls below one task when the replicas leave less than a slot."""
    engines, cpus_each = workers.engines, workers.cpus_per_engine
    for_engines = max(1.0, cpus * ENGINE_SHARE)
    if engines is None:
        engines = max(1, int(for_engines / max(1.0, cpus_each or 1.0)))
    begin = workers.min_engines or engines
    return engines, cpus_each if cpus_each is not None else max(1.0, float(int(for_engines / begin)))
