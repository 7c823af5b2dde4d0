"""Speech probabilities -> chunks: arithmetic in integer samples over a stream, nothing else.

A chunk is cut at pauses. Only speech that goes on beyond the longest chunk without any pause is cut
where speech is least likely; there the inputs overlap. With the VAD off everything counts as speech,
and the same rule yields fixed windows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dawnchorus.config import ChunkingConfig, VadConfig
from dawnchorus.errors import ConfigError
from dawnchorus.records import Chunk, Seconds

FRAME_SAMPLES = 512
"""Samples of one frame of the VAD."""

_HYSTERESIS = 0.6
"""Speech that has begun goes on while its probability stays above this share of the threshold."""

_SHORTEST_PAUSE = 3
"""Frames (96 ms) of a pause that is preferred to a cut inside speech."""


@dataclass(frozen=True, slots=True)
class ChunkParams:
    """Everything that decides where chunks lie, in samples and frames; enters `decode_id`."""

    sampling_rate: int
    vad: bool
    threshold: float
    min_speech_frames: int
    min_pause_frames: int
    pad_samples: int
    merge_gap_samples: int
    merge_samples: int
    max_samples: int
    overlap_samples: int


def chunk_params(
    vad: VadConfig, chunking: ChunkingConfig, sampling_rate: int, max_chunk_seconds: Seconds
) -> ChunkParams:
    """Configuration -> parameters for an engine that takes `max_chunk_seconds`.

    Raises:
        ConfigError: overlap or padding leave no room in the longest chunk.
    """
    longest = min(chunking.max_seconds or max_chunk_seconds, max_chunk_seconds)

    def samples(seconds: Seconds) -> int:
        return round(seconds * sampling_rate)

    def frames(seconds: Seconds) -> int:
        return -(-samples(seconds) // FRAME_SAMPLES)

    if longest < 1.0 + 4 * max(chunking.overlap_seconds, vad.pad_seconds):
        raise ConfigError(
            f"Chunks of {longest:g} s are too short for an overlap of {chunking.overlap_seconds:g} s "
            f"and a padding of {vad.pad_seconds:g} s.",
            "Raise chunking.max_seconds, or lower chunking.overlap_seconds or vad.pad_seconds.",
        )
    return ChunkParams(
        sampling_rate=sampling_rate,
        vad=vad.enabled,
        threshold=vad.threshold,
        min_speech_frames=max(1, frames(vad.min_speech_seconds)),
        min_pause_frames=max(1, frames(vad.min_pause_seconds)),
        pad_samples=samples(vad.pad_seconds),
        merge_gap_samples=samples(chunking.merge_gap_seconds),
        merge_samples=samples(min(chunking.merge_seconds, longest)),
        max_samples=samples(longest),
        overlap_samples=samples(chunking.overlap_seconds),
    )


@dataclass(frozen=True, slots=True)
class _Speech:
    """A stretch of speech in samples; `seam`: it continues speech that was cut at its start."""

    start: int
    end: int
    seam: bool


class Chunker:
    """Frame probabilities in, chunks out, as soon as they are decided.

    The result does not depend on how the stream is cut into pushes. `horizon`: no later chunk's input
    begins before this sample.
    """

    def __init__(self, params: ChunkParams, channel: int | None) -> None:
        self._params = params
        self._channel = channel
        self._chunks: list[Chunk] = []
        self._num_chunks = 0
        self._frame = 0  # the next frame
        self._claimed = 0  # end of the last chunk
        self._pending: _Speech | None = None  # closed speech that may still grow by merging
        self._start: int | None = None  # first frame of the speech that is going on
        self._seam = False  # ... which continues speech that was cut
        self._pause: int | None = None  # first frame of the pause in it that is going on
        self._probabilities: list[float] = []  # of the speech that is going on

    @property
    def horizon(self) -> int:
        """Samples before this one are not needed any more."""
        p = self._params
        if self._pending is not None:
            start, seam = self._pending.start, self._pending.seam
        else:
            frame = self._frame if self._start is None else self._start
            start, seam = frame * FRAME_SAMPLES, self._seam
        return self._input_start(start, seam) if seam else max(self._claimed, start - p.pad_samples, 0)

    def push(self, probabilities: NDArray[np.float32], num_samples: int) -> list[Chunk]:
        """Take the next frames; `num_samples` of the stream are known by now (used without a VAD)."""
        if not self._params.vad:
            probabilities = np.ones(num_samples // FRAME_SAMPLES - self._frame, np.float32)
        for probability in probabilities.tolist():
            self._step(probability)
        return self._drain(num_samples)

    def finish(self, num_samples: int) -> list[Chunk]:
        """End of the stream, which had `num_samples` samples."""
        if not self._params.vad and self._start is None and num_samples > self._frame * FRAME_SAMPLES:
            self._open()
        if self._start is not None:
            end = num_samples if self._pause is None else min(self._pause * FRAME_SAMPLES, num_samples)
            self._close(end)
        if self._pending is not None:
            self._emit(self._pending, None)
        return self._drain(num_samples)

    def _drain(self, num_samples: int) -> list[Chunk]:
        """The decided chunks, without the padding of the stream's last frame."""
        decided, self._chunks = self._chunks, []
        clipped = (
            replace(c, end=min(c.end, num_samples), input_end=min(c.input_end, num_samples)) for c in decided
        )
        return [c for c in clipped if c.start < c.end]

    def _step(self, probability: float) -> None:
        p = self._params
        if self._start is None:
            if probability < p.threshold:
                self._frame += 1
                self._settle(self._frame * FRAME_SAMPLES)
                return
            self._open()
        assert self._start is not None
        if probability >= p.threshold:
            self._pause = None
        elif probability < p.threshold * _HYSTERESIS and self._pause is None:
            self._pause = self._frame
        self._probabilities.append(probability)
        self._frame += 1
        if self._pause is not None and self._frame - self._pause >= p.min_pause_frames:
            self._close(self._pause * FRAME_SAMPLES)
            self._settle(self._frame * FRAME_SAMPLES)
        elif self._span() > p.max_samples:
            self._cut()
        else:
            end = self._frame if self._pause is None else self._pause
            if end - self._start >= p.min_speech_frames:
                self._part(self._start * FRAME_SAMPLES, end * FRAME_SAMPLES)

    def _open(self) -> None:
        self._start, self._seam, self._pause, self._probabilities = self._frame, False, None, []

    def _close(self, end: int) -> None:
        """The speech that is going on ends at sample `end`, at a pause; bursts are dropped."""
        assert self._start is not None
        start, seam = self._start * FRAME_SAMPLES, self._seam
        self._start, self._seam = None, False
        burst = self._params.vad and end - start < self._params.min_speech_frames * FRAME_SAMPLES
        if end <= start or (burst and not seam):
            return
        if self._pending is not None:
            self._part(start, end)
        if self._pending is not None:
            self._pending = replace(self._pending, end=end)
        else:
            self._pending = _Speech(start, end, seam)

    def _part(self, start: int, end: int) -> None:
        """Emit the pending speech unless speech from `start` to (so far) `end` may be merged with it."""
        p = self._params
        if self._pending is None:
            return
        joined = end + p.pad_samples - self._input_start(self._pending.start, self._pending.seam)
        if start - self._pending.end > p.merge_gap_samples or joined > p.merge_samples:
            self._emit(self._pending, start)

    def _settle(self, silent_until: int) -> None:
        """Emit the pending speech once nothing can change it: all is silent up to this sample."""
        p = self._params
        if self._pending is not None:
            reach = max(2 * p.pad_samples, p.merge_gap_samples)
            if silent_until - self._pending.end > reach:
                self._emit(self._pending, None)

    def _input_start(self, start: int, seam: bool) -> int:
        p = self._params
        return max(0, start - p.overlap_samples) if seam else max(self._claimed, start - p.pad_samples)

    def _span(self) -> int:
        """Samples the speech that is going on would take as a chunk cut here."""
        assert self._start is not None
        p = self._params
        end = (self._frame + 1) * FRAME_SAMPLES + p.pad_samples
        return end - self._input_start(self._start * FRAME_SAMPLES, self._seam)

    def _cut(self) -> None:
        """The speech that is going on is as long as a chunk may be: cut it, at a pause if there is one."""
        assert self._start is not None
        first, probabilities = self._start, np.array(self._probabilities[:-1])
        pause = _longest_pause(probabilities < self._params.threshold * _HYSTERESIS)
        if pause is not None:
            begin, end = pause
            self._close((first + begin) * FRAME_SAMPLES)
            self._start, self._seam, cut = first + end, False, end
        else:
            # The last third: chunks of similar length. The latest of equals: the VAD off gives windows.
            known = len(probabilities) - -(-self._params.overlap_samples // FRAME_SAMPLES)
            cut = known - int(np.argmin(probabilities[known * 2 // 3 : known][::-1]))
            seam = (first + cut) * FRAME_SAMPLES
            if self._pending is not None:
                self._emit(self._pending, first * FRAME_SAMPLES)
            self._close(seam)
            assert self._pending is not None
            self._emit(self._pending, seam, overlap=self._params.overlap_samples)
            self._start, self._seam = first + cut, True
        self._probabilities = self._probabilities[cut:]
        if self._pause is not None and self._pause < self._start:
            self._pause = self._start

    def _emit(self, speech: _Speech, next_start: int | None, overlap: int = 0) -> None:
        """A chunk of the pending speech; padding takes at most half of the gap to `next_start`."""
        p = self._params
        start = speech.start if speech.seam else self._input_start(speech.start, False)
        gap = p.pad_samples * 2 if next_start is None else next_start - speech.end
        end = speech.end + min(p.pad_samples, gap // 2)
        chunk = Chunk(
            channel=self._channel,
            chunk_index=self._num_chunks,
            start=start,
            end=end,
            input_start=self._input_start(speech.start, speech.seam),
            input_end=end + overlap,
        )
        self._chunks.append(chunk)
        self._num_chunks += 1
        self._claimed = end
        self._pending = None


def _longest_pause(silent: NDArray[np.bool_]) -> tuple[int, int] | None:
    """[first, last) of the longest run of silent frames in the later two thirds; the latest of equals."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], silent, [False]]).astype(np.int8)))
    runs = [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
    reachable = [(b - a, a, b) for a, b in runs if b - a >= _SHORTEST_PAUSE and a >= len(silent) // 3]
    if not reachable:
        return None
    _, begin, end = max(reachable)
    return begin, end
