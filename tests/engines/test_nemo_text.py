from __future__ import annotations

from typing import Any

import pytest

from dawnchorus.engines.nemo_text import (
    hypothesis,
    mean_logprob,
    probability,
    sentences,
    spread,
    words,
    written,
)
from dawnchorus.records import Word


def offsets(*spans: tuple[str, int, int]) -> list[dict[str, Any]]:
    return [{"word": w, "start_offset": a, "end_offset": b} for w, a, b in spans]


def test_words_lie_within_the_waveform_and_do_not_overlap() -> None:
    found = words(offsets(("one", 0, 0), ("two", 2, 9), ("three", 8, 12)), [0.5, 0.25, 1.0], 0.08, 0.8)
    assert [w.word for w in found] == [" one", " two", " three"]
    assert [w.start for w in found] == pytest.approx([0.0, 0.16, 0.64])
    assert [w.end for w in found] == pytest.approx([0.08, 0.64, 0.8])
    assert [w.prob for w in found] == [0.5, 0.25, 1.0]


def test_a_word_behind_the_end_of_a_short_clip_is_not_lost() -> None:
    """Clips of less than a second are padded; a word without a length belonged to no chunk."""
    [found] = words(offsets(("seven", 7, 8)), None, 0.08, 0.5)
    assert (found.start, found.end) == (pytest.approx(0.42), 0.5)


def test_probabilities_that_do_not_fit_are_left_out() -> None:
    assert [w.prob for w in words(offsets(("one", 0, 1), ("two", 2, 3)), [0.5], 0.08, 1.0)] == [None, None]


def test_segments_end_with_sentences_and_at_pauses() -> None:
    spoken = [Word(0.0, 0.4, " Who?"), Word(0.5, 0.9, " Me."), Word(1.0, 1.4, " and"), Word(2.6, 3.0, " you")]
    found = hypothesis("Who?  Me. and you", spoken, 3.2, -0.25, 9)
    assert [(s.start, s.end, s.text) for s in found.segments] == [
        (0.0, 0.4, "Who?"),
        (0.5, 0.9, "Me."),
        (1.0, 1.4, "and"),
        (2.6, 3.0, "you"),
    ]
    assert (found.text, found.finish_reason, found.num_tokens) == ("Who? Me. and you", "stop", 9)
    assert sentences(spoken)[2] == (spoken[2],)


def test_words_of_another_text_are_left_out() -> None:
    [segment] = hypothesis("to morrow", [Word(0.0, 0.4, " tomorrow")], 1.0, None, 1).segments
    assert (segment.start, segment.end, segment.text, segment.words) == (0.0, 1.0, "to morrow", ())


def test_what_loops_is_said_once_and_flagged() -> None:
    found = written("<|pnc|>so <|en|> " + "go on " * 40, 124, 6.0)
    assert found.text == "so go on"
    assert found.finish_reason == "length"
    assert {"length_limit", "repetition"} <= set(found.flags)
    good = written("<|startoftranscript|>Who is there?", 9, 3.0)
    assert [(s.start, s.end, s.text) for s in good.segments] == [(0.0, 3.0, "Who is there?")]
    assert (good.finish_reason, good.flags, good.avg_logprob) == ("stop", (), None)
    assert written("<|nospeech|>", 1, 3.0).finish_reason == "empty"


@pytest.mark.parametrize("text", ["", "  ", ". , ⁇"])
def test_a_text_without_letters_is_empty(text: str) -> None:
    found = hypothesis(text, (), 1.0, -0.1, 1)
    assert (found.finish_reason, found.text, found.error) == ("empty", "", None)


def test_logprobs_and_confidences() -> None:
    assert mean_logprob([]) is None
    assert mean_logprob([1.0, 0.25]) == pytest.approx(-0.6931, abs=1e-4)
    assert probability(0.0, 50) == pytest.approx(0.02)
    assert probability(1.0, 50) == 1.0
    assert spread(offsets(("a", 0, 2), ("b", 4, 4), ("c", 6, 7)), {0: 0.5, 2: 1.0, 4: 0.25}) == [
        0.75,
        0.25,
        0,
    ]
