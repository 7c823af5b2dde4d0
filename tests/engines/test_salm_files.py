"""Finding, staging and bundling: files only, no NeMo and no torch."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import s3_server
from dawnchorus import storage
from dawnchorus.cli import app
from dawnchorus.config import EngineConfig
from dawnchorus.engines.salm import SalmEngine
from dawnchorus.engines.salm_bundle import ATTRIBUTION, bundle
from dawnchorus.engines.salm_files import DEFAULT_MODEL, PINNED, verify
from dawnchorus.engines.salm_manifest import MANIFEST, WEIGHTS, parsed
from dawnchorus.engines.salm_source import find
from dawnchorus.errors import ConfigError, EngineUnavailable
from tiny_salm.build import AUDIO_TAG, BACKBONE, CORPUS, _tokenizer

LLM = "Qwen/Qwen3-1.7B"
COMMIT = PINNED[DEFAULT_MODEL]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    _tokenizer(CORPUS, 512).save_pretrained(folder)
    return folder


def config(**changes: Any) -> str:
    found = {
        "pretrained_llm": LLM,
        "pretrained_asr": "nvidia/canary-1b-flash",
        "audio_locator_tag": AUDIO_TAG,
    }
    return json.dumps(found | changes)


@pytest.fixture
def whole(tmp_path: Path, tokenizer: Path) -> Path:
    """A folder with everything; its weights are a few bytes."""
    folder = tmp_path / "whole"
    shutil.copytree(tokenizer, folder)
    (folder / BACKBONE).mkdir()
    (folder / BACKBONE / "config.json").write_text(
        '{"max_position_embeddings": 4096, "transformers_version": "5"}'
    )
    (folder / "config.json").write_text(config(pretrained_llm=BACKBONE))
    (folder / WEIGHTS).write_bytes(b"weights" * 1000)
    return folder


@pytest.fixture
def hub(tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache with both repositories at the pinned commits, as huggingface_hub lays it out."""
    import huggingface_hub.constants

    cache = tmp_path / "hub"
    files = {
        DEFAULT_MODEL: {WEIGHTS: whole / WEIGHTS},
        LLM: {"config.json": whole / BACKBONE / "config.json"},
    }
    files[LLM] |= {f.name: f for f in whole.glob("*token*")}
    (tmp_path / "release.json").write_text(config())
    files[DEFAULT_MODEL]["config.json"] = tmp_path / "release.json"
    for name, wanted in files.items():
        repository = cache / f"models--{name.replace('/', '--')}"
        snapshot = repository / "snapshots" / PINNED[name]
        snapshot.mkdir(parents=True)
        (repository / "blobs").mkdir()
        for file, source in wanted.items():
            blob = repository / "blobs" / hashlib.sha256(source.read_bytes()).hexdigest()
            shutil.copy(source, blob)
            (snapshot / file).symlink_to(blob)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return cache


def engine(model: str | Path | None, **options: Any) -> SalmEngine:
    name = None if model is None else str(model)
    cache = options.pop("cache", None)
    return SalmEngine(EngineConfig(name="salm", model=name, cache=cache, options=options))


def test_a_folder_is_used_where_it_is(whole: Path) -> None:
    files = find(str(whole), None)
    assert (files.weights, files.tokenizer, files.backbone) == (whole / WEIGHTS, whole, whole / BACKBONE)
    assert find(storage.file_uri(str(whole)), None) == files
    assert verify(files) == hashlib.sha256((whole / WEIGHTS).read_bytes()).hexdigest()
    assert engine(whole).context_tokens == 4096
    assert engine(whole).num_tokens("") == 0
    assert engine(whole).num_tokens("one two") > 1


@pytest.mark.parametrize("name", ["config.json", WEIGHTS, "tokenizer.json", f"{BACKBONE}/config.json"])
def test_a_missing_file_is_named(whole: Path, name: str) -> None:
    (whole / name).unlink()
    with pytest.raises(EngineUnavailable, match=Path(name).name):
        find(str(whole), None)


