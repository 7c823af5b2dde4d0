"""A unit of the plan -> decoded chunks: fetch, decode, find speech, cut. CPU, streaming, bounded memory.

Ends every recording with one `kind = end` row, whatever happened to it: from here on a failure is a
row. Deterministic for a given source version, so that a replayed task yields the same rows. Knows no
engine and nothing of what becomes of its rows.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dawnchorus import __version__, ids, storage
from dawnchorus.audio import AudioInfo, Decoder, Stream
from dawnchorus.chunking import ChunkStream, chunk_params
from dawnchorus.config import AudioConfig, ChunkingConfig, VadConfig
from dawnchorus.errors import DataError, RunPaused, Terminal
from dawnchorus.plan import Snapshot
from dawnchorus.records import ChannelCount, Chunk, Failure, Recording, Seconds
from dawnchorus.schema import DECODED, failure_row
from dawnchorus.vad import SpeechDetector

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class DecodeSettings:
    """Everything decoding depends on; picklable, small."""

    audio: AudioConfig
    vad: VadConfig
    chunking: ChunkingConfig
    sampling_rate: int
    max_chunk_seconds: Seconds
    attempt: int
    pause_after: int

    def facts(self) -> dict[str, Any]:
        """The parameters that enter `decode_id`."""
        return {
            "version": __version__,
            "channels": self.audio.channels,
            "sampling_rate": self.sampling_rate,
            "max_chunk_seconds": self.max_chunk_seconds,
            "vad": self.vad.model_dump(),
            "chunking": self.chunking.model_dump(),
        }


class _Tools:
    """What one worker process keeps between units: a decoder child, the VAD, and a streak of failures."""

    def __init__(self, settings: DecodeSettings) -> None:
        self.decoder = Decoder(settings.audio)
        self.detector = SpeechDetector() if settings.vad.enabled else None
        self.alike: tuple[str, int] = ("", 0)
        self.attempt = settings.attempt

    def remember(self, failure: Failure | None, settings: DecodeSettings) -> None:
        """Count alike transient failures in a row, within one attempt; pause the run when there are
        too many.

        Raises:
            RunPaused: `pause_after` in a row, all of one kind.
        """
        if failure is None or not failure.transient or self.attempt != settings.attempt:
            self.alike, self.attempt = ("", 0), settings.attempt
        if failure is None or not failure.transient:
            return
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


@dataclass(slots=True)
class _Track:
    """One recording while its audio object streams by: a window [start, stop) of it, per channel."""

    recording: Recording
    attempts: int
    committed: frozenset[str]
    start: int
    stop: int | None
    streams: list[ChunkStream] = field(default_factory=list)
    damaged: list[Span] = field(default_factory=list)
    spans: dict[int | None, list[Span]] = field(default_factory=dict)
    num_chunks: int = 0


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
                tracks = [_track(r, self.settings.sampling_rate) for r in rows if r["audio_filepath"] == url]
                yield from _decode_object(url, tracks, tools, self.settings)


def _track(row: dict[str, Any], rate: int) -> _Track:
    names = ("recording_id", "audio_filepath", "offset", "duration", "claimed_duration", "text", "metadata")
    recording = Recording(**{n: row[n] for n in names})
    start = round((recording.offset or 0.0) * rate)
    whole = recording.offset is None or recording.duration is None
    stop = None if whole else round(((recording.offset or 0.0) + (recording.duration or 0.0)) * rate)
    return _Track(recording, row["attempts"], frozenset(row["committed_chunk_ids"] or ()), start, stop)


def _decode_object(
    url: str, tracks: list[_Track], tools: _Tools, settings: DecodeSettings
) -> Iterator[pa.Table]:
    """All rows of the recordings that share one audio object, which is fetched and decoded once."""
    began = time.perf_counter()
    try:
        with (
            tempfile.TemporaryDirectory(prefix="dawnchorus-") as scratch,
            storage.fetch(url, scratch, settings.audio.max_file_bytes) as fetched,
        ):
            stream = tools.decoder.open(fetched.path, settings.sampling_rate)
            source = _Source.of(stream.info, fetched.version, settings, tools)
            yield from _stream(stream, tracks, source, tools, settings, began)
    except DataError as e:
        for track in tracks:
            track.num_chunks = 0
            failure = e.failure(track.attempts + 1)
            tools.remember(failure, settings)
            yield _table([_end_row(track, None, failure, (), settings, time.perf_counter() - began)])


@dataclass(frozen=True, slots=True)
class _Source:
    """One version of one audio object, decoded one way."""

    info: AudioInfo
    version: str
    decode_id: str

    @classmethod
    def of(cls, info: AudioInfo, version: str, settings: DecodeSettings, tools: _Tools) -> _Source:
        vad = tools.detector.version if tools.detector else "off"
        facts = {**settings.facts(), "source": version, "decoder": info.decoder, "vad_model": vad}
        return cls(info, version, ids.decode_id(facts))


def _stream(
    stream: Stream,
    tracks: list[_Track],
    source: _Source,
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
                yield _table(rows)
            if track.stop is not None and track.stop <= position + length:
                open_tracks.remove(track)
                yield _finish(track, stream, source, tools, settings, began)
        position += length
        if not open_tracks:
            break
    for track in open_tracks:
        yield _finish(track, stream, source, tools, settings, began)


def _push(
    track: _Track,
    samples: NDArray[np.int16],
    damaged: tuple[Span, ...],
    position: int,
    source: _Source,
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
            rows += _chunk_row(track, chunk, waveform, source, settings)
    return rows


def _overlap(spans: list[Span], start: int, end: int) -> int:
    return sum(max(0, min(b, end) - max(a, start)) for a, b in spans)


def _chunk_row(
    track: _Track, chunk: Chunk, waveform: NDArray[np.int16], source: _Source, settings: DecodeSettings
) -> list[dict[str, Any]]:
    """The row of one chunk, or none when the chunk is committed already."""
    track.num_chunks += 1
    track.spans.setdefault(chunk.channel, []).append((chunk.start, chunk.end))
    chunk_id = ids.chunk_id(track.recording.recording_id, source.decode_id, chunk)
    if chunk_id in track.committed:
        return []
    rate = settings.sampling_rate
    return [
        {
            "kind": "chunk",
            "recording_id": track.recording.recording_id,
            "decode_id": source.decode_id,
            "chunk_id": chunk_id,
            "channel": chunk.channel,
            "chunk_index": chunk.chunk_index,
            "start": chunk.start / rate,
            "end": chunk.end / rate,
            "input_start": chunk.input_start / rate,
            "input_end": chunk.input_end / rate,
            "damaged_samples": _overlap(track.damaged, chunk.start, chunk.end),
            "sampling_rate": rate,
            "attempt": settings.attempt,
            "tries": track.attempts,
            "waveform": waveform,
        }
    ]


def _finish(
    track: _Track, stream: Stream, source: _Source, tools: _Tools, settings: DecodeSettings, began: float
) -> pa.Table:
    """Last chunks and the end row of a track."""
    rows: list[dict[str, Any]] = []
    for chunks in track.streams:
        for chunk, waveform in chunks.finish():
            rows += _chunk_row(track, chunk, waveform, source, settings)
    failure = _failure(track, stream, track.streams[0].num_samples, settings)
    accounts = tuple(
        ChannelCount(channel, chunks.num_samples, *_silent_and_damaged(track, channel, chunks.num_samples))
        for channel, chunks in zip(source.info.channels, track.streams, strict=True)
    )
    tools.remember(failure, settings)
    rows.append(_end_row(track, source, failure, accounts, settings, time.perf_counter() - began, stream))
    return _table(rows)


def _silent_and_damaged(track: _Track, channel: int | None, num_samples: int) -> tuple[int, int]:
    """Silent and damaged samples of one channel: what no chunk covers is silent unless it was lost."""
    spans = track.spans.get(channel, [])
    damaged = sum(b - a for a, b in track.damaged)
    outside = damaged - sum(_overlap(track.damaged, a, b) for a, b in spans)
    return num_samples - sum(b - a for a, b in spans) - outside, damaged


def _failure(track: _Track, stream: Stream, num_samples: int, settings: DecodeSettings) -> Failure | None:
    if num_samples == 0 and track.start > 0:
        at = f"{track.start / settings.sampling_rate:.1f} s"
        error = Terminal("outside_audio", f"the slice starts at {at}, after the end of the audio", "decode")
        return error.failure(track.attempts + 1)
    lost: Failure | None = stream.failure
    return lost


def _end_row(
    track: _Track,
    source: _Source | None,
    failure: Failure | None,
    counts: tuple[ChannelCount, ...],
    settings: DecodeSettings,
    seconds: float,
    stream: Stream | None = None,
) -> dict[str, Any]:
    status = "ok" if track.num_chunks else "failed" if failure else "empty"
    if failure and failure.transient:
        status = "failed"
    decode = source.decode_id if source else ""
    return {
        "kind": "end",
        "recording_id": track.recording.recording_id,
        "decode_id": decode or None,
        "chunk_id": ids.end_row_id(track.recording.recording_id, decode, status),
        "num_chunks": track.num_chunks,
        "sampling_rate": settings.sampling_rate,
        "num_channels": source.info.num_channels if source else None,
        "channels": [
            {
                "channel": c.channel,
                "decoded_samples": c.decoded_samples,
                "silent_samples": c.silent_samples,
                "damaged_samples": c.damaged_samples,
            }
            for c in counts
        ],
        "container_duration": source.info.claimed_seconds if source else None,
        "source_version": source.version if source else None,
        "decoder": source.info.decoder if source else None,
        "flags": list(stream.flags) if stream else [],
        "status": status,
        "failure": failure_row(failure),
        "attempt": settings.attempt,
        "timing": {
            "worker": None,
            "started_at": time.time(),
            "decode_seconds": seconds,
            "engine_seconds": None,
            "wait_seconds": None,
        },
        "waveform": np.zeros(0, np.int16),
    }


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    """Rows as `schema.DECODED`; the waveforms are appended as one flat buffer, not as Python lists."""
    waveforms = [r.pop("waveform") for r in rows]
    offsets = np.concatenate([[0], np.cumsum([len(w) for w in waveforms])])
    flat = pa.array(np.concatenate(waveforms), pa.int16())
    waveform = pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), flat)
    plain = pa.schema([f for f in DECODED if f.name != "waveform"])
    table = pa.Table.from_pylist(rows, schema=plain)
    return table.append_column(DECODED.field("waveform"), waveform)
