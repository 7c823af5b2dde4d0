"""Rows that decoding yields: a track per recording while its audio streams by, chunk rows, the end row.

Turns spans of integer samples into `schema.DECODED`; knows neither storage nor decoders.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dawnchorus import __version__, ids, logs
from dawnchorus.audio import AudioInfo, Stream
from dawnchorus.chunking import ChunkStream
from dawnchorus.config import AudioConfig, ChunkingConfig, VadConfig
from dawnchorus.records import ChannelCount, Chunk, Failure, Recording, Seconds
from dawnchorus.schema import DECODED, failure_row

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
    run_id: str = ""

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


@dataclass(slots=True)
class Track:
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


def track_of(row: dict[str, Any], rate: int) -> Track:
    names = ("recording_id", "audio_filepath", "offset", "duration", "claimed_duration", "text", "metadata")
    recording = Recording(**{n: row[n] for n in names})
    start = round((recording.offset or 0.0) * rate)
    whole = recording.offset is None or recording.duration is None
    stop = None if whole else round(((recording.offset or 0.0) + (recording.duration or 0.0)) * rate)
    return Track(recording, row["attempts"], frozenset(row["committed_chunk_ids"] or ()), start, stop)


@dataclass(frozen=True, slots=True)
class Source:
    """One version of one audio object, decoded one way."""

    info: AudioInfo
    version: str
    decode_id: str

    @classmethod
    def of(cls, info: AudioInfo, version: str, settings: DecodeSettings, vad: str) -> Source:
        """The source, given its version and the VAD's ("off" without one)."""
        facts = {**settings.facts(), "source": version, "decoder": info.decoder, "vad_model": vad}
        return cls(info, version, ids.decode_id(facts))


def overlap(spans: list[Span], start: int, end: int) -> int:
    return sum(max(0, min(b, end) - max(a, start)) for a, b in spans)


def chunk_row(
    track: Track, chunk: Chunk, waveform: NDArray[np.int16], source: Source, settings: DecodeSettings
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
            "damaged_samples": overlap(track.damaged, chunk.start, chunk.end),
            "sampling_rate": rate,
            "attempt": settings.attempt,
            "tries": track.attempts,
            "timing": timing(),
            "waveform": waveform,
        }
    ]


def silent_and_damaged(track: Track, channel: int | None, num_samples: int) -> tuple[int, int]:
    """Silent and damaged samples of one channel: what no chunk covers is silent unless it was lost."""
    spans = track.spans.get(channel, [])
    damaged = sum(b - a for a, b in track.damaged)
    outside = damaged - sum(overlap(track.damaged, a, b) for a, b in spans)
    return num_samples - sum(b - a for a, b in spans) - outside, damaged


def end_row(
    track: Track,
    source: Source | None,
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
    flags = set(stream.flags) if stream else set[str]()
    if track.recording.offset is not None:  # the file's damage is a slice's where it is in the slice
        flags.discard("damaged_audio")
    if any(c.damaged_samples for c in counts):
        flags.add("damaged_audio")
    if failure:
        _log(track, failure, settings.run_id)
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
        "flags": sorted(flags),
        "status": status,
        "failure": failure_row(failure),
        "attempt": settings.attempt,
        "timing": timing(seconds),
        "waveform": np.zeros(0, np.int16),
    }


def _log(track: Track, failure: Failure, run_id: str) -> None:
    where = logs.address(track.recording.audio_filepath)
    logs.warning(
        "recording_failed",
        f"{where}: {failure.message}",
        run_id=run_id,
        recording_id=track.recording.recording_id,
        audio_filepath=where,
        stage=failure.stage,
        kind=failure.kind,
        transient=failure.transient,
        attempts=failure.attempts,
    )


def timing(seconds: Seconds | None = None) -> dict[str, Any]:
    """A row's `timing` as it leaves decoding: now, and the seconds that the whole recording took."""
    nobody = {"worker": None, "engine_seconds": None, "wait_seconds": None}
    return {**nobody, "started_at": time.time(), "decode_seconds": seconds}


def decoded_table(rows: list[dict[str, Any]]) -> pa.Table:
    """Rows as `schema.DECODED`; the waveforms are appended as one flat buffer, not as Python lists."""
    waveforms = [r.pop("waveform") for r in rows]
    offsets = np.concatenate([[0], np.cumsum([len(w) for w in waveforms])])
    flat = pa.array(np.concatenate(waveforms), pa.int16())
    waveform = pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), flat)
    plain = pa.schema([f for f in DECODED if f.name != "waveform"])
    table = pa.Table.from_pylist(rows, schema=plain)
    return table.append_column(DECODED.field("waveform"), waveform)
