"""Is this English? A light check of a transcript by an English-only model. Pure; no model, no list but one.

Such a model writes English whatever it hears. Told apart are two things:
- text that is not English: other scripts, or too few of English's commonest words. Of written
  sentences in 18 languages (`tests/data/languages.json`) all are told, of 44 English references none.
- English that the model did not believe in. That is the usual case: to German speech Whisper tiny.en
  writes fluent English nonsense ("I'm going to go to the next one"), more function words in it than
  people use, at a mean log-probability of -0.54 to -1.8; English speech had -0.06 to -0.42.

It cannot tell a foreign language from English in heavy noise, or a few foreign sentences in a long English
recording; and a better model may believe in what it invents. Hence `maybe`.
"""

from __future__ import annotations

import math
import re
import unicodedata

FLAG = "maybe_not_english"
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")  # noqa: RUF001
_LIST = (
    "the of and to is you that it for are with his they at be this have from one had by but not what all "
    "were we when your can said there each which she how their if will up about out many then them these "
    "some her would him into has more way could my than been who its now did get may our over just "
    "because also any very here where why please yes oh too only"
)
_COMMON = frozenset(_LIST.split())
"""Common words of English that are none of another language in Latin script (`a`, `me`, `no`, `so` are)."""
_FEWEST_WORDS = 15
"""Fewer say too little: cards and commands ("ten of clubs") have hardly any common words."""
_LEAST_COMMON = 0.1
"""Of English texts 0.22 to 0.6 of the words were in the list, of written texts in 18 languages none."""
_FOREIGN_LETTERS = 0.3
_FEW_WORDS = 5
_NONSENSE = -1.0
_UNBELIEVED = -0.5
"""Mean log-probability of a recording's tokens below which its model did not believe what it wrote."""


def maybe_not_english(text: str, avg_logprob: float | None = None) -> bool:
    """Whether a transcript that an English-only model wrote is of a recording in another language.

    `avg_logprob` is the mean over all tokens of the recording, None where the model gives none. Of short
    texts only those in another script, or hardly believed in, are told.
    """
    letters = [c for c in text if c.isalpha()]
    if letters and sum(not _latin(c) for c in letters) / len(letters) > _FOREIGN_LETTERS:
        return True
    words = _WORD.findall(text.casefold())
    if len(words) < _FEWEST_WORDS:
        limit = _NONSENSE if len(words) >= _FEW_WORDS else -math.inf
    elif share_of_common_words(text) < _LEAST_COMMON:
        return True
    else:
        limit = _UNBELIEVED
    return avg_logprob is not None and avg_logprob < limit


def share_of_common_words(text: str) -> float:
    """Share of the words that are among the commonest of English; contractions by what comes before."""
    words = _WORD.findall(text.casefold())
    stems = [re.split("['’]", w)[0] for w in words]  # noqa: RUF001
    return sum(s in _COMMON for s in stems) / max(1, len(stems))


def _latin(character: str) -> bool:
    return unicodedata.name(character, "").startswith("LATIN")
