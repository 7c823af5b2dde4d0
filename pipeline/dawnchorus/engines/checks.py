"""The checks every engine makes of a waveform before its model sees it."""

from __future__ import annotations

import numpy as np

from dawnchorus.engines.base import Waveform
from dawnchorus.records import Failure, Hypothesis, Seconds, Stage


def check(waveform: Waveform, sampling_rate: int, max_chunk_seconds: Seconds) -> Hypothesis | None:
    """None for a waveform that can be transcribed, else the error Hypothesis that answers it."""
    if waveform.ndim != 1:
        return error("bad_shape", f"A waveform has one axis, this one has {waveform.ndim}.")
    if len(waveform) == 0:
        return error("no_samples", "The waveform has no samples.")
    if len(waveform) > round(max_chunk_seconds * sampling_rate):
        seconds = len(waveform) / sampling_rate
        return error("too_long", f"{seconds:.2f} s is more than the engine's {max_chunk_seconds:g} s.")
    if not np.isfinite(waveform).all():
        return error("not_finite", "The waveform holds NaN or infinite samples.")
    return None


def error(kind: str, message: str, transient: bool = False, stage: Stage = "transcribe") -> Hypothesis:
    """A Hypothesis that says why there is none."""
    failure = Failure(stage, kind, message, transient)
    return Hypothesis(finish_reason="error", error=failure)
