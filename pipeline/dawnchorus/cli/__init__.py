"""The command `dawnchorus`: its parts are in making (run, plan, ...), looking (show, export, ...), reporting,
erasing (forget) and remote (submit, status, ...).

Parses, calls, prints, and turns errors into one plain sentence and an exit code. Ray and engines are
imported only by the commands that need them, so that `--help` answers at once.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from dawnchorus import __version__
from dawnchorus.cli import console, erasing, looking, making, models, remote, reporting

EXIT_CODES = (
    "Exit codes: 0 every recording is accounted for (failures are listed rows); 1 a fault in the program; "
    "2 a mistake in the configuration, manifest or storage, nothing was started; 3 paused or incomplete, "
    "the last line says how to go on; 4 the tables do not add up; 5 another run owns the output; 130 Ctrl-C."
)

app = typer.Typer(
    name="dawnchorus",
    help="Transcribe an archive of recordings into Parquet, exactly once.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _version(show: bool) -> None:
    if show:
        console.out.print(f"dawnchorus {__version__}")
        raise typer.Exit


@app.callback()
def main_options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of every command."""
    console.set_debug(debug)


app.command()(making.run)
app.command()(making.plan)
app.command()(making.assemble)
app.command()(making.ask)
app.command()(looking.show)
app.command()(looking.export)
app.command()(erasing.forget)
app.command()(reporting.report)
app.command()(looking.doctor)
app.command()(models.bundle)
app.command()(remote.submit)
app.command()(remote.status)
app.command()(remote.logs)
app.command()(remote.stop)
app.command("list")(remote.list_runs)


def main() -> None:
    """Entry point of the command."""
    try:
        app()
    except Exception as e:
        if console.debugging():
            raise
        from dawnchorus import storage

        where = Path(sys.argv[0]).name
        # Ray's own error repeats the worker's whole traceback; what was raised there is its cause.
        cause = getattr(e, "cause", None) or e
        console.say_error("Unforeseen error: ", f"{type(cause).__name__}: {cause}".strip().splitlines()[0])
        words = storage.redact(shlex.join(sys.argv[1:]))
        again = Text(f"Please report it with the output of: {where} --debug {words}")
        console.err.print(again, soft_wrap=True)
        sys.exit(1)
