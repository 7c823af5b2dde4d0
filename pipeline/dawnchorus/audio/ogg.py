"""Ogg pages: where the streams of a chained file begin, and whether the last one was ended.

Recorded radio is often a chain of complete streams; FFmpeg stops for good where their headers differ. Only
page headers are read: 250,000 pages of a gigabyte take about a second.
"""

from __future__ import annotations

from dawnchorus.audio.frames import Region

_HEADS = (b"\x01vorbis", b"OpusHead", b"\x7fFLAC", b"Speex   ", b"\x80theora", b"fishead\0", b"fLaC")
_BEGINS, _ENDS = 2, 4


def links(region: Region) -> tuple[list[int], bool]:
    """Byte offsets at which streams begin, and whether the last stream's end was marked."""
    starts, heading, ended, pos = list[int](), False, False, region.start
    while pos < region.end:
        head = region.read(pos, 27 + 255 + 8)
        if head[:4] != b"OggS" or len(head) < 27:
            found = _next_page(region, pos + 1)
            if found is None:
                break
            pos = found
            continue
        body = 27 + head[26]
        size = body + sum(head[27:body])
        begins = bool(head[5] & _BEGINS) and head[body : body + 8].startswith(_HEADS)
        if begins and not heading:
            starts.append(pos)
            ended = False
        heading = begins
        ended = ended or bool(head[5] & _ENDS and pos + size <= region.end)
        pos += size
    return starts, ended


def _next_page(region: Region, pos: int) -> int | None:
    while pos < region.end:
        data = region.read(pos, 1 << 20)
        at = data.find(b"OggS")
        if at >= 0:
            return pos + at
        if len(data) < 4:
            return None
        pos += len(data) - 3
    return None
