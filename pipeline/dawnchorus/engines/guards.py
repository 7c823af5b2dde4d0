"""Guards around a model's text, for any engine: is it a loop, is speech left out, where to cut. Pure."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from dawnchorus.engines.base import Waveform
from dawnchorus.records import Seconds, Word

_LONGEST_PHRASE = 12


def compression_ratio(text: str) -> float:
    """Bytes of the text per byte of it compressed: high where it repeats itself."""
    data = text.encode()
    return len(data) / len(zlib.compress(data))


def repeats(text: str) -> bool:
    """Whether a phrase of two words or more comes twice in a row, or a word three times.

    Case and punctuation aside. People do that too: a reason to listen again, not to doubt for good.
    """
    words = ["".join(c for c in w.casefold() if c.isalnum()) for w in text.split()]
    for n in range(1, _LONGEST_PHRASE + 1):
        times = 3 if n == 1 else 2
        run = 0  # words in a row that equal the one n before
        for earlier, later in zip(words, words[n:], strict=False):
            run = run + 1 if earlier == later else 0
            if run >= n * (times - 1):
                return True
    return False


def unlooped(text: str, most: int = 3) -> str:
    """The text with every phrase said more than `most` times in a row said once."""
    words = text.split()
    kept: list[str] = []
    i = 0
    while i < len(words):
        kept.append(words[i])
        i += 1
        for n in range(1, min(_LONGEST_PHRASE, len(kept)) + 1):
            phrase, times = kept[-n:], 1
            while words[i + (times - 1) * n : i + times * n] == phrase:
                times += 1
            if times > most:
                i += (times - 1) * n
                break
    return " ".join(kept)


def longest_stretch(words: Sequence[Word], end: Seconds) -> tuple[Seconds, Seconds]:
    """The longest stretch of [0, end) in which no word begins or ends.

    Where a model leaves speech out, its alignment shows either a gap or one word stretched over it.
    """
    edges = sorted({0.0, end, *(w.start for w in words), *(w.end for w in words)})
    return max(pairwise(edges), key=lambda s: s[1] - s[0], default=(0.0, end))


def quietest(waveform: Waveform, sampling_rate: int, start: Seconds, end: Seconds) -> int:
    """Sample in [start, end) around which 0.1 s of the waveform has the least energy."""
    size = sampling_rate // 10
    energy = np.convolve(waveform.astype(np.float64) ** 2, np.ones(size), "same")
    low = round(start * sampling_rate)
    return low + int(np.argmin(energy[low : max(low + 1, round(end * sampling_rate))]))
