"""The command: `dawnchorus run | plan | assemble | show | export | doctor`.

Parses, calls, prints, and turns errors into one plain sentence and an exit code. Ray and engines are
imported only by the commands that need them, so that `--help` answers at once.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from dawnchorus import __version__, config
from dawnchorus.config import RunConfig
from dawnchorus.errors import ConfigError, DataError, DawnChorusError, Fenced, OutputOwned, UserError

EXIT_CODES = (
    "Exit codes: 0 every recording is accounted for (failures are listed rows); 1 a fault in the program; "
    "2 a mistake in the configuration, manifest or storage, nothing was started; 3 paused or incomplete, run "
    "the same command again; 4 the tables do not add up; 5 another run owns the output; 130 Ctrl-C."
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
out = Console()
err = Console(stderr=True)
_debug = False


class ExportFormat(StrEnum):
    """Formats of `export`."""

    srt = "srt"
    vtt = "vtt"
    txt = "txt"
    jsonl = "jsonl"
    nemo = "nemo"


def _version(show: bool) -> None:
    if show:
        out.print(f"dawnchorus {__version__}")
        raise typer.Exit


@app.callback()
def main_options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of every command."""
    global _debug
    _debug = debug


ConfigArguments = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[CONFIG.yaml] [key=value ...]", help="A YAML file, and dotted overrides of its keys."
    ),
]
Input = Annotated[str | None, typer.Option("--input", "-i", help="Folder, glob, manifest or URL of audio.")]
Output = Annotated[str | None, typer.Option("--output", "-o", help="Folder or URL for tables and report.")]
EngineName = Annotated[str | None, typer.Option("--engine", help="Engine: whisper (default), fake, ...")]
Model = Annotated[str | None, typer.Option("--model", help="Model name or path for the engine.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Pilot: only the first N recordings.")]
Sample = Annotated[str | None, typer.Option("--sample", help="Pilot: a share of the recordings, such as 1%.")]
RetryFailed = Annotated[
    list[str] | None,
    typer.Option(
        "--retry-failed", metavar="KIND", help="Try final failures again: a kind, or `all`. Repeatable."
    ),
]
Redo = Annotated[bool, typer.Option("--redo", help="Transcribe again what other settings made.")]
KeepOld = Annotated[bool, typer.Option("--keep-old", help="Keep what other settings made.")]
OutputArgument = Annotated[str, typer.Argument(metavar="OUTPUT", help="Output folder or URL of a run.")]


def _read_config(arguments: list[str] | None, **options: Any) -> RunConfig:
    """The configuration from a YAML, dotted overrides and the shortcut options.

    Raises:
        ConfigError: see `config.build`; or the first argument is no YAML, or two options exclude each other.
    """
    words = list(arguments or [])
    path = words.pop(0) if words and "=" not in words[0] else None
    if path is not None and not path.lower().endswith((".yaml", ".yml")):
        raise ConfigError(f"{path!r} is no YAML file.", f"To transcribe it: --input {path} --output ...")
    if options.get("redo") and options.get("keep_old"):
        raise ConfigError("--redo and --keep-old exclude each other.", "Say one of them.")
    policy = "redo" if options.get("redo") else "keep-old" if options.get("keep_old") else None
    kinds = options.get("retry_failed")
    dotted = {
        "input": options.get("input"),
        "output": options.get("output"),
        "engine.name": options.get("engine"),
        "engine.model": options.get("model"),
        "limit": options.get("limit"),
        "sample": options.get("sample"),
        "resume.other_fingerprint": policy,
        "resume.retry_failed": None if kinds is None else [k for k in kinds if k != "all"],
    }
    given = {k: v for k, v in dotted.items() if v is not None}
    return config.build({}, words, given) if path is None else config.load(path, words, given)


@app.command("run")
def run_command(
    arguments: ConfigArguments = None,
    input: Input = None,
    output: Output = None,
    engine: EngineName = None,
    model: Model = None,
    limit: Limit = None,
    sample: Sample = None,
    retry_failed: RetryFailed = None,
    redo: Redo = False,
    keep_old: KeepOld = False,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="Stop another run that owns the output.")
    ] = False,
) -> None:
    """Transcribe; run the same command again to resume.

    Either a YAML (dawnchorus run config.yaml vad.threshold=0.4) or --input and --output.
    """
    given = locals()
    from dawnchorus import run as running
    from dawnchorus.terminal import Terminal

    with _plainly():
        settings = _read_config(**given)
        with Terminal(err) as ui:
            outcome = running.run(settings, ui, take_over)
            ui.close(outcome)
        raise typer.Exit(int(outcome.exit))


