"""`doctor`: finds what is there, and says how to mend what is not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dawnchorus import config, doctor, installing
from dawnchorus.doctor import Check


def found(**tree: object) -> dict[str, Check]:
    settings = config.build({"input": "in", "output": "out", **tree}) if tree else None
    return {c.name: c for c in doctor.checks(settings)}


def test_this_machine_is_looked_at() -> None:
    checks = found()
    assert "engine fake" not in checks, "it is for tests"
    for name in (
        "python",
        "ray",
        "engine whisper",
        "audio libraries",
        "decoding",
    ):
        assert checks[name].ok, checks[name]
    for name in ("machine", "scratch space"):  # it may have little of either, which is no fault of ours
        assert "GiB" in checks[name].detail
    assert "pinned" in checks["ray"].detail
    assert "opus" in checks["audio libraries"].detail
    assert "silero" in checks["voice activity detection"].detail
    assert "input" not in checks


def test_storage_of_a_configuration(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    checks = found(input=str(tmp_path / "in"), output=str(tmp_path / "out"), engine={"name": "fake"})
    assert checks["input"].ok
    assert checks["output"].ok
    assert not list((tmp_path / "out").iterdir()), "the probe is gone"
    for n in (0, 1):
        (tmp_path / f"man_{n}.jsonl").write_text("{}")
    checks = found(input=str(tmp_path / "man__OP_0..1_CL_.jsonl"), output=str(tmp_path / "out"))
    assert checks["input"].detail == "2 shards can be read"
    assert not found(input=str(tmp_path / "man_{0..2}.jsonl"), output=str(tmp_path / "out"))["input"].ok
    checks = found(input=str(tmp_path / "*.wav"), output="/proc/nothing", vad={"enabled": False})
    assert not checks["input"].ok
    assert "matches nothing" in checks["input"].detail
    assert not checks["output"].ok
    assert checks["output"].fix
    assert "voice activity detection" not in checks


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    checks = found(
        input="https://ann:hunter2@localhost:1/a.wav?X-Amz-Signature=hunter2", output=str(tmp_path)
    )
    assert not checks["input"].ok
    assert "hunter2" not in str(checks)


def test_only_the_configured_engine_has_to_be_here(tmp_path: Path) -> None:
    missing = str(tmp_path / "no-such-model")
    checks = found(input=str(tmp_path), output=str(tmp_path), engine={"name": "whisper", "model": missing})
    assert not checks["engine whisper"].ok
    assert checks["engine whisper"].fix
    checks = found(input=str(tmp_path), output=str(tmp_path), engine={"name": "fake"})
    assert checks["engine fake"].ok
    assert checks["engine whisper"].ok
    checks = found(input=str(tmp_path), output=str(tmp_path), engine={"name": "whispr"})
    assert all(c.ok for n, c in checks.items() if n.startswith("engine "))


def test_engines_that_nobody_asked_for_are_only_mentioned(tmp_path: Path) -> None:
    """Packages and modes, never a look for their models: that could take a download."""
    checks = found(input=str(tmp_path), output=str(tmp_path), engine={"name": "fake"})
    assert checks["engine hf"].detail in (
        "installed; has an LLM mode",
        "not installed, and not asked for; has an LLM mode: " + installing.command("hf"),
    )
    assert "transcribes and has an LLM mode" in checks["engine salm"].detail
    assert "transcribes" in checks["engine nemo_asr"].detail


def test_the_language_model_that_is_asked_for_has_to_be_here(tmp_path: Path) -> None:
    llm = {"prompts": ["summary"], "engine": "hf", "model": str(tmp_path / "none")}
    checks = found(input=str(tmp_path), output=str(tmp_path), engine={"name": "fake"}, llm=llm)
    assert not checks["language model hf"].ok
    assert checks["language model hf"].fix
    assert "engine hf" not in checks
    llm = {"prompts": ["summary"]}
    checks = found(input=str(tmp_path), output=str(tmp_path), engine={"name": "fake"}, llm=llm)
    assert checks["language model fake"].ok


def test_the_engine_says_its_licence_and_language() -> None:
    assert found()["engine whisper"].detail.endswith("English only, licence MIT")


def test_missing_packages_are_named_with_their_fix(tmp_path: Path) -> None:
    """In a process that cannot find the audio libraries."""
    for name in ("av", "soundfile", "onnxruntime"):
        (tmp_path / f"{name}.py").write_text(f"raise ImportError('{name}')")
    show = "from dawnchorus import doctor\nfor c in doctor.checks(): print(c.ok, c.name, c.fix, sep='|')"
    done = subprocess.run(
        [sys.executable, "-c", show],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    said = {line.split("|")[1]: line.split("|") for line in done.stdout.splitlines()}
    assert said["audio libraries"][::2] == ["False", installing.command("audio")]
    assert said["voice activity detection"][::2] == ["False", installing.command("audio")]


def test_a_proxy_before_this_machine_itself_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    assert "proxy" not in found()
    monkeypatch.setenv("HTTPS_PROXY", "http://ann:hunter2@proxy:3128")
    proxy = found()["proxy"]
    assert not proxy.ok
    assert "NO_PROXY" in proxy.fix
    assert "hunter2" not in proxy.detail
    monkeypatch.setenv("no_proxy", "localhost,.example.org")
    assert found()["proxy"].ok


@pytest.mark.parametrize("name", ["whisper", "hf"])
def test_a_device_that_cannot_be_used_is_told(tmp_path: Path, name: str) -> None:
    """In a process that sees no GPU, whatever the machine has."""
    engine = ["engine.name=fake", "llm.prompts=[summary]", "llm.engine=hf", "llm.device=cuda"]
    asked = ["engine.device=cuda"] if name == "whisper" else engine
    if name == "hf":
        pytest.importorskip("torch")
        from engines.tiny_chat import build

        asked.append(f"llm.model={build(tmp_path / 'model')}")
    (tmp_path / "in").mkdir()
    words = ["doctor", f"input={tmp_path / 'in'}", f"output={tmp_path / 'out'}", *asked]
    done = subprocess.run(
        [sys.executable, "-m", "dawnchorus.cli", *words],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "400"},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0, done.stdout
    assert "sees no GPU that it can use" in done.stdout
    assert "nvidia-smi" in done.stdout
    assert "pip install" not in done.stdout.partition("sees no GPU")[2].splitlines()[0]
