"""Every format, every damage, every way a decoder can die: what arrives, when, and what is said about it."""

from __future__ import annotations

import os
import re
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile
from numpy.typing import NDArray

import audio_corpus as corpus
from dawnchorus.audio import AudioInfo, Decoder
from dawnchorus.audio.sniff import sniff
from dawnchorus.audio.sources import open_source
from dawnchorus.config import AudioConfig
from dawnchorus.errors import DataError, Terminal, Transient
from dawnchorus.records import Failure

RATE = 16_000
SECONDS = 4.0


@dataclass(frozen=True)
class Heard:
    """A whole stream, for looking at. `damaged` is in seconds, neighbours joined."""

    info: AudioInfo
    samples: NDArray[np.int16]
    flags: tuple[str, ...]
    failure: Failure | None
    damaged: list[tuple[float, float]]

    @property
    def seconds(self) -> float:
        return self.samples.shape[1] / RATE


def hear(decoder: Decoder, path: Path | str) -> Heard:
    stream = decoder.open(str(path), RATE)
    blocks, spans = [], list[tuple[float, float]]()
    for block in stream:
        blocks.append(block.samples)
        for a, b in block.damaged:
            if spans and spans[-1][1] == a / RATE:
                spans[-1] = (spans[-1][0], b / RATE)
            else:
                spans.append((a / RATE, b / RATE))
    return Heard(stream.info, np.concatenate(blocks, axis=1), stream.flags, stream.failure, spans)


def refused(decoder: Decoder, path: Path | str) -> DataError:
    with pytest.raises(DataError) as e:
        decoder.open(str(path), RATE)
    assert e.value.stage == "decode"
    assert str(path) not in e.value.message
    return e.value


def assert_beeps(x: NDArray[np.int16], expected: list[float], within: float = 0.03) -> None:
    found = corpus.beeps(x)
    for second in expected:
        assert any(abs(second - f) < within for f in found), f"no beep at {second} s: {found}"


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder(AudioConfig()) as d:
        yield d


def config(**changes: object) -> AudioConfig:
    return AudioConfig.model_validate(changes)


# --- formats ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", corpus.FORMATS, ids=lambda f: f.name)
def test_every_format_arrives(form: corpus.Format, decoder: Decoder, tmp_path: Path) -> None:
    path = tmp_path / "no-extension"
    form.make(path, corpus.signal(SECONDS, form.rate, form.channels), form.rate)
    heard = hear(decoder, path)
    assert heard.failure is None
    assert heard.damaged == []
    assert heard.flags == ()
    assert heard.info.num_channels == form.channels
    assert heard.info.source_rate == form.rate
    assert heard.info.channels == (None,)
    assert heard.seconds == pytest.approx(SECONDS, abs=0.1)
    claimed = heard.info.claimed_seconds
    assert claimed is None or claimed == pytest.approx(heard.seconds, abs=0.1)
    mono = heard.samples[0]
    quiet = mono[int(2.2 * RATE) : int(2.9 * RATE)]
    assert corpus.level(quiet, 440) == pytest.approx(corpus.TONE_LEVEL / form.channels, abs=form.level)
    assert_beeps(mono, [1.0, 2.0, 3.0], within=0.015 + form.delay)
    assert len(corpus.beeps(mono)) == 3


def test_an_extension_means_nothing(decoder: Decoder, tmp_path: Path) -> None:
    path = tmp_path / "song.mp3"
    corpus.with_soundfile(path, corpus.signal(1, 8_000), 8_000, "WAV", "PCM_16")
    assert hear(decoder, path).info.format == "wav"


def test_pcm_at_the_engine_rate_is_untouched(decoder: Decoder, tmp_path: Path) -> None:
    x = np.random.default_rng(1).integers(-32768, 32768, (RATE * 3, 1), dtype=np.int16)
    soundfile.write(tmp_path / "x.wav", x, RATE, subtype="PCM_16")
    np.testing.assert_array_equal(hear(decoder, tmp_path / "x.wav").samples[0], x[:, 0])


def test_the_decoder_names_all_that_can_change_samples(decoder: Decoder, tmp_path: Path) -> None:
    corpus.with_soundfile(tmp_path / "x.wav", corpus.signal(1, 8_000), 8_000, "WAV", "PCM_16")
    name = hear(decoder, tmp_path / "x.wav").info.decoder
    assert name.startswith("soundfile ")
    assert "/libsndfile " in name
    assert " + soxr " in name
    assert " HQ" in name
    corpus.with_pyav(tmp_path / "x.mp3", corpus.signal(1, 48_000), 48_000, "mp3", "libmp3lame")
    name = hear(decoder, tmp_path / "x.mp3").info.decoder
    assert "pyav " in name
    assert "/libavcodec " in name