def test_what_is_neither_here_nor_on_the_hub_is_said(hub: Path) -> None:
    for model in ("/no/such/folder", "nvidia/no-such-model", "no-such-model"):
        with pytest.raises(EngineUnavailable):
            find(model, None)
    with pytest.raises(EngineUnavailable):
        find(None, "0" * 40)


def test_the_default_is_the_pinned_release_with_the_tokenizer_of_its_language_model(
    hub: Path, whole: Path
) -> None:
    files = find(None, None)
    assert files.revision == COMMIT
    assert files.tokenizer == files.backbone == hub / "models--Qwen--Qwen3-1.7B" / "snapshots" / PINNED[LLM]
    identity = engine(None).identity()
    assert (identity.model, identity.revision) == (DEFAULT_MODEL, COMMIT)
    assert identity.english_only
    assert identity.licence is None  # the class's
    assert verify(files) == identity.facts["weights_sha256"]


def test_the_cache_is_believed_for_the_plan_and_verified_for_loading(hub: Path) -> None:
    blob = find(None, None).weights
    assert blob is not None
    expected = engine(None).identity()
    blob.resolve().write_bytes(b"damaged")
    assert engine(None).identity() == expected
    with pytest.raises(EngineUnavailable, match="not what it should be"):
        verify(find(None, None))


def test_the_identity_is_of_the_content(whole: Path) -> None:
    before = engine(whole).identity()
    assert engine(whole, decoder="static", cache="/x", batch_tokens=7).identity() == before
    assert engine(whole, max_tokens=100).identity() != before
    assert engine(whole, prompt="Write down: ").identity() != before
    for name, content in (
        (WEIGHTS, "other"),
        ("config.json", config(lora={"r": 4})),
        (f"{BACKBONE}/config.json", '{"max_position_embeddings": 9}'),
    ):
        (whole / name).write_text(content)
        after = engine(whole).identity()
        assert after.facts != before.facts
        before = after
    (whole / BACKBONE / "config.json").write_text(
        '{"max_position_embeddings": 9, "transformers_version": "6"}'
    )
    assert engine(whole).identity() == before


def test_another_model_is_not_called_canary(whole: Path) -> None:
    (whole / "config.json").write_text(config(pretrained_llm=BACKBONE, pretrained_asr="mine"))
    identity = engine(whole).identity()
    assert not identity.english_only
    assert identity.licence is not None
    assert "NVIDIA" not in identity.licence.attribution


# Bundles


def test_a_bundle_of_the_release_is_complete_and_the_same_model(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    made = bundle(None, str(tmp_path / "bundle"))
    folder = tmp_path / "bundle"
    assert json.loads((folder / "config.json").read_text())["pretrained_llm"] == BACKBONE
    assert str(hub) not in "".join(f.read_text(errors="replace") for f in folder.rglob("*.*"))
    said = (folder / ATTRIBUTION).read_text()
    for needed in (DEFAULT_MODEL, COMMIT, "NVIDIA", "creativecommons.org/licenses/by/4.0", "Changes made"):
        assert needed in said
    check = subprocess.run(["sha256sum", "-c", MANIFEST], cwd=folder, capture_output=True, text=True)
    assert check.returncode == 0, check.stderr
    files = [f for f in folder.rglob("*") if f.is_file()]
    assert (made.num_files, made.size_bytes) == (len(files), sum(f.stat().st_size for f in files))
    expected = engine(None).identity().facts
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "empty"))
    assert engine(folder).identity().facts == expected
    assert verify(find(str(folder), None)) == made.weights_sha256


@pytest.mark.parametrize("name", [WEIGHTS, "config.json", "tokenizer.json", f"{BACKBONE}/config.json"])
def test_a_changed_bundle_is_refused(whole: Path, tmp_path: Path, name: str) -> None:
    bundle(str(whole), str(tmp_path / "bundle"))
    with (tmp_path / "bundle" / name).open("a") as f:
        f.write(" ")
    with pytest.raises(EngineUnavailable, match="not what it should be"):
        verify(find(str(tmp_path / "bundle"), None))


def test_the_command_makes_a_bundle(whole: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["bundle", str(whole), str(tmp_path / "bundle")])
    assert result.exit_code == 0, result.output
    assert "engine.model=" in result.output
    assert verify(find(str(tmp_path / "bundle"), None))
    result = CliRunner().invoke(app, ["bundle", str(tmp_path / "nothing"), str(tmp_path / "other")])
    assert result.exit_code == 2


