"""What a run says where nobody sits: a `run.Ui` whose every word is an event of `logs`.

`terminal` is the same for a person, and makes the sentences. Decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

from dawnchorus import logs
from dawnchorus.answers import Answered, Asking
from dawnchorus.cluster import Progress
from dawnchorus.outcome import Exit, Outcome
from dawnchorus.placement import Resources
from dawnchorus.prepare import Prepared, Survey
from dawnchorus.records import Seconds
from dawnchorus.terminal import answers_line, due, plan_rows, progress_line
from dawnchorus.wording import many


class Lines:
    """`run.Ui` as events; progress every `every` seconds. A context manager, like `Terminal`."""

    def __init__(self, every: Seconds = 30.0) -> None:
        self.every = every
        self.last_told = 0.0

    def __enter__(self) -> Lines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Nothing is open."""

    def say(self, text: str) -> None:
        """One line of news."""
        logs.event("said", text)

    def plan(self, prepared: Prepared, survey: Survey, use: Resources | None) -> None:
        """What is about to be done."""
        logs.event(
            "plan",
            f"Plan of run {prepared.facts.run_id}",
            num_recordings=survey.num_recordings,
            num_pending=len(survey.pending),
            pending_seconds=round(float(survey.pending_seconds.sum()), 3),
            engines=use.engines if use else None,
            decoders=use.decoders if use else None,
            rows=_mapping(plan_rows(prepared, survey, use)),
        )

    def progress(self, survey: Survey, progress: Progress, elapsed: Seconds) -> None:
        """How far it is, now and then."""
        if not due(elapsed, self.last_told, self.every):
            return
        self.last_told = elapsed
        logs.event(
            "progress",
            _plain(progress_line(survey, progress, elapsed).plain),
            num_recordings=progress.num_recordings,
            num_failed=progress.num_failed,
            audio_seconds=round(progress.audio_seconds, 3),
            engine_seconds=round(progress.engine_seconds, 3),
            elapsed_seconds=round(elapsed, 3),
        )

    def asking(self, left: Asking, use: Resources) -> None:
        """What is about to be asked."""
        about = f"{many(left.num_left, 'answer')} about {many(left.num_transcripts, 'transcript')}"
        logs.event("asking", f"Asking for {about} ...", num_left=left.num_left, engines=use.engines)
        self.last_told = 0.0

    def answering(self, left: int, answered: Answered, elapsed: Seconds) -> None:
        """How far the answers are, now and then."""
        if not due(elapsed, self.last_told, self.every):
            return
        self.last_told = elapsed
        said = _plain(answers_line(left, answered, elapsed).plain)
        logs.event("answering", said, num_answers=answered.num_answers, num_failed=answered.num_failed)

    def close(self, outcome: Outcome) -> None:
        """How it ended and where everything is."""
        self.ended(outcome.rows(), outcome.message, outcome.exit)

    def ended(self, rows: Sequence[tuple[str, str]], message: str, code: Exit) -> None:
        """The closing table and the sentence."""
        logs.event("summary", message, exit=int(code), rows=_mapping(rows))


def _mapping(rows: Sequence[tuple[str, str]]) -> dict[str, str]:
    """A table as one mapping; rows of one label, or without one, belong to that before them."""
    made: dict[str, str] = {}
    label = ""
    for name, value in rows:
        label = name.strip() or label
        made[label] = f"{made[label]}; {value}" if label in made else value
    return made


def _plain(line: str) -> str:
    """A live line without its bar."""
    return line.lstrip("█░ ")
