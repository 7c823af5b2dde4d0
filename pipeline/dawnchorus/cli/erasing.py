"""The command that takes something away: forget."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from dawnchorus.cli.console import err, out, plainly
from dawnchorus.cli.options import OutputArgument, TakeOver
from dawnchorus.errors import UserError

if TYPE_CHECKING:
    from dawnchorus.forget import Erasure

_SHOWN = 20


def forget(
    output: OutputArgument,
    recordings: Annotated[
        list[str],
        typer.Argument(
            metavar="RECORDING...", help="Ids, audio addresses (slices included), or names as show prints."
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    allow_again: Annotated[
        bool, typer.Option("--allow-again", help="Let the next run transcribe what was forgotten.")
    ] = False,
    take_over: TakeOver = False,
) -> None:
    """Remove recordings from everything an output holds, for good. No run transcribes them again.

    The same command finishes what was cut off.
    """
    from dawnchorus import forget as forgetting

    with plainly():
        if allow_again:
            num = forgetting.allow_again(output, recordings, take_over)
            out.print(f"The next run may transcribe them again ({num:,} lines less in forgotten.jsonl).")
            return
        with err.status("Looking for them ..."):
            erasure = forgetting.plan(output, recordings)
        if erasure.is_done:
            out.print("Forgotten already; nothing of it is left.")
            return
        out.print(_table(erasure))
        _confirm(yes)
        with err.status("Removing them ..."):
            done = forgetting.forget(erasure, take_over)
        out.print(Text(done.sentence(), style="green"), soft_wrap=True)
        out.print(Text(forgetting.OUT_OF_REACH), soft_wrap=True)
        out.print(Text(f"No run transcribes them again while their ids are in {done.place}."), soft_wrap=True)


def _table(erasure: Erasure) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for one in list(erasure.targets.values())[:_SHOWN]:
        table.add_row("forget", Text.assemble(str(one), ("  " + one.recording_id, "dim")))
    if len(erasure.targets) > _SHOWN:
        table.add_row("", f"and {len(erasure.targets) - _SHOWN:,} more")
    if erasure.begun:
        table.add_row("finish", f"{len(erasure.begun):,} that were begun before")
    for name, num in erasure.counts.items():
        table.add_row(f"  {name}", f"{num:,} rows")
    if erasure.num_staying:
        table.add_row("stay", f"{erasure.num_staying:,} other recordings of the same audio")
    return table


def _confirm(yes: bool) -> None:
    """Make sure that somebody wants it.

    Raises:
        UserError: nobody can be asked.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise UserError("Nobody is there to confirm it; nothing was done.", "Add --yes.")
    if not typer.confirm("Remove them? This cannot be undone", default=False, err=True):
        err.print("Nothing was done.")
        raise typer.Exit(2)
