"""NVIDIA Canary-Qwen-2.5B, and any other NeMo SALM: speech to text, and LLM mode from the same weights.

Waveforms in, one Hypothesis each out; prompts in, one answer each out. Knows nothing of files of audio
or recordings. English only (Canary-Qwen-2.5B). No word times: a chunk is one segment.

The encoder and the language model run in batches of their own, packed by length. A chunk whose text runs
into its limit, repeats itself, or says too little for what can be heard, is split at the quietest point
and redone, then flagged. All of it is greedy and depends on the chunk alone, never on its batch.

`model`: a hub name, a folder, or the URL of a bundle (see `dawnchorus bundle`).
Options (`engine.options`):
    decoder: how text is generated; the ids are the same in float32. `eager` (default); `static`: fixed
        shapes, for GPUs; `continuous`: rows that finish make room for others at once (on a GPU it wants
        flash-attn). LLM mode is always `eager`: recorded kernels hold the weights with the adapter.
    prompt: the user turn before the audio; default as the model was trained.
    tokens_per_second, tokens_extra, max_tokens: most tokens of a chunk's text: 6 per second and 16 more,
        256 at most. Fast English has 3 to 4.5 a second.
    silence_dbfs: float, default -70; a chunk without a tenth of a second louder than this is `empty`:
        the model writes words on silence.
    decoder_seconds: padded audio seconds of one batch of the language model; default 4 x batch_seconds
        (`static`: 2 x, for it pads rows to a power of two).
    batch_tokens: padded tokens of one LLM-mode batch; default 32768 (3.6 GB of cache for Canary-Qwen).
    context_tokens: most tokens of a prompt and its answer; default what the language model allows.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from dawnchorus import installing, storage
from dawnchorus.config import EngineConfig
from dawnchorus.engines import devices, hub, memory, salm_files
from dawnchorus.engines.base import Identity, Licence, Request, Waveform
from dawnchorus.engines.batching import is_out_of_memory, run_in_batches
from dawnchorus.engines.chat import Vocabulary, answer, frame, too_long
from dawnchorus.engines.checks import check, error
from dawnchorus.engines.salm_files import DEFAULT_MODEL, INSTALL, SalmFiles
from dawnchorus.engines.salm_guards import best_cut, is_silent, take_of, with_omission
from dawnchorus.engines.salm_manifest import WEIGHTS
from dawnchorus.engines.salm_options import CHANGE_TEXT, CHATML_START, LICENCE, chatml, is_canary, options_of
from dawnchorus.engines.salm_source import find
from dawnchorus.engines.takes import Take, hypothesis, joined, out_of_memory
from dawnchorus.errors import EngineUnavailable
from dawnchorus.records import Hypothesis, Seconds

if TYPE_CHECKING:
    import torch

    from dawnchorus.engines.salm_generate import Output
    from dawnchorus.engines.salm_model import SalmModel

_RECIPE = 1  # one more with every change of this code or of salm_guards that changes text
_MOST_SPLITS = 2  # parts of parts of a chunk: 30 s become 7.5 s


class SalmEngine:
    """NeMo's SALM behind both contracts; see the module's page for its options."""

    name: ClassVar[str] = "salm"
    sampling_rate: ClassVar[int] = 16_000
    # Canary-Qwen was trained on 40 s and no more: beyond, words in the middle go missing.
    max_chunk_seconds: ClassVar[Seconds] = 40.0
    licence: ClassVar[Licence] = LICENCE

    def __init__(self, config: EngineConfig) -> None:
        """Raises ConfigError for an option that this engine does not have, or a wrong value."""
        self._config = config
        self._options = options_of(config)
        self._model: SalmModel | None = None
        self._lock = threading.RLock()
        self._batch_seconds = config.batch_seconds or memory.DEFAULT_SECONDS
        self._light: tuple[SalmFiles, Vocabulary] | None = None

    def identity(self) -> Identity:
        """Name, revision and hashes; fetches configuration and tokenizer, never the weights, if these
        have a hash where they come from."""
        versions = installing.versions("nemo", "nemo_toolkit", "transformers", "torch")
        files, _ = self._frame()
        digest = files.weights_sha256 or hub.actual_sha256(files.config.with_name(WEIGHTS))
        facts = {
            "weights_sha256": digest,
            **salm_files.content_facts(files),
            # As asked for: the driver may have another device than the workers.
            "dtype": self._config.dtype,
            **versions,
            "recipe": _RECIPE,
            "redo_logprob": self._config.redo_logprob,
            **{k: self._options[k] for k in CHANGE_TEXT},
        }
        model, canary = self._config.model or DEFAULT_MODEL, is_canary(files)
        licence = None if canary else hub.licence(files.config.parent, model)
        revision = files.revision or f"sha256:{digest[:12]}"
        return Identity(storage.redact(model), revision, facts, licence, english_only=canary)

    def load(self) -> None:
        """Fetch and verify the files, load the weights, and run once."""
        salm_files.verify(files := self._find(weights=True))
        from dawnchorus.engines import salm_model

        with salm_model.quiet():
            try:
                import torch
            except ImportError as e:
                raise EngineUnavailable("torch is not installed.", INSTALL) from e
        torch.set_num_threads(self._config.threads or len(os.sched_getaffinity(0)))
        device, dtype = self._config.device, self._config.dtype
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if dtype == "auto":
            dtype = "float32" if device == "cpu" else "bfloat16"
        self._vocabulary = Vocabulary.from_file(files.tokenizer / "tokenizer.json")
        gauge = memory.gauge(self._config, device)  # limits this replica, before it takes anything
        self._model = salm_model.load(files, device, dtype)
        prompt = self._model.prompt(self._options["prompt"])
        self._before, self._after = map(self._model.embed, prompt)
        devices.prove(*self.transcribe([np.full(self.sampling_rate, 0.01, np.float32)]))
        self._batch_seconds = memory.settle(self._config, gauge, self.max_chunk_seconds, self._warm_up)

    def _warm_up(self, budget: Seconds) -> None:
        """Decode noise: a batch of the decoder, which is several of the encoder."""
        self._batch_seconds = budget
        self._decode(memory.noise(self._decoder_seconds(), self.max_chunk_seconds, self.sampling_rate))

    def close(self) -> None:
        """Free the model."""
        if self._model is not None:
            self._model.close()
        self._model = None

    # Speech

    def transcribe(self, waveforms: Sequence[Waveform]) -> list[Hypothesis]:
        """One Hypothesis per waveform; see the module's page for what is redone."""
        results = [check(w, self.sampling_rate, self.max_chunk_seconds) for w in waveforms]
        for i, samples in enumerate(waveforms):
            if results[i] is None and is_silent(samples, self.sampling_rate, self._options["silence_dbfs"]):
                results[i] = Hypothesis(finish_reason="empty")
        good = [i for i, r in enumerate(results) if r is None]
        with self._lock:
            settled = self._settle([waveforms[i] for i in good])
        for i, found in zip(good, settled, strict=True):
            results[i] = found
        return [r for r in results if r is not None]

    def _settle(self, waveforms: Sequence[Waveform], splits: int = _MOST_SPLITS) -> list[Hypothesis]:
        """Decode; split and redo what is doubtful, and keep the better."""
        if not waveforms:
            return []
        rate = self.sampling_rate
        takes = self._decode(waveforms)
        hypotheses = [hypothesis(t, len(w) / rate) for t, w in zip(takes, waveforms, strict=True)]
        if splits == 0:
            return hypotheses
        cuts = {i: best_cut(t, w, rate) for i, (t, w) in enumerate(zip(takes, waveforms, strict=True))}
        split = {i: at for i, at in cuts.items() if at is not None}
        halves = [h for i, at in split.items() for h in np.split(waveforms[i], [at])]
        parts = self._settle(halves, splits - 1)
        for n, (i, at) in enumerate(split.items()):
            whole = joined(hypotheses[i], parts[2 * n], parts[2 * n + 1], at / rate)
            if whole.error is None and (takes[i].loops or len(whole.text) > len(hypotheses[i].text)):
                hypotheses[i] = whole
        return hypotheses

    def _decode(self, waveforms: Sequence[Waveform]) -> list[Take]:
        """One take per waveform, or an error where memory does not suffice for it alone."""
        seconds = [len(w) / self.sampling_rate for w in waveforms]
        budget = self._batch_seconds
        frames = run_in_batches(
            waveforms, seconds, budget, self._encode_batch, _is_oom, lambda _, e: out_of_memory(e)
        )
        takes = {i: f for i, f in enumerate(frames) if isinstance(f, Take)}
        jobs = [(f, s) for f, s in zip(frames, seconds, strict=True) if not isinstance(f, Take)]
        decoded = run_in_batches(
            jobs,
            [s for _, s in jobs],
            self._decoder_seconds(),
            self._decode_batch,
            _is_oom,
            lambda _, e: out_of_memory(e),
        )
        takes.update(zip([i for i in range(len(frames)) if i not in takes], decoded, strict=True))
        return [with_omission(takes[i], w, self.sampling_rate) for i, w in enumerate(waveforms)]

    def _decoder_seconds(self) -> Seconds:
        """Seconds of audio that one batch of the decoder holds. `static` pads rows to a power of two."""
        encoded = 2 if self._options["decoder"] == "static" else 4
        asked: Seconds | None = self._options["decoder_seconds"]
        return asked or encoded * self._batch_seconds

    def _encode_batch(self, waveforms: list[Waveform]) -> list[torch.Tensor | Take]:
        return list(self._loaded().encode(waveforms))

    def _decode_batch(self, jobs: list[tuple[torch.Tensor, Seconds]]) -> list[Take]:
        import torch

        rows = [torch.cat([self._before, frames, self._after]) for frames, _ in jobs]
        limits = [self._limit(seconds) for _, seconds in jobs]
        outputs = self._generate(rows, limits, self._options["decoder"])
        redo = self._config.redo_logprob
        return [
            take_of(self._vocabulary.text(output.ids).strip(), output, seconds, limit, redo)
            for output, (_, seconds), limit in zip(outputs, jobs, limits, strict=True)
        ]

    def _limit(self, seconds: Seconds) -> int:
        asked = math.ceil(seconds * self._options["tokens_per_second"]) + self._options["tokens_extra"]
        return int(min(asked, self._options["max_tokens"]))

    def _generate(self, rows: list[torch.Tensor], limits: list[int], decoder: str) -> list[Output]:
        from dawnchorus.engines import salm_generate

        return salm_generate.generate(self._loaded(), rows, limits, decoder)

    # LLM mode

    @property
    def context_tokens(self) -> int:
        """What the language model was made for, or the option."""
        if self._options["context_tokens"]:
            return int(self._options["context_tokens"])
        files, _ = self._frame()
        return int(salm_files.read_json(files.backbone / "config.json")["max_position_embeddings"])

    def num_tokens(self, text: str) -> int:
        """Tokens of a text, by the tokenizer's file alone."""
        return self._frame()[1].num_tokens(text)

    def complete(self, requests: Sequence[Request]) -> list[Hypothesis]:
        """One answer per request, greedy, without thinking, the adapter off."""
        if not requests:
            return []
        _, vocabulary = self._frame()
        if len(vocabulary.template(CHATML_START)) != 1:
            raise EngineUnavailable("This model's tokenizer has no ChatML.", "Choose a model built on Qwen.")
        chat = frame(vocabulary, chatml)
        prompts = [chat.prompt(vocabulary.content(r.prompt)) for r in requests]
        sizes = [len(p) + r.max_new_tokens for p, r in zip(prompts, requests, strict=True)]
        room = self.context_tokens
        results = [too_long(len(p), r.max_new_tokens, room) for p, r in zip(prompts, requests, strict=True)]
        good = [i for i, r in enumerate(results) if r is None]
        with self._lock, self._loaded().without_adapter():
            answers = run_in_batches(
                [(prompts[i], requests[i].max_new_tokens) for i in good],
                [float(sizes[i]) for i in good],
                float(self._options["batch_tokens"]),
                self._answer_batch,
                _is_oom,
                lambda _, e: error("out_of_memory", f"Out of memory: {e}.", transient=True, stage="answer"),
            )
        for i, found in zip(good, answers, strict=True):
            results[i] = found
        return [r for r in results if r is not None]

    def _answer_batch(self, jobs: list[tuple[list[int], int]]) -> list[Hypothesis]:
        rows = [self._loaded().embed(ids) for ids, _ in jobs]
        outputs = self._generate(rows, [limit for _, limit in jobs], "eager")
        return [self._answer(o) for o in outputs]

    def _answer(self, output: Output) -> Hypothesis:
        if not math.isfinite(output.logprob):
            return error("not_finite", "The model's probabilities are not finite.", stage="answer")
        text = self._vocabulary.text(output.ids)
        return answer(text, len(output.ids), output.stopped, round(output.avg_logprob, 4))

    # Files

    def _frame(self) -> tuple[SalmFiles, Vocabulary]:
        """Everything but the weights."""
        if self._light is None:
            files = self._find(weights=False)
            self._light = files, Vocabulary.from_file(files.tokenizer / "tokenizer.json")
        return self._light

    def _find(self, weights: bool) -> SalmFiles:
        return find(self._config.model, self._config.revision, self._config.cache, weights)

    def _loaded(self) -> SalmModel:
        if self._model is None:
            raise RuntimeError("the engine is not loaded")
        return self._model


def _is_oom(e: Exception) -> bool:
    """Whether memory ran out, on a GPU or not; frees what torch holds back, for the next try."""
    found = is_out_of_memory(e)
    if found:
        import torch

        torch.cuda.empty_cache()
    return found
