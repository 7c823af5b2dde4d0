"""Samples of one channel in, chunks with their samples out: a detector, a chunker and a rolling buffer.

Bounded memory whatever the length of the channel. The detector is a Protocol; knows no model, no file.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dawnchorus.chunking.chunker import Chunker, ChunkParams
from dawnchorus.records import Chunk

_BLOCK_SAMPLES = 160_000


class Stream(Protocol):
    """What `vad.SpeechStream` does."""

    def push(self, samples: NDArray[np.int16]) -> NDArray[np.float32]: ...
    def finish(self) -> NDArray[np.float32]: ...


class Detector(Protocol):
    """What `vad.SpeechDetector` does."""

    def stream(self) -> Stream: ...


class ChunkStream:
    """Samples of one channel in, chunks with their samples out, in bounded memory.

    Holds at most two longest chunks and a few seconds. `spans` are the [start, end) its chunks answer
    for, `covered` their sum and `num_samples` all it heard; after `finish` the difference is silence.
    """

    def __init__(self, params: ChunkParams, channel: int | None, detector: Detector | None) -> None:
        """`detector` is needed with the VAD on, and not used with it off."""
        if params.vad and detector is None:
            raise ValueError("the VAD is on, but there is no detector")
        self._stream = detector.stream() if detector is not None and params.vad else None
        self._chunker = Chunker(params, channel)
        self._buffer = np.zeros(0, np.int16)
        self._origin = 0
        self.num_samples = 0
        self.spans: list[tuple[int, int]] = []

    @property
    def covered(self) -> int:
        """Samples that chunks answer for."""
        return sum(end - start for start, end in self.spans)

    def push(self, samples: NDArray[np.int16]) -> list[tuple[Chunk, NDArray[np.int16]]]:
        """Take the next samples `(num_samples,)`; returns each chunk decided by them with its input."""
        decided = []
        for start in range(0, len(samples), _BLOCK_SAMPLES):
            block = samples[start : start + _BLOCK_SAMPLES]
            self._buffer = np.concatenate([self._buffer, block])
            self.num_samples += len(block)
            heard = np.zeros(0, np.float32) if self._stream is None else self._stream.push(block)
            decided += self._take(self._chunker.push(heard, self.num_samples))
        return decided

    def finish(self) -> list[tuple[Chunk, NDArray[np.int16]]]:
        """End of the channel; returns the last chunks."""
        chunks: list[Chunk] = []
        if self._stream is not None:
            chunks += self._chunker.push(self._stream.finish(), self.num_samples)
        return self._take(chunks + self._chunker.finish(self.num_samples))

    def _take(self, chunks: list[Chunk]) -> list[tuple[Chunk, NDArray[np.int16]]]:
        taken = []
        for c in chunks:
            taken.append((c, self._buffer[c.input_start - self._origin : c.input_end - self._origin].copy()))
            self.spans.append((c.start, c.end))
        drop = min(self._chunker.horizon - self._origin, len(self._buffer))
        if drop > 0:
            self._buffer = self._buffer[drop:].copy()
            self._origin += drop
        return taken
