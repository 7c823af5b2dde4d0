"""The terminal of every command: where it prints, and how an error becomes one sentence and an exit code."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from dawnchorus.errors import DawnChorusError
from dawnchorus.wording import printable

if TYPE_CHECKING:
    from dawnchorus.lines import Lines
    from dawnchorus.terminal import Terminal


class PlainConsole(Console):
    """A console on which text is text: names of files and what stores say may hold `[red]`, or an escape."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Segments without characters that steer a terminal; styles are no characters yet."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


out = PlainConsole()
err = PlainConsole(stderr=True)
_debug = False
_PIPED_WIDTH = 10_000


def print_whole(what: RenderableType) -> None:
    """Print a table: as wide as the terminal, or, into a pipe or a file, as wide as it is."""
    (out if out.is_terminal else PlainConsole(file=out.file, width=_PIPED_WIDTH)).print(what)


def set_debug(on: bool) -> None:
    """From now on errors keep their traceback."""
    global _debug
    _debug = on


def debugging() -> bool:
    """Whether errors keep their traceback."""
    return _debug


def shown_run() -> Terminal | Lines:
    """How a run is shown: to a person, or as events where DAWNCHORUS_LOG=json."""
    from dawnchorus import logs
    from dawnchorus.lines import Lines
    from dawnchorus.terminal import Terminal

    return Lines() if logs.enabled() else Terminal(err)


def say_error(label: str, sentence: str) -> None:
    """Not wrapped: paths and commands in it are there to be copied, and logs to be searched. Without
    credentials: what an address could not do may be said with the address."""
    from dawnchorus import logs, storage

    if logs.enabled():
        logs.warning("error", f"{label}{sentence}")
        return
    err.print(Text.assemble((label, "bold red"), storage.redact(sentence)), soft_wrap=True)


@contextmanager
def plainly() -> Iterator[None]:
    """Errors become one sentence with the fix, and an exit code; `--debug` shows the traceback."""
    try:
        yield
    except DawnChorusError as e:
        from dawnchorus.outcome import exit_of

        if _debug:
            raise
        say_error("Error: ", str(e))
        raise typer.Exit(int(exit_of(e))) from e
    except KeyboardInterrupt as e:
        say_error("", "Stopped. Run the same command to go on.")
        raise typer.Exit(130) from e
