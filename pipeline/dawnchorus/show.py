"""`dawnchorus show`: transcripts of an output as a table for a terminal, with totals and where files are.

Reads committed rows only, so it works while a run goes on. Names and transcripts are untrusted: control
characters never reach the terminal.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from dawnchorus import earlier, export, ledger, storage
from dawnchorus.errors import ConfigError
from dawnchorus.export.cues import clean
from dawnchorus.records import Seconds
from dawnchorus.wording import many

_COLUMNS = ["audio_filepath", "offset", "duration", "pred_text", "status", "failure", "flags", "answers"]
_STYLES = {"ok": "green", "empty": "dim", "failed": "bold red"}
_TEXT_CHARACTERS = 400
_MAX_REPORT_BYTES = 16 << 20


@dataclass(slots=True)
class _Totals:
    statuses: Counter[str] = field(default_factory=Counter)
    seconds: Seconds = 0.0
    num_partial: int = 0
    num_elsewhere: int = 0

    def add(self, batch: pa.RecordBatch) -> None:
        self.statuses.update({v["values"]: v["counts"] for v in pc.value_counts(batch["status"]).to_pylist()})
        self.seconds += pc.sum(batch["duration"]).as_py() or 0.0
        partial = pc.and_(pc.equal(batch["status"], "ok"), pc.is_valid(batch["failure"]))
        self.num_partial += pc.sum(partial).as_py() or 0


def show_table(
    output: str, limit: int = 20, status: str | None = None, answers: bool = False
) -> Iterator[RenderableType]:
    """The first `limit` rows (of one `status`) as a table, the totals, and where the files are. With
    `answers`, what LLM mode said stands in place of the transcript, in full.

    Raises:
        ConfigError: no such status.
        UserError: there are no transcripts.
    """
    if status is not None and status not in _STYLES:
        raise ConfigError(f"There is no status {status!r}.", f"Choose one of: {', '.join(_STYLES)}.")
    export.require_transcripts(output)
    totals, ids = _Totals(), list[pa.Array]()
    for batch in export.rows(output, ["recording_id", "status", "duration", "failure"], 65_536):
        totals.add(batch)
        ids.append(batch["recording_id"])
    totals.num_elsewhere = earlier.count(storage.absolute(output), pa.chunked_array(ids, pa.string()))
    wanted = totals.statuses.total() if status is None else totals.statuses[status]
    yield _table(_first(output, limit, status), answers)
    if wanted > limit:
        yield Text(f"{limit:,} of {wanted:,} rows; --limit shows more", style="dim")
    yield _totals_line(totals)
    yield _places(output)


def _first(output: str, limit: int, status: str | None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for batch in export.rows(output, _COLUMNS):
        rows = batch if status is None else batch.filter(pc.equal(batch["status"], status))
        found += rows.slice(0, limit - len(found)).to_pylist()
        if len(found) >= limit:
            break
    return found


def _table(rows: list[dict[str, Any]], answers: bool) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", expand=True)
    table.add_column("status", no_wrap=True)
    table.add_column("length", justify="right", no_wrap=True)
    table.add_column("audio", no_wrap=True, overflow="ellipsis", max_width=34)
    table.add_column("answers" if answers else "text", ratio=1)
    folder = _common_folder([r["audio_filepath"] for r in rows if r["audio_filepath"]])
    for row in rows:
        table.add_row(
            Text(row["status"], style=_STYLES[row["status"]]),
            "" if row["duration"] is None else clock(row["duration"]),
            Text(_name(row, folder), overflow="ellipsis"),
            _answers(row) if answers and row["status"] == "ok" else _text(row),
        )
    return table


def _common_folder(addresses: list[str]) -> str:
    folders = [a.rpartition("/")[0].split("/") for a in addresses] or [[]]
    shortest, longest = min(folders), max(folders)
    same = [a for n, a in enumerate(shortest) if longest[: n + 1] == shortest[: n + 1]]
    return "/".join(same) + "/"


def _name(row: dict[str, Any], folder: str) -> str:
    address = row["audio_filepath"]
    if not address:
        return "(manifest)"
    name = clean(storage.redact(address.removeprefix(folder)))
    return name if row["offset"] is None else f"{name} @{clock(row['offset'])}"


def _text(row: dict[str, Any]) -> Text:
    """The transcript on one line, or in full why there is none; then what is doubtful of it."""
    failure = row["failure"]
    reason = f"{failure['kind']}: {clean(failure['message'])}" if failure else ""
    if row["status"] == "failed":
        return Text(reason, style="red", overflow="fold", no_wrap=False)
    said = clean((row["pred_text"] or "")[:_TEXT_CHARACTERS]) or "no speech"
    text = Text(no_wrap=True, overflow="ellipsis")
    notes = [*(row["flags"] or ()), *([reason] if reason else [])]
    if notes:
        text.append(f"[{clean(', '.join(notes))}] ", style="yellow")
    return text.append(said, style="" if row["status"] == "ok" else "dim")


def _answers(row: dict[str, Any]) -> Text:
    """Every answer by its name (or its question), wrapped."""
    text = Text(no_wrap=False, overflow="fold")
    for n, answer in enumerate(row["answers"] or ()):
        text.append("\n" if n else "")
        text.append(f"{clean(answer['question'] or answer['name'])}: ", style="cyan")
        if answer["flags"]:
            text.append(f"[{clean(', '.join(answer['flags']))}] ", style="yellow")
        if answer["status"] == "ok":
            text.append(clean(answer["text"] or ""))
        else:
            text.append(f"{answer['failure']['kind']}: {clean(answer['failure']['message'])}", style="red")
    return text if text.plain else Text("no answers", style="dim")


def _totals_line(totals: _Totals) -> Text:
    count = totals.statuses
    line = Text(f"{many(count.total(), 'recording')}, {clock(totals.seconds)} of audio: ", style="bold")
    for n, name in enumerate(_STYLES):
        line.append(
            f"{', ' if n else ''}{count[name]:,} {name}", style=_STYLES[name] if count[name] else "dim"
        )
    if totals.num_partial:
        line.append(f" ({totals.num_partial:,} of the ok ones in part)", style="yellow")
    if totals.num_elsewhere:
        line.append(f"; {many(totals.num_elsewhere, 'row')} of earlier inputs among them", style="yellow")
    return line


def _places(output: str) -> Table:
    """Where the Parquet and the newest report are, with that report's word error rate and rtfx."""
    url = storage.absolute(output)
    places = Table.grid(padding=(0, 2))
    places.add_column(style="dim", no_wrap=True)
    places.add_column(overflow="fold")
    report = _newest_report(url)
    if report is not None:
        if (wer := report.get("wer") or {}).get("wer") is not None:
            words = f"of {wer['num_words']:,} reference words in {wer['num_recordings']:,} recordings"
            places.add_row("WER", f"{wer['wer']:.1%} {words}")
        if rtfx := report.get("time", {}).get("rtfx"):
            places.add_row("rtfx", f"{rtfx:.1f} seconds of audio per second")
        if model := report.get("model"):
            facts = [model["licence"].partition(" http")[0], model.get("languages", "")]
            said = ", ".join(f for f in (f"{model['engine']}, {model['model']}", *facts) if f)
            places.add_row("model", clean(storage.redact(said)))
    places.add_row("transcripts", _place(f"{ledger.transcripts_url(url)}/*.parquet"))
    if report is not None:
        places.add_row("report", _place(storage.join(url, "_runs", report["run_id"], "report.html")))
    return places


def _newest_report(url: str) -> dict[str, Any] | None:
    """The report made last below an output, if there is any."""
    newest: dict[str, Any] | None = None
    for info in storage.list_files(storage.join(url, "_runs"), "/report.json"):
        report: dict[str, Any] = json.loads(storage.read_bytes(info.url, _MAX_REPORT_BYTES))
        if newest is None or report["made_at"] > newest["made_at"]:
            newest = report
    return newest


def _place(url: str) -> str:
    return clean(storage.readable(url))


def clock(seconds: Seconds) -> str:
    """A length of time for people: 7.4 s, 3:05, 1:02:09."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
