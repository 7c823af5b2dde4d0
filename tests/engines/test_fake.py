from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contract import EngineContract, LanguageModelContract

from dawnchorus.config import EngineConfig
from dawnchorus.engines.base import Request, Waveform
from dawnchorus.engines.fake import FakeEngine, waveform_hash
from dawnchorus.errors import ConfigError


class TestFake(EngineContract):
    config = EngineConfig(name="fake")


class TestFakeLanguageModel(LanguageModelContract):
    config = EngineConfig(name="fake")


def tone(seconds: float, seed: int = 0) -> Waveform:
    samples = np.random.default_rng(seed).integers(-9000, 9000, int(seconds * 16_000))
    return (samples / 32768).astype(np.float32)


def engine(tmp_path: Path, script: dict[str, Any] | None = None, **options: Any) -> FakeEngine:
    if script is not None:
        (tmp_path / "script.json").write_text(json.dumps(script))
        options["script"] = str(tmp_path / "script.json")
    return FakeEngine(EngineConfig(name="fake", options={"log": str(tmp_path / "log"), **options}))


def test_the_text_holds_the_hash_and_so_does_the_log(tmp_path: Path) -> None:
    waveforms = [tone(1, 1), tone(2, 2), tone(3, 3)]
    texts = [h.text for h in engine(tmp_path).transcribe(waveforms)]
    assert texts == ["w" + waveform_hash(w) for w in waveforms]
    lines = [json.loads(x) for x in (tmp_path / "log").read_text().splitlines()]
    assert sorted("w" + x["hash"] for x in lines) == sorted(texts)
    assert {x["pid"] for x in lines} == {os.getpid()}
    assert sorted(x["num_samples"] for x in lines) == [16_000, 32_000, 48_000]


def test_int16_and_float_have_one_hash() -> None:
    samples = np.arange(-32768, 32767, 7, dtype=np.int16)
    assert waveform_hash(samples.astype(np.float32) / 32768) == waveform_hash(
        (samples.astype(np.float64) / 32768).astype(np.float32)
    )


def test_silence_is_empty(tmp_path: Path) -> None:
    [hypothesis] = engine(tmp_path).transcribe([np.zeros(16_000, np.float32)])
    assert (hypothesis.finish_reason, hypothesis.text) == ("empty", "")


def test_the_script_is_read_at_every_call(tmp_path: Path) -> None:
    wave, other = tone(1), tone(1, seed=1)
    fake = engine(tmp_path, script={"fail_hashes": [waveform_hash(wave)]})
    failed, good = fake.transcribe([wave, other])
    assert failed.error is not None
    assert not failed.error.transient
    assert good.finish_reason == "stop"
    (tmp_path / "script.json").write_text(json.dumps({"transient_hashes": [waveform_hash(wave)]}))
    [failed] = fake.transcribe([wave])
    assert failed.error is not None
    assert failed.error.transient
    (tmp_path / "script.json").unlink()
    assert fake.transcribe([wave])[0].finish_reason == "stop"


def test_out_of_memory_splits_and_only_then_fails(tmp_path: Path) -> None:
    fake = engine(tmp_path, script={"oom_above_seconds": 4})
    long, *short = fake.transcribe([tone(5), *(tone(2, i) for i in range(6))])
    assert long.error is not None
    assert (long.error.kind, long.error.transient) == ("out_of_memory", True)
    assert all(h.finish_reason == "stop" for h in short)


def test_stall_and_pace(tmp_path: Path) -> None:
    wave = tone(1)
    fake = engine(
        tmp_path,
        script={"stall_hashes": [waveform_hash(wave)], "stall_seconds": 0.2},
        seconds_per_audio_second=0.1,
    )
    start = time.monotonic()
    fake.transcribe([wave])
    assert 0.3 <= time.monotonic() - start < 5


@pytest.mark.parametrize("once", [False, True])
def test_dies_on_demand_before_it_answers(tmp_path: Path, once: bool) -> None:
    demands = {"die_after_calls": 2} | ({"die_once": str(tmp_path / "died")} if once else {})
    (tmp_path / "script.json").write_text(json.dumps(demands))
    code = (
        "import sys, numpy as np\n"
        "from dawnchorus.config import EngineConfig\n"
        "from dawnchorus.engines.fake import FakeEngine\n"
        "fake = FakeEngine(EngineConfig(options={'log': sys.argv[1], 'script': sys.argv[2]}))\n"
        "for i in range(1, 5): fake.transcribe([np.full(1600, i / 10, np.float32)])\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "log"), str(tmp_path / "script.json")]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert len((tmp_path / "log").read_text().splitlines()) == 2
    if once:
        assert subprocess.run(command, check=False).returncode == 0


def test_options_and_script_keys_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no option 'logs'"):
        FakeEngine(EngineConfig(options={"logs": "x"}))
    with pytest.raises(ConfigError, match="unknown key 'fail'"):
        engine(tmp_path, script={"fail": []}).transcribe([tone(1)])


def test_options_are_no_part_of_the_identity(tmp_path: Path) -> None:
    assert engine(tmp_path).identity() == FakeEngine(EngineConfig()).identity()


def test_prompts_are_answered_and_logged(tmp_path: Path) -> None:
    fake = engine(tmp_path)
    first, second, again = fake.complete([Request(p, 8) for p in ("one", "two", "one")])
    assert first.text == again.text != second.text
    assert len((tmp_path / "log").read_text().splitlines()) == 3
