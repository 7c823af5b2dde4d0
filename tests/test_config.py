"""Values that nobody can have meant: one sentence with the value, what it is not, and what the key is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import dawnchorus
from dawnchorus import config, interview, kinds
from dawnchorus.errors import ConfigError

SOURCE = Path(dawnchorus.__file__).parent


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("vad.threshold=abc", "vad.threshold: 'abc' is not a number (Probability from"),
        ("vad.threshold=3", "vad.threshold: 3 is not below 1 ("),
        ("workers.engines=1.5", "workers.engines: 1.5 is not a whole number ("),
        ("vad.enabled=maybe", "'maybe' is not true or false ("),
        ("manifest.format=xx", "'xx' is not 'auto', "),
        ("audio.channels=foo", "audio.channels: 'foo' is not 'mix' or 'separate'"),
        ("llm.model=x", "llm.model needs an llm.engine, such as hf (ask: --engine hf)"),
        *((f"sample={s}", f"{s!r} is not a share such as 1%") for s in ("150%", "abc", "0%", "1e3%", "nan%")),
        *(
            (f"run_id={r}", f"{r!r} is no name of a folder")
            for r in ("../../x", "a/b", "_fence", "x y", "..")
        ),
        ("sample=1", "sample: 1 is not a share such as 1%"),
        ("plan.unit_seconds=.inf", "plan.unit_seconds: inf is not a finite number"),
        ("engine.redo_logprob=.nan", "engine.redo_logprob: nan is not a finite number"),
    ],
)
def test_a_wrong_value_is_one_plain_sentence(override: str, said: str) -> None:
    with pytest.raises(ConfigError) as e:
        config.build({"input": "i", "output": "o"}, [override])
    assert said in str(e.value)


def test_a_section_with_nothing_in_it_is_its_default() -> None:
    """YAML reads `engine:` above commented lines as null."""
    tree = {"input": "i", "output": "o", "engine": None}
    assert config.build(tree) == config.build({"input": "i", "output": "o"})
    assert config.build(tree, ["engine.model=small"]).engine.model == "small"


@pytest.mark.parametrize("share", ["1%", "0.5%", "100%"])
def test_shares(share: str) -> None:
    assert config.build({"input": "i", "output": "o", "sample": share}).sample == share


def test_a_kind_of_failure_that_is_nowhere_is_refused() -> None:
    kinds.refuse_unknown(None, ())
    kinds.refuse_unknown([], ())
    kinds.refuse_unknown(["not_found", "of_an_engine"], {"of_an_engine"})
    with pytest.raises(ConfigError, match=r"'bogus'\. This output has: crash, not_found\."):
        kinds.refuse_unknown(["bogus"], {"not_found", "crash"})


def test_every_kind_is_known() -> None:
    code = "\n".join(p.read_text(encoding="utf-8") for p in sorted(SOURCE.rglob("*.py")))
    made = set(re.findall(r"\b(?:Terminal|Transient|bad|error)\(\s*\"([a-z_]+)\",", code))
    made |= set(re.findall(r"\bFailure\(\s*\"[a-z]+\",\s*\"([a-z_]+)\"", code))
    assert len(made) > 30
    assert made <= kinds.KINDS, "tell kinds.py of new ones"


def test_an_empty_question_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="question is empty"):
        interview.prepare(str(tmp_path), question=" ")
