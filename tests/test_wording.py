"""Words from elsewhere on a terminal."""

from __future__ import annotations

from dawnchorus.wording import printable


def test_nothing_steers_the_terminal_or_turns_a_name_around() -> None:
    assert printable("a\x1b[31mb\x07\tc\nd\x9b") == "a[31mb\tc\nd"
    assert printable("invoice\u202egpj.exe \u2067x\u2069") == "invoicegpj.exe x"
    assert printable("Füße, שלום, ゆ") == "Füße, שלום, ゆ"
