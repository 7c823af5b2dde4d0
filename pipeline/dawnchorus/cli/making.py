"""The commands that make something: run, plan, assemble, ask."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.text import Text

from dawnchorus.cli.console import err, out, plainly, shown_run
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
    retried,
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

    with plainly():
        settings = read_config(**given)
        with shown_run() as ui:
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
    """Show what a run would do, where, and what that takes. Writes nothing; joins a cluster only to look."""
    given = locals()
    from dawnchorus import cluster
    from dawnchorus.placement import NoRoom
    from dawnchorus.prepare import prepare, survey
    from dawnchorus.terminal import bad_lines, plan_table

    with plainly():
        settings = read_config(**given)
        prepared = prepare(settings)
        work = survey(prepared)
        use, problem = None, None
        try:
            use = cluster.resources_ahead(settings) if len(work.pending) else None
        except NoRoom as e:
            problem = e
        out.print(plan_table(prepared, work, use))
        for line in bad_lines(prepared, 20 if out.is_terminal else None):
            out.print(Text(line), soft_wrap=True)
        if problem is not None:
            err.print(f"A run would be refused here: {problem}", soft_wrap=True)


def assemble(
    output: OutputArgument,
    take_over: TakeOver = False,
) -> None:
    """Publish every complete recording that a stopped run left. Needs no engine and no Ray."""
    from dawnchorus import answers, publishing, storage
    from dawnchorus.fence import Fence

    with plainly():
        url = storage.absolute(output)
        newest = next(publishing.jobs_of(url), None)
        if newest is None:
            raise UserError(f"There is no run in {output}.", "Give the output folder of a run.")
        fence = Fence(url, "assemble")
        fence.acquire(take_over)
        with fence:
            # One manifest at a time, and as it is now: until here somebody may have made the output forget.
            jobs = enumerate(publishing.jobs_of(url))
            count = sum(publishing.publish(j, fence.epoch, replace=number == 0) for number, j in jobs)
            answers.fold(url, newest.run_url, fence.epoch)
        out.print(
            f"{count:,} transcripts published in {storage.shown(storage.join(url, 'transcripts'))}",
            soft_wrap=True,
        )


def ask(
    output: OutputArgument,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[key=value ...]", help="Dotted overrides, such as llm.dtype=float32."),
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            "--prompt", "-p", help="summary (default), action_items, topics, or your own. Repeatable."
        ),
    ] = None,
    question: Annotated[
        str | None, typer.Option("--question", "-q", help="A question to every transcript.")
    ] = None,
    engine: Annotated[str | None, typer.Option("--engine", help="The language model's engine.")] = None,
    model: Model = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only the first N transcripts.")] = None,
    recording: Annotated[
        str | None, typer.Option("--recording", help="Only transcripts with this in their address or id.")
    ] = None,
    retry_failed: RetryFailed = None,
    plan: Annotated[bool, typer.Option("--plan", help="Only say what it would do.")] = False,
    take_over: TakeOver = False,
) -> None:
    """Ask a language model about the transcripts of an output. Run the same command again to resume."""
    from dawnchorus import interview
    from dawnchorus.terminal import rows_table

    with plainly():
        given: dict[str, Any] = {"llm.engine": engine, "llm.model": model}
        if retry_failed is not None:
            given["resume.retry_failed"] = retried(retry_failed)
        held = interview.prepare(
            output,
            overrides or (),
            names=prompt or (),
            question=question,
            given={k: v for k, v in given.items() if v is not None},
            limit=limit,
            recording=recording,
        )
        if plan:
            out.print(rows_table(held.plan()))
            return
        with shown_run() as ui:
            said = interview.hold(held, ui, take_over)
            ui.ended(said.rows, said.message, said.exit)
        raise typer.Exit(int(said.exit))
