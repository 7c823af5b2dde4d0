"""The engine contract: what a model backend promises the rest of the system.

An Engine turns waveforms into Hypotheses and, where it has an LLM mode, prompts into answers. It owns
batching, out-of-memory splitting and its model's guards; it knows nothing of files, chunks of what
recording, Ray or tables. `tests/engines/contract.py` holds every engine to this page.
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
    (weights hash, package version, dtype, decoding options); it enters the fingerprint."""

    model: str
    revision: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Engine(Protocol):
    """A model backend. Constructed from `config.EngineConfig`; construction is cheap and loads nothing."""

    name: ClassVar[str]
    sampling_rate: ClassVar[int]
    max_chunk_seconds: ClassVar[Seconds]
    supports_llm: ClassVar[bool]
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

    def complete(self, prompts: Sequence[str]) -> list[Hypothesis]:
        """Answer prompts in LLM mode, one Hypothesis each, in order.

        Raises:
            NotImplementedError: `supports_llm` is False.
        """
        ...

    def close(self) -> None:
        """Free the model. Safe to call twice."""
        ...
