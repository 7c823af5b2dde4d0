"""What the embedded English-only model writes when other languages are spoken to it, by espeak-ng."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from dawnchorus.chunking import ChunkStream, chunk_params
from dawnchorus.config import ChunkingConfig, EngineConfig, VadConfig
from dawnchorus.engines.whisper import WhisperEngine
from dawnchorus.language import maybe_not_english
from dawnchorus.vad import SpeechDetector

RATE = 16_000
TEXTS: dict[str, str] = json.loads(
    (Path(__file__).parents[1] / "data" / "languages.json").read_text(encoding="utf-8")
)
ENGLISH = (
    "Good morning, I am calling because the bill that I received yesterday is not right. Last month I had "
    "already paid in advance and now they ask me for the same amount once again. I would like to speak to "
    "somebody who can check my account and tell me when I will get my money back."
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed"),
]


@pytest.fixture(scope="module")
def engine() -> WhisperEngine:
    engine = WhisperEngine(EngineConfig(threads=1))
    engine.load()
    return engine


def doubted(engine: WhisperEngine, voice: str, text: str) -> bool:
    """Whether the check tells what the engine hears of a spoken text, as the pipeline cuts it."""
    import soundfile
    import soxr

    command = ["espeak-ng", "-v", voice, "-s", "150", "--stdout", text]
    spoken = subprocess.run(command, capture_output=True, check=True).stdout
    samples, rate = soundfile.read(io.BytesIO(spoken))
    whole = np.rint(soxr.resample(samples, rate, RATE) * 32767).astype(np.int16)
    params = chunk_params(VadConfig(), ChunkingConfig(), RATE, engine.max_chunk_seconds)
    stream = ChunkStream(params, None, SpeechDetector())
    parts = [w.astype(np.float32) / 32768 for _, w in stream.push(whole) + stream.finish()]
    heard = engine.transcribe(parts)
    num_tokens = sum(h.num_tokens for h in heard)
    logprob = sum(h.num_tokens * (h.avg_logprob or 0.0) for h in heard) / max(1, num_tokens)
    return maybe_not_english(" ".join(h.text for h in heard), logprob)


@pytest.mark.parametrize("voice", ["es", "de", "fr", "it", "pt", "nl", "pl", "fi", "ru"])
def test_other_languages_are_told(engine: WhisperEngine, voice: str) -> None:
    assert doubted(engine, voice, TEXTS[voice])


@pytest.mark.parametrize("voice", ["en-us", "en-gb-scotland", "en-029"])
def test_accents_are_not(engine: WhisperEngine, voice: str) -> None:
    assert not doubted(engine, voice, ENGLISH)