# --- channels --------------------------------------------------------------------------------------


def test_channels_mix_separate_and_by_index(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    corpus.with_soundfile(path, corpus.signal(2, 44_100, 2), 44_100, "WAV", "PCM_16")
    quiet = slice(int(0.2 * RATE), int(0.9 * RATE))

    def levels(x: NDArray[np.int16]) -> list[float]:
        return [round(corpus.level(x[quiet], hz), 2) for hz in (440, 330)]

    with Decoder(config(channels="separate")) as d:
        heard = hear(d, path)
        assert heard.info.channels == (0, 1)
        assert [levels(c) for c in heard.samples] == [[0.25, 0], [0, 0.25]]
    with Decoder(config(channels=1)) as d:
        heard = hear(d, path)
        assert heard.info.channels == (1,)
        assert [levels(c) for c in heard.samples] == [[0, 0.25]]
    with Decoder(config(channels="mix")) as d:
        assert levels(hear(d, path).samples[0]) == pytest.approx([0.125, 0.125], abs=0.01)
    with Decoder(config(channels=2)) as d:
        error = refused(d, path)
        assert (error.kind, error.transient) == ("bad_channel", False)


def test_many_channels_come_apart(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    corpus.with_soundfile(path, corpus.signal(12, 48_000, 8), 48_000, "WAVEX", "PCM_24")
    with Decoder(config(channels="separate")) as d:
        heard = hear(d, path)
    assert heard.samples.shape == (8, 12 * RATE)
    for n, hz in enumerate(corpus.TONES):
        assert corpus.level(heard.samples[n][int(2.2 * RATE) : int(2.9 * RATE)], hz) == pytest.approx(
            0.25, abs=0.01
        )


# --- determinism -----------------------------------------------------------------------------------


def test_the_same_bytes_give_the_same_blocks(tmp_path: Path) -> None:
    for name, container, codec in (("x.mp3", "mp3", "libmp3lame"), ("x.webm", "webm", "libopus")):
        path = tmp_path / name
        corpus.with_pyav(path, corpus.signal(25, 48_000, 2), 48_000, container, codec)
        spoil(path, 0.5, 3_000)
        runs = []
        for _ in range(2):
            with Decoder(AudioConfig()) as d:
                runs.append([(b.samples.tobytes(), b.damaged) for b in d.open(str(path), RATE)])
        with Decoder(AudioConfig()) as d:
            hear(d, path)
            runs.append([(b.samples.tobytes(), b.damaged) for b in d.open(str(path), RATE)])
        assert len(runs[0]) == 3
        assert runs[0] == runs[1] == runs[2]


# --- damage ----------------------------------------------------------------------------------------


def spoil(path: Path, where: float, num_bytes: int) -> None:
    """Overwrite some of the file's bytes with noise."""
    data = bytearray(path.read_bytes())
    at = int(len(data) * where)
    data[at : at + num_bytes] = np.random.default_rng(5).bytes(num_bytes)
    path.write_bytes(data)


HOLES: tuple[tuple[str, str, int, int, int], ...] = (
    ("mp3", "libmp3lame", 44_100, 128_000, 5_000),
    ("adts", "aac", 44_100, 96_000, 5_000),
    ("ac3", "ac3", 48_000, 128_000, 5_000),
    ("eac3", "eac3", 48_000, 128_000, 5_000),
    ("amr", "libopencore_amrnb", 8_000, 12_200, 3_000),
    ("flac", "flac", 44_100, 0, 5_000),
    ("ogg", "libopus", 48_000, 64_000, 2_000),
    ("ipod", "aac", 44_100, 96_000, 5_000),
    ("webm", "libopus", 48_000, 64_000, 2_000),
    ("matroska", "libmp3lame", 44_100, 96_000, 5_000),
    ("asf", "wmav2", 44_100, 96_000, 5_000),
    ("mpegts", "mp2", 44_100, 96_000, 5_000),
)


@pytest.mark.parametrize(("container", "codec", "rate", "bit_rate", "num_bytes"), HOLES)
def test_a_hole_is_silence_and_shifts_nothing(
    container: str, codec: str, rate: int, bit_rate: int, num_bytes: int, decoder: Decoder, tmp_path: Path
) -> None:
    path = tmp_path / "x"
    corpus.with_pyav(path, corpus.signal(20, rate), rate, container, codec, bit_rate)
    whole = hear(decoder, path)
    spoil(path, 0.475, num_bytes)
    heard = hear(decoder, path)
    assert heard.failure is None
    assert "damaged_audio" in heard.flags
    assert heard.seconds == pytest.approx(whole.seconds, abs=0.03)
    assert heard.damaged
    for a, b in heard.damaged:
        assert 5 < a < b < 15.5
        inside = heard.samples[0][int(a * RATE) + 800 : int(b * RATE) - 800]
        assert np.abs(inside).max(initial=0) < 330, "what was lost is silence"
    assert sum(b - a for a, b in heard.damaged) < 5.2
    late = [b for b in corpus.beeps(whole.samples[0]) if b < 4.5 or b > 15.5]
    assert len(late) >= 7
    found = corpus.beeps(heard.samples[0])
    for beep in late:
        assert min(abs(beep - f) for f in found) < 0.03


def test_a_hole_in_a_vbr_mp3_is_as_long_as_the_frames_that_are_missing(
    decoder: Decoder, tmp_path: Path
) -> None:
    x = corpus.signal(20, 44_100)
    x[: 44_100 * 8] *= 0.01
    path = tmp_path / "x.mp3"
    with_vbr(path, x)
    whole = hear(decoder, path)
    spoil(path, 0.6, 5_000)
    heard = hear(decoder, path)
    assert heard.samples.shape == whole.samples.shape
    assert_beeps(heard.samples[0], [b for b in corpus.beeps(whole.samples[0]) if b > 17], within=0.01)


def with_vbr(path: Path, x: NDArray[np.float32]) -> None:
    corpus.with_soundfile(
        path, x, 44_100, "MP3", "MPEG_LAYER_III", bitrate_mode="VARIABLE", compression_level=0.3
    )


def test_junk_before_an_mp3(decoder: Decoder, tmp_path: Path) -> None:
    path = tmp_path / "x.mp3"
    corpus.with_pyav(path, corpus.signal(SECONDS, 44_100), 44_100, "mp3", "libmp3lame")
    sound = path.read_bytes()
    whole = hear(decoder, path)
    for junk in (os.urandom(40_000), b"\0" * 100_000, b"\xff" * 5_000, corpus.id3v2(3_000_000)):
        path.write_bytes(junk + sound)
        heard = hear(decoder, path)
        np.testing.assert_array_equal(heard.samples, whole.samples)
        assert heard.damaged == []


def test_tags_in_the_middle_and_at_the_end_are_no_audio(decoder: Decoder, tmp_path: Path) -> None:
    path = tmp_path / "x.mp3"
    corpus.with_pyav(path, corpus.signal(2, 44_100), 44_100, "mp3", "libmp3lame")
    part = path.read_bytes()
    path.write_bytes(part + corpus.id3v2(60_000) + part + b"TAG" + b"x" * 125)
    heard = hear(decoder, path)
    assert heard.damaged == []
    assert heard.seconds == pytest.approx(4.0, abs=0.12)
    assert_beeps(heard.samples[0], [1.0, 3.05], within=0.06)


def test_an_mp3_whose_rate_and_channels_change(decoder: Decoder, tmp_path: Path) -> None:
    parts = []
    for rate, channels in ((44_100, 2), (22_050, 1), (48_000, 2)):
        corpus.with_pyav(
            tmp_path / "x", corpus.signal(3, rate, channels), rate, "mp3", "libmp3lame", muxer=RAW_MP3
        )
        parts.append((tmp_path / "x").read_bytes())
    (tmp_path / "all.mp3").write_bytes(b"".join(parts))
    heard = hear(decoder, tmp_path / "all.mp3")
    assert heard.damaged == []
    assert heard.seconds == pytest.approx(9.0, abs=0.3)
    assert len(corpus.beeps(heard.samples[0])) == 6
    with Decoder(config(channels="separate")) as d:
        assert hear(d, tmp_path / "all.mp3").samples.shape == (2, heard.samples.shape[1])


def test_a_chain_of_ogg_streams_is_one_recording(decoder: Decoder, tmp_path: Path) -> None:
    parts = []
    for rate, channels in ((48_000, 2), (16_000, 1), (48_000, 2)):
        corpus.with_soundfile(tmp_path / "x", corpus.signal(3, rate, channels), rate, "OGG", "VORBIS")
        parts.append((tmp_path / "x").read_bytes())
    (tmp_path / "all").write_bytes(b"".join(parts))
    heard = hear(decoder, tmp_path / "all")
    assert heard.flags == ()
    assert heard.damaged == []
    assert heard.seconds == pytest.approx(9, abs=0.1)
    assert_beeps(heard.samples[0], [1, 2, 4, 5, 7, 8])


RAW_MP3 = {"write_xing": "0", "id3v2_version": "0"}


@pytest.mark.parametrize("container", ["wav", "flac", "mp3", "ac3", "matroska", "asf", "aiff", "ogg"])
def test_a_cut_file_gives_what_is_there(container: str, decoder: Decoder, tmp_path: Path) -> None:
    codec = {
        "ogg": "libopus",
        "wav": "pcm_s16le",
        "mp3": "libmp3lame",
        "matroska": "libmp3lame",
        "asf": "wmav2",
        "aiff": "pcm_s16be",
    }
    path = tmp_path / "x"
    corpus.with_pyav(path, corpus.signal(20, 48_000), 48_000, container, codec.get(container, container))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * 0.6) + 7])
    heard = hear(decoder, path)
    assert "truncated_audio" in heard.flags
    assert heard.failure is None
    assert 11 < heard.seconds < 13
    assert_beeps(heard.samples[0], [float(n) for n in range(1, 11)], within=0.06)


