"""RunConfig: one YAML plus dotted overrides -> a frozen, validated value.

Every key carries its documentation, its unit and whether it can change `pred_text` (then it is in the
fingerprint). An unknown key is an error that names the nearest known one. Knows no storage, no Ray.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from dawnchorus.errors import ConfigError
from dawnchorus.records import Seconds


def _key(default: Any, doc: str, *, text: bool, unit: str = "", **limits: Any) -> Any:
    """One configuration key. `text`: it can change `pred_text`, so it enters the fingerprint."""
    extra: dict[str, Any] = {"fingerprint": text, "unit": unit}
    return Field(default, description=doc, json_schema_extra=extra, **limits)


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, validate_default=True)


class ManifestConfig(_Section):
    """How the input is read."""

    format: Literal["auto", "nemo", "csv", "tsv", "parquet", "lhotse", "audio"] = _key(
        "auto", "Shape of the input; `auto` decides by name and content.", text=False
    )
    max_bad_share: float = _key(
        0.1,
        "Stop before any work when more than this share of the manifest's lines is bad "
        "(a manifest of fewer than 10 lines stops only when all are).",
        text=False,
        unit="share",
        ge=0,
        le=1,
    )


class EngineConfig(_Section):
    """Which model transcribes, and how."""

    name: str = _key("whisper", "Engine: see `dawnchorus doctor` for those installed here.", text=True)
    model: str | None = _key(
        None,
        "Model name on the hub, or a local path. None: the engine's embedded default. "
        "(The fingerprint has the weights' own hash instead.)",
        text=False,
    )
    revision: str | None = _key(None, "Pinned revision of a hub model.", text=False)
    device: Literal["auto", "cpu", "cuda"] = _key("auto", "Where the model runs.", text=False)
    dtype: str = _key(
        "auto", "Weights' type: int8, float16, bfloat16, float32; `auto` is the engine's default.", text=True
    )
    batch_seconds: Seconds = _key(
        240.0, "Padded audio seconds in one model call; halved on out-of-memory.", text=False, unit="s", gt=0
    )
    threads: int = _key(
        0, "CPU threads of one replica; 0: as many as its CPU slots, at least one.", text=False, ge=0
    )
    redo_logprob: float | None = _key(
        None,
        "Redo a chunk whose mean log-probability is below this; None: the engine's default.",
        text=True,
    )
    options: dict[str, Any] = _key(
        {},
        "Options of this engine alone; an unknown one is an error of the engine. "
        "(The fingerprint has those that change the text, as facts of the engine's identity.)",
        text=False,
    )


class AudioConfig(_Section):
    """How audio is decoded."""

    channels: Literal["mix", "separate"] | int = _key(
        "mix", "`mix` all channels, transcribe each `separate`ly, or take one by index (from 0).", text=True
    )
    max_seconds: Seconds = _key(
        172_800.0,
        "Longest decoded audio of one recording; beyond it the recording fails.",
        text=True,
        unit="s",
        gt=0,
    )
    max_file_bytes: int = _key(
        17_179_869_184, "Largest audio object that is fetched.", text=False, unit="bytes", gt=0
    )
    max_memory_bytes: int = _key(
        1_073_741_824,
        "Address space of the child process that decodes one file.",
        text=False,
        unit="bytes",
        gt=0,
    )
    stall_seconds: Seconds = _key(
        120.0, "A decoder that delivers nothing for this long is ended.", text=False, unit="s", gt=0
    )


class VadConfig(_Section):
    """Where speech is."""

    enabled: bool = _key(True, "Cut at pauses found by the VAD; off: fixed windows with overlap.", text=True)
    threshold: float = _key(
        0.15, "Probability from which a frame is speech; low, for telephone speech.", text=True, gt=0, lt=1
    )
    min_speech_seconds: Seconds = _key(
        0.1, "Shorter bursts of speech are not speech.", text=True, unit="s", ge=0
    )
    min_pause_seconds: Seconds = _key(
        0.5, "Shorter gaps do not end a speech region.", text=True, unit="s", ge=0
    )
    pad_seconds: Seconds = _key(0.4, "Kept on both sides of a speech region.", text=True, unit="s", ge=0)


class ChunkingConfig(_Section):
    """How speech becomes engine windows."""

    max_seconds: Seconds | None = _key(
        None, "Longest chunk; None or more than the engine's limit: the engine's.", text=True, unit="s", gt=0
    )
    merge_gap_seconds: Seconds = _key(
        2.0, "Neighbouring speech regions are merged over pauses up to this long.", text=True, unit="s", ge=0
    )
    merge_seconds: Seconds = _key(
        15.0, "Merge only while the chunk stays within this; 0: never.", text=True, unit="s", ge=0
    )
    overlap_seconds: Seconds = _key(
        2.0,
        "Context on each side of a seam when speech has to be cut without a pause.",
        text=True,
        unit="s",
        ge=0,
    )


class WorkersConfig(_Section):
    """What of the cluster is used."""

    address: str | None = _key(
        None, "Ray cluster to join; None: RAY_ADDRESS, else one is started on this machine.", text=False
    )
    engines: int | None = _key(
        None, "Engine replicas; None: one per GPU, or one per CPU core without GPUs.", text=False, ge=1
    )
    gpus_per_engine: float | None = _key(
        None, "GPUs of one replica; None: 1 where the cluster has GPUs, else 0.", text=False, ge=0
    )
    cpus_per_engine: float | None = _key(
        None, "CPU slots of one replica; None: 1 beside a GPU, else an even share.", text=False, ge=0
    )
    decoders: int | None = _key(
        None, "Most decode tasks at once; None: as many as CPUs allow.", text=False, ge=1
    )
    window_rows: int | None = _key(
        None,
        "Rows of one engine call and one committed part: what a crash costs. None: 16 on CPU, 384 on a GPU.",
        text=False,
        ge=1,
    )


class ResumeConfig(_Section):
    """What is tried again, and when to stop trying."""

    max_attempts: int = _key(
        3, "Tries of a recording with transient failures, over all resumes.", text=False, ge=1
    )
    backoff_seconds: Seconds = _key(
        5.0, "Wait before transient failures are tried again.", text=False, unit="s", ge=0
    )
    pause_after: int = _key(
        20, "Alike transient failures in a row that pause the run instead of becoming rows.", text=False, ge=1
    )
    other_fingerprint: Literal["refuse", "redo", "keep-old"] = _key(
        "refuse", "What to do with results that other settings made.", text=False
    )
    stall_seconds: Seconds = _key(
        1800.0,
        "End the attempt when nothing was committed for this long; 0: never.",
        text=False,
        unit="s",
        ge=0,
    )
    retry_failed: list[str] | None = _key(
        None, "Failure kinds to try again although they are final; [] is all of them.", text=False
    )


class PublishConfig(_Section):
    """How transcripts are published."""

    every_seconds: Seconds = _key(
        900.0,
        "Assemble complete recordings this often while the run goes on; 0: only at the end.",
        text=False,
        unit="s",
        ge=0,
    )
    recordings_per_file: int = _key(5_000, "Most recordings of one transcripts file.", text=False, ge=1)
    hours_per_file: float = _key(
        50.0, "Most audio hours of one transcripts file.", text=False, unit="h", gt=0
    )


class PlanConfig(_Section):
    """How recordings become units of work."""

    unit_seconds: Seconds = _key(900.0, "Audio of one unit of work.", text=False, unit="s", gt=0)


class PromptConfig(_Section):
    """One prompt of LLM mode; what is not set is the shipped prompt's of that name."""

    template: str | None = Field(
        None, description="The whole prompt; `{transcript}` and `{question}` are filled in."
    )
    question: str | None = Field(None, description="The question, for `qa` or a template with `{question}`.")
    max_tokens: int | None = Field(None, description="Most tokens of the answer.", ge=1)
    json_schema: dict[str, Any] | None = Field(None, description="JSON Schema that the answer has to fit.")
    times: bool | None = Field(None, description="Mark each line of the transcript with its time.")
    map_template: str | None = Field(None, description="Asks for notes on one piece, `{transcript}`.")
    combine_template: str | None = Field(None, description="Asks for one note of several, `{notes}`.")
    notes_tokens: int | None = Field(None, description="Most tokens of one note.", ge=1)


