"""What a NeMo model hands out, as segments with words. Pure: numbers and strings in, records out.

Knows nothing of NeMo's classes. Times are seconds from the start of the waveform.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from dawnchorus.engines import takes
from dawnchorus.engines.takes import Take, judged, token_limit
from dawnchorus.records import Hypothesis, Seconds, Segment, Word

_SENTENCE_ENDS = (".", "?", "!")
_CONTROL = re.compile(r"<\|[^|<>]*\|>")
_PAUSE: Seconds = 1.0
"""A pause that ends a segment also where no sentence ends (character models write no full stops)."""


def words(
    offsets: Iterable[Mapping[str, Any]],
    probs: Sequence[float] | None,
    frame: Seconds,
    end: Seconds,
) -> tuple[Word, ...]:
    """Words from offsets in frames of `frame` seconds, none of them beyond `end`.

    A word lasts one frame at least (CTC gives a word of one frame the same start and end), and no
    longer than until the next begins (a transducer's durations may overlap).
    """
    found = list(offsets)
    # A clip of less than a second is padded: a word may begin behind its end.
    starts = [min(max(0.0, end - frame), float(o["start_offset"]) * frame) for o in found]
    made = []
    for i, offset in enumerate(found):
        until = min(end, max(float(offset["end_offset"]) * frame, starts[i] + frame))
        if i + 1 < len(found) and starts[i + 1] > starts[i]:
            until = min(until, starts[i + 1])
        prob = round(probs[i], 3) if probs is not None and len(probs) == len(found) else None
        made.append(Word(starts[i], until, f" {offset['word']}", prob))
    return tuple(made)


def hypothesis(
    text: str, spoken: Sequence[Word], seconds: Seconds, avg_logprob: float | None, num_tokens: int
) -> Hypothesis:
    """One Hypothesis; its segments end with sentences and at pauses, where the words have times.

    Words that are not those of the text are left out: one segment then holds it all.
    """
    said = " ".join(text.split())
    if not any(c.isalnum() for c in said):
        return Hypothesis((), "empty", avg_logprob, num_tokens)
    if " ".join(w.word.strip() for w in spoken) != said:
        segments: tuple[Segment, ...] = (Segment(0.0, seconds, said, avg_logprob),)
    else:
        segments = tuple(
            Segment(
                group[0].start,
                group[-1].end,
                "".join(w.word for w in group).strip(),
                avg_logprob,
                words=group,
            )
            for group in sentences(spoken)
        )
    return Hypothesis(segments, "stop", avg_logprob, num_tokens)


def written(text: str, num_tokens: int, seconds: Seconds) -> Hypothesis:
    """What a model without times wrote: one segment, without control tokens (NeMo leaves them in).

    It may loop until the decoder's limit, or write more than anybody says: said once, and flagged.
    """
    said, most = " ".join(_CONTROL.sub(" ", text).split()), token_limit(seconds)
    doubts, gap = judged(said, num_tokens, 0.0, (), seconds, most)
    kept = takes.hypothesis(Take(said, num_tokens, 0.0, doubts, (), gap), seconds)
    segments = tuple(replace(s, avg_logprob=None) for s in kept.segments)
    return replace(kept, segments=segments, avg_logprob=None)


def sentences(spoken: Sequence[Word]) -> list[tuple[Word, ...]]:
    """Words grouped into sentences, and at long pauses."""
    groups: list[list[Word]] = [[spoken[0]]]
    for before, word in pairwise(spoken):
        if before.word.endswith(_SENTENCE_ENDS) or word.start - before.end > _PAUSE:
            groups.append([])
        groups[-1].append(word)
    return [tuple(g) for g in groups]


def mean_logprob(probs: Sequence[float]) -> float | None:
    """Mean natural logarithm; four digits, since the last ones differ with the batch."""
    if not probs:
        return None
    return round(sum(math.log(max(p, 1e-10)) for p in probs) / len(probs), 4)


def probability(confidence: float, num_labels: int) -> float:
    """NeMo's `max_prob` confidence, which is 0 for an even guess over the labels, as a probability."""
    return (confidence * (num_labels - 1) + 1) / num_labels


def spread(offsets: Iterable[Mapping[str, Any]], frames: Mapping[int, float]) -> list[float]:
    """Mean probability of each word over its frames, from those of the frames that are not blank."""
    made = []
    for offset in offsets:
        first, last = int(offset["start_offset"]), int(offset["end_offset"])
        inside = [frames[i] for i in range(first, max(first, last) + 1) if i in frames]
        made.append(sum(inside) / len(inside) if inside else 0.0)
    return made
