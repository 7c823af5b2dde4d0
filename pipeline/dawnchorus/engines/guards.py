"""Guards around a model's text, shared by engines: is it a loop, what is left of it, where to cut. Pure."""

from __future__ import annotations

import zlib

import numpy as np

from dawnchorus.engines.base import Waveform


def compression_ratio(text: str) -> float:
    """Bytes of the text per byte of it compressed: high where it repeats itself."""
    data = text.encode()
    return len(data) / len(zlib.compress(data))


def unlooped(text: str, longest: int = 12, most: int = 3) -> str:
    """The text with every phrase of up to `longest` words said more than `most` times in a row said once."""
    words = text.split()
    kept: list[str] = []
    i = 0
    while i < len(words):
        kept.append(words[i])
        i += 1
        for n in range(1, min(longest, len(kept)) + 1):
            phrase, times = kept[-n:], 1
            while words[i + (times - 1) * n : i + times * n] == phrase:
                times += 1
            if times > most:
                i += (times - 1) * n
                break
    return " ".join(kept)


def quietest(waveform: Waveform, sampling_rate: int) -> int:
    """Sample in the middle third around which 0.1 s has the least energy."""
    size = sampling_rate // 10
    low, high = len(waveform) // 3, len(waveform) * 2 // 3
    energy = np.convolve(waveform[low - size // 2 : high + size // 2] ** 2, np.ones(size), "valid")
    return low + int(np.argmin(energy))
