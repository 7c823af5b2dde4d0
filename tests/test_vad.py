from __future__ import annotations

import sys
from subprocess import run

import numpy as np
import pytest
from numpy.typing import NDArray

from dawnchorus.vad import FRAME_SAMPLES, SAMPLING_RATE, SpeechDetector


@pytest.fixture(scope="module")
def detector() -> SpeechDetector:
    return SpeechDetector()


def hear(detector: SpeechDetector, samples: NDArray[np.int16], sizes: list[int]) -> NDArray[np.float32]:
    stream = detector.stream()
    outputs, start = [], 0
    for size in sizes:
        outputs.append(stream.push(samples[start : start + size]))
        start += size
    outputs += [stream.push(samples[start:]), stream.finish()]
    return np.concatenate(outputs)


def babble(seconds: float) -> NDArray[np.int16]:
    """A buzz with moving formants and pauses: enough like a voice that the network does not sit still."""
    t = np.arange(round(seconds * SAMPLING_RATE)) / SAMPLING_RATE
    rng = np.random.default_rng(3)
    pitch = 110 + 20 * np.sin(2 * np.pi * 0.7 * t)
    source = np.sign(np.sin(2 * np.pi * np.cumsum(pitch) / SAMPLING_RATE))
    gate = (np.sin(2 * np.pi * 0.4 * t) > -0.3) * (0.6 + 0.4 * np.sin(2 * np.pi * 4 * t))
    return np.clip(source * gate * 8000 + rng.normal(0, 50, len(t)), -32768, 32767).astype(np.int16)


@pytest.mark.parametrize("sizes", [[1], [511, 513], [SAMPLING_RATE] * 4, [40_000, 1, 2]])
def test_probabilities_do_not_depend_on_the_pushes_in_any_bit(
    detector: SpeechDetector, sizes: list[int]
) -> None:
    samples = babble(20.3)
    whole = hear(detector, samples, [])
    assert len(whole) == -(-len(samples) // FRAME_SAMPLES)
    assert whole.dtype == np.float32
    assert whole.std() > 0.01
    assert np.array_equal(whole, hear(detector, samples, sizes))


def test_streams_do_not_share_state(detector: SpeechDetector) -> None:
    samples = babble(10)
    alone = hear(detector, samples, [])
    one, two = detector.stream(), detector.stream()
    one.push(samples)
    two.push(samples[::-1].copy())
    two.finish()
    assert np.array_equal(alone, hear(detector, samples, []))
    assert np.array_equal(one.finish(), alone[256:])


@pytest.mark.parametrize("length", [0, 1, 511, 512, 513])
def test_short_streams(detector: SpeechDetector, length: int) -> None:
    probabilities = hear(detector, np.zeros(length, np.int16), [])
    assert len(probabilities) == -(-length // FRAME_SAMPLES)
    assert (probabilities < 0.5).all()


def test_silence_is_no_speech(detector: SpeechDetector) -> None:
    assert hear(detector, np.zeros(10 * SAMPLING_RATE, np.int16), []).max() < 0.1


def test_version_names_weights_and_runtime(detector: SpeechDetector) -> None:
    assert detector.version.startswith("silero_vad_v6 sha256:")
    assert "onnxruntime:" in detector.version


def test_neither_import_nor_weights_load_a_model_package() -> None:
    code = (
        "import sys, dawnchorus.vad as v; assert 'onnxruntime' not in sys.modules; v.SpeechDetector();"
        "assert 'faster_whisper' not in sys.modules and 'ctranslate2' not in sys.modules"
    )
    assert run([sys.executable, "-c", code], check=False).returncode == 0
