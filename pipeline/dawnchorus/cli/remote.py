"""The commands for a run on a cluster: submit, status, logs, stop, list."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer
from rich.live import Live
from rich.text import Text

from dawnchorus.cli.console import err, out, plainly
from dawnchorus.cli.options import (
    ConfigArguments,
    EngineName,
    Input,
    KeepOld,
    Limit,
    Model,
    Output,
    OutputArgument,
    Redo,
    RetryFailed,
    Sample,
    read_config,
)
from dawnchorus.errors import ConfigError, UserError
from dawnchorus.progress import Status

Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        envvar="DAWNCHORUS_ADDRESS",
        metavar="URL",
        help="The cluster's job server, such as http://HEAD:8265.",
    ),
]
RunId = Annotated[str | None, typer.Option("--run", metavar="RUN", help="A run; the latest if not given.")]
_STOP_SECONDS = 300.0
_LOOK_SECONDS = 2.0


def submit(
    arguments: ConfigArguments = None,
    address: Address = None,
    input: Input = None,
    output: Output = None,
    engine: EngineName = None,
    model: Model = None,
    limit: Limit = None,
    sample: Sample = None,
    retry_failed: RetryFailed = None,
    redo: Redo = False,
    keep_old: KeepOld = False,
    shared_paths: Annotated[
        bool, typer.Option("--shared-paths", help="Every node has the local paths of the configuration.")
    ] = False,
) -> None:
    """Start a run on a cluster and come back at once; the same command again goes on with it."""
    given = {k: v for k, v in locals().items() if k not in ("address", "shared_paths")}
    from dawnchorus import submission

    with plainly():
        settings = submission.name_run(read_config(**given))
        submission.check(settings, shared_paths)
        cluster = submission.Cluster(_needed(address))
        new, is_new = cluster.submit(settings)
        said = "is submitted" if is_new else "is at work already"
        out.print(Text.assemble((f"run {new.run_id}", "bold"), f" {said} as {new.submission_id}."))
        where = settings.output
        for line in (
            f"dawnchorus status {where} --watch",
            f"dawnchorus logs {where} --follow --address {cluster.address}",
            f"dawnchorus stop {where} --address {cluster.address}",
        ):
            out.print(Text(f"  {line}", style="dim"), soft_wrap=True)


def status(
    output: OutputArgument,
    address: Address = None,
    run: RunId = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Keep looking until the run ends.")] = False,
) -> None:
    """Say how a run is: from its output alone, and from the cluster too where an address is given."""
    from dawnchorus import panel, storage, submission

    with plainly():
        url = storage.absolute(output)
        cluster = submission.Cluster(address) if address else None

        found, submitted = panel.look(url, run, cluster)
        if not watch:
            out.print(panel.status_panel(found, submitted))
            return
        with Live(panel.status_panel(found, submitted), console=out, refresh_per_second=4) as live:
            while not (found and found.is_over) and (submitted is None or submitted.is_alive):
                time.sleep(_LOOK_SECONDS)
                found, submitted = panel.look(url, run, cluster)
                live.update(panel.status_panel(found, submitted))


def logs(
    output: OutputArgument,
    address: Address = None,
    run: RunId = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends.")] = False,
    raw: Annotated[bool, typer.Option("--raw", help="The lines as they are: JSON, one event each.")] = False,
) -> None:
    """Print what a submitted run said; the cluster keeps it. OUTPUT -: make a log readable that comes in."""
    from dawnchorus import logs, storage, submission

    with plainly():
        if output == "-":
            for line in logs.lines_of(iter(sys.stdin)):
                out.file.write(logs.readable(line))
                out.file.flush()
            return
        cluster = submission.Cluster(_needed(address))
        mine = cluster.latest(storage.absolute(output), run)
        if mine is None:
            raise UserError(f"The cluster knows no run of {output}.", "Its log is gone with its cluster.")
        for line in logs.lines_of(cluster.lines(mine.submission_id, follow)):
            out.file.write(line if raw else logs.readable(line))
            out.file.flush()


def stop(output: OutputArgument, address: Address = None, run: RunId = None) -> None:
    """Stop a run as Ctrl-C does: what is complete gets published. Works through the output; with an address
    the cluster ends the job when it does not end by itself."""
    from dawnchorus import panel, storage, submission

    with plainly():
        url = storage.absolute(output)
        cluster = submission.Cluster(address) if address else None
        found, submitted = panel.look(url, run, cluster)
        if found is not None and not found.is_over and not panel.is_silent(found):
            panel.ask_to_stop(url, found.run_id)
            err.print(f"Run {found.run_id} is asked to stop; it publishes what is complete.")
            found = _until_over(url, found)
        if found is not None and found.is_over:
            out.print(f"Run {found.run_id} has ended: {found.message}", soft_wrap=True)
            return
        if cluster and submitted and submitted.is_alive:
            cluster.stop(submitted.submission_id)
            out.print("It does not answer; the cluster was told to end it.")
            return
        raise UserError(
            "The run says nothing, and may be gone with its cluster.", "Give its --address to end it there."
        )


def _until_over(url: str, found: Status) -> Status:
    """The run's last word, or what it said when it fell silent."""
    from dawnchorus import panel

    until = time.monotonic() + _STOP_SECONDS
    while not found.is_over and not panel.is_silent(found) and time.monotonic() < until:
        time.sleep(_LOOK_SECONDS)
        found = panel.look(url, found.run_id)[0] or found
    return found


def list_runs(output: OutputArgument) -> None:
    """List the runs of an output, the latest first."""
    from dawnchorus import panel, storage

    with plainly():
        out.print(panel.runs_table(panel.runs_of(storage.absolute(output))))


def _needed(address: str | None) -> str:
    if address is None:
        raise ConfigError("Which cluster?", "Say --address http://HEAD:8265, or set DAWNCHORUS_ADDRESS.")
    return address
