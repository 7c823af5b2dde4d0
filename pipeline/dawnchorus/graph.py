"""The story: units -> decoded chunks -> transcribed windows -> committed parts; home files -> transcripts;
transcripts -> requests -> windows of answers -> home files again.

Row in, row out: a failure is a row with a status, never a missing row. Knows the order and the
resources; does not know models, file formats, or what is already done.
"""

from __future__ import annotations

from typing import Any

import ray.data
from ray.data import ActorPoolStrategy, Dataset

from dawnchorus.placement import Resources
from dawnchorus.plan import Snapshot
from dawnchorus.stages.answer import Answerer, AnswerSettings, Cut
from dawnchorus.stages.decode import Decode
from dawnchorus.stages.decoded import DecodeSettings
from dawnchorus.stages.publish import Fold, Publish
from dawnchorus.stages.transcribe import Transcriber, TranscribeSettings


def windows(
    units: Snapshot, decode: DecodeSettings, transcribe: TranscribeSettings, use: Resources
) -> Dataset:
    """Graph 1: every unit of the plan becomes windows of transcribed chunks, ready for the sink."""
    return (
        ray.data.range(units.num_groups, override_num_blocks=units.num_groups)  # a unit's number
        .map_batches(Decode(units, decode), **_cpu(use))  # -> chunks with waveforms, and end rows
        .map_batches(Transcriber, fn_constructor_args=(transcribe,), **_engine(use))  # -> windows of results
    )


def transcripts(homes: Snapshot, publish: Publish | Fold) -> Dataset:
    """Graph 2: every home file with something new is assembled and replaced, one PUT each; answers are
    folded into them the same way."""
    return ray.data.range(homes.num_groups, override_num_blocks=homes.num_groups).map_batches(
        publish, batch_size=1, batch_format="pyarrow", zero_copy_batch=True, num_cpus=0.5
    )


def answers(homes: Snapshot, cut: Cut, answer: AnswerSettings, use: Resources) -> Dataset:
    """Graph 3: every home file's transcripts become windows of answers, ready for the sink. A long
    transcript has its next steps asked; it takes a few of these graphs."""
    return (
        ray.data.range(homes.num_groups, override_num_blocks=homes.num_groups)  # a home file's number
        .map_batches(cut, **_cut(use))  # -> requests: the next steps towards each answer
        .repartition(target_num_rows_per_block=use.window_rows)
        .map_batches(Answerer, fn_constructor_args=(answer,), **_engine(use))  # -> windows of answers
    )


def _cpu(use: Resources) -> dict[str, Any]:
    """Decode: plain tasks. Their `memory` also keeps Ray from fusing them into the engine's actor."""
    return {
        "batch_size": 1,
        "batch_format": "pyarrow",
        "zero_copy_batch": True,
        "num_cpus": use.cpus_per_decoder,
        "memory": use.decode_memory_bytes,
        "concurrency": use.decoders,
        "max_retries": 2,
        **({"label_selector": dict(use.decode_labels)} if use.decode_labels else {}),
    }


def _cut(use: Resources) -> dict[str, Any]:
    """Cut: plain tasks that read tables and count tokens."""
    return {
        "batch_size": 1,
        "batch_format": "pyarrow",
        "zero_copy_batch": True,
        "num_cpus": use.cpus_per_decoder,
        "concurrency": use.decoders,
        "max_retries": 2,
    }


def _engine(use: Resources) -> dict[str, Any]:
    """An engine: one actor per replica; 4 tasks in flight and 2 concurrent calls leave a GPU no gap."""
    busy: dict[str, Any] = {"max_tasks_in_flight_per_actor": 4, "max_concurrent_calls_per_actor": 2}
    if use.first_engines is None:
        pool = ActorPoolStrategy(size=use.engines, **busy)
    else:
        # A pool of fixed size whose actors do not all fit leaves decoding no slots, and the graph hangs.
        pool = ActorPoolStrategy(min_size=use.first_engines, max_size=use.engines, **busy)
    return {
        "batch_size": use.window_rows,
        "batch_format": "pyarrow",
        "zero_copy_batch": True,
        "compute": pool,
        "num_cpus": use.cpus_per_engine,
        "num_gpus": use.gpus_per_engine,
        "max_restarts": -1,
        "max_task_retries": 5,
    }
