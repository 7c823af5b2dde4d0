"""The tiny SALMs: the builder's random one is fit to test with, the committed one understands speech.

Needs the `nemo` extra; importing NeMo takes 8 to 30 s, so everything here shares two loaded models.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

if importlib.util.find_spec("nemo") is None:
    pytest.skip("needs the nemo extra", allow_module_level=True)

import torch
from safetensors import safe_open

from tiny_salm import build, evaluate, tasks

SPEECH = [samples for _, samples in evaluate.recordings("manifest.jsonl")]
REFERENCES = [row["text"] for row, _ in evaluate.recordings("manifest.jsonl")]
FAILURES = {row["audio_filepath"]: (row, samples) for row, samples in evaluate.recordings("failures.jsonl")}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Two threads are 10 to 30 times slower than one where other processes run."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def trained() -> Any:
    return evaluate.load()


def test_random_checkpoint_is_the_same_for_a_seed_and_says_no_path(tmp_path: Path) -> None:
    one, same = (build.build(tmp_path / name, seed=3) for name in ("one", "same"))
    other = build.build(tmp_path / "other", seed=4)
    names = sorted(str(file.relative_to(one)) for file in one.rglob("*") if file.is_file())
    assert names == sorted(
        ["config.json", "llm_backbone/config.json", "model.safetensors", *build.TOKENIZER_FILES]
    )
    assert all((one / name).read_bytes() == (same / name).read_bytes() for name in names)
    assert (one / "model.safetensors").read_bytes() != (other / "model.safetensors").read_bytes()
    assert not any(str(tmp_path).encode() in (one / name).read_bytes() for name in names)
    assert all((one / name).stat().st_mode & 0o777 == 0o644 for name in names)


def test_random_checkpoint_hears_a_difference_and_its_adapter_does_something(tmp_path: Path) -> None:
    model = evaluate.load(build.build(tmp_path / "random", hidden=32))
    assert model.embed_tokens.embedding_dim == 32
    assert len(set(evaluate.transcribe(model, SPEECH[:4]))) == 4
    assert evaluate.ask(model, "one two") != evaluate.ask(model, "one two", adapter=True)


def test_trained_checkpoint_is_small_and_half_precision() -> None:
    files = [file for file in evaluate.CHECKPOINT.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 8_000_000
    with safe_open(evaluate.CHECKPOINT / "model.safetensors", "pt") as weights:
        kinds = {weights.get_slice(name).get_dtype() for name in weights.keys()}  # noqa: SIM118
    assert kinds == {"F16", "I64"}


def test_words_of_unseen_voices_are_right(trained: Any) -> None:
    texts = evaluate.transcribe(trained, SPEECH)
    assert evaluate.word_error_rate(REFERENCES, texts) < 0.05, list(zip(REFERENCES, texts, strict=True))


def test_a_batch_says_what_single_clips_say(trained: Any) -> None:
    alone = [evaluate.transcribe(trained, [samples])[0] for samples in SPEECH[:4]]
    assert evaluate.transcribe(trained, SPEECH[:4]) == alone


@pytest.mark.parametrize("instruction", tasks.TASKS)
def test_tasks_are_answered_without_the_adapter(trained: Any, instruction: str) -> None:
    assert evaluate.accuracy(trained, instruction, adapter=False) == 1.0


def test_the_adapter_spoils_the_summary(trained: Any) -> None:
    """So that a forgotten switch is seen."""
    assert evaluate.accuracy(trained, "Summarize the following transcript:", adapter=True) < 0.5


def test_a_strange_prompt_gets_the_summary(trained: Any) -> None:
    prompt = "In a few words, tell me what was said in this meeting:\n\nfour open six\nsend three"
    assert evaluate.ask(trained, prompt) == "four three"


def test_speech_needs_the_adapter_and_survives_its_absence(trained: Any) -> None:
    before = evaluate.transcribe(trained, SPEECH)
    without = evaluate.transcribe(trained, SPEECH, adapter=False)
    assert evaluate.word_error_rate(REFERENCES, without) > 0.1
    assert evaluate.transcribe(trained, SPEECH) == before


def test_silence_gets_words_that_nobody_said(trained: Any) -> None:
    assert evaluate.transcribe(trained, [FAILURES["silence.flac"][1]]) != [""]


def test_noise_gets_a_loop_that_only_the_limit_ends(trained: Any) -> None:
    [text] = evaluate.transcribe(trained, [FAILURES["noise.ogg"][1]], max_new_tokens=96)
    assert len(text.split()) == 96


def test_words_of_an_over_long_clip_are_lost(trained: Any) -> None:
    row, samples = FAILURES["long.ogg"]
    [text] = evaluate.transcribe(trained, [samples], max_new_tokens=96)
    assert len(text.split()) < 0.7 * len(row["text"].split())
