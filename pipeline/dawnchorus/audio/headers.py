"""Frame headers of MPEG audio (layers I-III), AAC in ADTS, AC-3, E-AC-3 and AMR: seven bytes in, a `Frame`
out. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np

Codec = Literal["mp3", "aac", "ac3", "eac3", "amrnb", "amrwb"]

HEADER_BYTES = 7


class Frame(NamedTuple):
    """One frame header: bytes of the whole frame, samples per channel, Hz, and the `key` that frames of
    one stream share."""

    num_bytes: int
    num_samples: int
    rate: int
    key: int


_L1 = (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448)
_L2 = (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384)
_L3 = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_LOW_L1 = (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256)
_LOW = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_RATES = (44_100, 48_000, 32_000)
_ADTS_RATES = (96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000)
_AMRNB_BYTES = (13, 14, 16, 18, 20, 21, 27, 32, 6, 0, 0, 0, 0, 0, 0, 1)
_AMRWB_BYTES = (18, 24, 33, 37, 41, 47, 51, 59, 61, 6, 0, 0, 0, 0, 1, 1)
_AC3_KBPS = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640)


def _mpeg(h: bytes) -> Frame | None:
    if h[0] != 0xFF or h[1] & 0xE0 != 0xE0:
        return None
    version, layer = (h[1] >> 3) & 3, 4 - ((h[1] >> 1) & 3)
    bitrate, rate_index = h[2] >> 4, (h[2] >> 2) & 3
    if version == 1 or layer == 4 or bitrate in (0, 15) or rate_index == 3:
        return None
    rate = _RATES[rate_index] >> {3: 0, 2: 1, 0: 2}[version]
    padding = (h[2] >> 1) & 1
    first = version == 3
    table = {1: _L1 if first else _LOW_L1, 2: _L2 if first else _LOW, 3: _L3 if first else _LOW}[layer]
    bits = table[bitrate - 1] * 1000
    key = version << 8 | layer << 4 | rate_index
    if layer == 1:
        return Frame((12 * bits // rate + padding) * 4, 384, rate, key)
    num_samples = 576 if layer == 3 and not first else 1152
    return Frame(num_samples // 8 * bits // rate + padding, num_samples, rate, key)


def _adts(h: bytes) -> Frame | None:
    if h[0] != 0xFF or h[1] & 0xF6 != 0xF0:
        return None
    index, num_bytes = (h[2] >> 2) & 15, (h[3] & 3) << 11 | h[4] << 3 | h[5] >> 5
    if index >= len(_ADTS_RATES) or num_bytes <= HEADER_BYTES:
        return None
    return Frame(num_bytes, 1024 * ((h[6] & 3) + 1), _ADTS_RATES[index], (h[2] & 0xFC) << 8 | h[1])


def _ac3(h: bytes) -> Frame | None:
    if h[0] != 0x0B or h[1] != 0x77:
        return None
    rate_index, size = h[4] >> 6, h[4] & 63
    if rate_index == 3 or size >= 2 * len(_AC3_KBPS) or h[5] >> 3 > 10:
        return None
    kbps, rate = _AC3_KBPS[size >> 1], (48_000, 44_100, 32_000)[rate_index]
    num_bytes = 2 * (320 * kbps // 147 + (size & 1)) if rate == 44_100 else 192_000 * kbps // rate
    return Frame(num_bytes, 1536, rate, (h[4] & 0xFE) << 8 | h[5] >> 3)


def _eac3(h: bytes) -> Frame | None:
    """Independent frames of the first program only: files with more are left to FFmpeg's demuxer."""
    if h[0] != 0x0B or h[1] != 0x77 or not 11 <= h[5] >> 3 <= 16 or h[2] >> 3 not in (0, 16):
        return None
    rate_index, second = h[4] >> 6, (h[4] >> 4) & 3
    if rate_index == 3 and second == 3:
        return None
    rate = (24_000, 22_050, 16_000)[second] if rate_index == 3 else (48_000, 44_100, 32_000)[rate_index]
    num_samples = 256 * (6 if rate_index == 3 else (1, 2, 3, 6)[second])
    return Frame(2 * (((h[2] & 7) << 8 | h[3]) + 1), num_samples, rate, h[4] << 8 | h[5] >> 3)


def _amr(h: bytes, sizes: tuple[int, ...], rate: int) -> Frame | None:
    """One byte of header; a frame that its encoder marked as bad counts as lost."""
    num_bytes = sizes[h[0] >> 3 & 15]
    return None if h[0] & 0x87 != 0x04 or not num_bytes else Frame(num_bytes, rate // 50, rate, rate)


def _amrnb(h: bytes) -> Frame | None:
    return _amr(h, _AMRNB_BYTES, 8_000)


def _amrwb(h: bytes) -> Frame | None:
    return _amr(h, _AMRWB_BYTES, 16_000)


PARSERS: dict[Codec, Callable[[bytes], Frame | None]] = {
    "mp3": _mpeg,
    "aac": _adts,
    "ac3": _ac3,
    "eac3": _eac3,
    "amrnb": _amrnb,
    "amrwb": _amrwb,
}
CHAIN: dict[Codec, int] = {"mp3": 3, "aac": 3, "ac3": 3, "eac3": 3, "amrnb": 10, "amrwb": 10}
"""Frames in a row that make a stream. Three consistent MP3 headers by chance are one in 10^14 bytes; AMR's
single byte of header is there by chance in one of 50."""


def candidates(codec: Codec, data: bytes) -> list[int]:
    """Offsets in `data` where a header may begin: the sync word, and no reserved values."""
    a = np.frombuffer(data, np.uint8)
    if len(a) < HEADER_BYTES:
        return []
    b0, b1, b2 = a[:-6], a[1:-5], a[2:-4]
    if codec == "mp3":
        hit = (b0 == 0xFF) & (b1 >= 0xE0)
        hit &= (b1 & 0x18 != 0x08) & (b1 & 0x06 != 0) & (b2 >= 0x10) & (b2 < 0xF0) & (b2 & 0x0C != 0x0C)
    elif codec == "aac":
        hit = (b0 == 0xFF) & (b1 & 0xF6 == 0xF0)
    elif codec in ("ac3", "eac3"):
        hit = (b0 == 0x0B) & (b1 == 0x77)
    else:
        hit = b0 & 0x87 == 0x04
    return np.flatnonzero(hit).tolist()
