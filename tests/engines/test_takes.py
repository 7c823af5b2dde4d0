from __future__ import annotations

import numpy as np
import pytest

from dawnchorus.engines.takes import Take, cut, hypothesis, joined, judged, out_of_memory, token_limit
from dawnchorus.records import Hypothesis, Segment, Word

RATE = 16_000
WORDS = (Word(0.2, 0.5, " so"), Word(0.5, 5.5, " it"), Word(5.5, 6.0, " ends."))


def take(doubts: tuple[str, ...] = (), logprob: float = -0.2, text: str = "so it ends.") -> Take:
    return Take(text, 5, logprob, doubts, WORDS, (0.5, 5.5))


@pytest.mark.parametrize(
    ("text", "num_tokens", "seconds", "expected"),
    [
        ("so it ends.", 5, 6.2, ("omission",)),
        ("thank you " * 30, 62, 6.2, ("repetition", "repeats", "omission")),
        ("a b c", 70, 6.2, ("too_fast", "omission")),
        ("a b c", 200, 6.2, ("length_limit", "too_fast", "omission")),
    ],
)
def test_doubts(text: str, num_tokens: int, seconds: float, expected: tuple[str, ...]) -> None:
    doubts, gap = judged(text, num_tokens, -0.2, WORDS, seconds, 200)
    assert (doubts, gap) == (expected, (0.5, 5.5))


def test_an_empty_text_leaves_nothing_out() -> None:
    assert judged("", 0, -0.2, (), 20.0, 200)[0] == ()


def test_rank_prefers_whole_sentences_to_likely_ones() -> None:
    ordered = [
        out_of_memory(RuntimeError("out of memory")),
        take(("length_limit",), -0.01),
        take(("repeats",), -0.02),
        take(("omission",), -0.03),
        take(("low_logprob",), -0.9),
        take(),
    ]
    assert sorted(reversed(ordered), key=lambda t: t.rank) == ordered


def test_an_omission_is_cut_inside_its_gap_at_the_quietest_point() -> None:
    samples = np.random.default_rng(0).normal(0, 0.2, 6 * RATE).astype(np.float32)
    samples[4 * RATE : 4 * RATE + 4000] = 0
    samples[:4000] = 0
    at = cut(take(("omission",)), samples, RATE)
    assert at is not None
    assert 4 * RATE <= at < 4 * RATE + 4000
    assert cut(take(), samples, RATE) is None
    assert cut(take(("low_logprob",)), samples, RATE) is None


def test_a_loop_is_cut_in_the_middle_unless_it_is_short() -> None:
    samples = np.random.default_rng(0).normal(0, 0.2, 6 * RATE).astype(np.float32)
    at = cut(take(("repetition",)), samples, RATE)
    assert at is not None
    assert 2 * RATE <= at < 4 * RATE
    assert cut(take(("repetition",)), samples[: RATE + 100], RATE) is None


def test_a_loop_that_stays_is_said_once_and_has_no_word_times() -> None:
    [segment] = hypothesis(take(("repetition",), text="go on " * 20), 6.2).segments
    assert (segment.text, segment.words, segment.start, segment.end) == ("go on", (), 0.0, 6.2)
    assert hypothesis(take(("length_limit",)), 6.2).finish_reason == "length"
    assert hypothesis(take(text=" . "), 6.2).finish_reason == "empty"


def test_halves_are_joined_with_their_times() -> None:
    left = Hypothesis((Segment(0.1, 1.0, "one"),), "stop", -0.1, 1)
    right = Hypothesis((Segment(0.2, 1.0, "two", words=(Word(0.2, 1.0, " two"),)),), "length", -0.4, 2)
    whole = joined(Hypothesis(flags=("omission",)), left, right, 2.0)
    assert whole.text == "one two"
    assert [(s.start, s.end) for s in whole.segments] == [(0.1, 1.0), (2.2, 3.0)]
    assert whole.segments[1].words[0].start == 2.2
    assert whole.avg_logprob == pytest.approx(-0.3)
    assert (whole.num_tokens, whole.num_splits, whole.finish_reason) == (3, 1, "length")
    assert whole.flags == ("split", "omission")
    failed = hypothesis(out_of_memory(RuntimeError("x")), 1.0)
    assert joined(whole, left, failed, 2.0).error == failed.error


def test_nobody_speaks_so_fast() -> None:
    assert token_limit(10) > 10 * 6
