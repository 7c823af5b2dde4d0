"""Files that FFmpeg's demuxers take apart: mp4, webm, ogg, flac, wma, amr and the rest, through PyAV.

Presentation times say where each decoded frame belongs: what a corrupt packet or a lost page leaves out
becomes a gap, and so does a pause in the recording, which is not damage. Opens nothing but the one file
descriptor: no playlists, no references to other files, no network.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import Any, cast

import av
import av.logging

from dawnchorus.audio.frames import Region
from dawnchorus.audio.shape import Piece
from dawnchorus.audio.source import Facts, as_float
from dawnchorus.errors import Terminal

DECODER = f"pyav {av.__version__}/libavcodec {'.'.join(map(str, av.library_versions['libavcodec']))}"
_DEMUXERS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dsf,dts,eac3,flac,flv,gsm,ircam,matroska,mov,mp3,mpc,"
    "mpc8,mpeg,mpegts,nistsphere,ogg,oma,paf,pvf,rm,sox,tak,tta,voc,w64,wav,wv,xwma"
)
_PAUSING = {"mov", "matroska", "flv", "asf", "avi", "rm"}
"""Containers in which time may pass without audio; in the others a gap is always a loss."""
_FROM_ZERO = {"mov", "matroska"}
"""Containers whose clock begins at zero; the others' begins at their first timestamp."""
_UNTIMED = {"wav", "w64", "amr", "amrnb", "amrwb", "aac", "ac3", "eac3", "mp3", "dts", "gsm"}
"""Demuxers that make up their timestamps from the bytes read (those of ADPCM in wav are wrong)."""
_PROMISING = {"mov", "matroska", "flac", "asf", "avi", "flv", "aiff", "au", "caf", "w64", "wv", "tta", "ape"}
"""Demuxers whose duration is the file's own word and no estimate from its size."""
_TOLERANCE = 0.03
"""Seconds by which timestamps may be off before it counts: Matroska rounds to 1 ms, ASF packets to 10."""
_VORBIS_TOLERANCE = 0.1
"""Vorbis timestamps swing by half of a long block, 10 ms at 44.1 kHz and 64 ms at 8 kHz."""
_BACKLOG = 1.0
"""Seconds by which frames may come behind what was decoded: live streams are stamped as packets arrive."""
_BELIEVED_GAP = 10.0
"""Seconds of gap that are believed when the container's own length does not back them."""
_MAX_READ_ERRORS = 16
AMR = {"amrnb": ("libopencore_amrnb", 8_000), "amrwb": ("libopencore_amrwb", 16_000)}
"""FFmpeg's own decoders refuse the comfort noise between words, which is most of a call."""

# Errors are counted, not printed: an error between two frames is what tells damage from a pause.
av.logging.set_level(av.logging.ERROR)
logging.getLogger("libav").addHandler(logging.NullHandler())
logging.getLogger("libav").propagate = False


