from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from contract import EngineContract

from dawnchorus.config import EngineConfig
from dawnchorus.engines.whisper import WhisperEngine
from dawnchorus.engines.whisper_weights import EMBEDDED_SHA256, model_path, weights_sha256
from dawnchorus.errors import EngineUnavailable

RATE = 16_000


class TestWhisper(EngineContract):
    config = EngineConfig(name="whisper", threads=1)


@pytest.mark.slow
class TestWhisperFloat32(EngineContract):
    config = EngineConfig(name="whisper", threads=1, dtype="float32")


def test_the_embedded_weights_are_pinned() -> None:
    identity = WhisperEngine(EngineConfig()).identity()
    assert (identity.model, identity.facts["weights_sha256"]) == ("tiny.en", EMBEDDED_SHA256)


def test_dtype_and_decoding_are_part_of_the_identity() -> None:
    default = WhisperEngine(EngineConfig()).identity()
    for other in (
        EngineConfig(dtype="float32"),
        EngineConfig(redo_logprob=-0.5),
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