@app.command()
def plan(
    arguments: ConfigArguments = None,
    input: Input = None,
    output: Output = None,
    engine: EngineName = None,
    model: Model = None,
    limit: Limit = None,
    sample: Sample = None,
    retry_failed: RetryFailed = None,
    redo: Redo = False,
    keep_old: KeepOld = False,
) -> None:
    """Show what a run would do and take; writes nothing, needs no Ray."""
    given = locals()
    from dawnchorus.prepare import prepare, survey
    from dawnchorus.terminal import plan_table

    with _plainly():
        settings = _read_config(**given)
        prepared = prepare(settings)
        out.print(plan_table(prepared, survey(prepared)))


@app.command()
def assemble(
    output: OutputArgument,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="Stop another run that owns the output.")
    ] = False,
) -> None:
    """Publish every complete recording that a stopped run left in chunks/; needs no engine and no Ray."""
    from dawnchorus import publishing, storage
    from dawnchorus.fence import Fence

    with _plainly():
        url = storage.absolute(output)
        jobs = list(publishing.jobs_of(url))
        if not jobs:
            raise UserError(f"There is no run in {output}.", "Give the output folder of a run.")
        fence = Fence(url, "assemble")
        fence.acquire(take_over)
        with fence:
            count = sum(publishing.publish(j, fence.epoch, replace=j is jobs[0]) for j in jobs)
        out.print(
            f"{count:,} transcripts published in {storage.shown(storage.join(url, 'transcripts'))}",
            soft_wrap=True,
        )


@app.command()
def show(
    output: OutputArgument,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Rows to show.")] = 20,
    status: Annotated[
        str | None, typer.Option("--status", help="Only rows of this status: ok, empty, failed.")
    ] = None,
) -> None:
    """Show transcripts of an output as a table."""
    from dawnchorus.show import show_table

    with _plainly():
        for part in show_table(output, limit=limit, status=status):
            out.print(part)


@app.command()
def export(
    output: OutputArgument,
    destination: Annotated[
        str, typer.Argument(metavar="DESTINATION", help="Folder (srt, vtt, txt) or file (jsonl, nemo).")
    ],
    format: Annotated[ExportFormat, typer.Option("--format", "-f", help="What to write.")] = ExportFormat.srt,
) -> None:
    """Write transcripts as subtitles, text, JSON lines or a NeMo manifest with pred_text."""
    from dawnchorus import export as exporting

    with _plainly():
        out.print(
            exporting.export(output, destination, format.value).sentence(), markup=False, soft_wrap=True
        )


@app.command()
def doctor(arguments: ConfigArguments = None, input: Input = None, output: Output = None) -> None:
    """Check this machine (and, with a configuration, its storage), and say how to mend what is missing."""
    from dawnchorus import doctor as examining

    with _plainly():
        settings = (
            _read_config(arguments, input=input, output=output) if arguments or input or output else None
        )
        checks = examining.checks(settings)
        for check in checks:
            mark = ("✓", "green") if check.ok else ("✗", "bold red")
            out.print(Text.assemble(mark, f" {check.name}: {check.detail}"), soft_wrap=True)
            if not check.ok:
                out.print(Text(f"    fix: {check.fix}", style="yellow"), soft_wrap=True)
        raise typer.Exit(0 if all(c.ok for c in checks) else 1)


def _say_error(label: str, sentence: str) -> None:
    """Not wrapped: paths and commands in it are there to be copied, and logs to be searched."""
    err.print(Text.assemble((label, "bold red"), sentence), soft_wrap=True)


@contextmanager
def _plainly() -> Iterator[None]:
    """Errors become one sentence with the fix, and an exit code; `--debug` shows the traceback."""
    try:
        yield
    except (UserError, DataError, Fenced) as e:
        if _debug:
            raise
        code = 5 if isinstance(e, (OutputOwned, Fenced)) else 2
        _say_error("Error: ", str(e))
        raise typer.Exit(code) from e
    except DawnChorusError as e:
        if _debug:
            raise
        _say_error("Error: ", str(e))
        raise typer.Exit(1) from e
    except KeyboardInterrupt as e:
        err.print("Stopped. Run the same command to go on.")
        raise typer.Exit(130) from e


def main() -> None:
    """Entry point of the command."""
    try:
        app()
    except Exception as e:
        if _debug:
            raise
        where = Path(sys.argv[0]).name
        # Ray's own error repeats the worker's whole traceback; what was raised there is its cause.
        cause = getattr(e, "cause", None) or e
        _say_error("Unforeseen error: ", f"{type(cause).__name__}: {cause}".strip().splitlines()[0])
        again = Text(f"Please report it with the output of: {where} --debug {shlex.join(sys.argv[1:])}")
        err.print(again, soft_wrap=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
