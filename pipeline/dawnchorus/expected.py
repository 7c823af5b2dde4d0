"""How much audio an attempt has before it, corrected by what it learns: a length is an estimate until its
recording has ended. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from dawnchorus.records import Seconds

NEARLY = 0.99
"""Share of what is done that is never passed while a recording is open."""
_LEAST_SCALE, _MOST_SCALE = 0.2, 5.0


class Expected:
    """The recordings of an attempt with their estimated lengths, shape `(num_recordings,)`, in seconds."""

    def __init__(self, recording_ids: list[str], seconds: NDArray[np.float64]) -> None:
        keys = _keys(recording_ids)
        order = np.argsort(keys, kind="stable")
        self._keys, self._seconds = keys[order], seconds[order]
        self._num = len(keys)
        self._open = float(seconds.sum())
        self._ended = self._real = 0.0
        self._num_ended = 0

    def learn(self, ended: Mapping[str, Seconds]) -> None:
        """These recordings have ended, and were so long."""
        if not ended or not self._num:
            return
        keys = _keys(list(ended))
        at = np.minimum(np.searchsorted(self._keys, keys), self._num - 1)
        mine = self._keys[at] == keys
        guessed, real = self._seconds[at], np.array(list(ended.values()), np.float64)
        self._num_ended += int(mine.sum())
        self._open -= float(guessed[mine].sum())
        # Those that could not be read were no audio: they say nothing of the others.
        heard = mine & (real > 0)
        self._ended += float(guessed[heard].sum())
        self._real += float(real[heard].sum())

    def total(self, audio: Seconds) -> Seconds:
        """The audio of the whole attempt, of which `audio` seconds are done: what has ended is known, what is
        open is scaled as the others were off. More than `audio` as long as a recording is open."""
        if self._num_ended >= self._num:
            return audio
        scale = self._real / self._ended if self._ended and self._real else 1.0
        left = max(0.0, self._open) * min(_MOST_SCALE, max(_LEAST_SCALE, scale))
        return max(self._real + left, audio / NEARLY)


def _keys(ids: list[str]) -> NDArray[np.bytes_]:
    return np.array([i.encode() for i in ids], "S32")