def test_an_mp4_without_its_index_says_so(decoder: Decoder, tmp_path: Path) -> None:
    corpus.with_pyav(tmp_path / "x", corpus.signal(5, 44_100), 44_100, "mp4", "aac")
    (tmp_path / "x").write_bytes((tmp_path / "x").read_bytes()[:30_000])
    error = refused(decoder, tmp_path / "x")
    assert error.kind == "not_audio"
    assert "index" in error.message


# --- timestamps ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("container", "codec"), [("webm", "libopus"), ("mp4", "aac"), ("matroska", "libmp3lame")]
)
def test_a_pause_in_the_timestamps_is_silence_but_no_damage(
    container: str, codec: str, decoder: Decoder, tmp_path: Path
) -> None:
    path = tmp_path / "x"
    corpus.with_pyav(path, corpus.signal(12, 48_000), 48_000, container, codec, hole=(4.5, 8.5))
    heard = hear(decoder, path)
    assert heard.flags == ("timestamp_gap",)
    assert heard.damaged == []
    assert heard.seconds == pytest.approx(12, abs=0.1)
    assert_beeps(heard.samples[0], [1, 2, 3, 4, 9, 10, 11], within=0.04)
    assert len(corpus.beeps(heard.samples[0])) == 7


@pytest.mark.parametrize("container", ["mp4", "matroska", "mpegts"])
def test_audio_that_starts_late_is_where_the_picture_has_it(
    container: str, decoder: Decoder, tmp_path: Path
) -> None:
    path = tmp_path / "x"
    corpus.with_pyav(path, corpus.signal(6, 48_000), 48_000, container, "aac", start=2.5, video=True)
    heard = hear(decoder, path)
    assert heard.seconds == pytest.approx(8.5, abs=0.1)
    assert_beeps(heard.samples[0], [3.5, 4.5, 5.5, 6.5, 7.5], within=0.04)


