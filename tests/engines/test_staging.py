"""Models that lie in a bucket: fetched once per machine, only what is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_chat import build

import s3_server
from dawnchorus import storage
from dawnchorus.config import EngineConfig
from dawnchorus.engines.hf import HfLanguageModel
from dawnchorus.engines.staging import cache_folder, staged_folder
from dawnchorus.engines.whisper_weights import model_path
from dawnchorus.errors import EngineUnavailable


@pytest.fixture
def bucket(s3_environment: s3_server.S3Server) -> str:
    return f"{s3_environment.make_bucket()}/models/mine"


def names(folder: Path) -> set[str]:
    return {p.name for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock"}


def test_a_whisper_model_is_fetched_once_and_again_when_it_changes(bucket: str, tmp_path: Path) -> None:
    for name in ("config.json", "model.bin", "old/model.bin"):
        storage.put_atomic(f"{bucket}/{name}", name.encode())
    cache = str(tmp_path / "cache")
    folder = model_path(bucket, None, cache)
    assert names(folder) == {"config.json", "model.bin"}, "what lies deeper is another model"
    assert folder.parent == cache_folder(cache)
    stamp = (folder / "model.bin").stat().st_mtime_ns
    assert model_path(bucket, None, cache) == folder
    assert (folder / "model.bin").stat().st_mtime_ns == stamp
    storage.put_atomic(f"{bucket}/model.bin", b"another")
    newer = model_path(bucket, None, cache)
    assert newer != folder
    assert (newer / "model.bin").read_bytes() == b"another"


def test_of_a_language_model_weights_come_only_where_they_are_needed(bucket: str, tmp_path: Path) -> None:
    model = build(tmp_path / "model")
    for path in model.iterdir():
        storage.put_file(f"{bucket}/{path.name}", str(path))
    config = {"name": "hf", "threads": 1, "dtype": "float32"}
    near = HfLanguageModel(EngineConfig(model=str(model), **config))
    far = HfLanguageModel(EngineConfig(model=bucket, cache=str(tmp_path / "cache"), **config))
    assert far.num_tokens("one two") == near.num_tokens("one two")
    assert not {n for n in names(tmp_path / "cache") if n.endswith(".safetensors")}
    assert far.identity().facts == near.identity().facts
    assert far.identity().model == bucket
    far.load()
    far.close()


def test_an_empty_place_is_said(bucket: str, tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match="There is no model in"):
        staged_folder(bucket, ("*",), str(tmp_path))


def test_a_cache_that_cannot_be_made_is_said(bucket: str, tmp_path: Path) -> None:
    storage.put_atomic(f"{bucket}/config.json", b"{}")
    (tmp_path / "file").touch()
    with pytest.raises(EngineUnavailable, match=r"cannot be kept in .*Not a directory.*DAWNCHORUS_CACHE"):
        staged_folder(bucket, ("*",), str(tmp_path / "file"))
