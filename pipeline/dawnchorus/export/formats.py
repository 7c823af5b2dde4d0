"""Transcript rows as text: SubRip, WebVTT, plain text, JSON lines, NeMo manifest lines. Pure.

Rows are dicts of `schema.TRANSCRIPTS`. What a format cannot hold is changed as little as possible, so
that no transcript can end a cue or start a tag.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from dawnchorus import storage
from dawnchorus.export.cues import clean, cues, speaker_of
from dawnchorus.records import Seconds

_PARAGRAPH_PAUSE: Seconds = 2.0
_TAG = re.compile(r"<(?=[A-Za-z/])")
"""What players take for the start of a tag; SubRip has no way to escape it."""

Row = Mapping[str, Any]


def srt(row: Row) -> str:
    """SubRip; speakers as `[name] ` before the first line."""
    blocks = []
    for number, cue in enumerate(cues(row["segments"] or (), labelled=True), 1):
        first, *rest = cue.lines
        if cue.speaker:
            first = f"[{cue.speaker}] {first}"
        lines = [_TAG.sub("< ", line.replace("-->", "->")) for line in (first, *rest)]
        span = f"{_clock(cue.start_ms, ',')} --> {_clock(cue.end_ms, ',')}"
        blocks.append("\n".join([str(number), span, *lines, ""]))
    return "\n".join(blocks)


def vtt(row: Row) -> str:
    """WebVTT; speakers as voice tags, text escaped."""
    blocks = ["WEBVTT\n"]
    for cue in cues(row["segments"] or ()):
        text = html.escape("\n".join(cue.lines), quote=False)
        if cue.speaker:
            text = f"<v {html.escape(cue.speaker, quote=False)}>{text}</v>"
        blocks.append(f"{_clock(cue.start_ms, '.')} --> {_clock(cue.end_ms, '.')}\n{text}\n")
    return "\n".join(blocks)


def txt(row: Row) -> str:
    """Plain text: a new paragraph after a pause of two seconds and when another speaks."""
    paragraphs: list[list[str]] = []
    last: tuple[str | None, Seconds] = (None, 0.0)
    for segment in row["segments"] or ():
        text, speaker = clean(segment["text"]), speaker_of(segment)
        if not text:
            continue
        if not paragraphs or speaker != last[0] or segment["start"] - last[1] >= _PARAGRAPH_PAUSE:
            paragraphs.append([f"{speaker}:"] if speaker else [])
        paragraphs[-1].append(text)
        last = (speaker, segment["end"])
    return "\n\n".join(" ".join(p) for p in paragraphs) + "\n"


def jsonl(row: Row) -> str:
    """All that a row says, its metadata as an object, and its answers as one, by name."""
    left_out = ("metadata", "schema_version", "answers")
    whole = {k: v for k, v in row.items() if k not in left_out}
    answers = {a["name"]: _answer(a) for a in row["answers"] or ()}
    return _json_line({**whole, "metadata": json.loads(row["metadata"] or "{}"), "answers": answers})


def _answer(answer: Row) -> dict[str, Any]:
    """What a reader of an answer needs; `json` is data, null where the prompt asked for none."""
    names = ("question", "text", "json", "finish_reason", "flags", "status", "failure")
    data = None if answer["json"] is None else json.loads(answer["json"])
    return {n: answer[n] for n in names} | {"json": data}


def has_answer(row: Row, name: str) -> bool:
    """Whether something was answered under this name."""
    return any(a["name"] == name and a["status"] == "ok" for a in row["answers"] or ())


def answer_text(row: Row, name: str) -> str:
    """The answer of this name as text, as the model gave it; rows must have it."""
    text: str = next(a["text"] for a in row["answers"] if a["name"] == name)
    return text.strip() + "\n"


def nemo(row: Row) -> str:
    """A line that NeMo tools read: `text` is the reference, other columns of the input come last."""
    line = {
        "audio_filepath": _path(row["audio_filepath"]),
        "offset": row["offset"],
        "duration": row["duration"],
        "text": row["text"],
        "pred_text": row["pred_text"],
    }
    line = {k: v for k, v in line.items() if v is not None}
    return _json_line(
        {**line, **{k: v for k, v in json.loads(row["metadata"] or "{}").items() if k not in line}}
    )


PER_RECORDING: dict[str, Callable[[Row], str]] = {"srt": srt, "vtt": vtt, "txt": txt}
"""Formats with one file per recording."""
PER_LINE: dict[str, Callable[[Row], str]] = {"jsonl": jsonl, "nemo": nemo}
"""Formats with one line per recording."""
STATUSES = {
    "srt": ("ok",),
    "vtt": ("ok",),
    "txt": ("ok",),
    "jsonl": ("ok", "empty", "failed"),
    "nemo": ("ok", "empty"),
}
"""Which rows a format takes."""


def _clock(ms: int, point: str) -> str:
    seconds, ms = divmod(ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}{point}{ms:03d}"


def _path(address: str) -> str:
    """Local files by path, as NeMo wants them; an address where the path is not Unicode."""
    if not storage.is_local(address):
        return address
    path = storage.local_path(address)
    return path if path.isprintable() or path.encode("utf-8", "replace").decode() == path else address


def _json_line(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"
