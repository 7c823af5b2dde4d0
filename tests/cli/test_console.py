"""What commands print: text as it is, whatever is in it, and errors without credentials."""

from __future__ import annotations

import io

import pytest
import typer
from rich.table import Table
from rich.text import Text

from dawnchorus.cli.console import PlainConsole, plainly
from dawnchorus.errors import ConfigError
from dawnchorus.outcome import Exit
from dawnchorus.terminal import Terminal, rows_table

HOSTILE = "talk [live] :bird: \x1b]0;mine\x07\x1b[2J\x9b31m/data/a[/b]"
HARMLESS = "talk [live] :bird: ]0;mine[2J31m/data/a[/b]"


@pytest.mark.parametrize("make", [str, Text, lambda said: rows_table([("input", said)])])
def test_names_of_files_are_text(make: type[str] | type[Text]) -> None:
    """`[live]` is no style and `[/b]` ends none; nothing in a name moves the cursor or sets a title."""
    console = PlainConsole(file=io.StringIO(), width=120)
    console.print(make(HOSTILE))
    assert HARMLESS in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_terminal_gets_our_colours_and_no_others() -> None:
    console = PlainConsole(file=io.StringIO(), width=120, force_terminal=True, color_system="standard")
    table = Table.grid()
    table.add_row(Text(HOSTILE, style="red"))
    console.print(table)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert said.startswith("\x1b[31m")
    assert said.count("\x1b") == 2
    assert "mine[2J31m" in said


def test_a_run_ends_whatever_its_files_are_called() -> None:
    console = PlainConsole(file=io.StringIO(), width=120)
    with Terminal(console) as ui:
        ui.ended([("  not_found", f"1: There is nothing at {HOSTILE}.")], "Done.", Exit.OK)
    assert HARMLESS in console.file.getvalue()  # type: ignore[attr-defined]


def test_an_error_is_said_without_credentials(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended, plainly():
        raise ConfigError("https://me:hunter2@host/a?X-Amz-Signature=5ec4e7 is no place.")
    assert ended.value.exit_code == 2
    assert "https://host/a?X-Amz-Signature=*** is no place." in capsys.readouterr().err
