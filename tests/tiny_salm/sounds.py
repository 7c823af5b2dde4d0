"""From utterances to what a model hears: silence around them, a level, noise, and a label per frame.

Pure functions of a random generator. Labels are indices of `WORDS`, or BLANK: silence, and the first frame
of every word, so that a word said twice is two runs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from tiny_salm.speech import SAMPLING_RATE, WORDS, Utterance

FRAME_SECONDS = 0.08
BLANK = len(WORDS)
FULL_SCALE = 32_768
_INDEX = {word: index for index, word in enumerate(WORDS)}


def hear(
    rng: np.random.Generator,
    said: Sequence[Utterance],
    outer: tuple[float, float] = (0.0, 0.6),
    quiet_share: float = 0.3,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Samples in [-1, 1] of the utterances with pauses around and between, and the label of each 80 ms frame.

    `quiet_share` of all clips get no noise, as clean files have none; the others get white to dull noise
    8 to 45 dB below the speech.
    """
    pieces: list[NDArray[np.float32]] = []
    spans: list[tuple[str, float, float]] = []
    position = 0.0
    for index, utterance in enumerate(said):
        position += _pause(rng, pieces, outer if index == 0 else (0.2, 0.9))
        spans += [
            (w, position + a, position + b)
            for w, (a, b) in zip(utterance.words, utterance.spans, strict=True)
        ]
        pieces.append(utterance.samples.astype(np.float32) / FULL_SCALE)
        position += len(utterance.samples) / SAMPLING_RATE
    _pause(rng, pieces, outer)
    samples = np.concatenate(pieces)
    samples *= rng.uniform(0.05, 0.9) / np.abs(samples).max()
    if rng.random() >= quiet_share:
        loudness = float(np.sqrt(np.mean(samples**2)))
        samples += noise(rng, len(samples), loudness * 10 ** (-rng.uniform(8, 45) / 20))
    rounded = np.clip(np.round(samples * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1) / FULL_SCALE
    return rounded.astype(np.float32), labels(spans, len(samples) / SAMPLING_RATE)


def noise(rng: np.random.Generator, num_samples: int, loudness: float) -> NDArray[np.float32]:
    """Noise of this root mean square, its colour drawn between hiss and rumble."""
    made = lfilter(
        [1.0], [1.0, -rng.uniform(-0.3, 0.95)], rng.standard_normal(num_samples).astype(np.float32)
    )
    return np.asarray(made * (loudness / np.sqrt(np.mean(made**2))), np.float32)


def labels(spans: Sequence[tuple[str, float, float]], seconds: float) -> NDArray[np.int64]:
    """One label per frame; frame k is centred at k times 80 ms. Two frames more than the encoder makes."""
    made = np.full(int(seconds / FRAME_SECONDS) + 3, BLANK, np.int64)
    for word, start, end in spans:
        first = int(np.ceil(start / FRAME_SECONDS)) + 1
        made[first : max(int(np.ceil(end / FRAME_SECONDS)), first + 1)] = _INDEX[word]
    return made


def _pause(
    rng: np.random.Generator, pieces: list[NDArray[np.float32]], between: tuple[float, float]
) -> float:
    """Appends silence of random length; returns its seconds."""
    num_samples = int(rng.uniform(*between) * SAMPLING_RATE)
    pieces.append(np.zeros(num_samples, np.float32))
    return num_samples / SAMPLING_RATE
