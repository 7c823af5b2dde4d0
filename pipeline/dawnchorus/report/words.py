"""The report's sentences: what happened, how long it took, what failed, and how to mend it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dawnchorus.records import Seconds
from dawnchorus.wording import be, every, many

_HINTS = {
    "not_found": "Check the path in the manifest, and whether the upload was finished.",
    "is_directory": "The manifest names a folder; name the file in it.",
    "empty_file": "The file has no bytes: upload it again.",
    "not_audio": "The file is something else: look at it, and take it off the manifest.",
    "no_audio_track": "The video has no sound; nothing can be done.",
    "no_samples": "The file ends before its first sound: upload it again.",
    "non_finite": "The samples are not numbers: export the recording again.",
    "outside_audio": "The slice starts after the end: check its offset.",
    "bad_channel": "The recording has fewer channels: choose another audio.channels.",
    "crash": "The file ends its decoder (or the engine): convert it, or report it.",
    "memory": "Decoding takes more memory than allowed: raise audio.max_memory_bytes.",
    "timeout": "Decoding stalls: convert the file, or raise audio.stall_seconds.",
    "too_large": "Larger than allowed: raise audio.max_file_bytes.",
    "too_long": "Longer than allowed: raise audio.max_seconds.",
    "credentials": "Log in again, or mend the keys; then run the same command.",
    "permission": "Ask for permission to read it; then run the same command.",
    "throttled": "The store slows down: run the same command later, or lower workers.decoders.",
    "disk_full": "Free space in the temporary folder; then run the same command.",
    "damaged_audio": "Most of the file is damaged, and nobody speaks in the rest: copy it again.",
}
FEWEST_WORDS = 50
_PASSING = "Likely to pass: run the same command again."
_FINAL = "Will be the same tomorrow; after mending, run it with --retry-failed all."


def hint(kind: str, transient: bool) -> str:
    """What to do about a kind of failure."""
    return _HINTS.get(kind, _PASSING if transient else _FINAL)


def length(seconds: Seconds) -> str:
    """A length of time for people: 48 s, 12 min, 3 h 12 min, 1,042 h."""
    if seconds < 99.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h" if hours >= 100 or not minutes else f"{hours} h {minutes} min"


def short(num: int) -> str:
    """A count that fits a narrow place: 1,411 or 1.68 M."""
    millions = num / 1e6
    return f"{num:,}" if millions < 1 else f"{millions:,.0f} M" if millions >= 100 else f"{millions:.3g} M"


def cut(text: str, characters: int) -> str:
    """At most so many characters: the middle goes, since both ends of a path say something."""
    if len(text) <= characters:
        return text
    head = characters // 2
    return f"{text[:head]}…{text[len(text) - (characters - head - 1) :]}"


def headline(report: Mapping[str, Any]) -> str:
    """One sentence: is it all there?"""
    totals, problems = report["totals"], report["reconciliation"]["num_problems"]
    num = totals["recordings"]
    if problems:
        return f"The tables do not add up in {many(problems, 'place')}."
    if totals["missing"]:
        return f"{totals['missing']:,} of {many(num, 'recording')} are not done yet."
    if not num:
        return "All was forgotten." if totals.get("forgotten") else "There was nothing to transcribe."
    if totals["failed"] == num:
        return f"{every(num, 'recording')} failed."
    if totals["failed"]:
        return f"{every(num, 'recording')} are accounted for; {totals['failed']:,} failed."
    return f"{every(num, 'recording')} {be(num)} transcribed."


def lede(report: Mapping[str, Any]) -> str:
    """What it cost in time, and what failed: two or three sentences."""
    spent, totals = report["time"], report["totals"]
    said = [f"{length(report['coverage']['audio'])} of audio"]
    if spent["rtfx"]:
        said.append(f"; this run worked {length(spent['wall_seconds'])}, {_speed(spent['rtfx'])}")
    sentences = ["".join(said) + "."]
    kinds = [k for k in report["failures"]["kinds"] if not k["partial"]]
    if kinds:
        parts = [f"{k['num']:,} {k['kind'].replace('_', ' ')}" for k in kinds[:4]]
        if len(kinds) > 4:
            parts.append(many(len(kinds) - 4, "other kind"))
        sentences.append(f"Failed: {', '.join(parts)}.")
    if totals["partial"]:
        sentences.append(f"{totals['partial']:,} more have gaps where audio was damaged or a chunk failed.")
    if totals["transient"]:
        sentences.append(f"{totals['transient']:,} may pass: run the same command again.")
    if totals.get("forgotten"):
        sentences.append(f"Forgotten, and not counted: {many(totals['forgotten'], 'recording')}.")
    if totals.get("elsewhere"):
        sentences.append(f"Of other inputs, and not counted: {many(totals['elsewhere'], 'row')}.")
    if totals["missing"]:
        sentences.append("The same command goes on where this stopped.")
    return " ".join(sentences)


def _speed(rtfx: float) -> str:
    digits = 0 if rtfx >= 20 else 1 if rtfx >= 1 else 2
    return f"{rtfx:,.{digits}f} times as fast as it plays"


def enough(wer: Mapping[str, Any]) -> bool:
    """Whether a word error rate says something: of very few reference words it is chance."""
    return wer["wer"] is not None and wer["num_words"] >= FEWEST_WORDS
