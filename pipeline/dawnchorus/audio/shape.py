"""Decoded pieces become blocks: pick or mix channels, resample, round to int16, keep the account of damage.

A source yields `Piece`s at any rate; a `Shaper` returns `Block`s at the engine's rate in which time runs
on without a shift: a gap becomes as much silence, and where the rate changes the clock is set exactly.
Knows no file format and no process.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
import soxr
from numpy.typing import NDArray

from dawnchorus.audio.wire import Block
from dawnchorus.errors import Terminal

QUALITY = "HQ"
BLOCK_SECONDS = 10
MIN_RATE, MAX_RATE = 1_000, 1_536_000
"""Sampling rates that are believed, in Hz."""

_BLOCK_VALUES = 1 << 22
"""Most values of one block: blocks of files with many channels are shorter."""
_PIECE_VALUES = 1 << 17
"""Values resampled at once: 0.5 MB of float32."""
_MERGE_SECONDS = 0.1
"""Damaged spans closer than this are one span, so that hostile input cannot make millions of them."""
_FLICKS = 705_600_000
_ABSURD = 1e6
"""Float samples beyond this are damage, not loudness."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What a source decoded: `samples` float32, shape `(num_samples, num_channels)`, full scale 1.0; or,
    where `samples` is None, `gap` seconds without audio, `damaged` if there should have been some."""

    rate: int = 0
    samples: NDArray[np.float32] | None = None
    gap: Fraction = Fraction(0)
    damaged: bool = False


class Shaper:
    """Turns the pieces of one stream into blocks.

    `selection` is "mix", "separate" or a channel's index; `num_channels` is the source's. Holds back
    leading non-finite audio until a real sample comes, so that a file of nothing else yields no block.

    Raises (from `feed` and `finish`):
        Terminal: `non_finite`, `no_samples`, `too_long`, or `not_audio` for an unbelievable rate.
    """

    def __init__(self, selection: str | int, num_channels: int, sampling_rate: int, max_samples: int) -> None:
        self.channels: tuple[int | None, ...]
        if selection == "mix":
            self.channels = (None,)
        elif selection == "separate":
            self.channels = tuple(range(num_channels))
        elif isinstance(selection, int) and 0 <= selection < num_channels:
            self.channels = (selection,)
        else:
            raise Terminal("bad_channel", f"Channel {selection} was asked for; there are {num_channels}.")
        self._num_source_channels = num_channels
        self._rate_out = sampling_rate
        self._max_samples = max_samples
        self._block_samples = min(BLOCK_SECONDS * sampling_rate, max(1, _BLOCK_VALUES // len(self.channels)))
        self._ready: list[NDArray[np.int16]] = []
        self._num_ready = 0
        self._emitted = 0
        self._spans: list[list[int]] = []
        self._run = _Run(Fraction(0), 0, sampling_rate, len(self.channels))
        self._held = Fraction(0)  # seconds before the first real sample
        self._held_damage: Literal["", "gap", "non_finite"] = ""
        self._heard = False

    @property
    def seconds(self) -> Fraction:
        """How far the stream has come."""
        return self._held + self._run.now

    def feed(self, piece: Piece) -> Iterator[Block]:
        """Add one piece; yields the blocks that became full."""
        if piece.samples is None:
            yield from self._silence(piece.gap, piece.damaged)
            return
        if not MIN_RATE <= piece.rate <= MAX_RATE:
            raise Terminal("not_audio", f"The file claims a sampling rate of {piece.rate} Hz.")
        step = max(1, _PIECE_VALUES // max(1, piece.samples.shape[1]))
        for start in range(0, len(piece.samples), step):
            yield from self._samples(piece.rate, piece.samples[start : start + step])

    def finish(self) -> Iterator[Block]:
        """End the stream; yields what is left."""
        if self._held_damage == "non_finite" and not self._heard:
            raise Terminal("non_finite", "Not one sample is a number (all are NaN or infinite).")
        if self._held_damage and not self._heard:
            raise Terminal("not_audio", "Nothing in the file could be decoded.")
        yield from self.flush()
        if not self._emitted:
            raise Terminal("no_samples", "The file is sound but holds no audio samples.")

    def flush(self) -> Iterator[Block]:
        """What is left, without a verdict: for a stream that breaks off."""
        self._take(self._run.end())
        while self._num_ready:
            yield self._block(min(self._num_ready, self._block_samples))

    def _samples(self, rate: int, x: NDArray[np.float32]) -> Iterator[Block]:
        y, bad = self._select(x)
        if bad is not None and bad.all() and not self._heard:
            self._hold(Fraction(len(y), rate), "non_finite")
            return
        if not self._heard:
            self._heard = True
            yield from self._silence(self._held, bool(self._held_damage))
            self._held = Fraction(0)
        if rate != self._run.rate:
            self._switch(rate)
        if bad is not None:
            for a, b in _spans(bad, int(_MERGE_SECONDS * rate)):
                self._mark(self._run.now + Fraction(a, rate), self._run.now + Fraction(b, rate))
        self._check(self._run.now + Fraction(len(y), rate))
        self._take(self._run.push(y))
        yield from self._full()

    def _hold(self, seconds: Fraction, damage: Literal["", "gap", "non_finite"]) -> None:
        self._held += seconds
        self._held_damage = max(self._held_damage, damage)
        self._check(self._held)

    def _silence(self, seconds: Fraction, damaged: bool) -> Iterator[Block]:
        if not self._heard:
            self._hold(seconds, "gap" if damaged else "")
            return
        if not seconds:
            return
        start = self._run.now
        self._check(start + seconds)
        if damaged:
            self._mark(start, start + seconds)
        if not self._run.rate:
            self._switch(self._rate_out)
        left = round((start + seconds - self._run.begun) * self._run.rate) - self._run.num_samples
        while left > 0:
            step = min(left, max(1, _PIECE_VALUES // len(self.channels)))
            self._take(self._run.push(np.zeros((step, len(self.channels)), np.float32)))
            left -= step
            yield from self._full()

    def _select(self, x: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.bool_] | None]:
        """The channels asked for, shape `(n, len(self.channels))`, and which samples were no numbers."""
        if x.shape[1] != self._num_source_channels and self.channels != (None,):
            # The channel count changes mid-stream: mono goes everywhere, missing ones are silent.
            wide = np.zeros((len(x), self._num_source_channels), np.float32)
            common = min(x.shape[1], self._num_source_channels)
            wide[:, :common] = x[:, :common]
            if x.shape[1] == 1:
                wide[:] = x
            x = wide
        if self.channels != (None,) and len(self.channels) < x.shape[1]:
            x = x[:, [c for c in self.channels if c is not None]]
        bad: NDArray[np.bool_] | None = None
        if not np.abs(x).max(initial=0) < _ABSURD:
            faulty = ~(np.abs(x) < _ABSURD)
            x = np.where(faulty, np.float32(0), x).astype(np.float32)
            bad = np.asarray(faulty.any(axis=1))
        return (_mean(x) if self.channels == (None,) else x), bad

    def _switch(self, rate: int) -> None:
        # Flicks: a whole number of them to a sample of every common rate, so the clock stays exact and small.
        now = Fraction(round(self._run.now * _FLICKS), _FLICKS)
        self._take(self._run.end())
        self._run = _Run(now, rate, self._rate_out, len(self.channels))

    def _check(self, seconds: Fraction) -> None:
        if seconds * self._rate_out > self._max_samples:
            limit = self._max_samples / self._rate_out / 3600
            raise Terminal("too_long", f"There is more audio than the limit of {limit:.4g} hours.")

    def _mark(self, start: Fraction, end: Fraction) -> None:
        a, b = int(start * self._rate_out), -int(-end * self._rate_out // 1)
        if self._spans and a - self._spans[-1][1] <= _MERGE_SECONDS * self._rate_out:
            self._spans[-1][1] = max(b, self._spans[-1][1])
        else:
            self._spans.append([a, b])

    def _take(self, y: NDArray[np.float32]) -> None:
        if len(y):
            scaled = np.clip(np.rint(y.T * np.float32(32768)), -32768, 32767)
            self._ready.append(scaled.astype(np.int16))
            self._num_ready += len(y)

    def _full(self) -> Iterator[Block]:
        while self._num_ready >= self._block_samples:
            yield self._block(self._block_samples)

    def _block(self, num_samples: int) -> Block:
        joined = np.concatenate(self._ready, axis=1)
        samples, rest = joined[:, :num_samples], joined[:, num_samples:]
        self._ready, self._num_ready = [rest], rest.shape[1]
        start, end = self._emitted, self._emitted + num_samples
        self._emitted = end
        spans = tuple((max(a, start), min(b, end)) for a, b in self._spans if a < end and b > start)
        self._spans = [s for s in self._spans if s[1] > end]
        return Block(samples, spans)


def _mean(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean over channels, `(n, channels)` to `(n, 1)`. Added up channel by channel: numpy's own mean over
    so short an axis takes five times as long, and a matrix product rounds as the CPU pleases."""
    if x.shape[1] == 1:
        return x
    y = x[:, 0] + x[:, 1]
    for c in range(2, x.shape[1]):
        y += x[:, c]
    y *= np.float32(1 / x.shape[1])
    return y[:, None]


