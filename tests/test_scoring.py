from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dawnchorus.scoring import Score, normalise, score, score_by_group

WORDS = st.lists(st.sampled_from(["red", "green", "blue", "black", "white"]), max_size=8).map(" ".join)


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [
        ("Press two, please.", "press 2 please", Score(0, 0, 0, 3)),
        ("It's the colour of snow", "it is the color of snow", Score(0, 0, 0, 6)),
        ("one small step", "one tall step", Score(1, 0, 0, 3)),
        ("a b c d", "a d", Score(0, 2, 0, 4)),
        ("a d", "a b c d", Score(0, 0, 2, 2)),
        ("only words", "", Score(0, 2, 0, 2)),
        ("", "", Score()),
        ("", "thank you", Score(0, 0, 2, 0)),
    ],
)
def test_counts(reference: str, hypothesis: str, expected: Score) -> None:
    assert score(reference, hypothesis) == expected


def test_rate_is_of_sums_not_of_rates() -> None:
    scores = score_by_group([("x", "a b c d", "a b c"), ("y", "a", "b"), ("x", "a b c d", "a b c d")])
    assert list(scores) == ["x", "y"]
    assert scores["x"] == Score(0, 1, 0, 8)
    assert scores["x"].wer == pytest.approx(1 / 8)
    assert sum(scores.values(), Score()).wer == pytest.approx(2 / 9)
    assert Score().wer is None


@settings(max_examples=60, deadline=None)
@given(WORDS, WORDS)
def test_counts_add_up(reference: str, hypothesis: str) -> None:
    found = score(reference, hypothesis)
    assert found.num_words - found.deletions + found.insertions == len(hypothesis.split())
    assert (found.errors == 0) == (reference == hypothesis)
    assert normalise(reference) == reference


def test_import_is_light() -> None:
    code = "import sys, dawnchorus.scoring; assert 'jiwer' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
