"""Word errors against references: normalise, count, sum by group. Pure; needs the `score` extra.

Both sides pass Whisper's English normaliser (numbers, contractions, spelling), then words are aligned.
Rates are made of summed counts, never of averaged rates. Knows nothing of tables.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

from dawnchorus import installing
from dawnchorus.errors import UserError


@dataclass(frozen=True, slots=True)
class Score:
    """Word errors in `num_words` words of reference. Adds up."""

    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    num_words: int = 0

    def __add__(self, other: Score) -> Score:
        return Score(
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
            self.num_words + other.num_words,
        )

    @property
    def errors(self) -> int:
        """Substitutions, deletions and insertions."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def wer(self) -> float | None:
        """Errors per word of reference (1.0 is 100 %); None without any such word."""
        return self.errors / self.num_words if self.num_words else None


def normalise(text: str) -> str:
    """Text as it is compared: lower case, no punctuation, numbers as digits, one spelling.

    Raises:
        UserError: the `score` extra is not installed.
    """
    normaliser = _tools()[0]
    return str(normaliser(text))


def score(reference: str, hypothesis: str) -> Score:
    """Word errors of one hypothesis.

    Raises:
        UserError: the `score` extra is not installed.
    """
    normaliser, jiwer = _tools()
    expected, heard = str(normaliser(reference)).split(), str(normaliser(hypothesis)).split()
    if not expected:
        return Score(insertions=len(heard))
    if not heard:
        return Score(deletions=len(expected), num_words=len(expected))
    found = jiwer.process_words(" ".join(expected), " ".join(heard))
    return Score(found.substitutions, found.deletions, found.insertions, len(expected))


def score_by_group(rows: Iterable[tuple[str, str, str]]) -> dict[str, Score]:
    """(group, reference, hypothesis) rows -> the summed score of each group, in order of appearance.

    Raises:
        UserError: the `score` extra is not installed.
    """
    scores: dict[str, Score] = {}
    for group, reference, hypothesis in rows:
        scores[group] = scores.get(group, Score()) + score(reference, hypothesis)
    return scores


@cache
def _tools() -> tuple[Any, Any]:
    try:
        import jiwer
        from whisper_normalizer.english import EnglishTextNormalizer
    except ImportError as e:
        raise UserError("Scoring needs two more packages.", installing.command("score")) from e
    return EnglishTextNormalizer(), jiwer
