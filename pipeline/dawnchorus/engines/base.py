"""The engine contract: what a model backend promises the rest of the system.

An Engine turns waveforms into Hypotheses; a LanguageModel turns prompts into answers; a backend may be
both (adapter on, adapter off). It owns batching, out-of-memory splitting and its model's guards; it knows
nothing of files, chunks of what recording, Ray or tables. `tests/engines/contract.py` holds every backend
to this page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from dawnchorus.records import Hypothesis, Seconds

Waveform = NDArray[np.float32]
"""Mono float32 samples in [-1, 1], shape `(num_samples,)`, at the engine's `sampling_rate`."""


@dataclass(frozen=True, slots=True)
class Licence:
    """Licence of a model and the attribution it asks for; goes into Parquet metadata and the report."""

    name: str
    url: str
    attribution: str


@dataclass(frozen=True, slots=True)
class Identity:
    """Which model this is. `facts` holds everything of the engine that can change `pred_text`
    (weights hash, package version, dtype, decoding options); it enters the fingerprint. `licence` is this
    model's own, None: that of the class's default model. `english_only`: it writes nothing else, whatever
    it hears."""

    model: str
    revision: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    licence: Licence | None = None
    english_only: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """One user turn for LLM mode: the whole prompt, transcript included, and the most tokens of its
    answer. Whoever builds it has neutralised special tokens in untrusted text."""

    prompt: str
    max_new_tokens: int


@runtime_checkable
class Engine(Protocol):
    """A speech model backend. Constructed from `config.EngineConfig`, cheaply: that loads nothing."""

    name: ClassVar[str]
    sampling_rate: ClassVar[int]
    max_chunk_seconds: ClassVar[Seconds]
    licence: ClassVar[Licence]

    def identity(self) -> Identity:
        """Say which model this is without loading it.

        Raises:
            EngineUnavailable: the package or the weights are missing; names the fix.
        """
        ...

    def load(self) -> None:
        """Load and warm up the weights. Called once, in the process that transcribes.

        Raises:
            EngineUnavailable: missing or wrong weights (the checksum is verified here).
        """
        ...

    def transcribe(self, waveforms: Sequence[Waveform]) -> list[Hypothesis]:
        """Transcribe waveforms of any length in (0, max_chunk_seconds].

        Returns exactly one Hypothesis per waveform, in order; a waveform that cannot be transcribed
        (empty, non-finite, too long, out of memory on its own) gets `finish_reason="error"` and an
        `error`, and harms no other. Deterministic; a batch of one equals a batch of many in float32.
        """
        ...

    def close(self) -> None:
        """Free the model. Safe to call twice."""
        ...


@runtime_checkable
class LanguageModel(Protocol):
    """A text model backend, constructed like an Engine. `identity`, `load` and `close` are an Engine's."""

    name: ClassVar[str]
    licence: ClassVar[Licence]

    def identity(self) -> Identity:
        """Say which model this is without loading it; see `Engine.identity`."""
        ...

    def load(self) -> None:
        """Load the weights; see `Engine.load`. A backend that is both loads them once."""
        ...

    @property
    def context_tokens(self) -> int:
        """Most tokens of one prompt, chat template and answer included. Needs no `load`."""
        ...

    def num_tokens(self, text: str) -> int:
        """Tokens of `text` without chat template. Needs no `load`, no GPU and none of the weights: CPU
        stages cut transcripts by it.

        Raises:
            EngineUnavailable: no tokenizer.
        """
        ...

    def complete(self, requests: Sequence[Request]) -> list[Hypothesis]:
        """Answer requests, one Hypothesis each, in order.

        The answer's text is free of special tokens and of `<think>` spans. `finish_reason` is `stop`,
        `length` (cut at `max_new_tokens`), `empty` or `error` (`too_long` when the prompt and its answer
        do not fit `context_tokens`; nothing is ever cut from a prompt). Never raises for one bad request;
        greedy and deterministic; a batch of one equals a batch of many in float32.
        """
        ...

    def close(self) -> None:
        """Free the model. Safe to call twice."""
        ...
