"""A unit of the plan -> decoded chunks: fetch, decode, find speech, cut. CPU, streaming, bounded memory.

Ends every recording with one `kind = end` row, whatever happened to it: from here on a failure is a
row. Deterministic for a given source version, so that a replayed task yields the same rows. Knows no
engine and nothing of what becomes of its rows.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dawnchorus import storage
from dawnchorus.audio import Decoder, Stream
from dawnchorus.chunking import ChunkStream, chunk_params
from dawnchorus.config import AudioConfig
from dawnchorus.errors import DataError, RunPaused, Terminal
from dawnchorus.plan import Snapshot
from dawnchorus.records import ChannelCount, Failure
from dawnchorus.stages.decoded import (
    DecodeSettings,
    Source,
    Span,
    Track,
    chunk_row,
    decoded_table,
    end_row,
    silent_and_damaged,
    track_of,
)
from dawnchorus.vad import SpeechDetector


class _Tools:
    """What one worker process keeps between units: a decoder child, the VAD, and a streak of failures."""

    def __init__(self, settings: DecodeSettings) -> None:
        self.decoder = Decoder(settings.audio)
        self.detector = SpeechDetector() if settings.vad.enabled else None
        self.vad = self.detector.version if self.detector else "off"
        self.alike: tuple[str, int] = ("", 0)
        self.attempt = settings.attempt
        self.blamed = ""

    def remember(self, failure: Failure | None, settings: DecodeSettings, url: str) -> None:
        """Count objects with alike transient failures in a row, within one attempt; pause the run when
        there are too many. The slices of one object fail together, and count once.

        Raises:
            RunPaused: `pause_after` in a row, all of one kind.
        """
        if failure is None or not failure.transient or self.attempt != settings.attempt:
            self.alike, self.attempt, self.blamed = ("", 0), settings.attempt, ""
        if failure is None or not failure.transient or url == self.blamed:
            return
        self.blamed = url
        kind, count = self.alike
        self.alike = (failure.kind, count + 1 if kind == failure.kind else 1)
        if self.alike[1] >= settings.pause_after:
            many = f"{settings.pause_after} recordings in a row failed alike ({failure.kind})"
            raise RunPaused(f"{many}: {failure.message}")


_tools: dict[tuple[AudioConfig, bool], _Tools] = {}


def _toolbox(settings: DecodeSettings) -> _Tools:
    key = (settings.audio, settings.vad.enabled)
    if key not in _tools:
        _tools[key] = _Tools(settings)
    return _tools[key]


@dataclass(frozen=True, slots=True)
class Decode:
    """Callable for `map_batches` over unit numbers: one unit in, a stream of small tables out.

    Yields `schema.DECODED` tables: chunk rows with int16 mono `waveform` `(num_samples,)` at the
    engine's rate, in order of time, and an end row per recording. Chunks the plan lists as committed
    are decoded but not yielded.
    """

    units: Snapshot
    settings: DecodeSettings

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Decode the units named in column `id`.

        Raises:
            RunPaused: too many alike transient failures in a row.
        """
        tools = _toolbox(self.settings)
        for unit in batch["id"].to_pylist():
            rows = self.units.read(unit).to_pylist()
            for url in dict.fromkeys(r["audio_filepath"] for r in rows):
                tracks = [
                    track_of(r, self.settings.sampling_rate) for r in rows if r["audio_filepath"] == url
                ]
                yield from _decode_object(url, tracks, tools, self.settings)


def _decode_object(
    url: str, tracks: list[Track], tools: _Tools, settings: DecodeSettings
) -> Iterator[pa.Table]:
    """All rows of the recordings that share one audio object, which is fetched and decoded once."""
    began = time.perf_counter()
    try:
        with (
            tempfile.TemporaryDirectory(prefix="dawnchorus-") as scratch,
            storage.fetch(url, scratch, settings.audio.max_file_bytes) as fetched,
        ):
            stream = tools.decoder.open(fetched.path, settings.sampling_rate)
            source = Source.of(stream.info, fetched.version, settings, tools.vad)
            yield from _stream(stream, tracks, source, tools, settings, began)
    except DataError as e:
        for track in tracks:
            failure = e.failure(track.attempts + 1)
            tools.remember(failure, settings, url)
            yield _nothing(track, failure, settings, began)


