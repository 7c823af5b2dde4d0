"""One file in, its facts and its pieces out: picks the reader by the bytes.

Runs inside the sandboxed child only: these libraries parse hostile bytes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import soundfile

from dawnchorus.audio import ogg
from dawnchorus.audio.containers import ChainSource, ContainerSource
from dawnchorus.audio.framed import FrameSource
from dawnchorus.audio.frames import Region
from dawnchorus.audio.shape import Piece
from dawnchorus.audio.sniff import Sniffed, sniff
from dawnchorus.audio.source import Facts, Source
from dawnchorus.errors import Terminal, Transient

_READ_VALUES = 1 << 17
_GATHER_SAMPLES = 1 << 15
SNDFILE = f"soundfile {soundfile.__version__}/libsndfile {soundfile.__libsndfile_version__}"


class SndfileSource:
    """One file opened by libsndfile: wav and its relatives, aiff, au, caf."""

    def __init__(self, fd: int, sniffed: Sniffed) -> None:
        os.lseek(fd, sniffed.start, os.SEEK_SET)
        self._file = soundfile.SoundFile(fd, closefd=False)
        f = self._file
        self.facts = Facts(
            SNDFILE, sniffed.format, f.subtype.lower(), f.channels, f.samplerate, sniffed.claimed_seconds
        )
        self.flags = {"truncated_audio"} if sniffed.cut else set()

    def pieces(self) -> Iterator[Piece]:
        """The samples, in time order; there are no gaps."""
        step = max(1, _READ_VALUES // self._file.channels)
        while True:
            try:
                x = self._file.read(step, dtype="float32", always_2d=True)
            except soundfile.LibsndfileError:
                self.flags.add("truncated_audio")
                return
            if not len(x):
                return
            yield Piece(self._file.samplerate, x)

    def close(self) -> None:
        """Close libsndfile's handle."""
        self._file.close()


@contextmanager
def open_file(path: str) -> Iterator[int]:
    """A descriptor of a local regular file.

    Raises:
        Terminal: `is_directory`, or `not_audio` for a pipe or a device.
        Transient: `io`.
    """
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise Terminal("is_directory", "This is a directory, not a file.")
        if not stat.S_ISREG(mode):
            raise Terminal("not_audio", "This is not a regular file.")
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as e:
        raise Transient("io", f"The file cannot be opened: {e.strerror}.") from e
    try:
        yield fd
    finally:
        os.close(fd)


def open_source(fd: int) -> tuple[Source, Iterator[Piece]]:
    """Pick the reader by the bytes. The facts' channels and rate are those of the first samples.

    Raises:
        Terminal: `empty_file`, `not_audio`, `no_audio_track`, `no_samples`.
    """
    sniffed = sniff(fd)
    source: Source
    if sniffed.reader == "frames":
        source = FrameSource(fd, sniffed)
    elif sniffed.format == "ogg":
        source = _open_ogg(fd, sniffed)
    elif sniffed.reader == "container":
        whole = None if sniffed.unsaid is None else Region(fd, 0, sniffed.end)
        source = ContainerSource(fd, sniffed.format, whole, sniffed.unsaid)
    else:
        try:
            source = SndfileSource(fd, sniffed)
        except soundfile.LibsndfileError:
            os.lseek(fd, 0, os.SEEK_SET)  # it has read the header
            source = ContainerSource(fd, sniffed.format)
    return _peek(source)


def _open_ogg(fd: int, sniffed: Sniffed) -> Source:
    starts, ended = ogg.links(Region(fd, 0, sniffed.end))
    source = ChainSource(fd, starts, sniffed.end) if len(starts) > 1 else ContainerSource(fd, sniffed.format)
    if not ended:
        source.flags.add("truncated_audio")
    return source


def _peek(source: Source) -> tuple[Source, Iterator[Piece]]:
    pieces = gather(source.pieces())
    lead: list[Piece] = []
    for piece in pieces:
        lead.append(piece)
        if piece.samples is not None:
            channels = piece.samples.shape[1]
            source.facts = replace(source.facts, num_channels=channels, rate=piece.rate)
            break
    return source, _chain(lead, pieces)


def _chain(lead: list[Piece], rest: Iterator[Piece]) -> Iterator[Piece]:
    yield from lead
    yield from rest


def gather(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """Join neighbours of one kind: gaps of one sort, and audio of one rate and channel count up to about a
    second, because every later step costs the same for 20 ms as for a second."""
    waiting: list[Piece] = []
    num_samples = 0
    for piece in pieces:
        if waiting and (_kind(piece) != _kind(waiting[0]) or num_samples >= _GATHER_SAMPLES):
            yield _join(waiting)
            waiting, num_samples = [], 0
        if piece.samples is None and waiting:
            waiting = [replace(piece, gap=piece.gap + waiting[0].gap)]
        else:
            waiting.append(piece)
            num_samples += 0 if piece.samples is None else len(piece.samples)
    if waiting:
        yield _join(waiting)


def _kind(piece: Piece) -> tuple[int, int, bool]:
    return piece.rate, -1 if piece.samples is None else piece.samples.shape[1], piece.damaged


def _join(pieces: list[Piece]) -> Piece:
    if len(pieces) == 1:
        return pieces[0]
    return replace(pieces[0], samples=np.concatenate([p.samples for p in pieces if p.samples is not None]))
