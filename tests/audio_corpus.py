"""Audio files of every format the pipeline reads, made when a test asks for them.

The signal is known: a 440 Hz tone on channel 0, 330 Hz on channel 1, 550 Hz on channel 2 and so on, and on
every channel a 2 kHz beep of 0.1 s at 1.0, 2.0, 3.0 ... seconds, by which tests tell whether time shifted.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

Samples = NDArray[np.float32]
TONES = (440.0, 330.0, 550.0, 660.0, 770.0, 880.0, 990.0, 1100.0)
TONE_LEVEL = 0.25
BEEP_HZ = 2000.0
BEEP_LEVEL = 0.4
BEEP_SECONDS = 0.1


def signal(seconds: float, rate: int, channels: int = 1) -> Samples:
    """The known signal, shape `(num_samples, channels)`."""
    t = np.arange(round(seconds * rate)) / rate
    beep = BEEP_LEVEL * np.sin(2 * np.pi * BEEP_HZ * t) * ((t % 1.0 < BEEP_SECONDS) & (t >= 1.0))
    tones = [TONE_LEVEL * np.sin(2 * np.pi * hz * t) + beep for hz in TONES[:channels]]
    return np.stack(tones, axis=1).astype(np.float32)


def level(x: NDArray[Any], hz: float, rate: int = 16_000) -> float:
    """Amplitude of one frequency in int16 samples, full scale 1.0."""
    y = x.astype(np.float64) / 32768
    window = np.hanning(len(y))
    turn = np.exp(-2j * np.pi * hz * np.arange(len(y)) / rate)
    return float(2 * np.abs((y * window * turn).sum()) / window.sum())


def beeps(x: NDArray[Any], rate: int = 16_000) -> list[float]:
    """Seconds at which the beeps of int16 samples begin, to about 10 ms."""
    y = x.astype(np.float64) / 32768
    turned = y * np.exp(-2j * np.pi * BEEP_HZ * np.arange(len(y)) / rate)
    width = rate // 50
    envelope = np.abs(np.convolve(turned, np.ones(width) / width, mode="same"))
    on = envelope > BEEP_LEVEL / 4
    starts = np.flatnonzero(on[1:] & ~on[:-1]) + 1
    ends = np.flatnonzero(on[:-1] & ~on[1:]) + 1
    long = [a for a in starts if (later := ends[ends > a]).size and later[0] - a > 0.05 * rate]
    return [float(a / rate) for a in long]


def with_pyav(
    path: Path, x: Samples, rate: int, container: str, codec: str, bit_rate: int = 96_000, **options: Any
) -> None:
    """Encode with FFmpeg. `options`: `start` seconds of the first timestamp, `hole` (from, to) seconds whose
    packets are left out with their time, `jitter` seconds by which packets come late in turn, `video` to add
    a picture track, `tracks` of audio, options of the `muxer` and the codec (`coding`)."""
    start, hole, jitter = options.get("start", 0.0), options.get("hole"), options.get("jitter", (0.0,))
    with av.open(str(path), "w", format=container, options=options.get("muxer", {})) as out:
        video = out.add_stream("mpeg4", rate=10) if options.get("video") else None
        if video is not None:
            video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        stream = out.add_stream(codec, rate=rate)
        stream.bit_rate = bit_rate
        stream.layout = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}[x.shape[1]]
        stream.codec_context.options = options.get("coding", {})
        others = [out.add_stream(codec, rate=rate) for _ in range(1, options.get("tracks", 1))]
        for other in others:
            other.layout = stream.layout
            for packet in _encoded(other, x, rate, start):
                out.mux(packet)
        if video is not None:
            for n in range(round(len(x) / rate * 10)):
                picture = av.VideoFrame(64, 48, "yuv420p")
                picture.pts, picture.time_base = n, Fraction(1, 10)
                out.mux(video.encode(picture))
            out.mux(video.encode(None))
        for n, packet in enumerate(_encoded(stream, x, rate, start)):
            late = round(jitter[n % len(jitter)] / packet.time_base)
            packet.pts, packet.dts = packet.pts + late, packet.dts + late
            at = float(packet.pts * packet.time_base)
            if hole is None or not hole[0] <= at < hole[1]:
                out.mux(packet)


def _encoded(stream: Any, x: Samples, rate: int, start: float) -> Any:
    codec = stream.codec_context
    if not codec.is_open:
        codec.open()
    name = codec.format.name
    scale, dtype = {"s16": (32767, np.int16), "s32": (2147483647, np.int32), "flt": (1, np.float32)}[name[:3]]
    size = codec.frame_size or 1024
    layout = codec.layout.name
    for first in range(0, len(x), size):
        part = np.rint(x[first : first + size] * scale) if scale > 1 else x[first : first + size]
        part = part.astype(dtype)
        plane = np.ascontiguousarray(part.T) if codec.format.is_planar else part.reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(plane, format=name, layout=layout)
        frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
        frame.pts = first + round(start * rate)
        yield from stream.encode(frame)
    yield from stream.encode(None)


def with_soundfile(path: Path, x: Samples, rate: int, kind: str, subtype: str, **options: Any) -> None:
    """Encode with libsndfile."""
    soundfile.write(path, x, rate, format=kind, subtype=subtype, **options)


def riff(chunks: Sequence[tuple[bytes, bytes]], data_size: int | None = None) -> bytes:
    """A RIFF/WAVE file of these chunks; `data_size` overrides what the data chunk's header says."""
    body = b"WAVE"
    for name, data in chunks:
        size = len(data) if data_size is None or name != b"data" else data_size
        body += (
            name + struct.pack("<I", size) + data + (b"\0" if len(data) & 1 and data_size is None else b"")
        )
    return b"RIFF" + struct.pack("<I", len(body) & 0xFFFFFFFF) + body


