"""Small pieces of HTML. Pure; what they are given as text is escaped here."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from dawnchorus.report.words import cut, length

CELL_CHARACTERS = 160
_STACKS = 4


def escape(text: object) -> str:
    """Text for HTML, in elements and in quoted attributes alike."""
    return html.escape(str(text), quote=True)


def plain(text: str) -> str:
    """Text without characters that steer: controls, joiners, marks that turn the reading direction."""
    return "".join(" " if unicodedata.category(c)[0] == "C" else c for c in text)


def say(text: str, characters: int = CELL_CHARACTERS) -> str:
    """Running text from data in a table's cell: cut, and allowed to wrap."""
    return f'<span class="say">{escape(cut(plain(text), characters))}</span>'


def number(value: float | None) -> str:
    """With one decimal, or a dash where there is none."""
    return "&ndash;" if value is None else f"{value:,.1f}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are HTML already; on a phone the cells of a wide one stand below each other."""
    top = f"<thead><tr>{''.join(f'<th>{escape(h)}</th>' for h in head)}</tr></thead>" if head else ""
    stacks = len(head) >= _STACKS

    def cell(i: int, made: str) -> str:
        label = f' data-label="{escape(head[i])}"' if stacks and i else ""
        return f"<td{label}>{made}</td>"

    body = "".join(f"<tr>{''.join(cell(i, made) for i, made in enumerate(row))}</tr>" for row in rows)
    kind = ' class="stacks"' if stacks else ""
    return f'<div class="scroll"><table{kind}>{top}<tbody>{body}</tbody></table></div>'


def where(row: Mapping[str, Any]) -> str:
    """The recording's address, its end first in mind: the folder is dim."""
    address = row["audio_filepath"]
    if not address:
        return "<i>manifest line</i>"
    folder, slash, name = cut(plain(address), CELL_CHARACTERS).rpartition("/")
    at = "" if row["offset"] is None else f" <small>at {length(row['offset'])}</small>"
    return f'<span class="path"><small>{escape(folder + slash)}</small>{escape(name)}</span>{at}'


def code(text: object) -> str:
    return f"<code>{escape(text)}</code>"


def moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
