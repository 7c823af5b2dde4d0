"""Segments -> subtitle cues: at most 2 lines of 42 characters and 7 s each, never overlapping. Pure.

Segments are values of `schema.CHANNEL_SEGMENT`; words carry their own times where the engine gave them,
else they share their segment's time by length. Knows no subtitle format.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from dawnchorus.records import Seconds

LINE_CHARACTERS = 42
MAX_LINES = 2
MAX_MS = 7_000
_MIN_MS = 200
"""What a cue keeps at least when two voices speak at once and have to share the time."""
_LABEL_CHARACTERS = 20
_CONTROLS = {c: " " for c in (*range(32), *range(127, 160))}
_SENTENCE, _PAUSE = (".", "!", "?", "…", "。"), (",", ";", ":", "-", "、")


@dataclass(slots=True)
class Cue:
    """One subtitle: integer milliseconds, who speaks (None: nobody in particular), one or two lines."""

    start_ms: int
    end_ms: int
    speaker: str | None
    lines: list[str]


@dataclass(frozen=True, slots=True)
class _Token:
    """A word, or a piece of one; `glued` to the one before, where no space is between them."""

    start_ms: int
    end_ms: int
    text: str
    glued: bool


def clean(text: str) -> str:
    """Text on one line, without control characters."""
    return " ".join(text.translate(_CONTROLS).split())


def speaker_of(segment: Mapping[str, Any]) -> str | None:
    """Who speaks a segment: its speaker, else its channel (counted from 0, as everywhere)."""
    if segment.get("speaker"):
        return clean(segment["speaker"])[:_LABEL_CHARACTERS]
    channel = segment.get("channel")
    return None if channel is None else f"Channel {channel}"


def cues(segments: Iterable[Mapping[str, Any]], labelled: bool = False) -> list[Cue]:
    """The cues of one recording, in order of time, none of which overlap.

    `labelled`: lines keep room for `[speaker] ` before the first one.
    """
    found = []
    for segment in segments:
        speaker = speaker_of(segment)
        room = len(speaker) + 3 if labelled and speaker else 0
        tokens = _tokens(segment, room)
        for group in _split(tokens, room):
            end = min(max(t.end_ms for t in group), group[0].start_ms + MAX_MS)
            lines = _lines(group, room)
            found.append(Cue(group[0].start_ms, max(end, group[0].start_ms + 1), speaker, lines))
    return _apart(sorted(found, key=lambda c: (c.start_ms, c.end_ms)))


def _ms(seconds: Seconds) -> int:
    return max(0, round(seconds * 1000))


def _tokens(segment: Mapping[str, Any], room: int) -> list[_Token]:
    """The words of a segment with their times, spaced as its text is; those longer than a line are cut."""
    whole = clean(segment["text"])
    words = [w for w in segment.get("words") or () if clean(w["word"])]
    if words:
        spans = [(clean(w["word"]), _ms(w["start"]), _ms(w["end"])) for w in words]
    else:
        spans = _share(whole.split(), _ms(segment["start"]), _ms(segment["end"]))
    glued = _glued(whole, [text for text, _, _ in spans])
    tokens = []
    at = 0
    for (text, start, end), to_last in zip(spans, glued, strict=True):
        at = max(at, start)
        size = max(1, len(text) if len(text) <= LINE_CHARACTERS - room else LINE_CHARACTERS // 2)
        pieces = [text[i : i + size] for i in range(0, len(text), size)]
        shared = _share(pieces, at, max(at, end))
        tokens += [_Token(a, b, piece, to_last or n > 0) for n, (piece, a, b) in enumerate(shared)]
    return tokens


def _glued(text: str, words: Sequence[str]) -> list[bool]:
    """Whether each word stands in `text` right after the one before: `www` `.example` `.org`, `28` `.8`, and
    all words of a script without spaces."""
    glued, end = [], 0
    for word in words:
        start = text.find(word, end)
        glued.append(start == end > 0)
        end = start + len(word) if start >= 0 else end
    return glued


def _text(group: Sequence[_Token]) -> str:
    return "".join(t.text if t.glued or not n else f" {t.text}" for n, t in enumerate(group))


def _share(texts: Sequence[str], start: int, end: int) -> list[tuple[str, int, int]]:
    """Pieces of text with a share of [start, end) each, in proportion to their length."""
    total = sum(len(t) + 1 for t in texts)
    shared, before = [], 0
    for text in texts:
        after = before + len(text) + 1
        shared.append((text, start + (end - start) * before // total, start + (end - start) * after // total))
        before = after
    return shared


def _split(tokens: Sequence[_Token], room: int) -> list[Sequence[_Token]]:
    """Groups of tokens that fit a cue each: as few as possible, even, and ending at punctuation."""
    if not tokens or _fits(tokens, room):
        return [tokens] if tokens else []
    best: list[tuple[float, int]] = [(0.0, 0)]
    for end in range(1, len(tokens) + 1):
        options = []
        for start in range(end - 1, -1, -1):
            group = tokens[start:end]
            if len(group) > 1 and not _fits(group, room):
                break
            options.append((best[start][0] + _cost(group, room, tokens[end : end + 1]), start))
        best.append(min(options))
    groups: list[Sequence[_Token]] = []
    end = len(tokens)
    while end:
        start = best[end][1]
        groups.append(tokens[start:end])
        end = start
    return groups[::-1]


def _cost(group: Sequence[_Token], room: int, after: Sequence[_Token]) -> float:
    size = len(_text(group)) + 1 + room
    slack = 1 - min(1.0, size / (LINE_CHARACTERS * MAX_LINES))
    text = group[-1].text
    ending = 0.0 if not after or text.endswith(_SENTENCE) else 0.15 if text.endswith(_PAUSE) else 0.4
    if after and after[0].glued:  # in the middle of a word, wherever a script has spaces
        ending = 0.8
    return 1.0 + slack * slack + ending


def _fits(group: Sequence[_Token], room: int) -> bool:
    """Whether the tokens fit the time and the two lines of one cue (filling the first line first)."""
    if group[-1].end_ms - group[0].start_ms > MAX_MS:
        return False
    line, column = 1, room
    for n, token in enumerate(group):
        spaced = n and not token.glued and column > (room if line == 1 else 0)
        column += len(token.text) + (1 if spaced else 0)
        if column > LINE_CHARACTERS:
            line, column = line + 1, len(token.text)
    return line <= MAX_LINES


def _lines(group: Sequence[_Token], room: int) -> list[str]:
    """One line, or the two most even ones, between words where it can be; the first leaves `room` characters
    free."""
    whole = _text(group)
    if len(whole) + room <= LINE_CHARACTERS or len(group) == 1:
        return [whole]

    def unlikeness(n: int) -> tuple[bool, bool, int, int]:
        first, second = len(_text(group[:n])) + room, len(_text(group[n:]))
        return max(first, second) > LINE_CHARACTERS, group[n].glued, max(first, second), first

    at = min(range(1, len(group)), key=unlikeness)
    return [_text(group[:at]), _text(group[at:])]


def _apart(ordered: list[Cue]) -> list[Cue]:
    """Cues in order of start, moved so that none overlap: two voices at once share the time evenly."""
    for left, right in pairwise(ordered):
        if right.start_ms < left.end_ms:
            # A word into a long sentence takes its second half, or the rest of it would not be shown.
            right.end_ms = max(right.end_ms, left.end_ms)
            middle = (right.start_ms + left.end_ms) // 2
            left.end_ms = right.start_ms = max(middle, left.start_ms + _MIN_MS)
            right.end_ms = max(right.end_ms, right.start_ms + _MIN_MS)
        right.end_ms = max(right.end_ms, right.start_ms + 1)
        right.end_ms = min(right.end_ms, right.start_ms + MAX_MS)
    return ordered
