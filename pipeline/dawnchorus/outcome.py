"""How a run ends: exit code, one sentence, and the closing table. Words only; decides nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from dawnchorus import flags, storage
from dawnchorus.errors import DataError, Fenced, OutputOwned, RunPaused, UserError
from dawnchorus.reconcile import Reconciliation
from dawnchorus.report.words import FEWEST_WORDS, enough
from dawnchorus.wording import be, every, many


class Exit(IntEnum):
    """Exit codes of the command."""

    OK = 0
    """Every recording is accounted for; some may be listed as failed."""
    ERROR = 1
    """A bug or an unforeseen fault."""
    USAGE = 2
    """The configuration, the manifest, the engine or the storage: nothing was started."""
    INCOMPLETE = 3
    """Paused, or some failures are passing ones: run the same command again."""
    UNRECONCILED = 4
    """The tables do not add up; the report lists where."""
    OWNED = 5
    """Another run owns the output, or took it over."""
    INTERRUPTED = 130
    """Ctrl-C or SIGTERM; what was complete is published."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: exit code, one sentence, and where to look."""

    exit: Exit
    run_id: str
    message: str
    reconciliation: Reconciliation
    report: dict[str, Any]
    output: str
    report_url: str

    def rows(self) -> list[tuple[str, str]]:
        """The closing table, as label and value."""
        found, made = self.reconciliation, self.report
        partial = f" ({found.num_partial:,} in part)" if found.num_partial else ""
        counts = f"{found.num_ok:,} ok{partial}, {found.num_empty:,} empty, {found.num_failed:,} failed"
        spent, wer = made["time"], made["wer"]
        rows = [("recordings", f"{found.num_recordings:,}: {counts}")]
        if made["totals"]["forgotten"]:
            rows.append(("forgotten", f"{made['totals']['forgotten']:,}, not counted above"))
        rows += [
            (f"  {k['kind']}", f"{k['num']:,}: {k['examples'][0]['message']}")
            for k in made["failures"]["kinds"]
        ]
        if made["totals"]["elsewhere"]:
            kept = f"{many(made['totals']['elsewhere'], 'row')} in transcripts, not counted above"
            rows.append(("other inputs", kept))
        if found.num_answers:
            rows += answer_rows(found)
        if spent["rtfx"]:
            alone = f"; {spent['engine_rtfx']:.1f} of an engine at work" if spent["engine_rtfx"] else ""
            said = f"{spent['rtfx']:.1f} audio seconds per second, start, reading and decoding included"
            rows.append(("rtfx", said + alone))
        if made["cost"]["dollars"] is not None:
            each = made["cost"]["per_1000_hours"]
            rate = f", ${each:,.2f} per 1,000 hours of audio" if each is not None else ""
            rows.append(("cost", f"${made['cost']['dollars']:,.2f}{rate}"))
        if wer["wer"] is not None and not enough(wer):
            few = many(wer["num_words"], "reference word")
            rows.append(("WER", f"not told: {few} are too few, {FEWEST_WORDS} are needed"))
        elif wer["wer"] is not None:
            words = (
                f"{wer['num_words']:,} words of {many(wer['num_recordings'], 'recording')} with a reference"
            )
            rows.append(("WER", f"{wer['wer']:.1%} over {words}"))
        elif wer["note"]:
            rows.append(("WER", wer["note"]))
        rows.append(("transcripts", storage.shown(storage.join(self.output, "transcripts"))))
        rows.append(("report", storage.shown(self.report_url)))
        return rows


def exit_code(ending: BaseException | None, found: Reconciliation) -> Exit:
    """The exit code of a run that `ending` stopped (None: nothing was left) and reconcile found so."""
    if isinstance(ending, KeyboardInterrupt):
        return Exit.INTERRUPTED
    if found.num_problems:
        return Exit.UNRECONCILED
    answers_left = found.num_missing_answers or found.num_transient_answers
    if ending is not None or found.num_missing or found.num_transient or answers_left:
        return Exit.INCOMPLETE
    return Exit.OK


def exit_of(error: BaseException) -> Exit:
    """The exit code of a command that an error ended."""
    if isinstance(error, KeyboardInterrupt):
        return Exit.INTERRUPTED
    if isinstance(error, (OutputOwned, Fenced)):
        return Exit.OWNED
    return Exit.USAGE if isinstance(error, (UserError, DataError)) else Exit.ERROR


def message(code: Exit, ending: BaseException | None, found: Reconciliation) -> str:
    """One sentence on how the run ended, with what to do next."""
    done = found.num_recordings - found.num_missing
    if code is Exit.OK:
        num = found.num_recordings
        return f"{every(num, 'recording')} {be(num)} accounted for."
    if code is Exit.UNRECONCILED:
        return f"{found.num_problems} things do not add up, first: {found.problems[0]}."
    if code is Exit.INTERRUPTED:
        return f"Stopped. {done:,} of {found.num_recordings:,} are published; run the same command to go on."
    if isinstance(ending, RunPaused):
        return f"Paused: {ending}. Nothing was lost; mend it and run the same command."
    if found.num_missing:
        return f"Without a row: {many(found.num_missing, 'recording')}; run the same command to go on."
    if found.num_transient:
        return _not_for_good(many(found.num_transient, "recording"))
    return answers_left(found)


def answers_left(found: Reconciliation) -> str:
    """What to do about answers that are not there, or failed for now; empty where there are none."""
    if found.num_missing_answers:
        return f"Missing: {many(found.num_missing_answers, 'answer')}; run the same command to ask again."
    if found.num_transient_answers:
        return _not_for_good(many(found.num_transient_answers, "answer"))
    return ""


def _not_for_good(what: str) -> str:
    """What to do when every try (`resume.max_attempts`) of something failed, and none need have."""
    return f"{what} failed at every try, for reasons that may pass; once mended, add --retry-failed all."


def answer_rows(found: Reconciliation) -> list[tuple[str, str]]:
    """How the answers stand, and below it why some failed and what their flags mean."""
    rows = [("answers", answers_said(found))]
    rows += [
        (f"  {kind}", f"{num:,} failed: {message}")
        for kind, (num, message) in sorted(found.answer_failures.items(), key=lambda f: -f[1][0])
    ]
    rows += [
        (f"  {flag}", f"{num:,} flagged: {flags.meaning(flag, answer=True)}")
        for flag, num in sorted(found.answer_flags.items(), key=lambda f: -f[1])
    ]
    return rows


def answers_said(found: Reconciliation) -> str:
    """How the answers stand, in a few words."""
    ok = found.num_answers - found.num_failed_answers - found.num_missing_answers
    doubts = f" ({found.num_flagged_answers:,} flagged)" if found.num_flagged_answers else ""
    said = f"{found.num_answers:,}: {ok:,} ok{doubts}, {found.num_failed_answers:,} failed"
    return said + (f", {found.num_missing_answers:,} missing" if found.num_missing_answers else "")
