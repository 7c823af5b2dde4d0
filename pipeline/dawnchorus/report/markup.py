"""Small pieces of HTML. Pure; what they are given as text is escaped here."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from dawnchorus.report.words import cut, length

CELL_CHARACTERS = 160


def escape(text: object) -> str:
    """Text for HTML, in elements and in quoted attributes alike."""
    return html.escape(str(text), quote=True)


def say(text: str) -> str:
    """Running text from data in a table's cell: cut, and allowed to wrap."""
    return f'<span class="say">{escape(cut(text, CELL_CHARACTERS))}</span>'


def number(value: float | None) -> str:
    """With one decimal, or a dash where there is none."""
    return "&ndash;" if value is None else f"{value:,.1f}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are HTML already."""
    top = f"<thead><tr>{''.join(f'<th>{escape(h)}</th>' for h in head)}</tr></thead>" if head else ""
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table>{top}<tbody>{body}</tbody></table></div>'


def where(row: Mapping[str, Any]) -> str:
    """The recording's address, its end first in mind: the folder is dim."""
    address = row["audio_filepath"]
    if not address:
        return "<i>manifest line</i>"
    folder, slash, name = cut(address, CELL_CHARACTERS).rpartition("/")
    at = "" if row["offset"] is None else f" <small>at {length(row['offset'])}</small>"
    return f'<span class="path"><small>{escape(folder + slash)}</small>{escape(name)}</span>{at}'


def code(text: object) -> str:
    return f"<code>{escape(text)}</code>"


def moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
