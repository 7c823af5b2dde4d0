"""Any causal language model of transformers, by hub name or folder, for LLM mode. Needs no speech engine.

Requests in, one answer each out. Greedy; weights from safetensors only; a model's own code is never run.
The chat template is the tokenizer's, with thinking switched off where it can be; a model without one
gets the bare prompt. Knows nothing of transcripts.

Options (`engine.options`):
    batch_tokens: int; padded tokens of one model call, answers included (default 65536 on a GPU, 8192
        on a CPU); halved on out-of-memory.
    context_tokens: int; most tokens of one prompt with its answer; at most, and by default, the model's.
"""

from __future__ import annotations

import importlib
import json
import os
import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from dawnchorus import installing, storage
from dawnchorus.config import EngineConfig
from dawnchorus.engines import devices, hub
from dawnchorus.engines.base import Identity, Licence, Request
from dawnchorus.engines.batching import is_out_of_memory, run_in_batches
from dawnchorus.engines.chat import Frame, Vocabulary, answer, frame, padded, too_long
from dawnchorus.engines.checks import error
from dawnchorus.engines.staging import is_remote
from dawnchorus.errors import ConfigError, EngineUnavailable
from dawnchorus.records import Hypothesis

INSTALL = installing.command("hf")
DEFAULT_MODEL = "Qwen/Qwen3-1.7B"
_DEFAULT_REVISION = "70d244cc86ccca08cf5af4e1e306ecf908b1ad5e"
_OPTIONS = ("batch_tokens", "context_tokens")
_SMALL_FILES = ("*.json", "*.jinja", "*.model", "*.txt", "README.md")
_IDENTITY_FILES = ("*.json", "*.jinja", "*.model", "*.txt")
_CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length")
_BATCH_TOKENS = {"cuda": 65_536, "cpu": 8_192}
# Llama's templates write today's date into the prompt: an answer must not change with the day.
_DATE = "01 Jan 2026"

_Job = tuple[list[int], int]


