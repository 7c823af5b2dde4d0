"""What a configuration asks, of which model, and when its answers are the same."""

from __future__ import annotations

from typing import Any

import pytest

from dawnchorus import config
from dawnchorus.errors import ConfigError
from dawnchorus.llm import Asked, asked, model_facts


def made(*, overrides: tuple[str, ...] = (), **settings: Any) -> Asked | None:
    given = {"input": "i", "output": "o", "engine.name": "fake"} | {
        k.replace("__", "."): v for k, v in settings.items()
    }
    return asked(config.build({}, overrides, given))


def fingerprints(**settings: Any) -> dict[str, str]:
    found = made(**settings)
    assert found is not None
    return dict(found.fingerprints)


def test_nothing_is_asked_by_default() -> None:
    assert made() is None


def test_the_transcribing_engine_answers_unless_another_is_named() -> None:
    mine = made(llm__prompts=["summary"], engine__options={"context_tokens": 99})
    assert mine is not None
    assert mine.engine.options == {"context_tokens": 99}
    assert model_facts(mine).context_tokens == 99
    other = made(llm__prompts=["summary"], engine__name="whisper", llm__engine="fake")
    assert other is not None
    assert (other.engine.name, other.engine.options) == ("fake", {})


def test_an_engine_without_llm_mode_is_refused_with_the_choices() -> None:
    with pytest.raises(ConfigError, match=r"'whisper' has no LLM mode.*llm\.engine=hf.*salm, hf"):
        made(llm__prompts=["summary"], engine__name="whisper")
    with pytest.raises(ConfigError, match=r"'nobody' has no LLM mode"):
        made(llm__prompts=["summary"], llm__engine="nobody")


def test_settings_of_no_engine_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"llm\.model needs an llm\.engine, such as hf"):
        made(llm__model="some/model")


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        (("llm.prompts=summary",), ["summary"]),
        (("llm.prompts=[topics, summary]",), ["topics", "summary"]),
        (("llm.prompts.who.question=Who calls?",), ["who"]),
        (("llm.prompts={summary: , mine: {template: 'x {transcript}'}}",), ["summary", "mine"]),
    ],
)
def test_prompts_are_named_on_the_command_line(overrides: tuple[str, ...], names: list[str]) -> None:
    found = made(overrides=overrides)
    assert found is not None
    assert [p.name for p in found.prompts] == names


def test_a_wrong_key_of_a_prompt_is_refused() -> None:
    with pytest.raises(ConfigError, match="templat'"):
        made(overrides=("llm.prompts={mine: {template: 'x {transcript}', templat: x}}",))


def test_the_fingerprint_is_of_what_can_change_the_answer() -> None:
    base = fingerprints(llm__prompts=["summary", "topics"])
    assert len(set(base.values())) == 2
    assert fingerprints(llm__prompts=["topics", "summary"]) == base
    same = {"workers__window_rows": 3, "llm__window_rows": 2, "engine__batch_seconds": 1.0}
    assert fingerprints(llm__prompts=["summary", "topics"], **same) == base
    for other in (
        {"llm__prompts": {"summary": {"max_tokens": 9}}},
        {"llm__prompts": {"summary": {"times": True}}},
        {"llm__prompts": ["summary"], "llm__piece_tokens": 99},
        {"llm__prompts": ["summary"], "engine__options": {"context_tokens": 99}},
        {"llm__prompts": ["summary"], "engine__dtype": "int8"},
    ):
        assert fingerprints(**other)["summary"] != base["summary"]
    transcript = config.build({}, (), {"input": "i", "output": "o"}).fingerprint_facts()
    assert not any(k.startswith("llm") for k in transcript)
