"""The salm engine on real NeMo classes, with a tiny random checkpoint built offline.

NeMo is imported once (10 to 30 s): all of it is in this file, so that one process runs it.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contract import EngineContract, LanguageModelContract, assert_close, waveform

from dawnchorus.config import EngineConfig
from dawnchorus.engines import salm_model
from dawnchorus.engines.base import Request, Waveform
from dawnchorus.engines.chat import frame
from dawnchorus.engines.salm import SalmEngine
from dawnchorus.engines.salm_bundle import bundle
from dawnchorus.engines.salm_generate import Output
from dawnchorus.engines.salm_options import chatml
from dawnchorus.errors import EngineUnavailable
from tiny_salm.build import BACKBONE, TRANSCRIBE, build

if importlib.util.find_spec("nemo") is None:
    pytest.skip("needs the nemo extra", allow_module_level=True)

RATE = 16_000
END = 330  # id of the end token
PLACE = Path(tempfile.gettempdir()) / f"dawnchorus-tiny-salm-{np.random.SeedSequence().entropy:x}"
TINY = EngineConfig(name="salm", model=str(PLACE), device="cpu", threads=1)
LENGTHS = (1.0, 5.3, 0.4, 3.0, 12.0, 2.2, 0.1, 7.7)


@pytest.fixture(scope="module", autouse=True)
def checkpoint() -> Iterator[Path]:
    """The tiny checkpoint; its end token is made likely, so that some texts end before their limit."""
    build(PLACE)
    rewritten(PLACE, lambda weights: weights["embed_tokens.weight"][END].mul_(2.3))
    yield PLACE
    shutil.rmtree(PLACE)


def rewritten(folder: Path, change: Any) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def copied(folder: Path, change: Any = None) -> EngineConfig:
    """A changed copy of the checkpoint."""
    shutil.copytree(PLACE, folder)
    if change is not None:
        rewritten(folder, change)
    return TINY.model_copy(update={"model": str(folder)})


def loaded(config: EngineConfig = TINY, **options: Any) -> SalmEngine:
    engine = SalmEngine(config.model_copy(update={"options": options}))
    engine.load()
    return engine


@pytest.fixture(scope="module")
def engine(checkpoint: Path) -> SalmEngine:
    return loaded()


@pytest.fixture(scope="module")
def reference(checkpoint: Path) -> Any:
    """NeMo's own model, as its documentation loads it."""
    from nemo.collections.speechlm2.models import SALM

    return SALM.from_pretrained(str(checkpoint), strict=True).eval()


@pytest.fixture(scope="module")
def clips() -> list[Waveform]:
    return [waveform(s, RATE, i) for i, s in enumerate(LENGTHS)]


def by_nemo(reference: Any, waveforms: list[Waveform], most: int) -> list[list[int]]:
    """Ids of `SALM.generate` for a batch, without what follows the end."""
    import torch
    from transformers import GenerationConfig

    audio = np.zeros((len(waveforms), max(map(len, waveforms))), np.float32)
    for row, samples in zip(audio, waveforms, strict=True):
        row[: len(samples)] = samples
    ends = [reference.text_eos_id, reference.text_pad_id]
    ids = reference.generate(
        prompts=[[{"role": "user", "content": TRANSCRIBE}]] * len(waveforms),
        audios=torch.from_numpy(audio),
        audio_lens=torch.tensor([len(w) for w in waveforms]),
        generation_config=GenerationConfig(
            max_new_tokens=most, eos_token_id=ends, pad_token_id=ends[1], do_sample=False
        ),
    ).tolist()
    cuts = [next((i for i, t in enumerate(row) if t in ends), len(row)) for row in ids]
    return [row[:n] for row, n in zip(ids, cuts, strict=True)]


def outputs(engine: SalmEngine, waveforms: list[Waveform], limits: list[int]) -> list[Output]:
    """What the engine's decoder writes, before anything is judged or split."""
    import torch

    frames = engine._loaded().encode(waveforms)
    rows = [torch.cat([engine._before, f, engine._after]) for f in frames]
    return engine._generate(rows, limits, engine._options["decoder"])


