"""Every flag that a row can have, and what it means: notes on what was mended, and doubts.

A note is no reason to leave a row out. The README's table and the report's words are made of these.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Weight = Literal["note", "doubt", "audio"]


@dataclass(frozen=True, slots=True)
class Flag:
    """`weight`: a note says that something was mended, a doubt that text may be wrong or missing, `audio`
    that the file is not what it claims to be."""

    weight: Weight
    meaning: str


TRANSCRIPT_FLAGS = {
    "redone": Flag("note", "Whisper was unsure of a chunk and heard it again in its full window."),
    "split": Flag("note", "A chunk came out doubtful, was cut at a pause and heard again in parts."),
    "low_logprob": Flag("doubt", "The model hardly believed what it wrote for a chunk."),
    "omission": Flag("doubt", "Two seconds or more of a chunk's speech seem to have no words."),
    "sparse": Flag("doubt", "Few words for that much sound, even after a split."),
    "repeats": Flag("doubt", "A phrase comes twice in a row, or a word three times; people do that, too."),
    "repetition": Flag("doubt", "A chunk's text was a loop; the loop is said once."),
    "too_fast": Flag("doubt", "More text than anybody speaks in that time; loops in it are said once."),
    "length_limit": Flag("doubt", "The model came to its limit of tokens before its end."),
    "maybe_not_english": Flag("doubt", "Probably another language, heard by an English-only model."),
    "partial": Flag("doubt", "A part failed and is missing; `failure` says why."),
    "damaged_audio": Flag("audio", "Some of the file does not decode; those seconds count as failed."),
    "truncated_audio": Flag("audio", "The file ends before the length that it claims."),
    "duration_mismatch": Flag(
        "audio", "Its length is not the one that manifest or file claim, by over 0.1 s."
    ),
    "timestamp_gap": Flag("audio", "The file's clock leaps ahead; the gap is silence: times stay right."),
    "more_tracks": Flag("audio", "The file has several audio tracks, of which one was heard."),
    "timestamp_jump": Flag("audio", "The file's clock leaps too far or back; the leap was left out."),
}
"""Flags of a transcript, and of its chunks."""

ANSWER_FLAGS = {
    "repaired": Flag("note", "The first answer did not fit the JSON schema, the second does."),
    "partial": Flag("doubt", "Notes on some part of a long transcript failed, so the answer is without it."),
    "notes_cut": Flag("doubt", "Notes on some part reached their limit of tokens."),
    "invalid_json": Flag("doubt", "The answer does not fit the JSON schema, asked twice."),
}
"""Flags of an answer."""

NOTES = frozenset(n for n, f in (TRANSCRIPT_FLAGS | ANSWER_FLAGS).items() if f.weight == "note")
"""Flags that are no reason to leave a row out."""


def meaning(flag: str, answer: bool = False) -> str:
    """What a flag says; nothing of one that this version does not know."""
    found = (ANSWER_FLAGS if answer else TRANSCRIPT_FLAGS).get(flag)
    return found.meaning if found else ""