class LlmConfig(_Section):
    """What is asked about the transcripts, and which model answers."""

    prompts: list[str] | dict[str, PromptConfig | None] = _key(
        [],
        "What to ask: names of shipped prompts (summary, action_items, topics, qa), or a mapping of names "
        "to what differs from the shipped one: template, question, max_tokens, json_schema, times, "
        "map_template, combine_template, notes_tokens. A new name needs a template, or a question for `qa`.",
        text=False,
    )
    engine: str | None = _key(
        None, "Engine that answers; None: the one that transcribes, where it has an LLM mode.", text=False
    )
    model: str | None = _key(
        None, "Its model, by name on the hub or path; only with `llm.engine`.", text=False
    )
    revision: str | None = _key(None, "Pinned revision of a hub model; only with `llm.engine`.", text=False)
    device: Literal["auto", "cpu", "cuda"] = _key(
        "auto", "Where it runs; only with `llm.engine`.", text=False
    )
    dtype: str = _key("auto", "Its weights' type; only with `llm.engine`.", text=False)
    options: dict[str, Any] = _key({}, "Options of that engine alone; only with `llm.engine`.", text=False)
    piece_tokens: int = _key(
        3_500, "Most tokens of a transcript in one prompt; longer ones go in pieces.", text=False, ge=32
    )
    window_rows: int | None = _key(
        None,
        "Requests of one engine call and one committed part. None: 4 on CPU, 64 on a GPU.",
        text=False,
        ge=1,
    )

    @field_validator("prompts", mode="before")
    @classmethod
    def _one_name(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _of_its_engine(self) -> LlmConfig:
        named = ("model", "revision", "device", "dtype", "options")
        given = [n for n in named if getattr(self, n) != type(self).model_fields[n].default]
        if self.engine is None and given:
            raise ValueError(f"llm.{given[0]} is for the model of llm.engine, which is not set")
        return self


class RunConfig(_Section):
    """One run: an input, an output, an engine."""

    input: str = _key(..., "Manifest, folder or glob: a path or any fsspec URL.", text=False)
    output: str = _key(..., "Folder or URL for the tables and the report.", text=False)
    run_id: str | None = _key(
        None, "Name of the run; None: from output, manifest and fingerprint.", text=False
    )
    limit: int | None = _key(
        None, "Pilot: only the first N recordings; they count towards the full run.", text=False, ge=1
    )
    sample: str | None = _key(
        None, "Pilot: a share such as `1%`, chosen by recording id.", text=False, pattern=r"^\d+(\.\d+)?%$"
    )
    manifest: ManifestConfig = Field(default_factory=ManifestConfig)
    engine: EngineConfig = Field(default_factory=EngineConfig)
    audio: AudioConfig = Field(default_factory=AudioConfig)
    vad: VadConfig = Field(default_factory=VadConfig)
    chunking: ChunkingConfig = Field(default_factory=ChunkingConfig)
    workers: WorkersConfig = Field(default_factory=WorkersConfig)
    resume: ResumeConfig = Field(default_factory=ResumeConfig)
    publish: PublishConfig = Field(default_factory=PublishConfig)
    plan: PlanConfig = Field(default_factory=PlanConfig)
    llm: LlmConfig = Field(default_factory=LlmConfig)

    def llm_engine(self) -> EngineConfig:
        """What the language model is constructed from: `llm.engine`, or the engine that transcribes."""
        if self.llm.engine is None:
            return self.engine
        named = {n: getattr(self.llm, n) for n in ("model", "revision", "device", "dtype", "options")}
        return EngineConfig(name=self.llm.engine, threads=self.engine.threads, **named)

    def fingerprint_facts(self) -> dict[str, Any]:
        """The keys that can change `pred_text`, as dotted name -> value."""
        return {k.name: k.value_of(self) for k in config_keys() if k.fingerprint}


class ConfigKey:
    """One documented key: dotted `name`, `default`, `unit`, `doc`, `fingerprint`."""

    __slots__ = ("annotation", "default", "doc", "fingerprint", "name", "unit")

    def __init__(
        self, name: str, default: Any, annotation: Any, doc: str, unit: str, fingerprint: bool
    ) -> None:
        self.name = name
        self.default = default
        self.annotation = annotation
        self.doc = doc
        self.unit = unit
        self.fingerprint = fingerprint

    def value_of(self, config: BaseModel) -> Any:
        """This key's value in a configuration."""
        value: Any = config
        for part in self.name.split("."):
            value = getattr(value, part)
        return value


def config_keys(section: type[BaseModel] = RunConfig, prefix: str = "") -> Iterator[ConfigKey]:
    """Every leaf key of the configuration, in order."""
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from config_keys(field.annotation, f"{prefix}{name}.")
            continue
        extra = field.json_schema_extra
        if not isinstance(extra, dict):
            raise TypeError(f"{prefix}{name} has no classification")
        yield ConfigKey(
            f"{prefix}{name}",
            None if field.is_required() else field.default,
            field.annotation,
            field.description or "",
            str(extra["unit"]),
            bool(extra["fingerprint"]),
        )


def _nearest(name: str) -> str:
    known = [k.name for k in config_keys()]
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    leaf = difflib.get_close_matches(
        name.rpartition(".")[2], [k.rpartition(".")[2] for k in known], n=1, cutoff=0.6
    )
    if not close and leaf:
        close = [k for k in known if k.rpartition(".")[2] == leaf[0]][:1]
    return f"Did you mean {close[0]!r}?" if close else "See configs/README.md for every key."


def _set(tree: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, leaf = dotted.split(".")
    for part in parents:
        child = tree.setdefault(part, {})
        if not isinstance(child, dict):
            raise ConfigError(f"{dotted!r} goes below {part!r}, which is a value.", _nearest(dotted))
        tree = child
    tree[leaf] = value


def build(
    tree: Mapping[str, Any],
    overrides: Sequence[str] = (),
    given: Mapping[str, Any] | None = None,
    source: str = "the command line",
) -> RunConfig:
    """A RunConfig from nested mappings, dotted `key=value` overrides (values are YAML), and `given`
    dotted keys with ready values; later ones win.

    Raises:
        ConfigError: an unknown key (names the nearest), a wrong value, a missing input or output.
    """
    merged: dict[str, Any] = copy.deepcopy(dict(tree))
    for override in overrides:
        name, equals, value = override.partition("=")
        if not equals:
            raise ConfigError(
                f"{override!r} is not an override.", "Write key=value, for example engine.name=whisper."
            )
        try:
            _set(merged, name.strip(), yaml.safe_load(value))
        except yaml.YAMLError as e:
            raise ConfigError(f"The value of {name!r} is not YAML: {value!r}.", "Quote it.") from e
    for name, value in (given or {}).items():
        _set(merged, name, value)
    try:
        return RunConfig.model_validate(merged)
    except ValidationError as e:
        raise _explain(e, source) from e


def _explain(error: ValidationError, source: str) -> ConfigError:
    first = error.errors()[0]
    dotted = ".".join(str(x) for x in first["loc"])
    if first["type"] == "extra_forbidden":
        return ConfigError(f"{source}: there is no key {dotted!r}.", _nearest(dotted))
    if first["type"] == "missing":
        return ConfigError(f"{source}: {dotted!r} is missing.", f"Add {dotted}: ... or --{dotted} ...")
    known = next((k for k in config_keys() if dotted == k.name or dotted.startswith(f"{k.name}.")), None)
    hint = f"It is: {known.doc}" if known else ""
    return ConfigError(f"{source}: {dotted} = {first.get('input')!r} is wrong: {first['msg']}.", hint)


def load(path: str, overrides: Sequence[str] = (), given: Mapping[str, Any] | None = None) -> RunConfig:
    """A RunConfig from a YAML file, dotted overrides and ready values, as `build` takes them.

    Raises:
        ConfigError: no such file, not YAML, or what `build` raises.
    """
    try:
        with open(path, encoding="utf-8") as f:
            tree = yaml.safe_load(f) or {}
    except FileNotFoundError as e:
        raise ConfigError(f"There is no configuration file {path!r}.", "Check the path.") from e
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as e:
        raise ConfigError(f"{path} cannot be read as YAML: {e}.", "Mend the file.") from e
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} is not a mapping of keys.", "Start with `input:` and `output:`.")
    return build(tree, overrides, given, source=path)


def json_schema() -> dict[str, Any]:
    """JSON Schema of the YAML, for editors."""
    return RunConfig.model_json_schema()
