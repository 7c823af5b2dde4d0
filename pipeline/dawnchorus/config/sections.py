"""Every section of the configuration: one declaration per key, with its documentation, its unit and whether
it can change `pred_text` (then it is in the fingerprint)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from dawnchorus.records import Seconds


def key(default: Any, doc: str, *, text: bool, unit: str = "", **limits: Any) -> Any:
    """One configuration key. `text`: it can change `pred_text`, so it enters the fingerprint."""
    extra: dict[str, Any] = {"fingerprint": text, "unit": unit}
    return Field(default, description=doc, json_schema_extra=extra, **limits)


class Section(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=False, validate_default=True, allow_inf_nan=False
    )


class ManifestConfig(Section):
    """How the input is read."""

    format: Literal["auto", "nemo", "csv", "tsv", "parquet", "lhotse", "list", "audio"] = key(
        "auto",
        "Shape of the input; `auto` decides by name and content. `list`: one path or URL a line.",
        text=False,
    )
    max_bad_share: float = key(
        0.1,
        "Stop before any work when more than this share of the manifest's lines is bad "
        "(a manifest of fewer than 10 lines stops only when all are).",
        text=False,
        unit="share",
        ge=0,
        le=1,
    )


class EngineConfig(Section):
    """Which model transcribes, and how."""

    name: str = key("whisper", "Engine: see `dawnchorus doctor` for those installed here.", text=True)
    model: str | None = key(
        None,
        "Model name on the hub, local path, or address (s3://...). None: the engine's embedded default. "
        "(The fingerprint has the weights' own hash instead.)",
        text=False,
    )
    revision: str | None = key(None, "Pinned revision of a hub model.", text=False)
    cache: str | None = key(
        None,
        "Folder on each node for models that come from buckets, each fetched once per node. None: "
        "$DAWNCHORUS_CACHE, else ~/.cache/dawnchorus. (Hub models go where $HF_HOME says.)",
        text=False,
    )
    device: Literal["auto", "cpu", "cuda"] = key(
        "auto",
        "Where the model runs; `auto`: on a GPU where the cluster has one, and not on the CPU there if that "
        "GPU cannot be used.",
        text=False,
    )
    dtype: str = key(
        "auto", "Weights' type: int8, float16, bfloat16, float32; `auto` is the engine's default.", text=True
    )
    batch_seconds: Seconds | None = key(
        None,
        "Padded audio seconds in one model call; halved on out-of-memory. None: what the GPU's free memory "
        "holds, measured when the model is loaded (salm, nemo_asr); else 240.",
        text=False,
        unit="s",
        gt=0,
    )
    memory_share: float | None = key(
        None,
        "Share of the GPU's memory that one replica may take; None: its share of the GPU "
        "(`workers.gpus_per_engine`).",
        text=False,
        unit="share",
        gt=0,
        le=1,
    )
    warm_up: bool | None = key(
        None,
        "Transcribe noise once the model is loaded, so that the first window is not the slow one. "
        "None: on a GPU.",
        text=False,
    )
    threads: int = key(
        0, "CPU threads of one replica; 0: as many as its CPU slots, at least one.", text=False, ge=0
    )
    redo_logprob: float | None = key(
        None,
        "Redo a chunk whose mean log-probability is below this; None: the engine's default.",
        text=True,
    )
    options: dict[str, Any] = key(
        {},
        "Options of this engine alone; an unknown one is an error of the engine. "
        "(The fingerprint has those that change the text, as facts of the engine's identity.)",
        text=False,
    )


class AudioConfig(Section):
    """How audio is decoded."""

    channels: Literal["mix", "separate"] | int = key(
        "mix", "`mix` all channels, transcribe each `separate`ly, or take one by index (from 0).", text=True
    )
    max_seconds: Seconds = key(
        172_800.0,
        "Longest decoded audio of one recording; beyond it the recording fails.",
        text=True,
        unit="s",
        gt=0,
    )
    max_file_bytes: int = key(
        17_179_869_184, "Largest audio object that is fetched.", text=False, unit="bytes", gt=0
    )
    max_memory_bytes: int = key(
        1_073_741_824,
        "Address space of the child process that decodes one file.",
        text=False,
        unit="bytes",
        gt=0,
    )
    stall_seconds: Seconds = key(
        120.0, "A decoder that delivers nothing for this long is ended.", text=False, unit="s", gt=0
    )


class VadConfig(Section):
    """Where speech is."""

    enabled: bool = key(True, "Cut at pauses found by the VAD; off: fixed windows with overlap.", text=True)
    threshold: float = key(
        0.15, "Probability from which a frame is speech; low, for telephone speech.", text=True, gt=0, lt=1
    )
    min_speech_seconds: Seconds = key(
        0.1, "Shorter bursts of speech are not speech.", text=True, unit="s", ge=0
    )
    min_pause_seconds: Seconds = key(
        0.5, "Shorter gaps do not end a speech region.", text=True, unit="s", ge=0
    )
    pad_seconds: Seconds = key(0.4, "Kept on both sides of a speech region.", text=True, unit="s", ge=0)


class ChunkingConfig(Section):
    """How speech becomes engine windows."""

    max_seconds: Seconds | None = key(
        None, "Longest chunk; None or more than the engine's limit: the engine's.", text=True, unit="s", gt=0
    )
    merge_gap_seconds: Seconds = key(
        2.0, "Neighbouring speech regions are merged over pauses up to this long.", text=True, unit="s", ge=0
    )
    merge_seconds: Seconds = key(
        15.0, "Merge only while the chunk stays within this; 0: never.", text=True, unit="s", ge=0
    )
    overlap_seconds: Seconds = key(
        2.0,
        "Context on each side of a seam when speech has to be cut without a pause.",
        text=True,
        unit="s",
        ge=0,
    )


class WorkersConfig(Section):
    """What of the cluster is used."""

    address: str | None = key(
        None, "Ray cluster to join; None: RAY_ADDRESS, else one is started on this machine.", text=False
    )
    engines: int | None = key(
        None,
        "Most engine replicas; None: one per GPU, or without GPUs one per CPU core (of language models, one "
        "per node).",
        text=False,
        ge=1,
    )
    min_engines: int | None = key(
        None,
        "Replicas to begin with; up to `engines` are added while nodes join, and idle ones let go. "
        "None: all from the beginning.",
        text=False,
        ge=1,
    )
    nodes: int | None = key(
        None,
        "Nodes to wait for before sizes are taken from the cluster; after `wait_seconds` those that came do. "
        "None: as many as the engines need.",
        text=False,
        ge=1,
    )
    wait_seconds: Seconds = key(
        0.0,
        "How long to wait for a cluster that is too small to grow (an autoscaler is asked to); then the run "
        "pauses. 0: refuse at once.",
        text=False,
        unit="s",
        ge=0,
    )
    gpus_per_engine: float | None = key(
        None,
        "GPUs of one replica; 0.5: two share one. None: 1 where the cluster has GPUs or `engine.device` is "
        "cuda, else 0.",
        text=False,
        ge=0,
    )
    cpus_per_engine: float | None = key(
        None, "CPU slots of one replica; None: 1 beside a GPU, else an even share.", text=False, ge=0
    )
    decoders: int | None = key(
        None, "Most decode tasks at once; None: as many as CPUs allow.", text=False, ge=1
    )
    decode_labels: dict[str, str] = key(
        {},
        "Ray labels of the nodes that decode, such as {dawnchorus/role: decode}, to keep decoding off GPU "
        "nodes; {}: any node with a free CPU slot.",
        text=False,
    )
    window_rows: int | None = key(
        None,
        "Rows of one engine call and one committed part: what a crash costs. None: 8 on CPU, 384 on a GPU.",
        text=False,
        ge=1,
    )


class ResumeConfig(Section):
    """What is tried again, and when to stop trying."""

    max_attempts: int = key(
        3, "Tries of a recording with transient failures, over all resumes.", text=False, ge=1
    )
    backoff_seconds: Seconds = key(
        5.0, "Wait before transient failures are tried again.", text=False, unit="s", ge=0
    )
    pause_after: int = key(
        20, "Alike transient failures in a row that pause the run instead of becoming rows.", text=False, ge=1
    )
    other_fingerprint: Literal["refuse", "redo", "keep-old"] = key(
        "refuse", "What to do with results that other settings made.", text=False
    )
    stall_seconds: Seconds = key(
        1800.0,
        "End the attempt when nothing was committed for this long; 0: never.",
        text=False,
        unit="s",
        ge=0,
    )
    retry_failed: list[str] | None = key(
        None, "Failure kinds to try again although they are final; [] is all of them.", text=False
    )


class PublishConfig(Section):
    """How transcripts are published."""

    every_seconds: Seconds = key(
        900.0,
        "Assemble complete recordings this often while the run goes on; 0: only at the end.",
        text=False,
        unit="s",
        ge=0,
    )
    recordings_per_file: int = key(5_000, "Most recordings of one transcripts file.", text=False, ge=1)
    hours_per_file: float = key(50.0, "Most audio hours of one transcripts file.", text=False, unit="h", gt=0)


class PlanConfig(Section):
    """How recordings become units of work."""

    unit_seconds: Seconds = key(900.0, "Audio of one unit of work.", text=False, unit="s", gt=0)


class CostConfig(Section):
    """What hours cost, for the plan and the report."""

    gpu: str | None = key(
        None, "Accelerator to price, as in the table; None: the one that the cluster reports.", text=False
    )
    gpu_hour: float | None = key(
        None, "What you pay for a GPU-hour; None: the table's price.", text=False, unit="US dollars", gt=0
    )
    prices: str | None = key(None, "A table of your own in the shape of the shipped prices.yaml.", text=False)
