"""How long a file says that it is, from a few of its bytes: for plans, never for memory and never for truth.

Headers lie and streams have none, so the answer is a hint or None. Pure Python over untrusted bytes: bounded
reads, nothing is decoded.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from dawnchorus.audio.headers import HEADER_BYTES, PARSERS, Codec, Frame, candidates
from dawnchorus.records import Seconds

Read = Callable[[int, int], bytes]
"""`read(position, num_bytes)`: at most so many bytes from there."""

_HEAD_BYTES = 1 << 16
_MAX_STEPS = 64
_LEAST_BYTES_PER_SECOND = 20
"""Digital silence in FLAC takes 150; who promises more of it lies."""
_AU_BYTES = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}
_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")


def claimed_seconds(read: Read, size: int) -> Seconds | None:
    """What the header of a file of `size` bytes says of its length; None where it says nothing believable."""
    try:
        seconds = _Head(read, size).seconds()
    except (struct.error, ArithmeticError, LookupError, ValueError):
        return None
    believable = seconds is not None and 0 < seconds < size / _LEAST_BYTES_PER_SECOND
    return seconds if believable else None


class _Head:
    """The beginning of a file, and reads beyond it."""

    def __init__(self, read: Read, size: int) -> None:
        self._read, self.size = read, size
        self.head = read(0, _HEAD_BYTES)
        self.start = 0
        if self.head[:3] == b"ID3":
            a, b, c, d = self.head[6:10]
            self.start = 10 + (a << 21 | b << 14 | c << 7 | d)
            self.head = read(self.start, _HEAD_BYTES)

    def at(self, pos: int, num_bytes: int) -> bytes:
        offset = pos - self.start
        if offset >= 0 and offset + num_bytes <= len(self.head):
            return self.head[offset : offset + num_bytes]
        return self._read(pos, num_bytes) if 0 <= pos < self.size else b""

    def seconds(self) -> Seconds | None:
        h = self.head
        if h[:4] in (b"RIFF", b"RF64") and h[8:12] == b"WAVE":
            return self._riff()
        if h[:4] == b"FORM" and h[8:11] == b"AIF":
            return self._aiff()
        if h[:4] == b".snd":
            start, num_bytes, kind, rate, channels = struct.unpack(">5I", h[4:24])
            return float(min(num_bytes, self.size - start) / (_AU_BYTES[kind] * rate * channels))
        if h[:4] == b"fLaC":
            return _stream_info(h[8:])
        if h[:4] == b"OggS":
            return self._ogg()
        if h[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
            return self._mp4()
        if h[:4] == b"\x1a\x45\xdf\xa3":
            return _matroska(h)
        if h[:4] == b"\x30\x26\xb2\x75":
            at = h.index(_ASF_PROPERTIES) if _ASF_PROPERTIES in h else self.size
            ticks, _, preroll = struct.unpack("<3Q", h[at + 64 : at + 88])
            return float(ticks / 1e7 - preroll / 1e3)
        for magic, codec in ((b"#!AMR\n", "amrnb"), (b"#!AMR-WB\n", "amrwb")):
            if h.startswith(magic):
                return self._frames(codec, len(magic))  # type: ignore[arg-type]
        codecs: tuple[Codec, ...] = ("mp3", "aac", "ac3", "eac3")
        return next((s for c in codecs if (s := self._bare(c)) is not None), None)

    def _riff(self) -> Seconds | None:
        pos, byte_rate = self.start + 12, 0
        for _ in range(_MAX_STEPS):
            chunk = self.at(pos, 24)
            size = int.from_bytes(chunk[4:8], "little")
            if chunk[:4] == b"fmt ":
                byte_rate = int.from_bytes(chunk[16:20], "little")
            elif chunk[:4] == b"data" or len(chunk) < 8:
                rest = self.size - pos - 8
                return (min(size, rest) if size else rest) / byte_rate
            pos += 8 + size + (size & 1)
        return None

    def _aiff(self) -> Seconds | None:
        pos = self.start + 12
        for _ in range(_MAX_STEPS):
            chunk = self.at(pos, 26)
            size = int.from_bytes(chunk[4:8], "big")
            if chunk[:4] == b"COMM":
                exponent, mantissa = struct.unpack(">HQ", chunk[16:26])
                return float(int.from_bytes(chunk[10:14], "big") / (mantissa * 2.0 ** (exponent - 16_446)))
            pos += 8 + size + (size & 1)
        return None

    def _ogg(self) -> Seconds | None:
        h = self.head
        packet = h[27 + h[26] :]
        if packet[:8] == b"OpusHead":
            rate, skip = 48_000, int.from_bytes(packet[10:12], "little")
        elif packet[:7] == b"\x01vorbis":
            rate, skip = int.from_bytes(packet[12:16], "little"), 0
        elif packet[:5] == b"\x7fFLAC":
            rate, skip = int.from_bytes(packet[27:30], "big") >> 4, 0
        elif packet[:8] == b"Speex   ":
            rate, skip = int.from_bytes(packet[36:40], "little"), 0
        else:
            return None
        tail = self.at(max(0, self.size - _HEAD_BYTES), _HEAD_BYTES) or h
        pos = tail.rfind(b"OggS")
        while pos >= 0:
            granule = int.from_bytes(tail[pos + 6 : pos + 14], "little", signed=True)
            if granule > 0:
                return (granule - skip) / rate
            pos = tail.rfind(b"OggS", 0, pos)
        return None

    def _mp4(self) -> Seconds | None:
        pos, end = 0, self.size
        for _ in range(_MAX_STEPS):
            box = self.at(pos, 48)
            size, header = int.from_bytes(box[:4], "big"), 8
            if size == 1:
                size, header = int.from_bytes(box[8:16], "big"), 16
            if box[4:8] == b"moov":
                pos += header
                continue
            if box[4:8] == b"mvhd":
                long = box[8] == 1
                scale, length = struct.unpack(">IQ" if long else ">II", box[28:40] if long else box[20:28])
                return float(length / scale) or None
            if size < header or pos + size >= end:
                return None
            pos += size
        return None

    def _bare(self, codec: Codec) -> Seconds | None:
        for at in candidates(codec, self.head)[:_MAX_STEPS]:
            if (seconds := self._frames(codec, at)) is not None:
                return seconds
        return None

    def _frames(self, codec: Codec, at: int) -> Seconds | None:
        """The length of a stream whose first frame is at `at` in the head: by its encoder's word, else by the
        bytes that a second of the head takes."""
        first, pos, played = at, at, 0.0
        frame = self._frame(codec, pos)
        key = frame and frame.key
        if frame is not None and codec == "mp3" and (num := _num_frames(self.head[pos : pos + 256])):
            return num * frame.num_samples / frame.rate
        num_seen = 0
        while frame is not None and frame.key == key:
            played += frame.num_samples / frame.rate
            pos += frame.num_bytes
            num_seen += 1
            frame = self._frame(codec, pos)
        whole = pos + HEADER_BYTES > len(self.head)
        if num_seen < 3 or not (whole or num_seen > 10):
            return None
        return (self.size - self.start - first) * played / (pos - first)

    def _frame(self, codec: Codec, pos: int) -> Frame | None:
        header = self.head[pos : pos + HEADER_BYTES]
        return PARSERS[codec](header) if len(header) == HEADER_BYTES else None


def _num_frames(frame: bytes) -> int:
    """The number of frames by the Xing, Info or VBRI header in an MP3's first frame; 0 without one."""
    for tag in (b"Xing", b"Info"):
        at = frame.find(tag, 0, 64)
        if at > 0 and frame[at + 7] & 1:
            return int.from_bytes(frame[at + 8 : at + 12], "big")
    return int.from_bytes(frame[50:54], "big") if frame[36:40] == b"VBRI" else 0


def _stream_info(block: bytes) -> Seconds | None:
    """FLAC: 20 bits of rate, 3 of channels, 5 of sample size, 36 of samples."""
    bits = int.from_bytes(block[10:18], "big")
    return (bits & ((1 << 36) - 1)) / (bits >> 44)


def _matroska(head: bytes) -> Seconds | None:
    info = head.find(b"\x15\x49\xa9\x66")
    at = head.find(b"\x44\x89", info) if info >= 0 else -1
    if at < 0 or head[at + 2] not in (0x84, 0x88):
        return None
    (length,) = struct.unpack_from(">f" if head[at + 2] == 0x84 else ">d", head, at + 3)
    scale, unit = head.find(b"\x2a\xd7\xb1", info, at + 64), 1_000_000
    if scale >= 0:
        unit = int.from_bytes(head[scale + 4 : scale + 4 + (head[scale + 3] & 0x0F)], "big")
    return float(length * unit / 1e9)
