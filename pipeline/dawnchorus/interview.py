"""`dawnchorus ask`: prompts to the transcripts that an output holds, without its manifest and its audio.

What the newest run saved says how; options of the command say otherwise. Fenced, resumable and folded
like a run's own answers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dawnchorus import (
    answers,
    asking,
    config,
    export,
    fence,
    ledger,
    prompts,
    report,
    reports,
    storage,
    tracing,
)
from dawnchorus.answers import Job
from dawnchorus.config import RunConfig
from dawnchorus.engines import hub
from dawnchorus.errors import ConfigError, RunPaused, UserError
from dawnchorus.kinds import refuse_unknown
from dawnchorus.llm import Asked, asked
from dawnchorus.outcome import Exit, answer_rows, answers_left
from dawnchorus.reconcile import Reconciliation
from dawnchorus.report.words import length
from dawnchorus.wording import be, every, many


@dataclass(frozen=True, slots=True)
class Interview:
    """What is asked of which output."""

    config: RunConfig
    job: Job

    def plan(self) -> list[tuple[str, str]]:
        """What it would do, as label and value; needs no model and no Ray."""
        job, left = self.job, answers.survey(self.job)
        rows = [
            ("output", storage.shown(job.output)),
            ("prompts", ", ".join(p.question or p.name for p in job.asked.prompts)),
            ("model", f"{job.asked.engine.name}, {job.asked.model}"),
            ("transcripts", f"{left.num_transcripts:,}"),
            ("answered", f"{left.num_done:,}"),
            ("to do", many(left.num_left, "answer")),
        ]
        if left.num_left:
            speech = length(left.transcribed)
            rows.append(("to read", f"{speech} of speech, about {left.num_tokens:,} tokens"))
        pace = answers.seconds_per_answer(job)
        if pace and left.num_left:
            wall = pace * left.num_left
            rows.append(("will take", f"about {length(wall)} of one model, by the answers that are there"))
        return rows


@dataclass(frozen=True, slots=True)
class Said:
    """How it ended: exit code, one sentence, and the closing table."""

    exit: Exit
    message: str
    rows: list[tuple[str, str]]


def prepare(
    output: str,
    overrides: Sequence[str] = (),
    *,
    names: Sequence[str] = (),
    question: str | None = None,
    given: dict[str, Any] | None = None,
    limit: int | None = None,
    recording: str | None = None,
) -> Interview:
    """An interview with the transcripts of `output`: all of them, or the first `limit`, or those whose
    address or id holds `recording`. Without `names` and `question` it is what the newest run asked, else a
    summary. `given` are dotted keys of the configuration.

    Raises:
        UserError: there are no transcripts, nothing is asked, or the engine has no LLM mode.
    """
    if question is not None and not question.strip():
        raise ConfigError("The question is empty.", "Say --question '...'.")
    url = storage.absolute(output)
    export.require_transcripts(output)
    about, run_url = _newest_run(url)
    tree = about["config"]
    more = dict(given or {})
    if more.get("llm.engine", tree["llm"]["engine"]) != tree["llm"]["engine"]:
        tree["llm"] |= {"model": None, "revision": None, "device": "auto", "dtype": "auto", "options": {}}
    elif hub.absolute(more.get("llm.model")) not in (None, tree["llm"]["model"]):
        tree["llm"] |= {"revision": None, "options": {}}
    tree["resume"]["retry_failed"] = None  # was for that command
    tree["llm"]["prompts"] = _by_name(tree["llm"]["prompts"])
    settings = config.build(tree, overrides, {"output": output, **more})
    known = _by_name(settings.model_dump()["llm"]["prompts"])
    wanted = _prompts(known, names, question) if names or question else known or {"summary": {}}
    settings = config.build(tree, overrides, {"output": output, **more, "llm.prompts": wanted})
    refuse_unknown(settings.resume.retry_failed, _failed_kinds(url) if settings.resume.retry_failed else ())
    found = asked(settings)
    if found is None:
        raise UserError("Nothing is asked.", "Say --prompt summary, or --question '...'.")
    ids = None if limit is None and recording is None else _chosen(output, limit, recording)
    return Interview(settings, Job(url, run_url, about["run_id"], found, settings.resume, ids))


def _failed_kinds(url: str) -> set[str]:
    """The kinds of failures that answers had here."""
    committed = ledger.read_answers(url)
    if committed is None:
        return set()
    return set(pc.unique(pc.struct_field(committed["failure"], "kind")).drop_null().to_pylist())


def _newest_run(url: str) -> tuple[dict[str, Any], str]:
    """What the run that was begun last saved of itself, and its folder."""
    found = []
    for info in storage.list_files(storage.join(url, "_runs"), "run.json"):
        about: dict[str, Any] = json.loads(storage.read_bytes(info.url))
        found.append((about.get("saved_at", 0.0), info.url, about))
    if not found:
        raise UserError(f"There is no run in {storage.shown(url)}.", "Give the output folder of a run.")
    _, where, about = max(found, key=lambda f: f[:2])
    about["config"].setdefault(
        "llm", RunConfig.model_fields["llm"].get_default(call_default_factory=True).model_dump()
    )
    return about, storage.parent(where)


def _by_name(prompts: Any) -> dict[str, Any]:
    """Prompts as a mapping, whichever way the configuration has them."""
    return {n: v or {} for n, v in prompts.items()} if isinstance(prompts, dict) else {n: {} for n in prompts}


def _prompts(known: dict[str, Any], names: Sequence[str], question: str | None) -> dict[str, Any]:
    """The prompts that are named, with what the configuration says of them, and the question's."""
    wanted = {name: known.get(name, {}) for name in names}
    if question is None:
        return wanted
    takers = [name for name, changes in wanted.items() if prompts.takes_question(name, changes)]
    mine = {name: {**wanted[name], "question": question} for name in takers}
    return wanted | (mine or {prompts.asking(question).name: {"question": question}})


