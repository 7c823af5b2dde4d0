from __future__ import annotations

from pathlib import Path

import pytest

from dawnchorus.engines import ENGINES, engine_class
from dawnchorus.errors import ConfigError


@pytest.mark.parametrize("name", sorted(ENGINES))
def test_every_engine_runs_the_contract(name: str) -> None:
    source = Path(__file__).with_name(f"test_{name}.py").read_text(encoding="utf-8")
    assert "(EngineContract)" in source
    assert f'EngineConfig(name="{name}"' in source


def test_an_unknown_engine_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="no engine named 'wisper'") as caught:
        engine_class("wisper")
    assert "whisper" in str(caught.value)