@pytest.mark.parametrize("jitter", [(0.06, 0.045, 0.03, 0.015, 0.0), (0.04, 0.02, 0.0)])
@pytest.mark.parametrize(("container", "codec"), [("matroska", "aac"), ("flv", "aac"), ("webm", "libopus")])
def test_packets_stamped_as_they_arrived_put_no_silence_into_speech(
    container: str, codec: str, jitter: tuple[float, ...], decoder: Decoder, tmp_path: Path
) -> None:
    """Each swing of a live stream's clock was one more gap: five minutes became nearly six, or eight."""
    path = tmp_path / "x"
    corpus.with_pyav(path, corpus.signal(30, 48_000), 48_000, container, codec, jitter=jitter)
    heard = hear(decoder, path)
    assert heard.seconds == pytest.approx(30, abs=0.15)
    assert heard.damaged == []
    assert_beeps(heard.samples[0], [1, 10, 20, 29], within=0.12)


def test_another_track_is_not_heard_and_flagged(decoder: Decoder, tmp_path: Path) -> None:
    path = tmp_path / "x"
    corpus.with_pyav(path, corpus.signal(4, 48_000), 48_000, "matroska", "aac", tracks=2)
    assert hear(decoder, path).flags == ("more_tracks",)


# --- odd wavs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000])
def test_a_streamed_wav_has_no_length_in_its_header(size: int, decoder: Decoder, tmp_path: Path) -> None:
    (tmp_path / "x.wav").write_bytes(corpus.riff(corpus.pcm(corpus.signal(SECONDS, 16_000), 16_000), size))
    heard = hear(decoder, tmp_path / "x.wav")
    assert heard.seconds == SECONDS
    assert heard.flags == ()
    assert heard.info.claimed_seconds is None