def _chosen(output: str, limit: int | None, recording: str | None) -> pa.Array:
    """Ids of the transcripts to ask about."""
    found: list[str] = []
    for batch in export.rows(output, ["recording_id", "audio_filepath", "status"], 4096):
        for row in batch.to_pylist():
            fits = recording is None or recording in f"{row['recording_id']} {row['audio_filepath'] or ''}"
            if row["status"] == "ok" and fits:
                found.append(row["recording_id"])
            if limit is not None and len(found) == limit:
                return pa.array(found, pa.string())
    if not found:
        which = "is ok" if recording is None else f"has {recording!r} in its address"
        raise UserError(f"No transcript of {output} {which}.", "See dawnchorus show.")
    return pa.array(found, pa.string())


@tracing.root("interview")
def hold(interview: Interview, ui: asking.AnswerUi, take_over: bool = False) -> Said:
    """Ask what is left to ask.

    Raises:
        OutputOwned: another run holds the output.
        Fenced: another run took it over.
    """
    job = interview.job
    owner = fence.Fence(job.output, "ask")
    owner.acquire(take_over)
    with owner:
        ending = asking.ask(interview.config, job, owner.epoch, ui)
        found = Reconciliation()
        answers.count(job, found)
        report.renew_answers(job.output, job.run_id, owner.epoch)
    return _said(job, ending, found)


def _said(job: Job, ending: BaseException | None, found: Reconciliation) -> Said:
    ok = found.num_answers - found.num_failed_answers - found.num_missing_answers
    rows = answer_rows(found)
    if found.num_failed_answers:
        rows.append(("try again", "the same command with --retry-failed all, once mended"))
    rows.append(("transcripts", storage.shown(storage.join(job.output, "transcripts"))))
    page = reports.page_url(job.output, job.run_id)
    if storage.exists(page):
        rows.append(("report", storage.shown(page)))
    if isinstance(ending, KeyboardInterrupt):
        return Said(Exit.INTERRUPTED, f"Stopped. {ok:,} are answered; run the same command to go on.", rows)
    if isinstance(ending, RunPaused):
        message = f"Paused: {ending}. Nothing was lost; mend it and run the same command."
        return Said(Exit.INCOMPLETE, message, rows)
    if left := answers_left(found):
        return Said(Exit.INCOMPLETE, left, rows)
    return Said(Exit.OK, f"{_all(found.num_answers)} accounted for.", rows)


def _all(num: int) -> str:
    return f"{every(num, 'answer')} {be(num)}"


__all__ = ["Asked", "Interview", "Said", "hold", "prepare"]
