"""The nouns of the system, as frozen values: Recording, Chunk, Segment, Hypothesis, Failure.

Knows no file format, no storage and no engine. Bare times are seconds (float64 at rest); integer
samples are used wherever times are added or compared.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Seconds = float
"""A time or a duration in seconds."""

Status = Literal["ok", "empty", "failed"]
"""`ok`: at least one chunk succeeded. `empty`: decoded, no speech. `failed`: see `Failure`."""

Stage = Literal["manifest", "fetch", "decode", "transcribe", "assemble", "answer"]
"""Where a failure happened."""

FinishReason = Literal["stop", "length", "empty", "error"]
"""Why an engine stopped writing: the end, its length limit, nothing to say, an error."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a recording, a chunk or an answer has no result.

    `kind` is a short stable word for grouping (`not_found`, `crash`, `no_audio`, ...); `message` is
    one sentence for a person; `transient` failures are retried by the next resume; `attempts` counts
    the tries so far.
    """

    stage: Stage
    kind: str
    message: str
    transient: bool
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class Recording:
    """One audio object, or one slice of it: what a manifest row names.

    `offset` is None for a whole object. A slice has an `offset` (seconds into the object, possibly 0)
    and may have a `duration`; without one it runs to the end. `claimed_duration` is what the manifest
    says of the length, in seconds: a hint for whole objects. `metadata` is a JSON object, as text, of
    the manifest's other columns.
    """

    recording_id: str
    audio_filepath: str
    offset: Seconds | None = None
    duration: Seconds | None = None
    claimed_duration: Seconds | None = None
    text: str | None = None
    metadata: str = "{}"


@dataclass(frozen=True, slots=True)
class Word:
    """One word of a segment; times in seconds, `prob` in [0, 1] or None where the engine has none."""

    start: Seconds
    end: Seconds
    word: str
    prob: float | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """A span of output. Engines give times from the start of the waveform, tables from the start of
    the recording, both in seconds."""

    start: Seconds
    end: Seconds
    text: str
    avg_logprob: float | None = None
    speaker: str | None = None
    words: tuple[Word, ...] = ()


@dataclass(frozen=True, slots=True)
class Chunk:
    """The engine's input window on one channel of a recording, in integer samples from its start.

    [`start`, `end`) is the span the chunk answers for: the spans of a recording's chunks never
    overlap, and what no chunk covers is silence. [`input_start`, `input_end`) is what the engine
    hears; it is wider only where fixed windows overlap at a seam. `channel` is None for the mix.
    """

    channel: int | None
    chunk_index: int
    start: int
    end: int
    input_start: int
    input_end: int


@dataclass(frozen=True, slots=True)
class ChannelCount:
    """Integer-sample account of one channel of one recording, at the engine's rate.

    `transcribed + failed + silent == decoded`, where transcribed and failed are recomputed from the
    committed chunk rows; `failed_samples` here are those lost before chunking (damaged spans).
    """

    channel: int | None
    decoded_samples: int
    silent_samples: int
    damaged_samples: int = 0


@dataclass(slots=True)
class Counted:
    """What an engine's model was called with: items of each batch; how much of their size was content and
    how much padding, in the unit of the sizes; batches that were halved because memory did not suffice."""

    num_items: list[int] = field(default_factory=list)
    content: float = 0.0
    padding: float = 0.0
    num_halved: int = 0


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """What an engine returns for one waveform or one prompt. Times are seconds from the waveform's
    start; `num_splits` counts how often the engine had to cut and redo it; `flags` name doubts."""

    segments: tuple[Segment, ...] = ()
    finish_reason: FinishReason = "stop"
    avg_logprob: float | None = None
    num_tokens: int = 0
    num_splits: int = 0
    flags: tuple[str, ...] = ()
    error: Failure | None = None

    @property
    def text(self) -> str:
        """The segments' texts joined by single spaces."""
        return " ".join(s.text.strip() for s in self.segments if s.text.strip())
