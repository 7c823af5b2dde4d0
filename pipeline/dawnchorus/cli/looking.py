"""The commands that look at an output or at this machine: show, export, doctor."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer
from rich.text import Text

from dawnchorus.cli.console import out, plainly
from dawnchorus.cli.options import ConfigArguments, Input, Output, OutputArgument, read_config


class ExportFormat(StrEnum):
    """Formats of `export`."""

    srt = "srt"
    vtt = "vtt"
    txt = "txt"
    jsonl = "jsonl"
    nemo = "nemo"


def show(
    output: OutputArgument,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Rows to show.")] = 20,
    status: Annotated[
        str | None, typer.Option("--status", help="Only rows of this status: ok, empty, failed.")
    ] = None,
    answers: Annotated[
        bool, typer.Option("--answers", help="Show what LLM mode answered in place of the transcripts.")
    ] = False,
) -> None:
    """Show transcripts of an output as a table."""
    from dawnchorus.show import show_table

    with plainly():
        width = out.width if out.is_terminal else None
        for part in show_table(output, limit, status, answers, width):
            out.print(part, soft_wrap=width is None)


def export(
    output: OutputArgument,
    destination: Annotated[
        str, typer.Argument(metavar="DESTINATION", help="Folder (srt, vtt, txt) or file (jsonl, nemo).")
    ],
    format: Annotated[ExportFormat, typer.Option("--format", "-f", help="What to write.")] = ExportFormat.srt,
    answer: Annotated[
        str | None,
        typer.Option("--answer", "-a", metavar="NAME", help="With txt: this answer of LLM mode instead."),
    ] = None,
) -> None:
    """Write transcripts as subtitles, text, JSON or a NeMo manifest. JSON lines have the answers, too."""
    from dawnchorus import export as exporting

    with plainly():
        done = exporting.export(output, destination, format.value, answer)
        out.print(done.sentence(), soft_wrap=True)


def doctor(arguments: ConfigArguments = None, input: Input = None, output: Output = None) -> None:
    """Check this machine and say how to mend what is missing. With a configuration: its storage, too."""
    from dawnchorus import doctor as examining

    with plainly():
        settings = (
            read_config(arguments, input=input, output=output) if arguments or input or output else None
        )
        checks = examining.checks(settings)
        for check in checks:
            mark = ("✓", "green") if check.ok else ("✗", "bold red")
            out.print(Text.assemble(mark, f" {check.name}: {check.detail}"), soft_wrap=True)
            if not check.ok:
                out.print(Text(f"    fix: {check.fix}", style="yellow"), soft_wrap=True)
        raise typer.Exit(0 if all(c.ok for c in checks) else 1)
