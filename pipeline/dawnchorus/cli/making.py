"""The commands that make something: run, plan, assemble."""

from __future__ import annotations

import typer

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
    TakeOver,
    read_config,
)
from dawnchorus.errors import UserError


def run(
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
    take_over: TakeOver = False,
) -> None:
    """Transcribe; run the same command again to resume.

    Either a YAML (dawnchorus run config.yaml vad.threshold=0.4) or --input and --output.
    """
    given = locals()
    from dawnchorus import run as running
    from dawnchorus.terminal import Terminal

    with plainly():
        settings = read_config(**given)
        with Terminal(err) as ui:
            outcome = running.run(settings, ui, take_over)
            ui.close(outcome)
        raise typer.Exit(int(outcome.exit))


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

    with plainly():
        settings = read_config(**given)
        prepared = prepare(settings)
        out.print(plan_table(prepared, survey(prepared)))


def assemble(
    output: OutputArgument,
    take_over: TakeOver = False,
) -> None:
    """Publish every complete recording that a stopped run left in chunks/; needs no engine and no Ray."""
    from dawnchorus import publishing, storage
    from dawnchorus.fence import Fence

    with plainly():
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
