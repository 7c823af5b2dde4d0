"""One run: prepare -> fence -> (plan -> graph 1 -> graph 2) until nothing is pending -> graph 3, where
anything is asked -> reconcile -> report.

Whatever ends graph 1 (done, Ctrl-C, a pause, an abort), what is complete gets published. Knows the
order of things and leaves each thing to its module.
"""

from __future__ import annotations

import tempfile
import time

import pyarrow as pa

from dawnchorus import (
    answers,
    asking,
    cluster,
    fence,
    graph,
    ledger,
    publishing,
    report,
    reports,
    signals,
    storage,
    tracing,
)
from dawnchorus.attempt import Attempt, Ui
from dawnchorus.config import RunConfig
from dawnchorus.errors import RunPaused, Transient
from dawnchorus.faults import first_line, our_error, with_origin
from dawnchorus.outcome import Exit, Outcome, exit_code, message
from dawnchorus.placement import Resources
from dawnchorus.prepare import (
    Prepared,
    Survey,
    prepare,
    refuse,
    survey,
    without_forgotten,
)
from dawnchorus.reconcile import reconcile
from dawnchorus.recorded import Recorded, failing
from dawnchorus.wording import many

_MAX_ABORTS = 3


@tracing.root("run")
def run(config: RunConfig, ui: Ui, take_over: bool = False) -> Outcome:
    """Bring a run as far as it can go.

    Raises:
        UserError: nothing was started; the message says what to mend.
        Fenced: another run took the output over.
    """
    started = time.time()
    with failing(config, ui):
        prepared, owner = _begin(config, ui, take_over)
    with owner, Recorded(ui, prepared, owner.epoch) as shown:
        prepared.save()
        work = survey(prepared)
        if len(work.pending):
            use, ending = _transcribe(prepared, owner, work, shown)
        else:
            use, ending = None, None
            shown.plan(prepared, work, None)
            publishing.publish(publishing.job(prepared), owner.epoch, texts=True)
        until = time.time()
        if prepared.asked is not None and ending is None:
            ending = asking.ask(config, answers.job(prepared, prepared.asked), owner.epoch, shown)
        keep_old = config.resume.other_fingerprint == "keep-old"
        found = reconcile(prepared.output, prepared.manifest, prepared.facts.fingerprint, keep_old)
        if prepared.asked is not None:
            answers.count(answers.job(prepared, prepared.asked), found)
        made = report.make(
            prepared.output,
            prepared.facts.run_id,
            found,
            started,
            until=until,
            cpus_per_engine=use.cpus_per_engine if use else None,
            gpus_per_engine=use.gpus_per_engine if use else None,
            accelerator=use.accelerator if use else None,
            epoch=owner.epoch,
        )
        code = exit_code(ending, found)
        where = reports.page_url(prepared.output, prepared.facts.run_id)
        said = message(code, ending, found)
        outcome = Outcome(code, prepared.facts.run_id, said, found, made, prepared.output, where)
        shown.ended(outcome)
    return outcome


def _begin(config: RunConfig, ui: Ui, take_over: bool) -> tuple[Prepared, fence.Fence]:
    """A run that could start, and its output taken over."""
    ui.say(f"Reading {storage.shown(config.input)} ...")
    prepared = prepare(config)
    storage.check_writable(prepared.output)
    # Before anything is created; `survey` reads the chunks too, which is for the owner to do.
    refuse(prepared, ledger.read_transcripts(prepared.output))
    owner = fence.Fence(prepared.output, prepared.facts.run_id)
    owner.acquire(take_over)
    return without_forgotten(prepared), owner


def _transcribe(
    prepared: Prepared, owner: fence.Fence, work: Survey, ui: Ui
) -> tuple[Resources | None, BaseException | None]:
    """Graph 1 as far as it can go, then graph 2 however that ended; what stopped graph 1, if anything."""
    ui.say(cluster.beginning(prepared.config))
    cluster.start(prepared.config)
    use = None
    with signals.terminable(), tempfile.TemporaryDirectory(prefix="dawnchorus-notes-") as scratch:
        try:
            use = cluster.resources(prepared.config, ui.say)
            ui.plan(prepared, work, use)
            ending = _passes(prepared, owner, work, use, scratch, ui)
        except (RunPaused, KeyboardInterrupt) as e:
            ending = e.with_traceback(None)  # while it waited for nodes
        finally:
            cluster.free_stopped_graphs()
            _publish(prepared, owner.epoch)
    return use, ending


def _passes(
    prepared: Prepared, owner: fence.Fence, work: Survey, use: Resources, scratch: str, ui: Ui
) -> BaseException | None:
    """Attempt after attempt, the first over `work`, until nothing is pending (returns None) or something
    stops the run (returned without its traceback, which holds the graph)."""
    aborts, alone = 0, pa.array([], pa.string())
    for number in range(prepared.config.resume.max_attempts + _MAX_ABORTS):
        if number:
            work = survey(prepared, first=False, alone=alone)
            if not len(work.pending):
                return None
            ui.say(f"Trying again: {many(len(work.pending), 'recording')}.")
            time.sleep(prepared.config.resume.backoff_seconds)
            owner.advance()
        attempt = Attempt(prepared, work, owner.epoch, use, scratch)
        try:
            attempt.transcribe(ui)
        except KeyboardInterrupt as e:
            return (attempt.stalled or e).with_traceback(None)
        except Exception as e:
            known = our_error(e)
            if isinstance(known, RunPaused):
                return known.with_traceback(None)
            aborts += 1
            passing = isinstance(known, Transient)  # the storage's fault, no recording's
            if known is not None and not passing:
                fatal = with_origin(known, e)
                break
            if aborts >= _MAX_ABORTS:
                if passing:
                    return RunPaused(first_line(e))
                raise
            alone = alone if passing else attempt.in_flight()
            how = "Going on." if passing else f"Trying {many(len(alone), 'recording')} one by one."
            ui.say(f"The graph stopped ({first_line(e)}). {how}")
        # After the except clause, which holds the last reference to the stopped graph from outside.
        cluster.free_stopped_graphs()
    else:
        raise AssertionError(f"{len(work.pending)} recordings are still pending after every attempt")
    raise fatal


@tracing.span("publish")
def _publish(prepared: Prepared, epoch: int) -> None:
    """Graph 2 over what is due."""
    job = publishing.job(prepared)
    staged = publishing.stage(job, epoch, texts=True)
    if staged is not None:
        graph.transcripts(*staged).materialize()
    publishing.remove_void(job, epoch)


__all__ = ["Exit", "Outcome", "Ui", "run"]
