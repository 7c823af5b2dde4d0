from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dawnchorus.language import maybe_not_english, share_of_common_words

DATA = Path(__file__).parent / "data"
TEXTS: dict[str, str] = json.loads((DATA / "languages.json").read_text(encoding="utf-8"))
REFERENCES = [
    row["text"]
    for line in (DATA / "sample" / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    if (row := json.loads(line)).get("text")
]
NONSENSE = "I'm going to go to the next one. I'm going to go to the next one. Thank you very much."


@pytest.mark.parametrize("language", sorted(TEXTS))
def test_texts_in_other_languages_are_told(language: str) -> None:
    assert maybe_not_english(TEXTS[language], -0.1)
    assert maybe_not_english(TEXTS[language])


@pytest.mark.parametrize("text", REFERENCES, ids=lambda t: t[:20])
def test_english_is_not(text: str) -> None:
    assert not maybe_not_english(text, -0.2)
    assert not maybe_not_english(text.upper(), None)


def test_english_that_nobody_believed_in_is() -> None:
    assert share_of_common_words(NONSENSE) > 0.3
    assert maybe_not_english(NONSENSE, -0.6)
    assert not maybe_not_english(NONSENSE, -0.3)
    assert not maybe_not_english(NONSENSE)
    once = "In next to more that I am the golden mountain is over and my beautiful fungus is gone"
    assert maybe_not_english(once, -1.1)
    assert not maybe_not_english(once, -0.8), "English in heavy noise"


def test_a_few_words_say_too_little() -> None:
    assert not maybe_not_english("Ten of clubs, jack of hearts.", -0.8)
    assert not maybe_not_english("Guten Morgen, ich rufe an.", -0.8)
    assert maybe_not_english("Guten Morgen, ich rufe an.", -1.0)
    assert not maybe_not_english("Yes, of course.", -2.0)
    assert not maybe_not_english("", -3.0)
    assert maybe_not_english("Доброе утро", -0.1)


def test_a_foreign_name_changes_nothing() -> None:
    assert not maybe_not_english(f"{REFERENCES[0]} Μαρία Παπαδοπούλου", -0.2)


@given(st.text(max_size=200), st.none() | st.floats(-9, 0))
def test_any_text_is_answered(text: str, avg_logprob: float | None) -> None:
    assert maybe_not_english(text, avg_logprob) in (True, False)
    assert 0 <= share_of_common_words(text) <= 1
