"""A run's status as a person looks at it: from the bucket, and from the cluster while it is up."""

from __future__ import annotations

import time
from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dawnchorus import fence, logs, progress, storage
from dawnchorus.errors import UserError
from dawnchorus.progress import Status
from dawnchorus.records import Seconds
from dawnchorus.submission import Cluster, Submitted
from dawnchorus.wording import many, span

_SILENT: Seconds = 120.0
_WIDTH = 46
_MINUTE = "%Y-%m-%d %H:%M"


def runs_of(output: str) -> list[Status]:
    """The status of every run that an output holds, latest first."""
    root = storage.join(output, "_runs")
    found = [progress.read(storage.parent(f.url)) for f in storage.list_files(root, progress.FILE)]
    return sorted((s for s in found if s is not None), key=lambda s: -s.updated_at)


def look(
    output: str, run_id: str | None = None, cluster: Cluster | None = None
) -> tuple[Status | None, Submitted | None]:
    """One run of an output, by default the one that wrote last: what it says of itself, and what the
    cluster says of its submission. A run that was just submitted has said nothing yet. `run_id` may be the
    id of a submission.

    Raises:
        UserError: neither knows of it.
    """
    runs = _named(runs_of(output), run_id)
    submitted = latest(output, run_id, cluster) if cluster else None
    if not runs and submitted is None:
        which = f"run {run_id}" if run_id else "run"
        hint = "Check the output's address."
        if cluster is None:
            hint += " What was submitted a moment ago is known to its cluster only: --address."
        raise UserError(f"There is no {which} in {storage.shown(output)}.", hint)
    if submitted is None or not runs:
        return (runs[0] if runs else None), submitted
    # A cluster made anew counts submissions from 1 again: what was said before this one began is another's.
    began = submitted.started or 0.0
    told = [s for s in runs if s.submission_id == submitted.submission_id and s.updated_at >= began]
    if submitted.is_alive:
        return (told[0] if told else None), submitted
    if told and told[0] is runs[0]:
        return told[0], submitted
    # Either the job ended before it could write, or somebody ran here since.
    return (None, submitted) if began > runs[0].updated_at else (runs[0], None)


def latest(output: str, run_id: str | None, cluster: Cluster) -> Submitted | None:
    """The latest submission that writes to `output`, of one run if it is given."""
    found = cluster.submissions(output)
    if run_id is not None:
        ids = {run_id, *(s.submission_id for s in _named(runs_of(output), run_id))}
        found = [s for s in found if s.submission_id in ids]
    return found[-1] if found else None


def _named(runs: list[Status], run_id: str | None) -> list[Status]:
    return [s for s in runs if run_id in (None, s.run_id, s.submission_id)]


def ask_to_stop(output: str, run_id: str) -> None:
    """Ask a run to stop as by Ctrl-C, through its output: no cluster is needed for it."""
    progress.ask_to_stop(storage.join(output, "_runs", run_id), fence.newest_epoch(output))


def condition(status: Status, submitted: Submitted | None, now: float) -> tuple[str, str]:
    """One word on how a run is, and a colour: what it says of itself, checked against how long it has been
    silent and what its cluster says."""
    if status.is_over:
        words = {0: ("done", "green"), 3: ("incomplete", "yellow"), 130: ("stopped", "yellow")}
        return words.get(status.exit or 0, ("failed", "red"))
    if submitted is not None and not submitted.is_alive:
        return f"gone ({submitted.status.lower()} on the cluster)", "red"
    if is_silent(status, now):
        return f"silent for {span(now - status.updated_at)}", "red"
    return status.state, "cyan"


def is_silent(status: Status, now: float | None = None) -> bool:
    """Whether a run that has not ended says nothing any more."""
    return not status.is_over and (time.time() if now is None else now) - status.updated_at > _SILENT


def status_panel(
    status: Status | None, submitted: Submitted | None = None, now: float | None = None
) -> Group:
    """Everything about one run, for a terminal."""
    now = time.time() if now is None else now
    if status is None:
        return _waiting(submitted)
    word, colour = condition(status, submitted, now)
    head = Text.assemble((f"run {status.run_id}", "bold"), "  ", (word, f"bold {colour}"))
    table = Table(show_header=False, box=None, padding=(0, 1))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in status_rows(status, now):
        table.add_row(label, value)
    parts: list[RenderableType] = [head, table]
    if status.message:
        parts.append(Text(status.message, style=colour))
    return Group(*parts)


