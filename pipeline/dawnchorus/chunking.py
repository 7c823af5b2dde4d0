"""Speech probabilities -> chunks: arithmetic in integer samples over a stream, nothing else.

A chunk is cut at pauses. Only speech that goes on beyond the longest chunk without any pause is cut
where speech is least likely; there the inputs overlap, and `owned` or `join_at_seam` decide which side
a word belongs to. With the VAD off everything counts as speech, and the same rule yields fixed windows.
Knows no model and no file; the detector is a Protocol.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dawnchorus.config import ChunkingConfig, VadConfig
from dawnchorus.errors import ConfigError
from dawnchorus.records import Chunk, Seconds, Segment

FRAME_SAMPLES = 512
"""Samples of one frame of the VAD."""

_HYSTERESIS = 0.6
"""Speech that has begun goes on while its probability stays above this share of the threshold."""

_SHORTEST_PAUSE = 3
"""Frames (96 ms) of a pause that is preferred to a cut inside speech."""

_WORDS_PER_SECOND = 6
"""Nobody speaks faster for long: bounds the words an overlap can hold."""

_BLOCK_SAMPLES = 160_000


class Stream(Protocol):
    """What `vad.SpeechStream` does."""

    def push(self, samples: NDArray[np.int16]) -> NDArray[np.float32]: ...
    def finish(self) -> NDArray[np.float32]: ...


class Detector(Protocol):
    """What `vad.SpeechDetector` does."""

    def stream(self) -> Stream: ...


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


def owned(segments: Sequence[Segment], start: Seconds, end: Seconds) -> tuple[Segment, ...]:
    """The part of a chunk's segments that lies in [start, end), the span it answers for.

    All times are seconds from the start of the chunk's input. Of a segment with words, those are kept
    whose midpoint is inside; one without words is kept whole unless it lies outside altogether, since
    its text cannot be divided here (see `join_seams`).
    """
    kept = []
    for segment in segments:
        words = tuple(w for w in segment.words if start <= (w.start + w.end) / 2 < end)
        if not segment.words:
            if segment.start < end and segment.end > start:
                kept.append(segment)
        elif len(words) == len(segment.words):
            kept.append(segment)
        elif words:
            text = "".join(w.word for w in words).strip()
            kept.append(replace(segment, start=words[0].start, end=words[-1].end, text=text, words=words))
    return tuple(kept)


def join_seams(chunks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Segments of the chunk rows of one channel, in order, with what two neighbours both say said once.

    Rows have `input_start`, `input_end` and `segments` in seconds from the start of the recording.
    Only neighbours whose inputs overlap and whose segments at the seam have no words are touched; the
    others were divided by `owned`.
    """
    joined: list[dict[str, Any]] = []
    previous: Mapping[str, Any] | None = None
    for chunk in chunks:
        segments = [dict(s) for s in chunk["segments"] or ()]
        if previous is not None and previous["input_end"] > chunk["input_start"] and segments and joined:
            left, right = joined[-1], segments[0]
            if not left["words"] and not right["words"]:
                most = round((previous["input_end"] - chunk["input_start"]) * _WORDS_PER_SECOND)
                left["text"], right["text"] = join_at_seam(left["text"], right["text"], most)
        joined += segments
        previous = chunk
    return [s for s in joined if s["text"].strip() or s["words"]]


def join_at_seam(left: str, right: str, max_words: int) -> tuple[str, str]:
    """Texts of two chunks whose inputs overlap, with what both say said once.

    Looks for the longest run of equal words (case and punctuation aside; at least two, or a single one
    that is the last of `left` and the first of `right`) between the last and the first `max_words`
    words, and cuts both in its middle. Without one, both are returned as they are: twice is better
    than never.
    """
    before, after = left.split(), right.split()
    tail, head = before[-max_words:], after[:max_words]
    a, b = [_plain(w) for w in tail], [_plain(w) for w in head]
    run = difflib.SequenceMatcher(None, a, b, autojunk=False).find_longest_match()
    single = run.size == 1 and run.a == len(a) - 1 and run.b == 0
    if run.size < 2 and not single:
        return left, right
    keep = -(-run.size // 2)
    cut_left = len(before) - len(tail) + run.a + keep
    return " ".join(before[:cut_left]), " ".join(after[run.b + keep :])


def _plain(word: str) -> str:
    return "".join(c for c in word.casefold() if c.isalnum()) or word
