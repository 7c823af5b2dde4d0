"""What every engine promises, as a class of tests. A new engine's test file subclasses it.

    class TestMyEngine(EngineContract):
        config = EngineConfig(name="mine", threads=1)

Runs with any waveforms; an engine that needs real speech to show something has its own tests for it.
"""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import ClassVar

import numpy as np
import pytest

from dawnchorus.config import EngineConfig
from dawnchorus.engines import ENGINES, LANGUAGE_MODELS, create, create_language_model, engine_class
from dawnchorus.engines.base import Engine, LanguageModel, Request, Waveform
from dawnchorus.errors import ConfigError
from dawnchorus.records import Hypothesis

HEAVY = ("torch", "nemo", "ctranslate2", "faster_whisper", "onnxruntime", "transformers", "av")


def waveform(seconds: float, rate: int, seed: int) -> Waveform:
    """A buzz with a moving pitch and syllables: something for a model to hear."""
    t = np.arange(round(seconds * rate)) / rate
    rng = np.random.default_rng(seed)
    pitch = rng.uniform(90, 220) * (1 + 0.1 * np.sin(2 * np.pi * rng.uniform(0.5, 2) * t))
    source = np.sign(np.sin(2 * np.pi * np.cumsum(pitch) / rate)) * np.abs(np.sin(2 * np.pi * 2 * t))
    samples = np.rint(3000 * source + rng.normal(0, 100, len(t)))
    return (np.clip(samples, -32768, 32767) / 32768).astype(np.float32)


def assert_close(one: Hypothesis, other: Hypothesis) -> None:
    """Equal in everything but the last digits of probabilities."""
    assert one.text == other.text
    assert (one.finish_reason, one.num_tokens, one.flags) == (
        other.finish_reason,
        other.num_tokens,
        other.flags,
    )
    assert [(s.start, s.end) for s in one.segments] == [(s.start, s.end) for s in other.segments]
    assert one.avg_logprob == pytest.approx(other.avg_logprob, abs=0.02)


class EngineContract:
    """Every engine in `ENGINES` passes this."""

    config: ClassVar[EngineConfig]

    @classmethod
    def heard(cls, rate: int) -> list[Waveform]:
        """Five waveforms, shape (num_samples,), that the engine hears as more than one text."""
        return [waveform(s, rate, i) for i, s in enumerate((0.5, 3.0, 1.2, 5.0, 2.0))]

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls) -> Iterator[Engine]:
        engine = create(cls.config)
        engine.load()
        yield engine
        engine.close()
        engine.close()

    @pytest.fixture(scope="class")
    @classmethod
    def waveforms(cls, engine: Engine) -> list[Waveform]:
        return cls.heard(engine.sampling_rate)

    @pytest.fixture(scope="class")
    @classmethod
    def together(cls, engine: Engine, waveforms: list[Waveform]) -> list[Hypothesis]:
        return engine.transcribe(waveforms)

    def test_is_an_engine(self, engine: Engine) -> None:
        assert isinstance(engine, Engine)
        assert ENGINES[engine.name].endswith(f":{type(engine).__name__}")
        assert engine.sampling_rate > 0
        assert engine.max_chunk_seconds > 1
        assert engine.licence.name

    def test_identity_is_plain_data_and_stable(self, engine: Engine) -> None:
        identity = engine.identity()
        assert identity == create(self.config).identity()
        assert json.loads(json.dumps(asdict(identity))) == asdict(identity)
        assert pickle.loads(pickle.dumps(identity)) == identity  # noqa: S301 (its own bytes)
        assert identity.model
        assert identity.revision

    def test_batch_size_threads_and_device_are_no_part_of_the_identity(self, engine: Engine) -> None:
        for device in ("cpu", "cuda"):
            changed = {"batch_seconds": 7.0, "threads": 2, "device": device}
            assert create(self.config.model_copy(update=changed)).identity() == engine.identity()

    def test_one_hypothesis_per_waveform_with_times_within_it(
        self, engine: Engine, waveforms: list[Waveform], together: list[Hypothesis]
    ) -> None:
        assert len(together) == len(waveforms)
        assert len({h.text for h in together}) > 1
        assert any(h.segments for h in together)
        for hypothesis, samples in zip(together, waveforms, strict=True):
            end = len(samples) / engine.sampling_rate
            times = [(s.start, s.end) for s in hypothesis.segments]
            times += [(w.start, w.end) for s in hypothesis.segments for w in s.words]
            assert all(0 <= a <= b <= end + 1e-6 for a, b in times)
            assert hypothesis.finish_reason in ("stop", "length", "empty")
            assert (hypothesis.finish_reason == "empty") == (not hypothesis.text)
            assert hypothesis.error is None

    def test_a_batch_of_one_equals_a_batch_of_many(
        self, engine: Engine, waveforms: list[Waveform], together: list[Hypothesis]
    ) -> None:
        for samples, expected in zip(waveforms, together, strict=True):
            [alone] = engine.transcribe([samples])
            assert_close(alone, expected)

    def test_order_does_not_matter_and_again_is_the_same(
        self, engine: Engine, waveforms: list[Waveform], together: list[Hypothesis]
    ) -> None:
        for one, other in zip(engine.transcribe(waveforms[::-1])[::-1], together, strict=True):
            assert_close(one, other)
        assert engine.transcribe(waveforms) == together

    def test_nothing_gives_nothing(self, engine: Engine) -> None:
        assert engine.transcribe([]) == []

    def test_bad_waveforms_harm_only_themselves(
        self, engine: Engine, waveforms: list[Waveform], together: list[Hypothesis]
    ) -> None:
        too_long = np.zeros(round(engine.max_chunk_seconds * engine.sampling_rate) + 1, np.float32)
        nan = waveforms[1].copy()
        nan[100] = np.nan
        infinite = waveforms[1].copy()
        infinite[0] = np.inf
        bad = {
            "no_samples": np.zeros(0, np.float32),
            "not_finite": nan,
            "too_long": too_long,
            "bad_shape": np.zeros((2, 100), np.float32),
        }
        batch = [waveforms[0], *bad.values(), infinite, waveforms[1]]
        first, *failed, last = engine.transcribe(batch)
        assert_close(first, together[0])
        assert_close(last, together[1])
        for hypothesis, kind in zip(failed, [*bad, "not_finite"], strict=True):
            assert hypothesis.finish_reason == "error"
            assert hypothesis.text == ""
            assert hypothesis.error is not None
            assert (hypothesis.error.stage, hypothesis.error.kind) == ("transcribe", kind)
            assert not hypothesis.error.transient
            assert hypothesis.error.message

    def test_tiny_waveforms_are_answered(self, engine: Engine) -> None:
        tiny = [waveform(n / engine.sampling_rate, engine.sampling_rate, n) for n in (1, 2, 159, 321, 1600)]
        assert all(h.error is None for h in engine.transcribe(tiny))

    def test_digital_silence_is_empty(self, engine: Engine) -> None:
        lengths = (1, engine.sampling_rate, round(engine.max_chunk_seconds * engine.sampling_rate))
        for hypothesis in engine.transcribe([np.zeros(n, np.float32) for n in lengths]):
            assert (hypothesis.finish_reason, hypothesis.text) == ("empty", "")

    def test_an_unknown_option_names_the_known_ones(self) -> None:
        config = self.config.model_copy(update={"options": {"no_such_option": 1}})
        with pytest.raises(ConfigError, match="no_such_option") as caught:
            create(config)
        assert "It has: " in str(caught.value)

    def test_neither_import_nor_construction_load_anything_heavy(self) -> None:
        code = (
            f"import sys; from dawnchorus.engines import create; from dawnchorus.config import EngineConfig;"
            f"create(EngineConfig(name={self.config.name!r}));"
            f"found = [m for m in {HEAVY!r} if m in sys.modules]; assert not found, found"
        )
        subprocess.run([sys.executable, "-c", code], check=True)

    def test_class_facts_need_no_instance(self) -> None:
        facts = engine_class(self.config.name)
        assert facts.name == self.config.name
        assert facts.licence.name


