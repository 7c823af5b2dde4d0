"""Small words that every sentence needs. Pure."""

from __future__ import annotations


def many(num: int, word: str) -> str:
    """`1 recording`, `2 recordings`."""
    return f"{num:,} {word}" if num == 1 else f"{num:,} {word}s"


def every(num: int, word: str) -> str:
    """`The one recording`, `Both recordings`, `All 3 recordings`."""
    return f"The one {word}" if num == 1 else f"Both {word}s" if num == 2 else f"All {num:,} {word}s"


def be(num: int) -> str:
    """`is` or `are`."""
    return "is" if num == 1 else "are"