def test_a_wav_beyond_four_gigabytes_is_read_to_its_end(tmp_path: Path) -> None:
    """Sizes have 32 bits: the header of a recorder that ran on says what is left of them."""
    path, rate, num_bytes = tmp_path / "x.wav", 48_000, (1 << 32) + 48_000 * 8
    form = struct.pack("<HHIIHH", 1, 4, rate, rate * 8, 8, 16)
    head = b"RIFF" + struct.pack("<I", 48_036) + b"WAVEfmt " + struct.pack("<I", 16) + form
    with path.open("wb") as f:
        f.write(head + b"data" + struct.pack("<I", num_bytes & 0xFFFFFFFF))
        f.truncate(f.tell() + num_bytes)  # a hole on the disk
    with path.open("rb") as f:
        found = sniff(f.fileno())
        assert (found.reader, found.unsaid, found.claimed_seconds) == ("container", 40, None)
        source, pieces = open_source(f.fileno())
        for _ in range(40):
            piece = next(pieces)  # a second each; the header promised one
            assert piece.samples is not None
        source.close()


def test_what_libsndfile_cannot_read_is_ffmpegs_from_its_first_byte(decoder: Decoder, tmp_path: Path) -> None:
    """libsndfile had read the header, and FFmpeg went on behind it."""
    whole = corpus.riff(corpus.pcm(corpus.signal(SECONDS, 16_000), 16_000))
    ds64 = b"ds64" + struct.pack("<IQQQI", 28, len(whole) + 28, len(whole) - 44, 0, 0)
    (tmp_path / "x").write_bytes(b"BW64\xff\xff\xff\xffWAVE" + ds64 + whole[12:])
    heard = hear(decoder, tmp_path / "x")
    assert heard.seconds == SECONDS
    assert_beeps(heard.samples[0], [1, 2])


@pytest.mark.parametrize("container", ["amr", "3gp"])
def test_the_comfort_noise_of_a_call_is_no_damage(container: str, decoder: Decoder, tmp_path: Path) -> None:
    x = corpus.signal(9, 8_000)
    x[3 * 8_000 : 7 * 8_000] = 0.0
    corpus.with_pyav(tmp_path / "x", x, 8_000, container, "libopencore_amrnb", 12_200, coding={"dtx": "1"})
    heard = hear(decoder, tmp_path / "x")
    assert heard.damaged == []
    assert heard.seconds == pytest.approx(9, abs=0.1)
    assert_beeps(heard.samples[0], [1, 2, 7, 8])


def test_odd_pcm_and_odd_chunks(decoder: Decoder, tmp_path: Path) -> None:
    chunks = corpus.pcm(corpus.signal(SECONDS, 16_000), 16_000)
    name, data = chunks[1]
    (tmp_path / "x.wav").write_bytes(corpus.riff([(b"LIST", b"abc"), chunks[0], (name, data + b"\x01")]))
    assert hear(decoder, tmp_path / "x.wav").seconds == SECONDS


def test_an_mp3_in_a_wav(decoder: Decoder, tmp_path: Path) -> None:
    corpus.with_pyav(tmp_path / "x", corpus.signal(SECONDS, 44_100, 2), 44_100, "wav", "libmp3lame")
    heard = hear(decoder, tmp_path / "x")
    assert (heard.info.format, heard.info.codec) == ("wav", "mp3")
    assert heard.seconds == pytest.approx(SECONDS, abs=0.1)
    assert len(corpus.beeps(heard.samples[0])) == 3


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 37_800, 192_000])
def test_any_rate(rate: int, decoder: Decoder, tmp_path: Path) -> None:
    corpus.with_soundfile(tmp_path / "x.wav", corpus.signal(31, rate), rate, "WAV", "PCM_16")
    heard = hear(decoder, tmp_path / "x.wav")
    assert heard.seconds == 31
    assert_beeps(heard.samples[0], [1, 10, 20, 30], within=0.015)


def test_samples_that_are_no_numbers_are_damage(decoder: Decoder, tmp_path: Path) -> None:
    x = corpus.signal(15, 16_000)
    x[16_000 * 12 : 16_000 * 13] = np.nan
    x[16_000 * 5] = np.inf
    x[:1600] = np.nan
    corpus.with_soundfile(tmp_path / "x.wav", x, 16_000, "WAV", "FLOAT")
    heard = hear(decoder, tmp_path / "x.wav")
    assert heard.seconds == 15
    assert heard.flags == ("damaged_audio",)
    assert heard.damaged == [(0, 0.1), (5, 5 + 1 / 16_000), (12, 13)]
    assert not heard.samples[0][16_000 * 12 : 16_000 * 13].any()


