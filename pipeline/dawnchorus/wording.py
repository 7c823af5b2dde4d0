"""Small words that every sentence needs. Pure."""

from __future__ import annotations

from dawnchorus.records import Seconds

_CONTROLS = [c for c in (*range(32), *range(127, 160)) if chr(c) not in "\n\t"]
_DIRECTIONS = [*range(0x202A, 0x202F), *range(0x2066, 0x206A)]  # show "gpj.exe" as "exe.jpg"
_STEERING = dict.fromkeys((*_CONTROLS, *_DIRECTIONS))


def many(num: int, word: str) -> str:
    """`1 recording`, `2 recordings`."""
    return f"{num:,} {word}" if num == 1 else f"{num:,} {word}s"


def every(num: int, word: str) -> str:
    """`The one recording`, `Both recordings`, `All 3 recordings`."""
    return f"The one {word}" if num == 1 else f"Both {word}s" if num == 2 else f"All {num:,} {word}s"


def span(seconds: Seconds) -> str:
    """Seconds as people say them: 48 s, 12 min, 3.4 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:,.1f} h"


def printable(text: str) -> str:
    """Text without the characters that steer a terminal; ends of lines and tabs stay."""
    return text.translate(_STEERING)


def be(num: int) -> str:
    """`is` or `are`."""
    return "is" if num == 1 else "are"
