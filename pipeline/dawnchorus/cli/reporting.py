"""The command that shows the report of a run: report."""

from __future__ import annotations

import tempfile
import webbrowser
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from dawnchorus.cli.console import out, plainly
from dawnchorus.cli.options import OutputArgument
from dawnchorus.errors import UserError


def report(
    output: OutputArgument,
    run: Annotated[
        str | None, typer.Option("--run", metavar="RUN", help="A run's id; the latest report if not given.")
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option("--save", metavar="FILE", help="Write the page to a file of this machine."),
    ] = None,
    open_it: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Say what a run came to and where its report is. From the output alone: the cluster may be gone."""
    from dawnchorus import reports, storage
    from dawnchorus.report import REPORT_VERSION, words

    with plainly():
        url = storage.absolute(output)
        found = reports.find(url, run)
        if found is None:
            raise UserError(
                f"There is no report {f'of run {run} ' if run else ''}in {storage.shown(output)}.",
                "It is written when a run ends; how one is: dawnchorus status.",
            )
        run_id = found["run_id"]
        if found["report_version"] == REPORT_VERSION:
            out.print(Text(words.headline(found), style="bold"), soft_wrap=True)
            out.print(Text(words.lede(found)), soft_wrap=True)
            for line in found["cost"]["said"]:
                out.print(Text(line), soft_wrap=True)
        else:
            out.print("Another version made it; its page says what it came to.")
        out.print(Text(f"report  {storage.readable(reports.page_url(url, run_id))}"), soft_wrap=True)
        if save is not None:
            _write(save, reports.page(url, run_id))
        if open_it:
            kept = save or Path(tempfile.mkdtemp(prefix="dawnchorus-")) / f"{run_id}.html"
            if save is None:
                _write(kept, reports.page(url, run_id))
            if not webbrowser.open(kept.resolve().as_uri()):
                raise UserError(f"No browser could be opened; the page is in {kept}.", "Open it yourself.")


def _write(path: Path, page: bytes) -> None:
    try:
        path.write_bytes(page)
    except OSError as e:
        raise UserError(f"{path} cannot be written: {e.strerror}.", "Name another file.") from e
