from __future__ import annotations

import numpy as np
import pytest
from contract import waveform

from dawnchorus.engines.salm_generate import Output
from dawnchorus.engines.salm_guards import best_cut, is_silent, take_of, with_omission
from dawnchorus.engines.takes import Take

RATE = 16_000
SPEECH = waveform(10.0, RATE, 1)
SENTENCE = "the quick brown fox jumps over the lazy dog and runs into the wood, " * 2


def judged(text: str, seconds: float = 10.0, tokens: int = 30, logprob: float = -3.0, **more: float) -> Take:
    output = Output([0] * tokens, logprob, stopped=True)
    return with_omission(take_of(text, output, seconds, 76, more.get("redo_logprob")), SPEECH, RATE)


@pytest.mark.parametrize(("level", "expected"), [(0.0, True), (-80.0, True), (-69.0, False), (-20.0, False)])
def test_the_gate_is_a_level_of_the_loudest_tenth_of_a_second(level: float, expected: bool) -> None:
    samples = np.zeros(RATE, np.float32)
    if level:
        samples[8000:9600] = 10 ** (level / 20)
    assert is_silent(samples, RATE, -70.0) == expected
    assert is_silent(samples[8000:8001], RATE, -70.0) == expected


def test_an_ordinary_sentence_is_not_doubted() -> None:
    take = judged(SENTENCE)
    assert take.doubts == ()
    assert best_cut(take, SPEECH, RATE) is None
    assert take.avg_logprob == pytest.approx(-3.0 / 31, abs=1e-4)


def test_people_may_say_things_twice() -> None:
    said = "no no no, I said no no, and that is that for this time and for the next time, too, so no no"
    assert judged(said).doubts == ()


@pytest.mark.parametrize(
    ("take", "doubt"),
    [
        (judged(SENTENCE, tokens=76), "length_limit"),
        (judged("over and out " * 20), "repetition"),
        (judged("".join(chr(97 + i * i % 26) for i in range(400))), "too_fast"),
        (judged("four"), "omission"),
        (judged("the quick brown fox jumps over the lazy dog"), "sparse"),
        (judged(""), "omission"),
        (judged(SENTENCE, logprob=-40.0, redo_logprob=-1.0), "low_logprob"),
    ],
)
def test_doubts_are_reasons_to_split(take: Take, doubt: str) -> None:
    assert doubt in take.doubts
    at = best_cut(take, SPEECH, RATE)
    assert at is not None
    assert RATE < at < 9 * RATE


def test_a_split_is_at_a_pause() -> None:
    clip = SPEECH + 0.01
    clip[70_000:78_000] = 0.0
    at = best_cut(judged(SENTENCE, tokens=76), clip, RATE)
    assert at is not None
    assert 70_000 <= at <= 78_000


def test_little_text_for_little_sound_is_no_omission() -> None:
    quiet = SPEECH.copy()
    quiet[2 * RATE :] *= 1e-3
    take = take_of("yes", Output([1, 2], -0.1, True), 10.0, 76, None)
    assert with_omission(take, quiet, RATE).doubts == ()  # two seconds of sound
    assert with_omission(take, SPEECH, RATE).doubts == ("omission",)


def test_probabilities_that_are_no_numbers_are_an_error() -> None:
    take = judged("text", logprob=float("nan"))
    assert take.failure is not None
    assert (take.failure.kind, take.doubts, best_cut(take, SPEECH, RATE)) == ("not_finite", (), None)


def test_what_is_too_short_is_not_split() -> None:
    assert best_cut(judged("", seconds=1.0), SPEECH[:RATE], RATE) is None
