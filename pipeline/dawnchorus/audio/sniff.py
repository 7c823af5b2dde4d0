"""What the bytes of a file are: which reader decodes them, by their content alone.

The rule runs before any audio is decoded and depends on nothing but the bytes, so a replay chooses the
same reader. Knows magic numbers and RIFF chunks; decodes nothing.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Literal

from dawnchorus.audio.frames import Region, find, tag_bytes
from dawnchorus.audio.headers import Codec
from dawnchorus.errors import Terminal

Reader = Literal["sndfile", "container", "frames"]

_JUNK_BYTES = 1 << 24
"""How far into an unknown file a stream of frames is looked for: beyond any cover picture."""
_ENDLESS = 0x7FFF_0000
"""RIFF sizes from here on that do not fit the file were never filled in: the file was streamed."""
_SNDFILE_TAGS = {1, 2, 3, 6, 7, 0x11, 0x31, 0x64, 0x65}
"""WAV codecs for libsndfile: PCM, MS ADPCM, float, A-law, mu-law, IMA ADPCM, GSM, G.721."""
_LINEAR_TAGS = {1, 3, 6, 7}
_MPEG_TAGS = {0x50, 0x55}

_AUDIO: tuple[tuple[bytes, str, Reader], ...] = (
    (rb"FORM....AIF[FC]", "aiff", "sndfile"),
    (rb"\.snd", "au", "sndfile"),
    (rb"caff", "caf", "sndfile"),
    (rb"riff\x2e\x91\xcf\x11", "w64", "sndfile"),
    (rb"(RF64|RIFX|BW64)....WAVE", "wav", "sndfile"),
    (rb"NIST_1A", "sphere", "sndfile"),
    (rb"Creative Voice File", "voc", "sndfile"),
    (rb"fLaC", "flac", "container"),
    (rb"OggS", "ogg", "container"),
    (rb"....(ftyp|moov|mdat|wide|free|skip|pnot)", "mp4", "container"),
    (rb"\x1a\x45\xdf\xa3", "matroska", "container"),
    (rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "wma", "container"),
    (rb"#!AMR_MC", "amr", "container"),
    (rb"FLV\x01", "flv", "container"),
    (rb"\x00\x00\x01[\xba\xb3]", "mpeg", "container"),
    (rb"\x47(?s:.{187})\x47(?s:.{187})\x47", "mpegts", "container"),
    (rb"RIFF....(AVI |RMP3)", "avi", "container"),
    (rb"\.RMF", "rm", "container"),
    (rb"MAC \x96|wvpk|TTA1|MPCK|MP\+|tBaK|DSD ", "lossless", "container"),
)
_OTHER: tuple[tuple[bytes, str], ...] = (
    (rb"\s*(<!doctype html|<html|<head|<body|<script)", "an HTML page"),
    (rb"\s*(<\?xml|<error|<rss)", "an XML document"),
    (rb"\s*[\[{][\s\"\[{}\]]", "a JSON document"),
    (rb"%PDF", "a PDF document"),
    (rb"PK\x03\x04|PK\x05\x06", "a ZIP archive"),
    (rb"\x1f\x8b", "gzip-compressed data"),
    (rb"7z\xbc\xaf|Rar!|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd", "a compressed archive"),
    (rb"\x89PNG|\xff\xd8\xff|GIF8|RIFF....WEBP|BM....\x00\x00", "a picture"),
    (rb"\x7fELF|MZ", "a program"),
    (rb"MThd", "a MIDI file, which holds notes and no sound"),
    (rb"#EXTM3U|\[playlist\]|ffconcat", "a playlist"),
    (rb"version https://git-lfs", "a Git LFS pointer, not the file it points to"),
    (rb"PAR1", "a Parquet file"),
    (rb"SQLite format 3", "a database"),
)


@dataclass(frozen=True, slots=True)
class Sniffed:
    """How to read a file: the `reader`, a name for people, the bytes `[start, end)` that matter, the codec
    and the first frame of a bare stream, the container's word on its length in seconds, and whether the
    file ends before its header says."""

    reader: Reader
    format: str
    start: int
    end: int
    codec: Codec | None = None
    claimed_seconds: float | None = None
    cut: bool = False
    unsaid: int | None = None


def sniff(fd: int) -> Sniffed:
    """Decide how to read an open regular file.

    Raises:
        Terminal: `empty_file` or `not_audio`.
        OSError: the file cannot be read.
    """
    size = os.fstat(fd).st_size
    if not size:
        raise Terminal("empty_file", "The file has no bytes.")
    file = Region(fd, 0, size)
    start = 0
    while length := tag_bytes(file, start) if file.read(start, 3) == b"ID3" else 0:
        start = min(start + length, size)
    head = file.read(start, 512)
    if re.match(rb"RIFF....WAVE", head, re.DOTALL):
        return _wav(file, start)
    amr: tuple[tuple[bytes, Codec], ...] = ((b"#!AMR\n", "amrnb"), (b"#!AMR-WB\n", "amrwb"))
    for prefix, codec in amr:
        if head.startswith(prefix):
            return Sniffed("frames", "amr", start + len(prefix), size, codec)
    for magic, name, reader in _AUDIO:
        if re.match(magic, head, re.DOTALL):
            promised = start + _promised_bytes(name, head)
            return Sniffed(reader, name, start if reader == "sndfile" else 0, size, cut=promised > size)
    other = describe(head) if start == 0 else None
    if other is None:
        if (bare := _bare(file, start)) is not None:
            return bare
        other = describe_plain(head)
    if other is not None:
        raise Terminal("not_audio", f"This is no audio: it looks like {other}.")
    return Sniffed("container", "unknown", 0, size)


def describe(head: bytes) -> str | None:
    """What the first bytes of a file look like, by the signatures of things that are no audio, or None."""
    for magic, what in _OTHER:
        if re.match(magic, head, re.DOTALL | re.IGNORECASE):
            return what
    return None


def describe_plain(head: bytes) -> str | None:
    """Whether bytes without a signature are text or zeros."""
    if not head.strip(b"\0"):
        return "nothing but zero bytes"
    try:
        text = head.decode("utf-8", "strict" if len(head) < 512 else "ignore")
    except UnicodeDecodeError:
        return None
    printable = sum(c.isprintable() or c.isspace() for c in text)
    return "a text file" if printable == len(text) and len(text.encode()) > 0.98 * len(head) else None


def _promised_bytes(name: str, head: bytes) -> int:
    """Length of the file in bytes by the header of an aiff, au, w64 or RF64; 0 where it does not say."""
    if name == "aiff" or head[:4] == b"RIFX":
        return 8 + int.from_bytes(head[4:8], "big")
    if name == "au" and head[8:12] != b"\xff\xff\xff\xff":
        return int.from_bytes(head[4:8], "big") + int.from_bytes(head[8:12], "big")
    if name == "w64":
        return int.from_bytes(head[16:24], "little")
    if head[:4] == b"RF64" and head[12:16] == b"ds64":
        return 8 + int.from_bytes(head[20:28], "little")
    return 0


def _bare(file: Region, start: int) -> Sniffed | None:
    """The bare stream of frames that begins first, if there is one."""
    best: Sniffed | None = None
    codecs: tuple[Codec, ...] = ("mp3", "aac", "ac3", "eac3")
    for codec in codecs:
        limit = start + _JUNK_BYTES if best is None else best.start
        first = find(file, codec, start, limit)
        if first is not None:
            best = Sniffed("frames", codec, first, file.end, codec)
    return best


def _wav(file: Region, start: int) -> Sniffed:
    """Walk a RIFF/WAVE header: its codec, its data, and what it claims."""
    pos, tag, rate, align = start + 12, 0, 0, 0
    for _ in range(1000):
        h = file.read(pos, 8)
        if len(h) < 8:
            break
        size, body = int.from_bytes(h[4:], "little"), pos + 8
        if h[:4] == b"fmt ":
            f = file.read(body, 26)
            tag, align = int.from_bytes(f[:2], "little"), int.from_bytes(f[12:14], "little")
            rate = int.from_bytes(f[4:8], "little")
            tag = int.from_bytes(f[24:26], "little") if tag == 0xFFFE and len(f) == 26 else tag
        elif h[:4] == b"data":
            endless = file.end - body >= 1 << 32
            streamed = endless or size == 0 or (size >= _ENDLESS and body + size > file.end)
            end = file.end if streamed else min(file.end, body + size)
            if tag in _MPEG_TAGS and (first := find(Region(file.fd, body, end), "mp3", body)) is not None:
                return Sniffed("frames", "wav", first, end, "mp3")
            linear = not streamed and rate and align and tag in _LINEAR_TAGS
            claimed = size // align / rate if linear else None
            usable = tag in _SNDFILE_TAGS and size > 0 and not endless
            return Sniffed(
                "sndfile" if usable else "container",
                "wav",
                start if usable else 0,
                file.end,
                claimed_seconds=claimed,
                cut=not streamed and body + size > file.end,
                unsaid=pos + 4 if endless else None,
            )
        pos = body + size + (size & 1)
    return Sniffed("container", "wav", 0, file.end)
