from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from contract import EngineContract
from numpy.typing import NDArray

from dawnchorus.audio import Decoder
from dawnchorus.chunking import ChunkStream, chunk_params, owned
from dawnchorus.config import AudioConfig, ChunkingConfig, EngineConfig, VadConfig
from dawnchorus.engines.base import Waveform
from dawnchorus.engines.whisper import WhisperEngine
from dawnchorus.engines.whisper_weights import EMBEDDED_SHA256, model_path, weights_sha256
from dawnchorus.errors import EngineUnavailable
from dawnchorus.records import Segment
from dawnchorus.scoring import score
from dawnchorus.vad import SpeechDetector

RATE = 16_000
SAMPLE = Path(__file__).parents[1] / "data" / "sample"


def two_lamps() -> tuple[NDArray[np.int16], str]:
    """A minute of the sample archive's synthetic speech and what it says."""
    rows = [json.loads(x) for x in (SAMPLE / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    [row] = [r for r in rows if "two-lamps.flac" in r["audio_filepath"]]
    with Decoder(AudioConfig()) as decoder:
        blocks = [b.samples[0] for b in decoder.open(str(SAMPLE / row["audio_filepath"]), RATE)]
    return np.concatenate(blocks), row["text"]


class TestWhisper(EngineContract):
    config = EngineConfig(name="whisper", threads=1)

    @classmethod
    def heard(cls, rate: int) -> list[Waveform]:
        speech = two_lamps()[0].astype(np.float32) / 32768
        times = ((0.0, 3.0), (3.0, 8.0), (8.0, 9.5), (9.5, 14.0), (14.0, 16.0))
        return [speech[round(a * rate) : round(b * rate)] for a, b in times]


@pytest.mark.slow
class TestWhisperFloat32(TestWhisper):
    config = EngineConfig(name="whisper", threads=1, dtype="float32")


def test_the_embedded_weights_are_pinned() -> None:
    identity = WhisperEngine(EngineConfig()).identity()
    assert (identity.model, identity.facts["weights_sha256"]) == ("tiny.en", EMBEDDED_SHA256)


def test_dtype_and_decoding_are_part_of_the_identity() -> None:
    default = WhisperEngine(EngineConfig()).identity()
    for other in (
        EngineConfig(dtype="float32"),
        EngineConfig(redo_logprob=-0.7),
        EngineConfig(options={"margin_seconds": 30}),
    ):
        assert WhisperEngine(other).identity() != default


def test_weights_that_changed_are_hashed_anew(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(b"one")
    before = weights_sha256(path)
    path.write_bytes(b"others")
    assert weights_sha256(path) != before


def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match="no weights"):
        WhisperEngine(EngineConfig(model=str(tmp_path))).load()


def test_broken_weights_are_engine_unavailable(tmp_path: Path) -> None:
    shutil.copytree(model_path(None, None), tmp_path / "model")
    (tmp_path / "model" / "model.bin").write_bytes(b"not a model")
    with pytest.raises(EngineUnavailable, match="cannot be loaded"):
        WhisperEngine(EngineConfig(model=str(tmp_path / "model"), threads=1)).load()


def sounds() -> dict[str, NDArray[np.float64]]:
    """Ten seconds each of what is not speech."""
    rng = np.random.default_rng(5)
    n = 10 * RATE
    t = np.arange(n) / RATE
    white = rng.normal(0, 1, n)
    spectrum = np.fft.rfft(white) / np.sqrt(np.maximum(np.arange(n // 2 + 1), 1))
    clicks = np.zeros(n)
    clicks[:: RATE // 3] = 1
    pink = np.fft.irfft(spectrum, n)
    return {
        "silence": np.zeros(n),
        "faint": rng.integers(-1, 2, n) / 32768,
        "white": white * 0.1,
        "white_loud": white * 0.3,
        "pink": pink / np.abs(pink).max() * 0.5,
        "clicks": clicks * 0.8,
        "hum": 0.3 * np.sin(2 * np.pi * 50 * t) + 0.1 * np.sin(2 * np.pi * 150 * t),
        "tone_440": 0.5 * np.sin(2 * np.pi * 440 * t),
        "tone_1000": 0.9 * np.sin(2 * np.pi * 1000 * t),
        "beeps": 0.5 * np.sin(2 * np.pi * 800 * t) * (t % 1 < 0.3),
        "sweep": 0.4 * np.sin(2 * np.pi * (100 + 150 * t) * t),
    }


@pytest.fixture(scope="module")
def engine() -> WhisperEngine:
    engine = WhisperEngine(EngineConfig(threads=1))
    engine.load()
    return engine


@pytest.mark.parametrize("name", list(sounds()))
def test_no_words_are_invented_where_nobody_speaks(engine: WhisperEngine, name: str) -> None:
    samples = np.clip(np.rint(sounds()[name] * 32767), -32768, 32767).astype(np.int16)
    params = chunk_params(VadConfig(), ChunkingConfig(), RATE, engine.max_chunk_seconds)
    stream = ChunkStream(params, None, SpeechDetector())
    waveforms = [w.astype(np.float32) / 32768 for _, w in stream.push(samples) + stream.finish()]
    assert bool(waveforms) == (name in ("white_loud",)), "the others never come to the engine"
    assert [h.text for h in engine.transcribe(waveforms)] == [""] * len(waveforms)


@pytest.fixture(scope="module")
def spoken() -> tuple[NDArray[np.int16], str]:
    return two_lamps()


def hear(
    engine: WhisperEngine, samples: NDArray[np.int16], vad: VadConfig, **chunking: float
) -> list[Segment]:
    """Segments of a recording, times from its start, as the pipeline makes them."""
    params = chunk_params(vad, ChunkingConfig(**chunking), RATE, engine.max_chunk_seconds)  # type: ignore[arg-type]
    stream = ChunkStream(params, None, SpeechDetector())
    segments = []
    for chunk, part in stream.push(samples) + stream.finish():
        [heard] = engine.transcribe([part.astype(np.float32) / np.float32(32768)])
        start, end = ((x - chunk.input_start) / RATE for x in (chunk.start, chunk.end))
        segments += owned(heard.segments, start, end)
    return segments


def test_speech_is_heard_with_its_words(engine: WhisperEngine, spoken: tuple[NDArray[np.int16], str]) -> None:
    samples, text = spoken
    segments = hear(engine, samples, VadConfig())
    wer = score(text, " ".join(s.text for s in segments)).wer
    assert wer is not None
    assert wer < 0.1
    for segment in segments:
        assert "".join(w.word for w in segment.words).split() == segment.text.split()
        assert all(a.end <= b.start + 1e-6 for a, b in pairwise(segment.words))
        assert all(w.prob is not None and 0 <= w.prob <= 1 for w in segment.words)


def test_windows_with_seams_say_every_word_once(
    engine: WhisperEngine, spoken: tuple[NDArray[np.int16], str]
) -> None:
    samples, text = spoken
    segments = hear(engine, samples, VadConfig(enabled=False), max_seconds=10.0)
    found = score(text, " ".join(s.text for s in segments))
    assert found.wer is not None
    assert found.wer < 0.1
    assert found.insertions <= 5


def test_real_speech_does_not_depend_on_its_batch(
    engine: WhisperEngine, spoken: tuple[NDArray[np.int16], str]
) -> None:
    waveform = spoken[0][: 24 * RATE].astype(np.float32) / np.float32(32768)
    pieces = np.array_split(waveform, 5)
    assert engine.transcribe(pieces) == [h for p in pieces for h in engine.transcribe([p])]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("smal.en", "There is no Whisper model named 'smal.en'. Did you mean small.en?"),
        ("/no/such/model", "There is no folder /no/such/model."),
        ("./model", "There is no folder ./model."),
    ],
)
def test_a_model_that_cannot_be_is_told_without_the_hub(name: str, said: str) -> None:
    with pytest.raises(EngineUnavailable) as caught:
        model_path(name, None)
    assert str(caught.value).startswith(said)


def test_a_hub_out_of_reach_is_no_wrong_name(tmp_path: Path) -> None:
    """In a process that may not use the network."""
    ask = "from dawnchorus.engines.whisper_weights import model_path\nmodel_path('small.en', None)"
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, env=env)
    assert "the hub did not give it: it cannot be reached" in done.stderr
