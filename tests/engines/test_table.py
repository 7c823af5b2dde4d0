from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from dawnchorus import installing
from dawnchorus.engines import ENGINES, LANGUAGE_MODELS, NEEDS, engine_class, language_model_class, missing
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


def test_an_engine_for_answers_alone_is_no_unknown_name() -> None:
    with pytest.raises(ConfigError, match="'hf' has an LLM mode only") as caught:
        engine_class("hf")
    assert "fake" not in str(caught.value)


def test_an_engine_without_llm_mode_names_what_to_type() -> None:
    with pytest.raises(ConfigError, match="--engine hf --model") as caught:
        language_model_class("whisper")
    assert "fake" not in str(caught.value)


def test_every_engine_but_the_fake_says_what_it_needs() -> None:
    assert set(NEEDS) == {*ENGINES, *LANGUAGE_MODELS} - {"fake"}
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    assert {extra for extra, _ in NEEDS.values()} <= set(project["project"]["optional-dependencies"])
    assert missing("fake") is None
    assert missing("whisper") in (None, installing.command("whisper"))


@pytest.mark.parametrize("name", sorted(LANGUAGE_MODELS))
def test_every_language_model_runs_the_contract(name: str) -> None:
    source = Path(__file__).with_name(f"test_{name}.py").read_text(encoding="utf-8")
    assert "(LanguageModelContract)" in source