class ContainerSource:
    """One file, or a `part` of one, opened by FFmpeg; `unsaid` is where a part has a size of 32 bits that is
    not to be believed: zero means unknown.

    Raises:
        Terminal: `not_audio` or `no_audio_track`.
    """

    def __init__(
        self, fd: int, format_name: str, part: Region | None = None, unsaid: int | None = None
    ) -> None:
        options = {"fd": str(fd), "protocol_whitelist": "fd", "format_whitelist": _DEMUXERS}
        file: Any = "fd:" if part is None else _Part(part, unsaid)
        try:
            self._container = av.open(file, options=options, metadata_errors="ignore")
        except MemoryError:
            raise
        except (av.FFmpegError, ValueError) as e:
            raise Terminal("not_audio", _unreadable(format_name)) from e
        self._stream = cast("Any", self._container.streams.best("audio"))
        if self._stream is None:
            raise Terminal("no_audio_track", "The file has no audio track.")
        if self._stream.codec_context is None:
            raise Terminal("not_audio", "The audio track is in a format that cannot be decoded.")
        self._demuxer = self._container.format.name.split(",")[0]
        self._codec = self._stream.codec_context
        if self._codec.name in AMR:
            self._codec = amr_decoder(self._codec.name)
        self._codec.thread_type = "NONE"
        self._codec.options = {"err_detect": "crccheck"}
        claimed = self._claimed()
        self.facts = Facts(
            DECODER,
            self._demuxer if format_name == "unknown" else format_name,
            self._stream.codec_context.name,
            self._codec.layout.nb_channels,
            self._codec.sample_rate or 0,
            claimed,
        )
        self.flags = {"more_tracks"} if len(self._container.streams.audio) > 1 else set[str]()
        start = self._container.start_time
        self._origin: float | None = None if start is None else start / av.time_base
        if self._demuxer in _FROM_ZERO:
            self._origin = 0.0
        self._now = 0.0
        self._num_errors = _errors()

    def pieces(self) -> Iterator[Piece]:
        """Audio and gaps in time order."""
        lost_until = 0.0
        for packet in self._packets():
            try:
                frames = self._codec.decode(packet)
            except MemoryError:
                raise
            except (av.FFmpegError, ValueError):
                length = float((packet.duration or 0) * packet.time_base) if packet.time_base else 0.0
                if self._demuxer in _UNTIMED:
                    yield self._gap(length, damaged=True)
                elif packet.pts is not None and self._origin is not None:
                    lost_until = float(packet.pts * packet.time_base) + length - self._origin
                continue
            for frame in frames:
                yield from self._place(frame)
        if self._now < lost_until <= self._now + _BELIEVED_GAP:
            yield self._gap(lost_until - self._now, damaged=True)
        if self._demuxer in _PAUSING and _errors() > self._num_errors:
            self.flags.add("truncated_audio")

    def close(self) -> None:
        """Close FFmpeg's demuxer: it holds a descriptor of its own."""
        self._container.close()

    def _place(self, frame: Any) -> Iterator[Piece]:
        """One decoded frame, after the gap before it if there is one."""
        yield from self._catch_up(frame)
        self._num_errors = _errors()
        if not frame.samples or not frame.sample_rate:
            return
        length = frame.samples / frame.sample_rate
        if frame.is_corrupt:
            yield self._gap(length, damaged=True)
            return
        self._now += length
        yield Piece(frame.sample_rate, as_float(frame))

    def _catch_up(self, frame: Any) -> Iterator[Piece]:
        time = frame.time
        if time is None or self._demuxer in _UNTIMED:
            return
        if self._origin is None:
            self._origin = time
        ahead = time - self._origin - self._now
        tolerance = _VORBIS_TOLERANCE if self._codec.name == "vorbis" else _TOLERANCE
        if -_BACKLOG <= ahead <= tolerance:
            return
        claimed = self.facts.claimed_seconds or 0.0
        if 0 < ahead <= max(_BELIEVED_GAP, claimed + 1 - self._now):
            inside = self._now > 0
            damaged = _errors() > self._num_errors or (inside and self._demuxer not in _PAUSING)
            if inside and not damaged:
                self.flags.add("timestamp_gap")
            yield self._gap(ahead, damaged)
        else:
            self._origin += ahead
            if self._now > 0:
                self.flags.add("timestamp_jump")

    def _gap(self, seconds: float, damaged: bool) -> Piece:
        self._now += seconds
        return Piece(gap=Fraction(round(seconds * 1_000_000), 1_000_000), damaged=damaged)

    def _packets(self) -> Iterator[Any]:
        """Packets of the audio track; a demuxer that fails is asked again, for it may find its way."""
        failures = 0
        while failures < _MAX_READ_ERRORS:
            try:
                yield from self._container.demux(self._stream)
                return
            except IndexError:
                # PyAV does not know a track that appears late; the packet was not ours.
                continue
            except MemoryError:
                raise
            except (av.FFmpegError, ValueError):
                failures += 1
        self.flags.add("truncated_audio")

    def _claimed(self) -> float | None:
        stream, container = self._stream, self._container
        if self._demuxer not in _PROMISING:
            return None
        if stream.duration is not None and stream.duration > 0:
            return float(stream.duration * stream.time_base)
        if container.duration and container.duration > 0 and len(container.streams) == 1:
            return float(container.duration / av.time_base)
        return None


class ChainSource:
    """Streams one after another in one Ogg file, each with its own clock; `starts` are their first bytes."""

    def __init__(self, fd: int, starts: list[int], end: int) -> None:
        # A Region keeps what it read last: a day of radio has hundreds of links.
        self._spans = [*pairwise([*starts, end])]
        self._fd = fd
        self._now = self._open(self._spans[0])
        self.facts = replace(self._now.facts, claimed_seconds=None)
        self.flags: set[str] = set()

    def pieces(self) -> Iterator[Piece]:
        """The pieces of every stream that can be opened."""
        for n, span in enumerate(self._spans):
            if n:
                self._now.close()
                try:
                    self._now = self._open(span)
                except Terminal:
                    self.flags.add("damaged_audio")
                    continue
            yield from self._now.pieces()
            self.flags |= self._now.flags

    def _open(self, span: tuple[int, int]) -> ContainerSource:
        return ContainerSource(self._fd, "ogg", Region(self._fd, *span))

    def close(self) -> None:
        """Close the stream that is open."""
        self._now.close()


class _Part:
    """A part of a file as PyAV wants to read it; nameless, since a name would help FFmpeg guess."""

    def __init__(self, region: Region, unsaid: int | None = None) -> None:
        self._region, self._pos, self._unsaid = region, region.start, unsaid

    def read(self, num_bytes: int) -> bytes:
        """Up to so many bytes from here."""
        data = self._region.read(self._pos, num_bytes)
        if self._unsaid is not None and self._pos <= self._unsaid < self._pos + len(data):
            at = self._unsaid - self._pos
            data = data[:at] + bytes(4) + data[at + 4 :]
        self._pos += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move; returns the new position in the part."""
        base = {os.SEEK_SET: self._region.start, os.SEEK_CUR: self._pos, os.SEEK_END: self._region.end}[
            whence
        ]
        self._pos = base + offset
        return self.tell()

    def tell(self) -> int:
        """The position in the part."""
        return self._pos - self._region.start


def amr_decoder(name: str) -> Any:
    """A decoder of AMR that knows comfort noise; `name` is FFmpeg's of the codec."""
    library, rate = AMR[name]
    codec: Any = av.CodecContext.create(library, "r")
    codec.sample_rate, codec.layout = rate, "mono"
    return codec


def _errors() -> int:
    return int(av.logging.get_last_error()[0])


def _unreadable(format_name: str) -> str:
    if format_name == "mp4":
        return "It looks like mp4, but its index is missing or broken; was the end of the file cut off?"
    if format_name == "unknown":
        return "The file is in no audio format that is known here."
    return f"It looks like {format_name}, but it is too damaged to be opened."