def _spans(bad: NDArray[np.bool_], merge: int) -> list[list[int]]:
    """Stretches of True as `[start, end]` pairs; those at most `merge` samples apart are joined."""
    edges = np.flatnonzero(np.diff(bad, prepend=False, append=False))
    starts, ends = edges[::2], edges[1::2]
    apart = starts[1:] - ends[:-1] > merge
    spans: list[list[int]] = np.stack([starts[np.r_[True, apart]], ends[np.r_[apart, True]]], axis=1).tolist()
    return spans


class _Run:
    """A stretch of one source rate and its resampler; its output is as long as its time, exactly."""

    def __init__(self, begun: Fraction, rate: int, rate_out: int, num_channels: int) -> None:
        self.begun, self.rate, self.num_samples = begun, rate, 0
        self._rate_out, self._num_channels, self._num_out = rate_out, num_channels, 0
        self._soxr = (
            soxr.ResampleStream(rate, rate_out, num_channels, dtype="float32", quality=QUALITY)
            if rate and rate != rate_out
            else None
        )

    @property
    def now(self) -> Fraction:
        """Seconds from the start of the stream to the end of this run so far."""
        return self.begun + (Fraction(self.num_samples, self.rate) if self.rate else 0)

    def push(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Resample; `(n, channels)` in, `(m, channels)` out."""
        self.num_samples += len(x)
        y: NDArray[np.float32] = x if self._soxr is None else self._soxr.resample_chunk(x)
        self._num_out += len(y)
        return y

    def end(self) -> NDArray[np.float32]:
        """What the resampler still holds, cut or padded to the run's exact length."""
        empty = np.zeros((0, self._num_channels), np.float32)
        y: NDArray[np.float32] = empty if self._soxr is None else self._soxr.resample_chunk(empty, last=True)
        due = round(self.now * self._rate_out) - round(self.begun * self._rate_out) - self._num_out
        return y[:due] if len(y) >= due else np.pad(y, ((0, due - len(y)), (0, 0)))