def test_loud_floats_are_clipped(decoder: Decoder, tmp_path: Path) -> None:
    x = np.array([[0.5], [1.5], [-2.0], [0.0]], np.float32).repeat(4000, axis=0)
    corpus.with_soundfile(tmp_path / "x.wav", x, 16_000, "WAV", "FLOAT")
    heard = hear(decoder, tmp_path / "x.wav")
    assert heard.samples[0][::4000].tolist() == [16384, 32767, -32768, 0]


# --- what is no audio ------------------------------------------------------------------------------


def _nan(path: Path) -> None:
    corpus.with_soundfile(path, np.full((200_000, 1), np.nan, np.float32), 16_000, "WAV", "FLOAT")


def _silent_film(path: Path) -> None:
    import av

    with av.open(str(path), "w", format="mp4") as out:
        video = out.add_stream("mpeg4", rate=10)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        for _ in range(10):
            out.mux(video.encode(av.VideoFrame(64, 48, "yuv420p")))
        out.mux(video.encode(None))


REFUSED: tuple[tuple[str, str, Callable[[Path], object]], ...] = (
    ("empty_file", "no bytes", lambda p: p.write_bytes(b"")),
    ("not_audio", "an HTML page", lambda p: p.write_bytes(b"\n<!DOCTYPE html><html><body>404</body></html>")),
    (
        "not_audio",
        "an XML document",
        lambda p: p.write_bytes(b"<?xml version='1.0'?><Error>AccessDenied</Error>"),
    ),
    ("not_audio", "a JSON document", lambda p: p.write_bytes(b'{"error": "not found"}')),
    ("not_audio", "a ZIP archive", lambda p: p.write_bytes(b"PK\x03\x04" + b"\x14\0" * 500)),
    ("not_audio", "a playlist", lambda p: p.write_bytes(b"#EXTM3U\nfile:///etc/passwd\n")),
    ("not_audio", "a text file", lambda p: p.write_bytes(b"Hello there.\n" * 100)),
    ("not_audio", "zero bytes", lambda p: p.write_bytes(bytes(100_000))),
    ("not_audio", "no audio format", lambda p: p.write_bytes(np.random.default_rng(3).bytes(100_000))),
    ("not_audio", "Hz", lambda p: corpus.with_soundfile(p, corpus.signal(1, 16_000), 1, "WAV", "PCM_16")),
    ("no_audio_track", "no audio track", _silent_film),
    (
        "no_samples",
        "no audio samples",
        lambda p: p.write_bytes(corpus.riff(corpus.pcm(corpus.signal(0, 8_000), 8_000))),
    ),
    ("non_finite", "NaN", _nan),
    ("is_directory", "directory", lambda p: p.mkdir()),
    ("not_audio", "regular file", lambda p: os.mkfifo(p)),
)


@pytest.mark.parametrize(("kind", "words", "make"), REFUSED, ids=[f"{k}-{w}" for k, w, _ in REFUSED])
def test_what_is_no_audio_is_refused_in_words(
    kind: str, words: str, make: Callable[[Path], object], decoder: Decoder, tmp_path: Path
) -> None:
    make(tmp_path / "x")
    error = refused(decoder, tmp_path / "x")
    assert isinstance(error, Terminal)
    assert error.kind == kind
    assert words in error.message
    assert error.message.endswith(".")


def test_a_missing_file_may_come_back(decoder: Decoder, tmp_path: Path) -> None:
    error = refused(decoder, tmp_path / "x")
    assert isinstance(error, Transient)
    assert error.kind == "io"


# --- limits, crashes and stalls --------------------------------------------------------------------


def lying_flac(path: Path) -> None:
    """100 kB of FLAC that claims 2^36 - 1 samples of eight channels in blocks of 65,535."""
    corpus.with_soundfile(path, corpus.signal(3, 44_100, 2), 44_100, "FLAC", "PCM_16")
    data = bytearray(path.read_bytes())
    data[8:12] = b"\xff\xff\xff\xff"
    data[21] |= 0x0F
    data[22:26] = b"\xff\xff\xff\xff"
    path.write_bytes(data)


def test_a_header_is_not_trusted_with_memory(tmp_path: Path) -> None:
    lying_flac(tmp_path / "x.flac")
    with Decoder(AudioConfig()) as d:
        heard = hear(d, tmp_path / "x.flac")
        assert child_of(d).memory_info().rss < 150e6
    assert heard.seconds == pytest.approx(3, abs=0.1)
    assert heard.flags == ("truncated_audio",)


def test_too_long_keeps_what_came_before(tmp_path: Path) -> None:
    corpus.with_soundfile(tmp_path / "x.flac", corpus.signal(40, 16_000), 16_000, "FLAC", "PCM_16")
    with Decoder(config(max_seconds=25)) as d:
        heard = hear(d, tmp_path / "x.flac")
        assert heard.failure is not None
        assert (heard.failure.kind, heard.failure.transient) == ("too_long", False)
        assert 10 <= heard.seconds <= 25
        assert_beeps(heard.samples[0], [1, 9], within=0.015)


