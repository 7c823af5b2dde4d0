"""Bare frames found by `frames.scan` (MP3, AAC, AC-3, AMR), decoded one by one by FFmpeg through PyAV."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

import av

from dawnchorus.audio.containers import AMR, DECODER, amr_decoder
from dawnchorus.audio.frames import Headers, Region, Run, scan
from dawnchorus.audio.shape import Piece
from dawnchorus.audio.sniff import Sniffed
from dawnchorus.audio.source import Facts, as_float
from dawnchorus.errors import Terminal

_DECODER_DELAY = 529
"""Samples by which every MP3 decoder lags; the encoder's own delay does not count them."""


class FrameSource:
    """One stream of bare frames."""

    def __init__(self, fd: int, sniffed: Sniffed) -> None:
        if sniffed.codec is None:
            raise Terminal("not_audio", "The file is in no audio format that is known here.")
        self._region = Region(fd, sniffed.start, sniffed.end)
        self._layout = scan(self._region, sniffed.codec, sniffed.start)
        gapless, items = self._layout.gapless, self._layout.items
        if not items:
            raise Terminal("no_samples", "The file is sound but holds no audio samples.")
        first = items[0]
        counted = gapless.num_frames if gapless else None
        claimed = float(Fraction(counted * first.frame_samples, first.rate)) if counted else None
        decoder = f"frames + {DECODER}"
        self.facts = Facts(decoder, sniffed.format, sniffed.codec, 0, first.rate, claimed)
        self.flags = {"truncated_audio"} if self._layout.cut else set()
        self._skip = gapless.delay + _DECODER_DELAY if gapless and gapless.delay else 0
        self._left: int | None = None
        whole = sum(i.num_frames for i in items) == counted and len({i.rate for i in items}) == 1
        if gapless and counted and whole and gapless.padding > _DECODER_DELAY:
            tail = gapless.padding - _DECODER_DELAY
            self._left = counted * first.frame_samples - self._skip - tail
        if gapless and claimed:
            drop = (gapless.delay + gapless.padding) / first.rate if gapless.delay else 0.0
            self.facts = replace(self.facts, claimed_seconds=max(0.0, claimed - drop))

    def pieces(self) -> Iterator[Piece]:
        """Audio and gaps in time order, without the encoder's delay and padding."""
        codec = self._codec()
        for item in self._layout.items:
            length = Fraction(item.frame_samples, item.rate)
            if not isinstance(item, Run):
                yield Piece(gap=item.num_frames * length, damaged=True)
                if self._left is not None:
                    self._left -= item.num_frames * item.frame_samples
                # What follows must not borrow bits from before the gap.
                codec = self._codec()
                continue
            for frame in self._decode(codec, item):
                if frame is None:
                    yield Piece(gap=length, damaged=True)
                    continue
                x = as_float(frame)
                if self._skip:
                    self._skip, x = max(0, self._skip - len(x)), x[self._skip :]
                if self._left is not None:
                    x = x[: self._left]
                    self._left -= len(x)
                if len(x):
                    yield Piece(frame.sample_rate, x)

    def _codec(self) -> Any:
        name = self._layout.codec
        if name in AMR:
            return amr_decoder(name)
        codec: Any = av.CodecContext.create("mp3float" if name == "mp3" else name, "r")
        codec.thread_type = "NONE"
        return codec

    def close(self) -> None:
        """Nothing to free."""

    def _decode(self, codec: Any, run: Run) -> Iterator[Any]:
        """Decoded frames of one run; None for one that could not be decoded."""
        headers, pos = Headers(self._region, self._layout.codec), run.start
        for _ in range(run.num_frames):
            frame = headers.at(pos)
            if frame is None:
                return
            data = self._region.read(pos, frame.num_bytes)
            pos += frame.num_bytes
            try:
                decoded = codec.decode(av.Packet(data))
            except MemoryError:
                raise
            except (av.FFmpegError, ValueError):
                yield None
                continue
            yield from decoded