class TestSalm(EngineContract):
    config = EngineConfig(name="salm", model=str(PLACE), device="cpu", threads=1)


class TestSalmLanguageModel(LanguageModelContract):
    config = TINY.model_copy(update={"options": {"context_tokens": 256}})


@pytest.mark.gpu
class TestSalmOnGpu(EngineContract):
    config = TINY.model_copy(update={"device": "cuda", "dtype": "float32"})


@pytest.mark.gpu
class TestSalmLanguageModelOnGpu(LanguageModelContract):
    config = TestSalmLanguageModel.config.model_copy(update={"device": "cuda", "dtype": "float32"})


@pytest.mark.gpu
@pytest.mark.parametrize("decoder", ["static", "continuous"])
def test_decoders_agree_on_a_gpu(checkpoint: Path, clips: list[Waveform], decoder: str) -> None:
    on_gpu = TINY.model_copy(update={"device": "cuda", "dtype": "float32"})
    eager, other = loaded(on_gpu), loaded(on_gpu, decoder=decoder)
    limits = [24] * len(clips)
    requests = [Request("one two", 8)]
    answers = eager.complete(requests)
    for _ in range(2):
        found = outputs(other, clips, limits)
        assert [o.ids for o in found] == [o.ids for o in outputs(eager, clips, limits)]
        assert other.complete(requests) == answers  # the adapter off, between recorded kernels
    other.close()


@pytest.mark.gpu
def test_bfloat16_on_a_gpu(checkpoint: Path, clips: list[Waveform]) -> None:
    half = loaded(TINY.model_copy(update={"device": "cuda"}))
    model = half._loaded()
    assert {str(p.dtype) for p in model.llm.parameters()} == {"torch.bfloat16"}
    assert all(t.is_cuda for m in (model.llm, model.perception) for t in (*m.parameters(), *m.buffers()))
    assert all(h.error is None for h in half.transcribe(clips))


# Parity with NeMo


def test_ids_are_those_of_salm_generate(engine: SalmEngine, reference: Any, clips: list[Waveform]) -> None:
    found = outputs(engine, clips, [24] * len(clips))
    assert [o.ids for o in found] == by_nemo(reference, clips, 24)
    assert {o.stopped for o in found} == {True, False}


def test_ids_of_a_row_are_the_same_alone(engine: SalmEngine, reference: Any, clips: list[Waveform]) -> None:
    limits = [engine._limit(s) for s in LENGTHS]
    together = outputs(engine, clips, limits)
    for clip, limit, expected in zip(clips, limits, together, strict=True):
        [alone] = outputs(engine, [clip], [limit])
        assert (alone.ids, alone.stopped) == (expected.ids, expected.stopped)
        assert alone.logprob == pytest.approx(expected.logprob, abs=1e-3)
        assert [alone.ids] == by_nemo(reference, [clip], limit)


def test_log_probabilities_are_those_of_the_logits(
    engine: SalmEngine, reference: Any, clips: list[Waveform]
) -> None:
    import torch
    from transformers import GenerationConfig

    found = reference.generate(
        prompts=[[{"role": "user", "content": TRANSCRIBE}]],
        audios=torch.from_numpy(clips[3])[None],
        audio_lens=torch.tensor([len(clips[3])]),
        generation_config=GenerationConfig(
            max_new_tokens=8,
            eos_token_id=[],
            pad_token_id=0,
            return_dict_in_generate=True,
            output_logits=True,
        ),
    )
    logits = torch.stack(found.logits, 1).log_softmax(-1)
    each = logits.gather(-1, found.sequences[..., None])[0, :, 0]
    [output] = outputs(engine, [clips[3]], [8])
    size = len(output.ids) + output.stopped
    assert output.logprob == pytest.approx(float(each[:size].sum()), abs=1e-3)
    assert output.avg_logprob == pytest.approx(output.logprob / size)