class LanguageModelContract:
    """Every backend in `LANGUAGE_MODELS` passes this. `config.options` may make its context small."""

    config: ClassVar[EngineConfig]

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls) -> Iterator[LanguageModel]:
        model = create_language_model(cls.config)
        model.load()
        yield model
        model.close()
        model.close()

    def test_is_a_language_model(self, model: LanguageModel) -> None:
        assert isinstance(model, LanguageModel)
        assert LANGUAGE_MODELS[model.name].endswith(f":{type(model).__name__}")
        assert model.licence.name
        identity = model.identity()
        assert json.loads(json.dumps(asdict(identity))) == asdict(identity)

    def test_tokens_are_counted_without_loading(self) -> None:
        model = create_language_model(self.config)
        assert model.num_tokens("") == 0
        assert 0 < model.num_tokens("one") <= model.num_tokens("one two one two")
        assert model.context_tokens > 16

    def test_one_answer_per_request_in_order(self, model: LanguageModel) -> None:
        requests = [Request(p, n) for p, n in (("one", 8), ("two one two", 4), ("one", 8))]
        answers = model.complete(requests)
        assert len(answers) == 3
        assert answers[0] == answers[2]
        assert all(h.error is None for h in answers)
        assert all(h.num_tokens <= r.max_new_tokens for h, r in zip(answers, requests, strict=True))
        assert all((h.finish_reason == "empty") == (not h.text) for h in answers)
        assert model.complete([]) == []

    def test_alone_equals_together(self, model: LanguageModel) -> None:
        requests = [Request(p, 8) for p in ("one", "two one two one", "three", "one two")]
        for request, expected in zip(requests, model.complete(requests), strict=True):
            [alone] = model.complete([request])
            assert (alone.text, alone.finish_reason) == (expected.text, expected.finish_reason)

    def test_a_length_limit_is_said(self, model: LanguageModel) -> None:
        [answer] = model.complete([Request("one two three", 1)])
        assert (answer.finish_reason, answer.num_tokens) == ("length", 1)

    def test_a_prompt_too_long_harms_only_itself(self, model: LanguageModel) -> None:
        too_long = "one " * (model.context_tokens + 1)
        first, failed, last = model.complete([Request("one", 4), Request(too_long, 4), Request("one", 4)])
        assert first == last
        assert first.error is None
        assert failed.error is not None
        assert (failed.finish_reason, failed.error.kind, failed.error.stage) == (
            "error",
            "too_long",
            "answer",
        )
        assert not failed.error.transient