@pytest.mark.parametrize(
    "text",
    [
        f"{'0' * 64}  {WEIGHTS}\n{'0' * 64}  ../../etc/passwd\n",
        f"{'0' * 64}  {WEIGHTS}\n{'0' * 64}  /etc/passwd\n",
        f"{'0' * 64}  {WEIGHTS}\n{'0' * 64}  llm_backbone/../x\n",
        f"{'0' * 64}  config.json\n",
        "nonsense\n",
    ],
)
def test_a_manifest_names_plain_files_only(text: str) -> None:
    with pytest.raises(EngineUnavailable):
        parsed(text, "here")


# Staging from a bucket


@pytest.fixture
def bucket(s3_environment: s3_server.S3Server, whole: Path) -> str:
    url = f"{s3_environment.make_bucket()}/models/canary"
    bundle(str(whole), url)
    return url


def test_a_bundle_in_a_bucket_is_staged_once_and_verified(bucket: str, whole: Path, tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    assert engine(bucket, cache=cache).identity().facts == engine(whole).identity().facts
    assert list((tmp_path / "cache").rglob(WEIGHTS)) == []  # the plan needs no weights
    files = find(bucket, None, cache)
    assert files.weights is not None
    assert verify(files) == hashlib.sha256((whole / WEIGHTS).read_bytes()).hexdigest()
    stamps = {f: f.stat().st_mtime_ns for f in (tmp_path / "cache").rglob("*") if f.is_file()}
    assert find(bucket, None, cache) == files
    assert {f: f.stat().st_mtime_ns for f in stamps if f.suffix != ".lock"} == {
        f: t for f, t in stamps.items() if f.suffix != ".lock"
    }
    assert files.weights.stat().st_mode & 0o044


def test_two_processes_stage_at_once(bucket: str, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    code = (
        "import sys; from dawnchorus.engines.salm_source import find; "
        "from dawnchorus.engines.salm_files import verify; "
        "f = find(sys.argv[1], None, sys.argv[2]); print(f.weights, verify(f))"
    )
    command = [sys.executable, "-c", code, bucket, str(tmp_path / "cache")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [p.communicate(timeout=60)[0] for p in both]
    assert [p.returncode for p in both] == [0, 0]
    assert said[0] == said[1] != ""
    assert list((tmp_path / "cache").rglob(".fetch-*")) == []


def test_what_a_killed_process_left_is_removed(bucket: str, tmp_path: Path) -> None:
    folder = find(bucket, None, str(tmp_path), weights=False).config.parent
    (folder / ".fetch-torn").write_bytes(b"half")
    find(bucket, None, str(tmp_path))
    assert not (folder / ".fetch-torn").exists()


def test_a_damaged_object_is_refused_and_leaves_nothing(bucket: str, tmp_path: Path) -> None:
    storage.put_atomic(f"{bucket}/{WEIGHTS}", b"other weights")
    cache = tmp_path / "cache"
    with pytest.raises(EngineUnavailable, match="not what it should be"):
        find(bucket, None, str(cache))
    assert list(cache.rglob(WEIGHTS)) == list(cache.rglob(".fetch-*")) == []


def test_a_folder_of_a_bucket_without_manifest_is_no_bundle(bucket: str, tmp_path: Path) -> None:
    storage.delete(f"{bucket}/{MANIFEST}")
    with pytest.raises(EngineUnavailable, match="dawnchorus bundle MODEL s3://"):
        find(bucket, None, str(tmp_path))


@pytest.mark.parametrize(
    "options",
    [
        {"decoder": "fast"},
        {"prompt": 5},
        {"max_tokens": "many"},
        {"silence_dbfs": True},
        {"max_tokens": 0},
    ],
)
def test_wrong_options_are_said(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        engine("/x", **options)
    engine("/x", silence_dbfs=-60, decoder_seconds=60, cache=None)
    with pytest.raises(ConfigError, match="dtype"):
        SalmEngine(EngineConfig(name="salm", dtype="int8"))