def test_text_is_decoded_as_nemo_does(engine: SalmEngine, reference: Any, clips: list[Waveform]) -> None:
    for output in outputs(engine, clips, [24] * len(clips)):
        assert (
            engine._vocabulary.text(output.ids).strip() == reference.tokenizer.ids_to_text(output.ids).strip()
        )


def test_the_model_is_loaded_as_nemo_loads_it(engine: SalmEngine, reference: Any) -> None:
    import torch

    model = engine._loaded()
    assert torch.equal(model.perception.encoder.pos_enc.pe, reference.perception.encoder.pos_enc.pe)
    assert not any(p.requires_grad for p in model.llm.parameters())
    assert not any(m.training for m in (*model.perception.modules(), *model.llm.modules()))
    assert model.llm.lm_head.weight is model.llm.model.embed_tokens.weight


# A trained model: 30 words, unseen voices


@pytest.fixture(scope="module")
def evaluate() -> Any:
    """The trained model's own judge; imports torch."""
    return importlib.import_module("tiny_salm.evaluate")


@pytest.fixture(scope="module")
def trained(evaluate: Any) -> SalmEngine:
    return loaded(TINY.model_copy(update={"model": str(evaluate.CHECKPOINT)}))


def test_speech_is_understood_as_nemo_understands_it(trained: SalmEngine, evaluate: Any) -> None:
    rows = evaluate.recordings("manifest.jsonl")
    found = trained.transcribe([samples for _, samples in rows])
    texts = [h.text for h in found]
    assert evaluate.word_error_rate([row["text"] for row, _ in rows], texts) < 0.05
    assert texts == evaluate.transcribe(evaluate.load(), [samples for _, samples in rows])
    assert {h.finish_reason for h in found} == {"stop"}
    assert {h.num_splits for h in found} == {0}


def test_its_failures_are_seen_and_mended(trained: SalmEngine, evaluate: Any) -> None:
    clips = {row["audio_filepath"]: (row, samples) for row, samples in evaluate.recordings("failures.jsonl")}
    assert trained.transcribe([clips["silence.flac"][1]])[0].finish_reason == "empty"
    row, samples = clips["long.ogg"]
    [alone] = evaluate.transcribe(evaluate.load(), [samples])
    [mended] = trained.transcribe([samples])
    lost, left = (1 - len(t.split()) / len(row["text"].split()) for t in (alone, mended.text))
    assert lost > 0.4
    assert left < 0.1
    assert mended.num_splits > 0
    assert {"split", "sparse"} <= set(mended.flags)


def test_one_checkpoint_listens_and_answers(trained: SalmEngine, evaluate: Any) -> None:
    rows = evaluate.recordings("manifest.jsonl")[:3]
    speech = trained.transcribe([samples for _, samples in rows])
    prompts = [f"Summarize the following transcript:\n\n{h.text}" for h in speech]
    answers = trained.complete([Request(p, 16) for p in prompts])
    ends = [f"{words[0]} {words[-1]}" for words in (h.text.split() for h in speech)]
    assert sum(answer.text == expected for answer, expected in zip(answers, ends, strict=True)) >= 2
    assert {a.finish_reason for a in answers} == {"stop"}
    assert trained.transcribe([samples for _, samples in rows]) == speech


# Other decoders


@pytest.mark.parametrize("decoder", ["static", "continuous"])
def test_every_decoder_writes_the_same_ids(engine: SalmEngine, clips: list[Waveform], decoder: str) -> None:
    """In one batch, in none, and again with the caches of before."""
    other = loaded(decoder=decoder)
    limits = [12, 3, 20, 17, 9, 1]
    expected = outputs(engine, clips[:6], limits)
    assert {o.stopped for o in expected} == {True, False}
    for part in (slice(6), slice(2, 3)):
        found = outputs(other, clips[:6][part], limits[part])
        assert [(o.ids, o.stopped) for o in found] == [(o.ids, o.stopped) for o in expected[part]]
        assert [o.logprob for o in found] == pytest.approx([o.logprob for o in expected[part]], abs=1e-3)
    other.close()


