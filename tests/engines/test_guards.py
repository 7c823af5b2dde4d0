from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dawnchorus.engines.guards import compression_ratio, longest_stretch, quietest, repeats, unlooped
from dawnchorus.records import Word


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("How can I begin, how can I begin?", True),
        ("no no no", True),
        ("no no", False),
        ("press one or press two", False),
        ("the thank you so much, thank you so much and", True),
        ("that that is is", False),
        ("", False),
    ],
)
def test_repeats(text: str, expected: bool) -> None:
    assert repeats(text) is expected


def test_loops_are_said_once() -> None:
    assert unlooped("so " + "thank you " * 40 + "all") == "so thank you all"
    assert unlooped("no no no never") == "no no no never"


@given(st.lists(st.sampled_from("abc"), max_size=30))
def test_unlooping_invents_nothing_and_is_done_at_once(words: list[str]) -> None:
    once = unlooped(" ".join(words))
    kept = iter(words)
    assert all(w in kept for w in once.split())
    assert len(once.split()) > 0 or not words


def test_compression_ratio_tells_loops_from_text() -> None:
    assert compression_ratio("thank you " * 40) > 2.4
    assert compression_ratio("he might even have been made amiable himself") < 1.2
    assert compression_ratio("") == 0


def test_longest_stretch_finds_gaps_and_stretched_words() -> None:
    words = [Word(0.2, 0.5, "a"), Word(0.5, 4.5, "b"), Word(4.6, 5.0, "c")]
    assert longest_stretch(words, 6.0) == (0.5, 4.5)
    assert longest_stretch(words[:1] + words[2:], 5.0) == (0.5, 4.6)
    assert longest_stretch(words[2:], 5.0) == (0.0, 4.6)
    assert longest_stretch(words[:1], 5.0) == (0.5, 5.0)
    assert longest_stretch([], 5.0) == (0.0, 5.0)


def test_quietest_is_inside_the_pause_and_the_bounds() -> None:
    samples = np.random.default_rng(1).normal(0, 0.3, 160_000).astype(np.float32)
    samples[64_000:70_000] = 0
    samples[0:16_000] = 0
    assert 64_000 <= quietest(samples, 16_000, 2.0, 8.0) < 70_000
    assert 80_000 <= quietest(samples, 16_000, 5.0, 8.0) < 128_000