class HfLanguageModel:
    """A transformers model behind the language model contract; see the module's page for its options."""

    name: ClassVar[str] = "hf"
    licence: ClassVar[Licence] = Licence("Apache-2.0", f"{hub.HUB}/{DEFAULT_MODEL}", "Qwen3 by Alibaba Cloud")

    def __init__(self, config: EngineConfig) -> None:
        """Raises ConfigError for an option that this engine does not have."""
        unknown = sorted(set(config.options) - set(_OPTIONS))
        if unknown:
            raise ConfigError(
                f"The hf engine has no option {unknown[0]!r}.", f"It has: {', '.join(_OPTIONS)}."
            )
        self._config = config
        self._model_name = config.model or DEFAULT_MODEL
        self._revision = config.revision or (None if config.model else _DEFAULT_REVISION)
        self._model: Any = None
        self._frame = Frame((), ())
        # An actor makes two calls at once; two batches at once could run out of memory.
        self._lock = threading.Lock()

    @cached_property
    def _folder(self) -> Path:
        """The model's small files; those of a hub model are downloaded."""
        return self._fetched(_SMALL_FILES)

    def _fetched(self, patterns: Sequence[str]) -> Path:
        return hub.fetch(self._model_name, self._revision, patterns, INSTALL, self._config.cache)

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        path = self._folder / "tokenizer.json"
        if path.exists():
            return Vocabulary.from_file(path)
        # Older models have only a sentencepiece model: transformers converts it.
        backend = getattr(self._tokenizer(), "backend_tokenizer", None)
        if backend is None:
            raise EngineUnavailable(
                f"{self._model_name} has no tokenizer.json.", "Choose a model that has one."
            )
        return Vocabulary(backend.to_str())

    @cached_property
    def context_tokens(self) -> int:
        """Most tokens of one prompt with its template and its answer."""
        tree = self._read_config()
        trees = [tree, *(t for t in (tree.get("text_config"),) if isinstance(t, dict))]
        known: list[int] = [t[k] for t in trees for k in _CONTEXT_KEYS if isinstance(t.get(k), int)]
        asked = self._config.options.get("context_tokens")
        limits = known[:1] + ([int(asked)] if asked is not None else [])
        if not limits:
            raise EngineUnavailable(
                f"{self._model_name} does not say how long a prompt may be.",
                "Set engine.options.context_tokens.",
            )
        return min(limits)

    def num_tokens(self, text: str) -> int:
        """Tokens of `text` without chat template."""
        return self._vocabulary.num_tokens(text)

    def identity(self) -> Identity:
        """Name, commit and hashes. The weights of a hub model are not downloaded for it, those in a bucket
        are."""
        versions = installing.versions("hf", "torch", "transformers")
        folder = self._folder
        names = hub.weight_files(folder)
        if is_remote(self._model_name):
            self._fetched(names)
        claimed = {n: hub.claimed_sha256(folder, self._model_name, n) for n in names}
        missing = [n for n, sha256 in claimed.items() if sha256 is None]
        if missing:
            raise EngineUnavailable(
                f"{self._model_name} has no {missing[0]}.",
                "Choose a model with safetensors weights: pickled ones are not loaded.",
            )
        weights = hub.digest((n, s) for n, s in claimed.items() if s is not None)
        small = sorted({p for pattern in _IDENTITY_FILES for p in folder.glob(pattern)})
        facts = {
            "weights_sha256": weights,
            "files_sha256": hub.digest((p.name, hub.actual_sha256(p)) for p in small),
            # As asked for: the driver may have another device than the workers.
            "dtype": self._config.dtype,
            **versions,
        }
        revision = hub.commit(folder, self._model_name) or f"sha256:{weights[:12]}"
        name = storage.redact(self._model_name)
        return Identity(name, revision, facts, hub.licence(folder, name))

    def load(self) -> None:
        """Load the weights after checking them, and run once.

        Raises:
            EngineUnavailable: they are not those of the identity, incomplete, or of no known model.
        """
        expected = self.identity().facts["weights_sha256"]
        patterns = (*_SMALL_FILES, *hub.weight_files(self._folder))
        folder = self._fetched(patterns)
        names = hub.weight_files(folder)
        if hub.digest((n, hub.actual_sha256(folder / n)) for n in names) != expected:
            raise EngineUnavailable(f"The weights in {folder} are damaged.", "Download them anew.")
        self._model = self._load_weights(folder)
        tokenizer = self._tokenizer()
        self._frame = frame(self._vocabulary, _renderer(tokenizer))
        ends = self._model.generation_config.eos_token_id
        ends = [] if ends is None else ends if isinstance(ends, list) else [ends]
        self._ends = sorted({*ends, tokenizer.eos_token_id} - {None})
        self._padding = next((i for i in (tokenizer.pad_token_id, *self._ends) if i is not None), 0)
        self._model.generation_config = type(self._model.generation_config)()
        devices.prove(*self.complete([Request("one", 1)]))

    def _load_weights(self, folder: Path) -> Any:
        torch, transformers = importlib.import_module("torch"), importlib.import_module("transformers")
        transformers.utils.logging.disable_progress_bar()
        transformers.utils.logging.set_verbosity_error()
        torch.set_num_threads(self._config.threads or len(os.sched_getaffinity(0)))
        try:
            model, found = transformers.AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=getattr(torch, self._dtype()),
                trust_remote_code=False,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
            )
        except (ImportError, OSError, ValueError, KeyError, RuntimeError) as e:
            fix = INSTALL if isinstance(e, ImportError) else devices.fix_of(e, "Copy its files anew.")
            raise EngineUnavailable(f"The model in {folder} cannot be loaded: {e}.", fix) from e
        lacking = sorted({*found["missing_keys"], *(str(k) for k in found["mismatched_keys"])})
        if lacking:
            raise EngineUnavailable(
                f"The weights in {folder} lack {lacking[0]} ({len(lacking)} in all).", "Copy them anew."
            )
        return model.to(self._device()).eval()

    def close(self) -> None:
        """Free the model."""
        self._model = None

    def complete(self, requests: Sequence[Request]) -> list[Hypothesis]:
        """One answer per request, in order; what does not fit the context is an error of its own."""
        if self._model is None:
            raise RuntimeError("the model is not loaded")
        jobs: list[_Job] = [
            (self._frame.prompt(self._vocabulary.content(r.prompt)), r.max_new_tokens) for r in requests
        ]
        results = [self._check(job) for job in jobs]
        good = [i for i, r in enumerate(results) if r is None]
        answers = run_in_batches(
            [jobs[i] for i in good],
            [len(jobs[i][0]) + jobs[i][1] for i in good],
            self._config.options.get("batch_tokens", _BATCH_TOKENS[self._device()]),
            self._answer_batch,
            self._is_out_of_memory,
            lambda _, e: error(
                "out_of_memory", f"Out of memory for one prompt: {e}.", transient=True, stage="answer"
            ),
        )
        for i, found in zip(good, answers, strict=True):
            results[i] = found
        return [r for r in results if r is not None]

    def _check(self, job: _Job) -> Hypothesis | None:
        prompt, most = job
        if not prompt:
            return error("empty_prompt", "The prompt has no text.", stage="answer")
        return too_long(len(prompt), most, self.context_tokens)

    def _answer_batch(self, jobs: list[_Job]) -> list[Hypothesis]:
        from dawnchorus.engines.generation import generate

        most = [limit for _, limit in jobs]
        if len(jobs) > 1 and max(len(p) for p, _ in jobs) + max(most) > self.context_tokens:
            # A row that has ended is padded on, and there may be no more positions than context.
            middle = len(jobs) // 2
            return self._answer_batch(jobs[:middle]) + self._answer_batch(jobs[middle:])
        ids, mask = padded([prompt for prompt, _ in jobs], self._padding)
        with self._lock:
            rows = generate(self._model, ids, mask, most, self._ends, self._padding)
        return [self._answer(*row) for row in rows]

    def _answer(self, ids: list[int], ended: bool, avg_logprob: float) -> Hypothesis:
        text = ("<think>" if self._frame.thinks else "") + self._vocabulary.text(ids)
        return answer(text, len(ids), ended, avg_logprob)

    def _is_out_of_memory(self, e: Exception) -> bool:
        found = is_out_of_memory(e)
        if found and self._device() == "cuda":
            import torch

            torch.cuda.empty_cache()
        return found

    def _tokenizer(self) -> Any:
        try:
            transformers = importlib.import_module("transformers")
            return transformers.AutoTokenizer.from_pretrained(
                self._folder, trust_remote_code=False, local_files_only=True
            )
        except (ImportError, OSError, ValueError, KeyError) as e:
            raise EngineUnavailable(
                f"The tokenizer of {self._model_name} cannot be loaded: {e}.", INSTALL
            ) from e

    def _read_config(self) -> dict[str, Any]:
        try:
            tree = json.loads((self._folder / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as e:
            raise EngineUnavailable(
                f"{self._model_name} has no readable config.json.", "Name a transformers model."
            ) from e
        return tree if isinstance(tree, dict) else {}

    def _device(self) -> str:
        if self._config.device != "auto":
            return self._config.device
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"

    def _dtype(self) -> str:
        if self._config.dtype != "auto":
            return self._config.dtype
        return "bfloat16" if self._device() == "cuda" else "float32"


def _renderer(tokenizer: Any) -> Any:
    """A function from a user's turn to the whole prompt, or None without a template."""
    if not tokenizer.chat_template:
        return None

    def render(turn: str) -> str:
        rendered: str = tokenizer.apply_chat_template(
            [{"role": "user", "content": turn}],
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=False,
            date_string=_DATE,
        )
        return rendered

    return render
