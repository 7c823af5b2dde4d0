"""Judging what a SALM wrote for a chunk: is there sound at all, does the text fit it, where to cut. Pure."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dawnchorus.engines.base import Waveform
from dawnchorus.engines.takes import Take, cut, judged
from dawnchorus.records import Failure, Seconds

if TYPE_CHECKING:
    from dawnchorus.engines.salm_generate import Output

# Characters a second: read English has 14, the fastest talkers 25.
_MOST_CHARACTERS = 30.0
_FEWEST_CHARACTERS = 2.0
# Worth a split, not an alarm. 21 clips of real speech have 13 to 21 a second of sound; a tiny model that lost
# half of the words of 21 s wrote 8.
_FEW_CHARACTERS = 9.0
_EXTRA_CHARACTERS = 40
_OMISSION_FROM: Seconds = 4.0  # of sound; less may be one word and a rustle
_LOUD_DB = 30.0  # sound is what is not more than this below the loudest
_MENDED_BY_SPLIT = frozenset({"omission", "sparse", "low_logprob"})


def is_silent(waveform: Waveform, sampling_rate: int, dbfs: float) -> bool:
    """Whether no tenth of a second has a level above `dbfs` (root mean square, full scale is 0)."""
    return bool(_levels(waveform, sampling_rate).max(initial=0.0) <= 10 ** (dbfs / 20))


def take_of(text: str, output: Output, seconds: Seconds, limit: int, redo_logprob: float | None) -> Take:
    """A generated text as a take, with its doubts; repeats alone are none: people do that."""
    if not math.isfinite(output.logprob):
        failure = Failure("transcribe", "not_finite", "The model's probabilities are not finite.", False)
        return Take("", 0, 0.0, (), (), failure=failure)
    logprob = round(output.avg_logprob, 4)
    doubts, gap = judged(text, len(output.ids), logprob, (), seconds, limit)
    kept = [d for d in doubts if d != "repeats"]
    if len(text) > _MOST_CHARACTERS * seconds + _EXTRA_CHARACTERS:
        kept.append("too_fast")
    if redo_logprob is not None and logprob < redo_logprob:
        kept.append("low_logprob")
    return Take(text, len(output.ids), logprob, tuple(dict.fromkeys(kept)), (), gap)


def with_omission(take: Take, waveform: Waveform, sampling_rate: int) -> Take:
    """The take, doubted where it says little (`sparse`) or next to nothing (`omission`) for its sound."""
    if take.failure is not None or take.loops:
        return take
    levels = _levels(waveform, sampling_rate)
    sound = float((levels > levels.max() * 10 ** (-_LOUD_DB / 20)).sum()) / 10
    if sound < _OMISSION_FROM or len(take.text) >= _FEW_CHARACTERS * sound:
        return take
    doubt = "omission" if len(take.text) < _FEWEST_CHARACTERS * sound else "sparse"
    return replace(take, doubts=(*take.doubts, doubt))


def best_cut(take: Take, waveform: Waveform, sampling_rate: int) -> int | None:
    """Sample to split at, where splitting may help; anywhere but at the ends, at the quietest."""
    if _MENDED_BY_SPLIT.isdisjoint(take.doubts) and not take.loops:
        return None
    end = len(waveform) / sampling_rate
    doubts = tuple(dict.fromkeys((*take.doubts, "omission")))
    return cut(replace(take, doubts=doubts, gap=(end / 3, end * 2 / 3)), waveform, sampling_rate)


def _levels(waveform: Waveform, sampling_rate: int) -> NDArray[np.float64]:
    """Root mean square of each tenth of a second, the last one shorter."""
    size = sampling_rate // 10
    starts = np.arange(0, len(waveform), size)
    power = np.add.reduceat(waveform.astype(np.float64) ** 2, starts)
    return np.asarray(np.sqrt(power / np.minimum(size, len(waveform) - starts)))
