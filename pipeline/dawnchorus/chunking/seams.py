"""Where two chunks' inputs overlap: which side says what. Pure.

`owned` divides segments that have words, by time; `join_seams` and `join_at_seam` join the texts of
engines that give no word times.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from dawnchorus.records import Seconds, Segment

_WORDS_PER_SECOND = 6
"""Nobody speaks faster for long: bounds the words an overlap can hold."""


def owned(segments: Sequence[Segment], start: Seconds, end: Seconds) -> tuple[Segment, ...]:
    """The part of a chunk's segments that lies in [start, end), the span it answers for.

    All times are seconds from the start of the chunk's input. Of a segment with words, those are kept
    whose midpoint is inside; one without words is kept whole unless it lies outside altogether, since
    its text cannot be divided here (see `join_seams`).
    """
    kept = []
    for segment in segments:
        words = tuple(w for w in segment.words if start <= (w.start + w.end) / 2 < end)
        if not segment.words:
            if segment.start < end and segment.end > start:
                kept.append(segment)
        elif len(words) == len(segment.words):
            kept.append(segment)
        elif words:
            text = "".join(w.word for w in words).strip()
            kept.append(replace(segment, start=words[0].start, end=words[-1].end, text=text, words=words))
    return tuple(kept)


def join_seams(chunks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Segments of the chunk rows of one channel, in order, with what two neighbours both say said once.

    Rows have `input_start`, `input_end` and `segments` in seconds from the start of the recording.
    Only neighbours whose inputs overlap and whose segments at the seam have no words are touched; the
    others were divided by `owned`.
    """
    joined: list[dict[str, Any]] = []
    previous: Mapping[str, Any] | None = None  # of those that say anything
    for chunk in chunks:
        segments = [dict(s) for s in chunk["segments"] or ()]
        if not segments:
            continue
        if previous is not None and previous["input_end"] > chunk["input_start"]:
            left, right = joined[-1], segments[0]
            if not left["words"] and not right["words"]:
                most = round((previous["input_end"] - chunk["input_start"]) * _WORDS_PER_SECOND)
                left["text"], right["text"] = join_at_seam(left["text"], right["text"], most)
        joined += segments
        previous = chunk
    return [s for s in joined if s["text"].strip() or s["words"]]


def join_at_seam(left: str, right: str, max_words: int) -> tuple[str, str]:
    """Texts of two chunks whose inputs overlap, with what both say said once.

    Looks for the longest run of equal words (case and punctuation aside; at least two, or a single one
    that is the last of `left` and the first of `right`) between the last and the first `max_words`
    words, and cuts both in its middle. Without one, both are returned as they are: twice is better
    than never.
    """
    before, after = left.split(), right.split()
    tail, head = before[-max_words:], after[:max_words]
    a, b = [_plain(w) for w in tail], [_plain(w) for w in head]
    run = difflib.SequenceMatcher(None, a, b, autojunk=False).find_longest_match()
    single = run.size == 1 and run.a == len(a) - 1 and run.b == 0
    if run.size < 2 and not single:
        return left, right
    keep = -(-run.size // 2)
    cut_left = len(before) - len(tail) + run.a + keep
    return " ".join(before[:cut_left]), " ".join(after[run.b + keep :])


def _plain(word: str) -> str:
    return "".join(c for c in word.casefold() if c.isalnum()) or word
