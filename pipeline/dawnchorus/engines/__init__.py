"""The engine table. A new engine is one file here, one line in `ENGINES` and one YAML in configs/."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from dawnchorus.errors import ConfigError

if TYPE_CHECKING:
    from dawnchorus.config import EngineConfig
    from dawnchorus.engines.base import Engine

ENGINES: dict[str, str] = {
    "whisper": "dawnchorus.engines.whisper:WhisperEngine",
    "fake": "dawnchorus.engines.fake:FakeEngine",
}
"""Engine name -> "module:class"; imported only when asked for."""


def engine_class(name: str) -> type[Engine]:
    """The class of an engine, imported now.

    Raises:
        ConfigError: no such engine.
    """
    if name not in ENGINES:
        raise ConfigError(
            f"There is no engine named {name!r}.", f"Choose one of: {', '.join(sorted(ENGINES))}."
        )
    module, _, attribute = ENGINES[name].partition(":")
    loaded: type[Engine] = getattr(importlib.import_module(module), attribute)
    return loaded


def create(config: EngineConfig) -> Engine:
    """An engine for this configuration, not yet loaded.

    Raises:
        ConfigError: no such engine, or options it does not take.
    """
    return engine_class(config.name)(config)  # type: ignore[call-arg]
