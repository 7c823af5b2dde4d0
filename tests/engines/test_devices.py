"""Devices that are there and of no use."""

from __future__ import annotations

import numpy as np
import pytest

from dawnchorus.config import EngineConfig
from dawnchorus.engines import devices
from dawnchorus.engines.checks import error
from dawnchorus.engines.whisper import WhisperEngine
from dawnchorus.errors import EngineUnavailable
from dawnchorus.records import Hypothesis

CUBLAS = "Library libcublas.so.12 is not found or cannot be loaded"


def test_a_model_that_loads_and_does_not_run_is_none() -> None:
    devices.prove(Hypothesis(finish_reason="empty"))
    devices.prove(error("not_finite", "Of this second, perhaps."))
    with pytest.raises(EngineUnavailable, match=r"does not run: .*2\.00 GiB"):
        devices.prove(error("out_of_memory", "Tried to allocate 2.00 GiB.", transient=True))


@pytest.mark.parametrize(
    ("said", "fix"),
    [
        (CUBLAS, "nvidia-cublas-cu12"),
        ("CUDA driver version is insufficient for CUDA runtime version", "nvidia-smi"),
        ("File model.bin is incomplete", "anew"),
    ],
)
def test_a_fault_of_the_gpu_is_no_fault_of_the_model(said: str, fix: str) -> None:
    assert fix in devices.fix_of(RuntimeError(said), "Copy it anew.")


def test_what_whisper_lacks_to_compute_is_said_when_it_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    """CTranslate2 loads a model without cuBLAS, and looks for it afterwards."""

    def transcribe(self: WhisperEngine, waveforms: list[np.ndarray]) -> list[Hypothesis]:
        raise RuntimeError(CUBLAS)

    monkeypatch.setattr(WhisperEngine, "transcribe", transcribe)
    with pytest.raises(EngineUnavailable, match="nvidia-cublas-cu12"):
        WhisperEngine(EngineConfig(device="cpu")).load()
