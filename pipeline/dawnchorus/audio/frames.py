"""Streams that are nothing but frames with headers: MP3, AAC (ADTS), AC-3, AMR. Where each frame lies.

MP3 files in archives have junk before them, holes in them and change their rate; demuxers lose the time
or stop there. `scan` walks the headers alone (no audio is decoded) and returns runs of sound frames and
the gaps between them, with what each gap must have held. Knows nothing of decoding or resampling.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

from dawnchorus.audio.headers import CHAIN, HEADER_BYTES, PARSERS, Codec, Frame, candidates


@dataclass(frozen=True, slots=True)
class Run:
    """Sound frames end to end in bytes `[start, end)`, all with the same samples per frame and rate."""

    start: int
    end: int
    num_frames: int
    frame_samples: int
    rate: int


@dataclass(slots=True)
class Gap:
    """Bytes `[start, end)` between runs that are no frames; `num_frames` is how many they must have held."""

    start: int
    end: int
    num_frames: int
    frame_samples: int
    rate: int


@dataclass(frozen=True, slots=True)
class Gapless:
    """What an encoder says in an MP3's first frame: frames that follow, samples to drop at both ends."""

    num_frames: int | None
    delay: int
    padding: int


_WINDOW_BYTES = 1 << 22
_PADDING_BYTES = 4096
"""Zeros at the end of a file that are padding rather than lost audio."""


class Region:
    """Random reads of bytes `[start, end)` of a file through one window of 4 MB."""

    def __init__(self, fd: int, start: int, end: int) -> None:
        self.fd, self.start, self.end = fd, start, end
        self._buffer, self._base = b"", start

    def read(self, pos: int, num_bytes: int) -> bytes:
        """At most `num_bytes` from `pos`; fewer only at the end of the region.

        Raises:
            OSError: the file cannot be read.
        """
        num_bytes = min(num_bytes, self.end - pos)
        if num_bytes <= 0:
            return b""
        offset = pos - self._base
        if offset < 0 or offset + num_bytes > len(self._buffer):
            self._buffer = os.pread(self.fd, min(max(_WINDOW_BYTES, num_bytes), self.end - pos), pos)
            self._base, offset = pos, 0
        return self._buffer[offset : offset + num_bytes]


@dataclass(frozen=True, slots=True)
class Layout:
    """What `scan` found: runs and gaps in order, the encoder's word on length, and whether the last frame
    is cut. Bytes before the first run and tags are in no item."""

    codec: Codec
    items: tuple[Run | Gap, ...]
    gapless: Gapless | None
    cut: bool

    @property
    def seconds(self) -> Fraction:
        """Length of all frames, lost ones included."""
        return sum((Fraction(i.num_frames * i.frame_samples, i.rate) for i in self.items), Fraction(0))


class Headers:
    """Parsed frame headers by position; the few distinct headers of a stream are parsed once."""

    def __init__(self, region: Region, codec: Codec) -> None:
        self._region, self._parse, self._chain = region, PARSERS[codec], CHAIN[codec]
        self._known: dict[bytes, Frame | None] = {}

    def at(self, pos: int) -> Frame | None:
        """The header at `pos`, or None if there is none."""
        h = self._region.read(pos, HEADER_BYTES)
        if h in self._known:
            return self._known[h]
        if not h:
            return None
        if len(self._known) > 4096:
            self._known.clear()
        frame = self._known[h] = self._parse(h.ljust(HEADER_BYTES, b"\0"))
        return frame

    def chain(self, pos: int, end: int) -> bool:
        """True when a stream begins at `pos`: enough frames in a row, or all up to the very end."""
        first = frame = self.at(pos)
        for _ in range(self._chain - 1):
            if first is None or frame is None or frame.key != first.key:
                return False
            pos += frame.num_bytes
            frame = self.at(pos)
            if pos == end or (frame is None and pos < end and tag_bytes(self._region, pos)):
                return True
        return frame is not None and first is not None and frame.key == first.key and pos < end


def tag_bytes(region: Region, pos: int) -> int:
    """Length of what is no audio at `pos`: a tag (ID3v2, ID3v1, APE, Lyrics3) or final padding; else 0."""
    h = region.read(pos, 32)
    if h[:3] == b"ID3" and len(h) >= 10 and max(h[6:10]) < 0x80:
        size = h[6] << 21 | h[7] << 14 | h[8] << 7 | h[9]
        return size + (20 if h[5] & 0x10 else 10)
    if h[:3] == b"TAG" and region.end - pos <= 128 + 227:
        return region.end - pos
    if h[:8] == b"APETAGEX" and len(h) == 32:
        return 32 + int.from_bytes(h[12:16], "little")
    rest = region.end - pos
    if h[:11] == b"LYRICSBEGIN" or (rest <= _PADDING_BYTES and not region.read(pos, rest).strip(b"\0")):
        return rest
    return 0


