"""The commands for a run on a cluster: submit, status, logs, stop, list."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from rich.live import Live
from rich.text import Text

from dawnchorus.cli.console import err, out, plainly, print_whole
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
from dawnchorus.errors import ConfigError, Transient, UserError
from dawnchorus.progress import Status

if TYPE_CHECKING:
    from dawnchorus.submission import Cluster, Submitted

Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        envvar="DAWNCHORUS_ADDRESS",
        metavar="URL",
        help="The cluster's job server, such as http://HEAD:8265.",
    ),
]
RunId = Annotated[
    str | None,
    typer.Option("--run", metavar="RUN", help="A run or a submission, by its id; the latest if not given."),
]
Seen = tuple["Status | None", "Submitted | None"]
_STOP_SECONDS = 300.0
_LOOK_SECONDS = 2.0
_TELL_SECONDS = 30.0
_LAST_LINES = 12


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
    """Start a run on a cluster and come back at once. The same command again goes on with it."""
    given = {k: v for k, v in locals().items() if k not in ("address", "shared_paths")}
    from dawnchorus import submission

    with plainly():
        settings = submission.anywhere(read_config(**given))
        submission.check(settings, shared_paths)
        cluster = submission.Cluster(_needed(address))
        new, is_new = cluster.submit(settings)
        said = "is submitted" if is_new else "is at work already"
        out.print(Text.assemble((new.submission_id, "bold"), f" {said}."), soft_wrap=True)
        where = shlex.quote(settings.output)
        for line in (
            f"dawnchorus status {where} --watch --address {cluster.address}",
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
    """Say how a run is. From its output alone, and from the cluster too where an address is given."""
    from dawnchorus import panel, storage

    with plainly():
        view = View(storage.absolute(output), run, address)
        if not watch:
            print_whole(panel.status_panel(*view.look()))
            return
        with _only_looking():
            if out.is_terminal:
                _watch_panel(view)
            else:
                _watch_lines(view)


class View:
    """A run seen from here: through its output, and through its cluster as long as that answers."""

    def __init__(self, url: str, run: str | None, address: str | None) -> None:
        from dawnchorus import submission

        self.url, self.run, self.address = url, run, address
        self.cluster: Cluster | None = None
        if address:
            try:
                self.cluster = submission.Cluster(address)
            except submission.Unreachable as e:
                self._lost(e)

    def _lost(self, e: UserError) -> None:
        self.cluster = None
        said = f"The cluster is unreachable at {self.address}; this is from the output alone. ({e.message})"
        err.print(Text(said, style="yellow"), soft_wrap=True)

    def look(self) -> Seen:
        """As `panel.look`."""
        from dawnchorus import panel, submission

        if self.cluster is not None:
            try:
                return panel.look(self.url, self.run, self.cluster)
            except submission.Unreachable as e:
                self._lost(e)
        return panel.look(self.url, self.run)

    def look_again(self, seen: Seen) -> Seen:
        """The same; what was `seen` before where the store is away for a while, as it is to a laptop that
        slept: who watches wants to go on watching."""
        try:
            return self.look()
        except Transient:
            return seen


@contextmanager
def _only_looking() -> Iterator[None]:
    """Ctrl-C ends the looking and not the run, and says so."""
    try:
        yield
    except KeyboardInterrupt as e:
        err.print("Not looking any more; the run goes on.")
        raise typer.Exit(130) from e


def _goes_on(found: Status | None, submitted: Submitted | None) -> bool:
    return not (found and found.is_over) and (submitted is None or submitted.is_alive)


def _watch_panel(view: View) -> None:
    from dawnchorus import panel

    seen = view.look()
    with Live(panel.status_panel(*seen), console=out, refresh_per_second=4) as live:
        while _goes_on(*seen):
            time.sleep(_LOOK_SECONDS)
            seen = view.look_again(seen)
            live.update(panel.status_panel(*seen))


def _watch_lines(view: View) -> None:
    """The same where no panel can change in its place: a line now and then, and one for every new state."""
    from dawnchorus import panel

    state, told, seen = "", 0.0, view.look()
    while _goes_on(*seen):
        line = panel.status_line(*seen)
        if line.partition(":")[0] != state or time.monotonic() - told >= _TELL_SECONDS:
            state, told = line.partition(":")[0], time.monotonic()
            out.file.write(f"{time.strftime('%H:%M:%S')} {line}\n")
            out.file.flush()
        time.sleep(_LOOK_SECONDS)
        seen = view.look_again(seen)
    print_whole(panel.status_panel(*seen))


def logs(
    output: OutputArgument,
    address: Address = None,
    run: RunId = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends.")] = False,
    raw: Annotated[bool, typer.Option("--raw", help="The lines as they are: JSON, one event each.")] = False,
) -> None:
    """Print what a submitted run said; the cluster keeps it. OUTPUT -: make a log readable that comes in."""
    from dawnchorus import logs, panel, storage, submission

    with plainly(), _only_looking():
        if output == "-":
            for line in logs.lines_of(iter(sys.stdin)):
                out.file.write(logs.readable(line))
                out.file.flush()
            return
        cluster = submission.Cluster(_needed(address))
        mine = panel.latest(storage.absolute(output), run, cluster)
        if mine is None:
            raise UserError(
                f"The cluster knows no run of {output}.",
                f"A log is gone with its cluster; what the run noted: dawnchorus status {output}",
            )
        for line in logs.lines_of(cluster.lines(mine.submission_id, follow)):
            out.file.write(line if raw else logs.readable(line))
            out.file.flush()


def stop(output: OutputArgument, address: Address = None, run: RunId = None) -> None:
    """Stop a run as Ctrl-C does: what is complete gets published. Works through the output; with an address
    the cluster ends a job that says nothing any more."""
    from dawnchorus import panel, storage

    with plainly():
        view = View(storage.absolute(output), run, address)
        found, submitted = view.look()
        if found is not None and _goes_on(found, submitted) and not panel.is_silent(found):
            panel.ask_to_stop(view.url, found.run_id)
            err.print(f"Run {found.run_id} is asked to stop; it publishes what is complete.")
            found = _until_over(view.url, found)
        if found is not None and found.is_over:
            out.print(f"Run {found.run_id} has ended: {found.message}", soft_wrap=True)
        elif found is not None and _goes_on(found, submitted) and not panel.is_silent(found):
            # It publishes: whoever ends it now has it all to do again.
            raise UserError(
                f"Run {found.run_id} is still {found.state}, {_STOP_SECONDS:.0f} s after being asked.",
                f"How it ends: dawnchorus status {output} --watch. (`ray job stop` does not wait.)",
            )
        elif view.cluster and submitted and submitted.is_alive:
            view.cluster.stop(submitted.submission_id)
            out.print("It does not answer; the cluster was told to end it.")
        elif view.cluster and submitted:
            _say_how_it_ended(view.cluster, submitted)
        else:
            raise _silent(view, output)


def _say_how_it_ended(cluster: Cluster, submitted: Submitted) -> None:
    """There is nothing to stop: the last words of a job that ended without the run's own."""
    from dawnchorus import logs

    how = submitted.status.lower()
    out.print(
        f"{submitted.submission_id} has {how} on the cluster; the last lines of its log:", soft_wrap=True
    )
    lines = [logs.readable(line) for line in logs.lines_of(cluster.lines(submitted.submission_id))]
    for line in [line for line in lines if line.strip()][-_LAST_LINES:]:
        out.file.write(f"  {line}")


def _silent(view: View, output: str) -> UserError:
    again = (
        f"If it is gone, the same command goes on with it; dawnchorus assemble {output} publishes its work."
    )
    if view.cluster:
        return UserError(f"The run says nothing, and {view.address} knows no submission of it.", again)
    if view.address:
        return UserError("The run says nothing, and its cluster does not answer.", again)
    return UserError("The run says nothing. Give its --address to end it on its cluster.", again)


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
        runs = panel.runs_of(storage.absolute(output))
        if not runs:
            raise UserError(f"There is no run in {storage.shown(output)}.", "Check the output's address.")
        print_whole(panel.runs_table(runs))


def _needed(address: str | None) -> str:
    if address is None:
        raise ConfigError("Which cluster?", "Say --address http://HEAD:8265, or set DAWNCHORUS_ADDRESS.")
    return address