def pcm(x: Samples, rate: int) -> list[tuple[bytes, bytes]]:
    """The chunks of a 16-bit PCM wav."""
    channels = x.shape[1]
    form = struct.pack("<HHIIHH", 1, channels, rate, rate * channels * 2, channels * 2, 16)
    return [(b"fmt ", form), (b"data", np.rint(x * 32767).astype("<i2").tobytes())]


def id3v2(num_bytes: int) -> bytes:
    """An ID3v2 tag of this size with one cover picture in it."""
    size = num_bytes - 10
    syncsafe = bytes((size >> s) & 0x7F for s in (21, 14, 7, 0))
    return b"ID3\x03\x00\x00" + syncsafe + (b"APIC" + b"\xff\xd8\xff" + b"\x55" * size)[:size]


@dataclass(frozen=True)
class Format:
    """One entry of the table: how to write it, and what comes back."""

    name: str
    make: Callable[[Path, Samples, int], None]
    rate: int = 44_100
    channels: int = 1
    delay: float = 0.01
    """Seconds by which the codec may be early or late."""
    level: float = 0.03
    """How far the tone's amplitude may be from 0.25."""


def _sf(kind: str, subtype: str, **options: Any) -> Callable[[Path, Samples, int], None]:
    return lambda path, x, rate: with_soundfile(path, x, rate, kind, subtype, **options)


def _av(container: str, codec: str, **options: Any) -> Callable[[Path, Samples, int], None]:
    return lambda path, x, rate: with_pyav(path, x, rate, container, codec, **options)


FORMATS = (
    Format("wav-u8", _sf("WAV", "PCM_U8")),
    Format("wav-s16", _sf("WAV", "PCM_16"), channels=2),
    Format("wav-s24", _sf("WAV", "PCM_24"), rate=96_000),
    Format("wav-s32", _sf("WAV", "PCM_32"), rate=192_000),
    Format("wav-float", _sf("WAV", "FLOAT"), rate=48_000, channels=2),
    Format("wav-double", _sf("WAV", "DOUBLE")),
    Format("wav-mulaw", _sf("WAV", "ULAW"), rate=8_000),
    Format("wav-alaw", _sf("WAV", "ALAW"), rate=8_000),
    Format("wav-ima", _sf("WAV", "IMA_ADPCM"), channels=2),
    Format("wav-ms", _sf("WAV", "MS_ADPCM"), rate=22_050),
    Format("wav-gsm", _sf("WAV", "GSM610"), rate=8_000, level=0.05),
    Format("wav-extensible", _sf("WAVEX", "PCM_24"), rate=48_000, channels=8),
    Format("wav-16k", _sf("WAV", "PCM_16"), rate=16_000),
    Format("rifx", _sf("WAV", "PCM_16", endian="BIG")),
    Format("rf64", _sf("RF64", "PCM_16")),
    Format("w64", _sf("W64", "PCM_16")),
    Format("caf", _sf("CAF", "PCM_16")),
    Format("au", _sf("AU", "ULAW"), rate=8_000),
    Format("aiff", _sf("AIFF", "PCM_16"), channels=2),
    Format("flac-16", _sf("FLAC", "PCM_16"), channels=2),
    Format("flac-24", _sf("FLAC", "PCM_24"), rate=11_025),
    Format("flac-8ch", _av("flac", "flac"), rate=48_000, channels=8),
    Format("mp3", _av("mp3", "libmp3lame"), channels=2),
    Format("mp3-low", _av("mp3", "libmp3lame", bit_rate=24_000), rate=16_000, level=0.05),
    Format("mp3-libsndfile", _sf("MP3", "MPEG_LAYER_III"), rate=24_000),
    Format("mp2", _av("mp2", "mp2"), channels=2, delay=0.02),
    Format("ogg-vorbis", _sf("OGG", "VORBIS"), channels=2),
    Format("ogg-vorbis-8k", _sf("OGG", "VORBIS"), rate=8_000),
    Format("ogg-opus", _av("ogg", "libopus"), rate=48_000),
    Format("ogg-flac", _av("ogg", "flac")),
    Format("webm-opus", _av("webm", "libopus"), rate=48_000, channels=2),
    Format("mkv-aac", _av("matroska", "aac"), delay=0.03),
    Format("m4a-aac", _av("ipod", "aac"), channels=2),
    Format("m4a-alac", _av("ipod", "alac"), channels=2),
    Format("mp4-video", _av("mp4", "aac", video=True)),
    Format("mp4-fragmented", _av("mp4", "aac", muxer={"movflags": "frag_keyframe+empty_moov"}), delay=0.03),
    Format("mov", _av("mov", "pcm_s16le")),
    Format("mpegts", _av("mpegts", "mp2"), delay=0.02),
    Format("aac-adts", _av("adts", "aac"), delay=0.03),
    Format("ac3", _av("ac3", "ac3"), rate=48_000, channels=6, delay=0.02),
    Format("eac3", _av("eac3", "eac3"), rate=48_000, delay=0.02),
    Format("wma", _av("asf", "wmav2"), channels=2, delay=0.06),
    Format("amr", _av("amr", "libopencore_amrnb", bit_rate=12_200), rate=8_000, delay=0.02, level=0.08),
    Format("avi", _av("avi", "libmp3lame", video=True), delay=0.03),
)
