"""What a run says to a person at a terminal: the plan, a live line, a closing table. Rich, on stderr.

Only words and numbers; decides nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from types import TracebackType

import pyarrow.compute as pc
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from dawnchorus import cost, storage
from dawnchorus.answers import Answered, Asking
from dawnchorus.cluster import Progress
from dawnchorus.expected import NEARLY
from dawnchorus.export.cues import clean
from dawnchorus.outcome import Exit, Outcome
from dawnchorus.placement import Resources
from dawnchorus.prepare import Prepared, Survey
from dawnchorus.records import Seconds
from dawnchorus.wording import many, span

_BAR = 20
_KINDS = 5


class Terminal:
    """`run.Ui` on a console; a context manager around the live line.

    On a console that is not a terminal the live line becomes one line every `every` seconds.
    """

    def __init__(self, console: Console, every: Seconds = 30.0) -> None:
        self.console = console
        self.every = every
        self.live = Live(console=console, transient=True, refresh_per_second=4)
        self.last_printed = 0.0

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.live.stop()

    def say(self, text: str) -> None:
        """One line of news."""
        self.console.print(Text(text, style="dim"))

    def plan(self, prepared: Prepared, survey: Survey, use: Resources | None) -> None:
        """What is about to be done."""
        self.console.print(plan_table(prepared, survey, use))
        if len(survey.pending) and self.console.is_terminal:
            self.live.start()

    def progress(self, survey: Survey, progress: Progress, elapsed: Seconds) -> None:
        """The live line: audio done, rtfx, time left, failures."""
        self._line(progress_line(survey, progress, elapsed), elapsed)

    def _line(self, line: Text, elapsed: Seconds) -> None:
        if self.console.is_terminal:
            self.live.update(line)
        elif due(elapsed, self.last_printed, self.every):
            self.last_printed = elapsed
            self.console.print(line)

    def asking(self, left: Asking, use: Resources) -> None:
        """What is about to be asked."""
        answers = many(left.num_left, "answer")
        about = many(left.num_transcripts, "transcript")
        self.say(f"Asking for {answers} about {about}, {many(use.engines, 'model')} at once ...")
        self.last_printed = 0.0
        if self.console.is_terminal:
            self.live.start()

    def answering(self, left: int, answered: Answered, elapsed: Seconds) -> None:
        """The live line of graph 3."""
        self._line(answers_line(left, answered, elapsed), elapsed)

    def close(self, outcome: Outcome) -> None:
        """The closing table and where everything is."""
        self.ended(outcome.rows(), outcome.message, outcome.exit)

    def ended(self, rows: Sequence[tuple[str, str]], message: str, code: Exit) -> None:
        """A closing table and the sentence below it."""
        self.live.stop()
        self.console.print(rows_table(rows))
        self.console.print(Text(message, style="bold green" if code is Exit.OK else "bold yellow"))


def due(elapsed: Seconds, last: Seconds, every: Seconds) -> bool:
    """Whether it is time to say how far it is; `elapsed` begins anew with every attempt."""
    return not 0 <= elapsed - last < every


def progress_line(survey: Survey, progress: Progress, elapsed: Seconds) -> Text:
    """One line, such as `████░░░░ 32% of 1.3 h  rtfx 21.4  ETA 2 min  17 done, 1 failed`."""
    total = total_seconds(survey, progress)
    rtfx = progress.audio_seconds / elapsed if elapsed > 0 else 0.0
    left = (total - progress.audio_seconds) / rtfx if rtfx else None
    is_open = progress.num_recordings < len(survey.pending)
    # Nothing is known before the first window; a slow model takes minutes for it.
    started = f"starting: {span(elapsed)} for the model and its first window"
    eta = f"ETA {span(max(left, float(is_open)))}" if left is not None else started
    share = progress.audio_seconds / total if total else float(not is_open)
    filled = int(share * _BAR)
    line = Text.assemble(
        ("█" * filled + "░" * (_BAR - filled), "cyan"),
        f" {share:.0%} of {span(total)}  ",
        (f"rtfx {rtfx:.1f}", "bold"),
        f"  {eta}  {progress.num_recordings:,} done",
        (f", {progress.num_failed:,} failed" if progress.num_failed else "", "yellow"),
    )
    line.no_wrap = True
    return line


def total_seconds(survey: Survey, progress: Progress) -> Seconds:
    """The audio of an attempt, as far as it is known by now; more than is done while anything is open."""
    if progress.expected_seconds is not None:
        return progress.expected_seconds
    is_open = progress.num_recordings < len(survey.pending)
    return max(float(survey.pending_seconds.sum()), progress.audio_seconds / (NEARLY if is_open else 1.0))


def answers_line(left: int, answered: Answered, elapsed: Seconds) -> Text:
    """One line, such as `████░░░░ 12 of 40 answers  31.5 tokens/s  ETA 2 min, 1 failed`."""
    share = min(1.0, answered.num_answers / left) if left else 1.0
    filled = int(share * _BAR)
    eta = span(elapsed * (1 - share) / share) if share else ""
    notes = answered.num_steps - answered.num_answers
    line = Text.assemble(
        ("█" * filled + "░" * (_BAR - filled), "cyan"),
        f" {answered.num_answers:,} of {many(left, 'answer')}  ",
        (f"{answered.num_tokens / elapsed if elapsed > 0 else 0.0:.1f} tokens/s", "bold"),
        f"  ETA {eta}" if eta else "  starting" if not notes else f"  {many(notes, 'note')} on long ones",
        (f", {answered.num_failed:,} failed" if answered.num_failed else "", "yellow"),
    )
    line.no_wrap = True
    return line


def plan_table(prepared: Prepared, survey: Survey, use: Resources | None = None) -> Table:
    """The plan before spending: what there is, what is done, what it will take."""
    table = Table(
        title=f"Plan of run {prepared.facts.run_id}", show_header=False, title_justify="left", box=None
    )
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in plan_rows(prepared, survey, use):
        table.add_row(name, value)
    return table


def plan_rows(prepared: Prepared, survey: Survey, use: Resources | None) -> list[tuple[str, str]]:
    """The plan as label and value."""
    summary = prepared.summary
    about = "" if not survey.estimated_share else f" ({survey.estimated_share:.0%} of the lengths estimated)"
    rows = [
        ("input", storage.redact(prepared.config.input)),
        ("output", storage.redact(prepared.config.output)),
        (
            "engine",
            f"{prepared.facts.engine}, {prepared.facts.model} (fingerprint {prepared.facts.fingerprint})",
        ),
        ("recordings", f"{survey.num_recordings:,}, {span(survey.total_seconds)} of audio{about}"),
    ]
    if summary.skipped:
        rows.append(("skipped", _skipped(summary.skipped)))
    if summary.num_duplicates:
        rows.append(("collapsed", f"{summary.num_duplicates:,} identical manifest rows"))
    if prepared.num_forgotten:
        rows.append(("forgotten", f"{prepared.num_forgotten:,} manifest rows, left out"))
    if survey.num_bad:
        rows.append(("unreadable", f"{survey.num_bad:,} manifest lines; each becomes a failed row"))
    if survey.num_done or survey.num_ready:
        ready = f", {survey.num_ready:,} only to be assembled" if survey.num_ready else ""
        rows.append(("already done", f"{survey.num_done:,}{ready}"))
    if prepared.asked is not None:
        asks = ", ".join(p.name for p in prepared.asked.prompts)
        rows.append(
            ("answers", f"{asks} of each transcript, by {prepared.asked.engine.name}, {prepared.asked.model}")
        )
    chunks = f", of which {survey.committed_chunks:,} chunks are committed" if survey.committed_chunks else ""
    rows.append(("to do", f"{len(survey.pending):,}, {span(float(survey.pending_seconds.sum()))}{chunks}"))
    if survey.measured_rtfx and len(survey.pending):
        wall = float(survey.pending_seconds.sum()) / survey.measured_rtfx
        rows.append(
            ("will take", f"about {span(wall)} at the rtfx {survey.measured_rtfx:.1f} measured here before")
        )
    if use is not None:
        risk = use.engines * use.window_rows * prepared.max_chunk_seconds
        risk = min(risk, float(survey.pending_seconds.sum()))
        rows.append(("resources", use.sentence()))
        if not use.nodes:
            rows.append(("placement", "on nodes that are to come: see workers.wait_seconds"))
        elif len(use.nodes) > 1 or use.gpus or use.first_engines:
            rows += [("placement" if i == 0 else "", line) for i, line in enumerate(use.placement())]
        if use.gpus and survey.measured_gpus and (price := cost.price(prepared.config.cost, use.accelerator)):
            hours_paid = float(survey.pending_seconds.sum()) / 3600 * survey.measured_gpus
            rows.append(
                (
                    "will cost",
                    f"about ${hours_paid * price.dollars:,.2f}, at ${price.dollars:,.2f} "
                    f"per {price.name} hour ({price.source})",
                )
            )
        rows.append(("if it crashes", f"at most {span(risk)} of audio are transcribed again"))
    return rows


def _skipped(kinds: Counter[str]) -> str:
    """`4 files (2 hidden, 1 .txt, 1 without extension)`."""
    few = [f"{num:,} {kind}" for kind, num in kinds.most_common(_KINDS)]
    rest = kinds.total() - sum(num for _, num in kinds.most_common(_KINDS))
    return f"{many(kinds.total(), 'file')} ({', '.join(few + ([f'{rest:,} other'] if rest else []))})"


def bad_lines(prepared: Prepared, limit: int | None = None) -> Iterator[str]:
    """What is wrong with each unreadable line of the manifest, and where it stands; at most `limit`."""
    bad = prepared.manifest.filter(pc.is_valid(prepared.manifest["failure"]))
    for failure in bad["failure"].slice(0, limit):
        yield clean(failure["message"].as_py())
    if limit is not None and len(bad) > limit:
        yield f"... and {len(bad) - limit:,} more; `dawnchorus plan ... | less` lists all."


def rows_table(rows: Sequence[tuple[str, str]]) -> Table:
    """Labels and values, without lines."""
    table = Table(show_header=False, box=None)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, value)
    return table