def _waiting(submitted: Submitted | None) -> Group:
    """A run that has said nothing yet."""
    if submitted is None:
        return Group()
    colour = "bold cyan" if submitted.is_alive else "bold red"
    head = Text.assemble((submitted.submission_id, "bold"), "  ", (submitted.status.lower(), colour))
    lines = [Text("It has not begun to write yet.", style="dim")]
    if not submitted.is_alive:
        lines = [Text("It ended before it could write: `dawnchorus logs` shows why. Its last line:")]
        last = storage.redact(submitted.message).rpartition("\n")[2]
        lines.append(Text(logs.readable(last).strip() or last, style="red"))
    return Group(head, *lines)


def status_rows(status: Status, now: float) -> Iterable[tuple[str, RenderableType]]:
    """Label and value of each line."""
    if status.total_audio:
        share = _share(status)
        bar = Table.grid(padding=(0, 1))
        bar.add_row(ProgressBar(total=1.0, completed=share, width=_WIDTH), _audio(status))
        yield "audio", bar
    failed = f", {status.num_failed:,} failed" if status.num_failed else ""
    yield "recordings", f"{status.num_done:,} of {status.num_recordings:,}{failed}"
    for kind, number in sorted(status.failures.items(), key=lambda f: (-f[1], f[0])):
        yield "", Text(f"{kind} {number:,}", style="yellow")
    if status.num_asked:
        yield "answers", f"{status.num_answers:,} of {status.num_asked:,}"
    if status.rtfx or status.rtfx_now:
        now_part = f"{status.rtfx_now:.1f} now, " if status.rtfx_now is not None else ""
        yield "rtfx", f"{now_part}{status.rtfx or 0:.1f} on average"
    if status.eta_seconds is not None and not status.is_over:
        yield (
            "left",
            f"{span(status.eta_seconds)}, until {_until(status.updated_at + status.eta_seconds, now)}",
        )
    if status.engines:
        gpus = f" on {status.gpus:g} GPUs" if status.gpus else ""
        busy = f", {status.engine_busy:.0%} busy" if status.engine_busy is not None else ""
        yield "engines", f"{many(status.engines, 'engine')}{gpus}{busy} ({status.engine}, {status.model})"
    if status.cost is not None:
        yield "cost so far", f"${status.cost:,.2f}"
    began = time.strftime(_MINUTE, time.localtime(status.started_at))
    heard = "" if status.is_over else f", last heard {span(max(0.0, now - status.updated_at))} ago"
    yield "began", f"{began} on {status.host}{heard}"
    if status.submission_id:
        yield "submission", status.submission_id


def _until(when: float, now: float) -> str:
    """A time of day here, with its date where that is not today's."""
    then = time.localtime(when)
    near = then[:3] == time.localtime(now)[:3]
    return time.strftime("%H:%M" if near else _MINUTE, then)


def _share(status: Status) -> float:
    """Of its audio, of which the total may be an estimate: all of it is done with the last recording."""
    share = status.done_audio / status.total_audio if status.total_audio else 0.0
    return min(share, 1.0 if status.num_done >= status.num_recordings else 0.99)


def _audio(status: Status) -> str:
    return f"{_share(status):.0%}  {span(status.done_audio)} of {span(status.total_audio)}"


def status_line(status: Status | None, submitted: Submitted | None = None, now: float | None = None) -> str:
    """One line about a run, where nobody can see a panel change."""
    now = time.time() if now is None else now
    if status is None:
        return f"{submitted.submission_id}: {submitted.status.lower()}" if submitted else ""
    word, _ = condition(status, submitted, now)
    parts = [f"{status.num_done:,} of {status.num_recordings:,} recordings"]
    if status.num_failed:
        parts.append(f"{status.num_failed:,} failed")
    if status.total_audio:
        parts.append(f"audio {_audio(status)}")
    if status.rtfx is not None and not status.is_over:
        parts.append(f"rtfx {status.rtfx:.1f}")
    if status.eta_seconds is not None and not status.is_over:
        parts.append(f"{span(status.eta_seconds)} left")
    return f"{word}: {', '.join(parts)}"


def runs_table(runs: list[Status], now: float | None = None) -> Table:
    """One line per run."""
    now = time.time() if now is None else now
    table = Table(box=None, pad_edge=False, header_style="dim")
    # The id is there to be copied, so it stays whole where the others have to wrap.
    table.add_column("run", no_wrap=True, min_width=max((len(s.run_id) for s in runs), default=0))
    for name in ("how", "audio", "recordings", "failed", "rtfx", "began"):
        table.add_column(name)
    for s in runs:
        word, colour = condition(s, None, now)
        share = f"{_share(s):.0%} of {span(s.total_audio)}" if s.total_audio else ""
        began = time.strftime(_MINUTE, time.localtime(s.started_at))
        rtfx = f"{s.rtfx:.1f}" if s.rtfx else ""
        counts = f"{s.num_done:,} of {s.num_recordings:,}"
        table.add_row(s.run_id, Text(word, style=colour), share, counts, f"{s.num_failed:,}", rtfx, began)
    return table