def test_too_short_a_limit_is_said_even_before_the_first_block(tmp_path: Path) -> None:
    corpus.with_soundfile(tmp_path / "x.wav", corpus.signal(10, 16_000), 16_000, "WAV", "PCM_16")
    with Decoder(config(max_seconds=0.5)) as d:
        assert refused(d, tmp_path / "x.wav").kind == "too_long"


def test_memory_is_limited(tmp_path: Path) -> None:
    """600 channels, separately, do not fit into 24 MB beside the libraries and a second of audio."""
    x = np.zeros((100_000, 600), np.float32)
    corpus.with_soundfile(tmp_path / "x.wav", x, 8_000, "WAV", "PCM_16")
    corpus.with_soundfile(tmp_path / "second.wav", corpus.signal(1, 16_000), 16_000, "WAV", "PCM_16")
    with Decoder(config()) as d:
        hear(d, tmp_path / "second.wav")
        [used] = re.findall(r"VmPeak:\s+(\d+) kB", Path(f"/proc/{d.pid}/status").read_text())
    with Decoder(config(channels="separate", max_memory_bytes=(int(used) << 10) + (24 << 20))) as d:
        error = refused(d, tmp_path / "x.wav")
        assert (error.kind, error.transient) == ("memory", False)
        assert hear(d, tmp_path / "second.wav").seconds == 1


@pytest.fixture(scope="module")
def long_mp3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four minutes: more than the pipe and the decoder's own buffers hold ahead of the reader."""
    path = tmp_path_factory.mktemp("long") / "x.mp3"
    corpus.with_pyav(path, corpus.signal(240, 16_000), 16_000, "mp3", "libmp3lame", 32_000)
    return path


def child_of(decoder: Decoder) -> psutil.Process:
    [child] = [p for p in psutil.Process().children() if p.pid == decoder.pid]
    return child


@pytest.fixture
def crashing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAWNCHORUS_TEST_CRASH", "1")


def test_a_file_that_crashes_its_decoder_costs_itself(crashing: None, tmp_path: Path) -> None:
    (tmp_path / "x.wav").write_bytes(b"DAWNCHORUS-CRASH")
    corpus.with_soundfile(tmp_path / "y.wav", corpus.signal(1, 16_000), 16_000, "WAV", "PCM_16")
    with Decoder(AudioConfig()) as d:
        error = refused(d, tmp_path / "x.wav")
        assert isinstance(error, Terminal)
        assert error.kind == "crash"
        assert "SIGSEGV" in error.message
        assert hear(d, tmp_path / "y.wav").seconds == 1


def test_a_crash_half_way_is_decoded_again_without_a_seam(long_mp3: Path) -> None:
    with Decoder(AudioConfig()) as d:
        whole = hear(d, long_mp3)
        stream = d.open(str(long_mp3), RATE)
        blocks = iter(stream)
        got = [next(blocks).samples, next(blocks).samples]
        child_of(d).send_signal(signal.SIGSEGV)
        got += [b.samples for b in blocks]
        assert stream.failure is None
        np.testing.assert_array_equal(np.concatenate(got, axis=1), whole.samples)


def test_two_crashes_half_way_leave_what_was_heard(long_mp3: Path) -> None:
    with Decoder(AudioConfig()) as d:
        stream = d.open(str(long_mp3), RATE)
        num_blocks = 0
        for _ in stream:
            num_blocks += 1
            if num_blocks in (2, 12):
                child_of(d).send_signal(signal.SIGABRT)
        assert stream.failure is not None
        assert (stream.failure.kind, stream.failure.transient) == ("crash", False)
        assert "SIGABRT" in stream.failure.message
        assert 12 <= num_blocks < 24


def test_a_child_killed_from_outside_is_not_the_files_fault(long_mp3: Path) -> None:
    with Decoder(AudioConfig()) as d:
        stream = d.open(str(long_mp3), RATE)
        for n, _ in enumerate(stream):
            if n in (2, 12):
                child_of(d).kill()
        assert stream.failure is not None
        assert (stream.failure.kind, stream.failure.transient) == ("killed", True)