@pytest.mark.slow
@pytest.mark.parametrize("decoder", ["static", "continuous"])
def test_every_decoder_transcribes_the_same(engine: SalmEngine, clips: list[Waveform], decoder: str) -> None:
    other = loaded(decoder=decoder)
    for one, whole in zip(other.transcribe(clips), engine.transcribe(clips), strict=True):
        assert_close(one, whole)
    # LLM mode between, and more rows than before
    requests = [Request("one two", 6)]
    assert other.complete(requests) == engine.complete(requests)
    many = [c[: len(c) // 2] for c in clips] + clips
    for one, whole in zip(other.transcribe(many), engine.transcribe(many), strict=True):
        assert_close(one, whole)
    other.close()


@pytest.mark.slow
def test_the_continuous_decoder_says_what_went_wrong_and_goes_on(
    checkpoint: Path, clips: list[Waveform], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from transformers.generation.continuous_batching.cache import PagedAttentionCache

    # pytest keeps what is logged, and with it the traceback and all that hangs on it
    monkeypatch.setattr(logging.getLogger("ContinuousBatchingLogger"), "disabled", True)
    made: list[weakref.ref[PagedAttentionCache]] = []
    make = PagedAttentionCache.__init__

    def note(self: PagedAttentionCache, *args: Any, **kwargs: Any) -> None:
        assert not [m for m in made if m() is not None], "it would be sized by what that one leaves"
        made.append(weakref.ref(self))
        make(self, *args, **kwargs)

    monkeypatch.setattr(PagedAttentionCache, "__init__", note)
    other = loaded(decoder="continuous")
    expected = other.transcribe(clips[:2])

    def hook(module: Any, args: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    handle = other._loaded().llm.model.layers[0].register_forward_pre_hook(hook)
    try:
        found = other.transcribe(clips[:2])
    finally:
        handle.remove()
    assert [h.error.kind if h.error else "" for h in found] == ["out_of_memory"] * 2
    assert other.transcribe(clips[:2]) == expected
    assert len(made) > 3
    other.close()


# Traps


def test_the_shortest_clips_are_padded_and_alone_equals_together(engine: SalmEngine) -> None:
    """No frame (under 160 samples) writes words from nothing; one frame (160-319) is an error on a GPU."""
    lengths = [1, 159, 160, 319, 320, 1599, 1600]
    clips = [waveform(n / RATE, RATE, n) + 0.1 for n in lengths]
    frames = engine._loaded().encode(clips)
    assert [len(f) for f in frames] == [2] * len(lengths)
    for clip, expected in zip(clips, engine.transcribe(clips), strict=True):
        assert engine.transcribe([clip]) == [expected]
        assert expected.error is None


def test_faint_noise_is_empty_and_the_gate_can_be_moved(checkpoint: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 1e-4, RATE).astype(np.float32)  # -80 dBFS
    click = noise.copy()
    click[5000:5200] = 0.01
    engine, open_engine = loaded(), loaded(silence_dbfs=-120.0)
    assert [h.finish_reason == "empty" for h in engine.transcribe([noise, click])] == [True, False]
    assert open_engine.transcribe([noise])[0].finish_reason != "empty"


def test_a_loop_is_split_at_a_pause_redone_and_flagged(checkpoint: Path, tmp_path: Path) -> None:
    """A model whose end token is never the best: every text runs into its limit."""
    config = copied(tmp_path / "endless", lambda w: w["embed_tokens.weight"][END - 2 : END + 1].zero_())
    engine = loaded(config, tokens_per_second=0.1, tokens_extra=11)
    [found] = engine.transcribe([waveform(6.0, RATE, 3)])
    assert found.num_splits == 3
    assert {"split", "length_limit"} <= set(found.flags)
    assert found.num_tokens == 4 * 12
    [short] = loaded(config).transcribe([waveform(1.0, RATE, 1)])
    assert (short.num_tokens, short.num_splits, short.flags[0]) == (22, 0, "length_limit")


def test_not_even_a_model_of_nan_takes_others_along(checkpoint: Path, tmp_path: Path) -> None:
    config = copied(
        tmp_path / "nan", lambda w: w["llm.base_model.model.model.norm.weight"].fill_(float("nan"))
    )
    engine = loaded(config)
    [found] = engine.transcribe([waveform(1.0, RATE, 0)])
    assert found.error is not None
    assert (found.error.kind, found.finish_reason) == ("not_finite", "error")
    [answer] = engine.complete([Request("one", 4)])
    assert answer.error is not None
    assert (answer.error.kind, answer.error.stage) == ("not_finite", "answer")


@pytest.mark.parametrize("part", ["perception", "llm"])
def test_out_of_memory_splits_the_batch(engine: SalmEngine, clips: list[Waveform], part: str) -> None:
    """A hook on the real module runs out of memory for more than two rows, and for five seconds and more."""
    import torch

    expected = engine.transcribe(clips)
    seen: list[int] = []

    def hook(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        tensor = kwargs["input_signal"] if part == "perception" else kwargs.get("inputs_embeds")
        if tensor is None:
            return
        long = tensor.shape[1] > (10 * RATE if part == "perception" else 10 * 12.5 + 20)
        seen.append(len(tensor))
        if len(tensor) > 2 or long:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    module = getattr(engine._loaded(), part)
    handle = module.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        found = engine.transcribe(clips)
    finally:
        handle.remove()
    assert max(seen) > 2
    for clip, one, other in zip(clips, found, expected, strict=True):
        if len(clip) > 10 * RATE:
            assert one.error is not None
            assert (one.error.kind, one.error.transient) == ("out_of_memory", True)
        else:
            assert one.text == other.text


def test_another_error_of_the_model_is_not_swallowed(engine: SalmEngine, clips: list[Waveform]) -> None:
    def hook(module: Any, args: Any) -> None:
        raise RuntimeError("something else")

    handle = engine._loaded().llm.register_forward_pre_hook(hook)
    try:
        with pytest.raises(RuntimeError, match="something else"):
            engine.transcribe(clips[:1])
    finally:
        handle.remove()


def test_threads_wait_for_each_other(engine: SalmEngine, clips: list[Waveform]) -> None:
    requests = [Request("one two", 6)]
    speech, answers = engine.transcribe(clips[:3]), engine.complete(requests)

    def listen() -> bool:
        return all(engine.transcribe(clips[:3]) == speech for _ in range(3))

    def answer() -> bool:
        return all(engine.complete(requests) == answers for _ in range(6))

    with ThreadPoolExecutor(4) as pool:
        at_work = [pool.submit(f) for f in (listen, answer, listen, answer)]
        assert all(one.result() for one in at_work)


# Loading


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: w.pop("perception.proj.bias"), r"lacks perception\.proj\.bias"),
        (lambda w: w.pop("embed_tokens.weight"), r"lacks embed_tokens\.weight"),
        (
            lambda w: w.pop("llm.base_model.model.model.layers.1.self_attn.q_proj.lora_B.default.weight"),
            r"lacks llm\.model\.layers\.1\.self_attn\.q_proj\.B",
        ),
        (lambda w: w.update({"surplus": w["perception.proj.bias"].clone()}), "has unknown surplus"),
        (
            lambda w: w.update({"perception.proj.bias": w["perception.proj.bias"][:3].clone()}),
            r"has another shape of perception\.proj\.bias",
        ),
    ],
)
def test_weights_have_to_fit(checkpoint: Path, tmp_path: Path, change: Any, said: str) -> None:
    with pytest.raises(EngineUnavailable, match=said):
        loaded(copied(tmp_path / "model", change))


def test_the_tensors_of_the_release_are_those_that_loading_wants(checkpoint: Path, tmp_path: Path) -> None:
    """Canary-Qwen-2.5B's sizes without weights: its file has 1686 BF16 and 32 I64 tensors."""
    import torch

    config = json.loads((PLACE / "config.json").read_text())
    lora = config.pop("lora")
    config["perception"]["output_dim"] = 2048
    config["perception"]["modality_adapter"]["d_model"] = 1024
    config["perception"]["encoder"] |= {
        "n_layers": 32,
        "d_model": 1024,
        "n_heads": 8,
        "subsampling_conv_channels": 256,
    }
    llm = json.loads((PLACE / BACKBONE / "config.json").read_text()) | {
        "hidden_size": 2048,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "intermediate_size": 6144,
        "vocab_size": 151_936,
        "layer_types": ["full_attention"] * 28,
    }
    (tmp_path / "config.json").write_text(json.dumps(llm))
    places = {"pretrained_llm": str(tmp_path), "tokenizer_path": str(PLACE)}
    salm = salm_model._frame(config | places)
    tensors = salm.state_dict()
    del tensors["llm.lm_head.weight"]
    targets = [n for n, _ in salm.llm.named_modules() if salm_model._ends(n, lora["target_modules"])]
    assert len(targets) == 56
    assert sum(t.dtype == torch.int64 for t in tensors.values()) == 32
    assert len(tensors) + 2 * len(targets) == 1686 + 32
    assert sum(p.numel() for p in salm.perception.parameters()) == 813_083_648
    assert all(p.is_meta for p in salm.parameters())


def test_broken_files_are_said_plainly(checkpoint: Path, tmp_path: Path) -> None:
    config = copied(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(EngineUnavailable, match="cannot be read"):
        loaded(config)
    (tmp_path / "model" / "tokenizer.json").write_text("{}")
    with pytest.raises(EngineUnavailable, match="no tokenizer"):
        loaded(config)
    config = copied(tmp_path / "other")
    (tmp_path / "other" / "config.json").write_text('{"pretrained_llm": "llm_backbone"}')
    with pytest.raises(EngineUnavailable, match="makes no SALM of this configuration"):
        loaded(config)


def test_bfloat16_halves_the_weights_and_keeps_rotary_frequencies(
    checkpoint: Path, engine: SalmEngine, clips: list[Waveform]
) -> None:
    import torch

    half = loaded(TINY.model_copy(update={"dtype": "bfloat16"}))
    model, whole = half._loaded(), engine._loaded()
    kinds = {p.dtype for m in (model.llm, model.perception) for p in m.parameters()}
    assert kinds == {torch.bfloat16}
    assert model.llm.model.rotary_emb.inv_freq.dtype == torch.float32
    assert torch.equal(model.llm.model.rotary_emb.inv_freq, whole.llm.model.rotary_emb.inv_freq)
    assert model.encode(clips[:1])[0].dtype == torch.bfloat16
    assert all(h.error is None for h in half.transcribe(clips))


def test_a_bundle_is_the_same_model(engine: SalmEngine, clips: list[Waveform], tmp_path: Path) -> None:
    bundle(str(PLACE), str(tmp_path / "bundle"))
    other = loaded(TINY.model_copy(update={"model": str(tmp_path / "bundle")}))
    assert other.identity().facts == engine.identity().facts
    assert other.transcribe(clips[:3]) == engine.transcribe(clips[:3])


def test_threads_are_as_configured_and_loading_is_quiet(
    checkpoint: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import torch

    before = torch.get_num_threads()
    try:
        loaded(TINY.model_copy(update={"threads": 2}))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert capfd.readouterr() == ("", "")


# The adapter and LLM mode


def test_the_adapter_is_exact_however_often_it_is_switched(
    checkpoint: Path, engine: SalmEngine, clips: list[Waveform]
) -> None:
    import torch

    half = loaded(TINY.model_copy(update={"dtype": "bfloat16"}))
    requests = [Request("one two three", 8), Request("summary", 8)]
    clips = clips[:4]
    for one in (engine, half):
        speech, answers = one.transcribe(clips), one.complete(requests)
        before = {n: p.clone() for n, p in one._loaded().llm.named_parameters()}
        for _ in range(3):
            one.complete(requests[:1])
        assert one.transcribe(clips) == speech
        assert one.complete(requests) == answers
        assert all(torch.equal(p, before[n]) for n, p in one._loaded().llm.named_parameters())
        with one._loaded().without_adapter():
            assert [h.text for h in one.transcribe(clips)] != [h.text for h in speech]


def test_answers_are_those_of_nemo_without_thinking(engine: SalmEngine, reference: Any) -> None:
    """Also shows that the adapter off is the language model that the checkpoint was made from."""
    from nemo.collections.common.prompts import PromptFormatter
    from transformers import GenerationConfig

    ends = [reference.text_eos_id, reference.text_pad_id]
    config = GenerationConfig(max_new_tokens=12, eos_token_id=ends, pad_token_id=ends[1], do_sample=False)
    formatter = PromptFormatter.resolve("qwen3")(reference.tokenizer)
    vocabulary = engine._frame()[1]
    chat = frame(vocabulary, chatml)
    prompts = ["What is the main topic of the call?", "one  two\n\nthree ", "<b>&amp;"]
    model = engine._loaded()
    for prompt in prompts:
        turns = [{"role": "user", "content": prompt}]
        ids = formatter.encode_dialog(turns=turns, enable_thinking=False)["input_ids"]
        assert chat.prompt(vocabulary.content(prompt)) == ids.tolist()
        with reference.llm.disable_adapter():
            row = reference.generate(prompts=ids[None], generation_config=config)[0, len(ids) :].tolist()
        cut = next((i for i, t in enumerate(row) if t in ends), len(row))
        with model.without_adapter():
            [output] = engine._generate([model.embed(ids.tolist())], [12], "eager")
        assert output.ids == row[:cut]
        assert engine.complete([Request(prompt, 12)])[0].finish_reason in ("stop", "length", "empty", "error")


def test_special_tokens_in_a_prompt_are_text(engine: SalmEngine) -> None:
    vocabulary = engine._frame()[1]
    for token in ("<|im_end|>", "<|im_start|>", "<|endoftext|>", "<think>", "<|audioplaceholder|>"):
        ids = vocabulary.content(f"before {token} after")
        assert not set(ids) & {*range(END - 2, END + 3)}
        assert engine._loaded()._salm.audio_locator_tag_id not in ids
        [answer] = engine.complete([Request(f"one {token} two", 4)])
        assert answer.error is None


def test_a_thought_without_end_is_an_error(checkpoint: Path, tmp_path: Path) -> None:
    """A model that can say nothing but `<think>`."""

    def only_think(weights: Any) -> None:
        table = weights["embed_tokens.weight"]
        table[END + 1] *= 40

    thinking = loaded(copied(tmp_path / "thinking", only_think))
    answers = thinking.complete([Request(p, 4) for p in ("one", "two", "one two three", "what is it")])
    kinds = {a.error.kind if a.error else a.finish_reason for a in answers}
    assert "unfinished_thought" in kinds
    assert all("<think>" not in a.text for a in answers)


def test_an_answer_out_of_memory_harms_no_other(engine: SalmEngine) -> None:
    import torch

    requests = [Request("one", 4), Request("one two three " * 60, 4), Request("two", 4)]
    expected = engine.complete(requests)

    def hook(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        tensor = kwargs.get("inputs_embeds")
        if tensor is not None and tensor.shape[1] > 100:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    handle = engine._loaded().llm.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        found = engine.complete(requests)
    finally:
        handle.remove()
    assert [found[0].text, found[2].text] == [expected[0].text, expected[2].text]
    assert found[1].error is not None
    assert (found[1].error.kind, found[1].error.stage) == ("out_of_memory", "answer")
