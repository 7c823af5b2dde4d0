"""RunConfig: one YAML plus dotted overrides -> a frozen, validated value.

Every key carries its documentation, its unit and whether it can change `pred_text` (then it is in the
fingerprint). An unknown key is an error that names the nearest known one. Knows no storage, no Ray.
"""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator

from dawnchorus.config.asking import LlmConfig, PromptConfig
from dawnchorus.config.sections import (
    AudioConfig,
    ChunkingConfig,
    CostConfig,
    EngineConfig,
    ManifestConfig,
    PlanConfig,
    PublishConfig,
    ResumeConfig,
    Section,
    VadConfig,
    WorkersConfig,
    key,
)
from dawnchorus.config.telling import NotifyConfig
from dawnchorus.errors import ConfigError

__all__ = [
    "AudioConfig",
    "ChunkingConfig",
    "CostConfig",
    "EngineConfig",
    "LlmConfig",
    "ManifestConfig",
    "NotifyConfig",
    "PlanConfig",
    "PromptConfig",
    "PublishConfig",
    "ResumeConfig",
    "VadConfig",
    "WorkersConfig",
    "ConfigKey",
    "RunConfig",
    "build",
    "config_keys",
    "json_schema",
    "load",
]


_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class RunConfig(Section):
    """One run: an input, an output, an engine."""

    input: str = key(..., "Manifest, folder or glob: a path or any fsspec URL.", text=False)
    output: str = key(..., "Folder or URL for the tables and the report.", text=False)
    run_id: str | None = key(
        None, "Name of the run; None: from output, manifest and fingerprint.", text=False
    )
    limit: int | None = key(
        None, "Pilot: only the first N recordings; they count towards the full run.", text=False, ge=1
    )
    sample: str | None = key(
        None, "Pilot: a share such as `1%`, chosen by recording id.", text=False, pattern=r"^\d+(\.\d+)?%$"
    )

    @field_validator("run_id")
    @classmethod
    def _folder(cls, value: str | None) -> str | None:
        if value is not None and not _RUN_ID.fullmatch(value):
            raise ValueError("is no name of a folder: letters, digits, . _ and -, at most 100, no sign first")
        return value

    @field_validator("sample", mode="before")
    @classmethod
    def _share(cls, value: Any) -> Any:
        try:
            share = float(str(value).removesuffix("%")) if str(value).endswith("%") else 0.0
        except ValueError:
            share = 0.0
        if value is not None and not 0 < share <= 100:
            raise ValueError("is not a share such as 1%, up to 100%")
        return value

    manifest: ManifestConfig = Field(default_factory=ManifestConfig)
    engine: EngineConfig = Field(default_factory=EngineConfig)
    audio: AudioConfig = Field(default_factory=AudioConfig)
    vad: VadConfig = Field(default_factory=VadConfig)
    chunking: ChunkingConfig = Field(default_factory=ChunkingConfig)
    workers: WorkersConfig = Field(default_factory=WorkersConfig)
    resume: ResumeConfig = Field(default_factory=ResumeConfig)
    publish: PublishConfig = Field(default_factory=PublishConfig)
    plan: PlanConfig = Field(default_factory=PlanConfig)
    cost: CostConfig = Field(default_factory=CostConfig)
    notify: NotifyConfig = Field(default_factory=NotifyConfig)
    llm: LlmConfig = Field(default_factory=LlmConfig)

    def llm_engine(self) -> EngineConfig:
        """What the language model is constructed from: `llm.engine`, or the engine that transcribes."""
        if self.llm.engine is None:
            return self.engine
        named = {n: getattr(self.llm, n) for n in ("model", "revision", "device", "dtype", "options")}
        named |= {n: getattr(self.engine, n) for n in ("threads", "cache")}
        return EngineConfig(name=self.llm.engine, **named)

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
    # A section whose keys are all commented out is None.
    merged: dict[str, Any] = copy.deepcopy({k: v for k, v in tree.items() if v is not None})
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
    doc = f" ({known.doc.rstrip('.')})" if known else ""
    name = known.name if known else dotted
    if isinstance(first["input"], dict) and not known:
        return ConfigError(f"{source}: {_reason(first)}.")
    return ConfigError(f"{source}: {name}: {first['input']!r} {_reason(first)}{doc}.")


_REASONS = {
    "float": "is not a number",
    "finite": "is not a finite number",
    "int": "is not a whole number",
    "bool": "is not true or false",
    "string": "is not text",
    "list": "is not a list",
    "dict": "is not a mapping",
}


_LIMITS = {
    "greater_than": "above",
    "greater_than_equal": "at least",
    "less_than": "below",
    "less_than_equal": "at most",
}


def _reason(problem: Mapping[str, Any]) -> str:
    """What is the matter with a value, after the value itself."""
    kind, facts = problem["type"], problem.get("ctx", {})
    if kind in ("value_error", "assertion_error"):
        return str(facts["error"])
    if kind == "literal_error":
        return f"is not {facts['expected']}"
    for limit, words in _LIMITS.items():
        if kind == limit:
            return f"is not {words} {next(iter(facts.values())):g}"
    return _REASONS.get(kind.partition("_")[0], f"is wrong: {problem['msg']}")


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