def find(region: Region, codec: Codec, pos: int, limit: int | None = None) -> int | None:
    """First position from `pos` (and before `limit`) where a stream of frames begins."""
    headers = Headers(region, codec)
    limit = region.end if limit is None else min(limit, region.end)
    while pos < limit:
        data = region.read(pos, 1 << 20)
        for offset in candidates(codec, data):
            if pos + offset >= limit:
                return None
            if headers.chain(pos + offset, region.end):
                return pos + offset
        if len(data) <= HEADER_BYTES:
            return None
        pos += len(data) - HEADER_BYTES + 1
    return None


def scan(region: Region, codec: Codec, first: int) -> Layout:
    """Walk the headers from `first`, where a stream begins (see `find`), to the region's end.

    A frame counts as sound when another header, a tag or the end follows it. Memory grows with the
    number of gaps, not with the length of the file; 1.4 million frames (10 hours of MP3) take a second.
    """
    gapless, pos = _gapless(region, first) if codec == "mp3" else (None, first)
    headers, items, end = Headers(region, codec), list[Run | Gap](), region.end
    cut = False
    while pos < end:
        if length := tag_bytes(region, pos):
            pos += length
            continue
        run = _run(headers, region, pos)
        if run is not None:
            items.append(run)
            pos = run.end
            continue
        found = find(region, codec, pos + 1)
        frame = headers.at(pos)
        cut = found is None and frame is not None and pos + frame.num_bytes > end
        stop = end if found is None else found
        if items and not cut:
            items.append(Gap(pos, stop, 0, items[-1].frame_samples, items[-1].rate))
        pos = stop
    return Layout(codec, tuple(_fill(items, gapless)), gapless, cut)


def _run(headers: Headers, region: Region, start: int) -> Run | None:
    """The sound frames from `start` that share a key, or None if no stream begins there."""
    end = region.end
    if not headers.chain(start, end):
        return None
    first = frame = headers.at(start)
    pos, count = start, 0
    while first is not None and frame is not None and frame.key == first.key:
        after = pos + frame.num_bytes
        following = headers.at(after) if after < end else None
        if following is None and after != end and not (after < end and tag_bytes(region, after)):
            break
        pos, frame, count = after, following, count + 1
    return Run(start, pos, count, first.num_samples, first.rate) if first and count else None


def _fill(items: list[Run | Gap], gapless: Gapless | None) -> Iterator[Run | Gap]:
    """Say how many frames each gap held: by the mean frame size of its neighbours, and if the encoder
    counted its frames and that is near, exactly as many as are missing in all."""
    runs = [i for i in items if isinstance(i, Run)]
    gaps = [i for i in items if isinstance(i, Gap)]
    shares: list[float] = []
    for n, item in enumerate(items):
        if isinstance(item, Gap):
            near = [r for r in items[max(0, n - 1) : n + 2] if isinstance(r, Run)]
            mean = sum(r.end - r.start for r in near) / sum(r.num_frames for r in near)
            shares.append((item.end - item.start) / mean)
    estimate = sum(shares)
    if gapless is not None and gapless.num_frames is not None and estimate:
        missing = gapless.num_frames - sum(r.num_frames for r in runs)
        if estimate / 2 - 2 <= missing <= estimate * 2 + 2:
            shares = [s * missing / estimate for s in shares]
    total, done = 0.0, 0
    counts: list[int] = []
    for share in shares:
        total += share
        counts.append(round(total) - done)
        done += counts[-1]
    filled = iter([replace(gap, num_frames=max(0, n)) for gap, n in zip(gaps, counts, strict=True)])
    return (next(filled) if isinstance(i, Gap) else i for i in items)


def _gapless(region: Region, first: int) -> tuple[Gapless | None, int]:
    """The Xing/Info or VBRI frame at `first`, and where the audio begins."""
    frame = PARSERS["mp3"](region.read(first, HEADER_BYTES))
    if frame is None:
        return None, first
    data = region.read(first, frame.num_bytes)
    if data[36:40] == b"VBRI" and len(data) >= 54:
        return Gapless(int.from_bytes(data[50:54], "big"), 0, 0), first + frame.num_bytes
    at = next((i for i in (13, 15, 21, 23, 36, 38) if data[i : i + 4] in (b"Xing", b"Info")), None)
    if at is None:
        return None, first
    flags, cursor, num_frames = int.from_bytes(data[at + 4 : at + 8], "big"), at + 8, None
    if flags & 1:
        num_frames = int.from_bytes(data[cursor : cursor + 4], "big") or None
    cursor += sum(size for bit, size in ((1, 4), (2, 4), (4, 100), (8, 4)) if flags & bit)
    delay = padding = 0
    if data[cursor : cursor + 4] in (b"LAME", b"Lavf", b"Lavc") and len(data) >= cursor + 24:
        both = int.from_bytes(data[cursor + 21 : cursor + 24], "big")
        delay, padding = both >> 12, both & 0xFFF
    return Gapless(num_frames, delay, padding), first + frame.num_bytes