def test_a_stalled_decoder_is_replaced_once(long_mp3: Path) -> None:
    with Decoder(config(stall_seconds=1.0)) as d:
        whole = hear(d, long_mp3)
        stream = d.open(str(long_mp3), RATE)
        blocks = iter(stream)
        got = [next(blocks).samples]
        child_of(d).suspend()
        got += [b.samples for b in blocks]
        assert stream.failure is None
        np.testing.assert_array_equal(np.concatenate(got, axis=1), whole.samples)

        stream = d.open(str(long_mp3), RATE)
        for n, _ in enumerate(stream):
            if n in (1, 12):
                child_of(d).suspend()
        assert stream.failure is not None
        assert (stream.failure.kind, stream.failure.transient) == ("timeout", False)


def test_an_abandoned_stream_does_not_disturb_the_next(tmp_path: Path) -> None:
    path = tmp_path / "x.flac"
    corpus.with_soundfile(path, corpus.signal(60, 44_100, 2), 44_100, "FLAC", "PCM_16")
    with Decoder(AudioConfig()) as d:
        whole = hear(d, path)
        next(iter(d.open(str(path), RATE)))
        np.testing.assert_array_equal(hear(d, path).samples, whole.samples)


def test_the_child_gets_no_credentials_and_no_inherited_limits(
    monkeypatch: pytest.MonkeyPatch, decoder: Decoder, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    corpus.with_soundfile(tmp_path / "x.wav", corpus.signal(1, 16_000), 16_000, "WAV", "PCM_16")
    with Decoder(config(max_memory_bytes=700 << 20)) as d:
        hear(d, tmp_path / "x.wav")
        child = child_of(d)
        assert "hush" not in str(child.environ())
        assert child.rlimit(psutil.RLIMIT_AS)[0] == 700 << 20
        assert child.rlimit(psutil.RLIMIT_CORE) == (0, 0)
        assert child.rlimit(psutil.RLIMIT_FSIZE) == (0, 0)


def test_the_child_dies_with_its_parent(long_mp3: Path) -> None:
    code = (
        "import sys, time\nfrom dawnchorus.audio import Decoder\nfrom dawnchorus.config import AudioConfig\n"
        "d = Decoder(AudioConfig()); s = d.open(sys.argv[1], 16000)\n"
        "print(d.pid, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(long_mp3)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    gone, _ = psutil.wait_procs([child], timeout=10)
    assert gone or child.status() == psutil.STATUS_ZOMBIE


def test_one_child_serves_many_files(tmp_path: Path) -> None:
    paths = []
    for n in range(20):
        paths.append(tmp_path / f"{n}.flac")
        corpus.with_soundfile(paths[-1], corpus.signal(1 + n / 10, 16_000), 16_000, "FLAC", "PCM_16")
    with Decoder(AudioConfig()) as d:
        pids = set()
        for n, path in enumerate(paths):
            assert hear(d, path).seconds == pytest.approx(1 + n / 10, abs=1e-3)
            pids.add(d.pid)
        assert len(pids) == 1


# --- ten hours -------------------------------------------------------------------------------------


def ten_hours_of_mp3(path: Path) -> None:
    corpus.with_pyav(path, corpus.signal(300, 16_000), 16_000, "mp3", "libmp3lame", 32_000, muxer=RAW_MP3)
    part = path.read_bytes()
    with path.open("wb") as f:
        for _ in range(120):
            f.write(part)


def ten_hours_of_flac(path: Path) -> None:
    part = corpus.signal(300, 16_000)
    with soundfile.SoundFile(path, "w", 16_000, 1, "PCM_16", format="FLAC") as f:
        for _ in range(120):
            f.write(part)


@pytest.mark.slow
@pytest.mark.parametrize("make", [ten_hours_of_mp3, ten_hours_of_flac], ids=["mp3", "flac"])
def test_ten_hours_fit_into_little_memory(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "x")
    me, num_samples, loud = psutil.Process(), 0, 0
    with Decoder(AudioConfig()) as d:
        began = time.monotonic()
        stream = d.open(str(tmp_path / "x"), RATE)
        child = child_of(d)
        before, most, most_here = me.memory_full_info().uss, 0, 0
        for n, block in enumerate(stream):
            num_samples += block.samples.shape[1]
            loud += int(np.abs(block.samples).max()) > 8_000
            if n % 60 == 0:
                most = max(most, child.memory_full_info().uss)
                most_here = max(most_here, me.memory_full_info().uss)
        took = time.monotonic() - began
    print(
        f"{num_samples / RATE / 3600:.2f} h in {took:.0f} s ({num_samples / RATE / took:.0f} x), "
        f"child at most {most / 1e6:.0f} MB USS, parent grew by {(most_here - before) / 1e6:.0f} MB"
    )
    assert stream.failure is None
    assert stream.flags == ()
    assert num_samples / RATE == pytest.approx(36_000, abs=15)
    assert loud == n + 1
    assert most < 150e6
    assert most_here - before < 50e6