def _stream(
    stream: Stream,
    tracks: list[Track],
    source: Source,
    tools: _Tools,
    settings: DecodeSettings,
    began: float,
) -> Iterator[pa.Table]:
    params = chunk_params(settings.vad, settings.chunking, settings.sampling_rate, settings.max_chunk_seconds)
    for track in tracks:
        track.streams = [ChunkStream(params, c, tools.detector) for c in source.info.channels]
    open_tracks = list(tracks)
    position = 0
    for block in stream:
        length = block.samples.shape[1]
        for track in list(open_tracks):
            rows = _push(track, block.samples, block.damaged, position, source, settings)
            if rows:
                yield decoded_table(rows)
            if track.stop is not None and track.stop <= position + length:
                open_tracks.remove(track)
                yield _finish(track, stream, source, tools, settings, began)
        position += length
        if not open_tracks:
            break
    for track in open_tracks:
        yield _finish(track, stream, source, tools, settings, began)


def _push(
    track: Track,
    samples: NDArray[np.int16],
    damaged: tuple[Span, ...],
    position: int,
    source: Source,
    settings: DecodeSettings,
) -> list[dict[str, Any]]:
    """Feed a track its part of a block; rows of the chunks decided by it."""
    first = max(track.start - position, 0)
    last = samples.shape[1] if track.stop is None else min(track.stop - position, samples.shape[1])
    if first >= last:
        return []
    window = (position + first, position + last)
    clipped = [(max(a, window[0]) - track.start, min(b, window[1]) - track.start) for a, b in damaged]
    track.damaged += [(a, b) for a, b in clipped if a < b]
    rows = []
    for channel, chunks in enumerate(track.streams):
        for chunk, waveform in chunks.push(samples[channel, first:last]):
            rows += chunk_row(track, chunk, waveform, source, settings)
    return rows


def _finish(
    track: Track, stream: Stream, source: Source, tools: _Tools, settings: DecodeSettings, began: float
) -> pa.Table:
    """Last chunks and the end row of a track.

    Where decoding broke off for now, by chance, a chunk cut there and a count of chunks would be no part of
    what the next try decodes: the end row is that of a file that could not be fetched.
    """
    rows: list[dict[str, Any]] = []
    failure = _failure(track, stream, settings)
    tools.remember(failure, settings, track.recording.audio_filepath)
    if failure is not None and failure.transient:
        return _nothing(track, failure, settings, began)
    for chunks in track.streams:
        for chunk, waveform in chunks.finish():
            rows += chunk_row(track, chunk, waveform, source, settings)
    accounts = tuple(
        ChannelCount(channel, chunks.num_samples, *silent_and_damaged(track, channel, chunks.num_samples))
        for channel, chunks in zip(source.info.channels, track.streams, strict=True)
    )
    rows.append(end_row(track, source, failure, accounts, settings, time.perf_counter() - began, stream))
    return decoded_table(rows)


def _nothing(track: Track, failure: Failure, settings: DecodeSettings, began: float) -> pa.Table:
    """The end row of a recording that is of no decode."""
    track.num_chunks = 0
    return decoded_table([end_row(track, None, failure, (), settings, time.perf_counter() - began)])


def _failure(track: Track, stream: Stream, settings: DecodeSettings) -> Failure | None:
    if stream.failure is not None:  # whatever lies behind it was not looked at
        return replace(stream.failure, attempts=track.attempts + 1)
    if track.streams[0].num_samples == 0 and track.start > 0:
        at = f"{track.start / settings.sampling_rate:.1f} s"
        error = Terminal("outside_audio", f"the slice starts at {at}, after the end of the audio", "decode")
        return error.failure(track.attempts + 1)
    return None
