"""`dawnchorus show`: transcripts of an output laid out for a terminal, with totals and where files are.

Reads committed rows only, so it works while a run goes on. Names and transcripts are untrusted: control
characters never reach the terminal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.cells import cell_len, set_cell_size
from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

from dawnchorus import earlier, export, ledger, reports, storage
from dawnchorus.errors import ConfigError
from dawnchorus.export.cues import clean
from dawnchorus.records import Seconds
from dawnchorus.wording import many

_COLUMNS = ["audio_filepath", "offset", "duration", "pred_text", "status", "failure", "flags", "answers"]
_STYLES = {"ok": "green", "empty": "dim", "failed": "bold red"}
_TEXT_CHARACTERS = 400
_LEAST_NAME = 16
_BEFORE_NAME = 20
_INDENT = 8


@dataclass(slots=True)
class _Totals:
    statuses: Counter[str] = field(default_factory=Counter)
    seconds: Seconds = 0.0
    num_partial: int = 0
    num_elsewhere: int = 0

    def add(self, batch: pa.RecordBatch) -> None:
        self.statuses.update({v["values"]: v["counts"] for v in pc.value_counts(batch["status"]).to_pylist()})
        self.seconds += pc.sum(export.heard(batch)).as_py() or 0.0
        partial = pc.and_(pc.equal(batch["status"], "ok"), pc.is_valid(batch["failure"]))
        self.num_partial += pc.sum(partial).as_py() or 0


def show_table(
    output: str,
    limit: int = 20,
    status: str | None = None,
    answers: bool = False,
    width: int | None = None,
) -> Iterator[RenderableType]:
    """The first `limit` rows (of one `status`), the totals, and where the files are, laid out for a terminal
    of `width` columns; None: nothing is cut. With `answers`, what LLM mode said stands below its row.

    Raises:
        ConfigError: no such status.
        UserError: there are no transcripts.
    """
    if status is not None and status not in _STYLES:
        raise ConfigError(f"There is no status {status!r}.", f"Choose one of: {', '.join(_STYLES)}.")
    export.require_transcripts(output)
    totals, ids = _Totals(), list[pa.Array]()
    for batch in export.rows(output, ["recording_id", "status", "duration", "coverage", "failure"], 65_536):
        totals.add(batch)
        ids.append(batch["recording_id"])
    totals.num_elsewhere = earlier.count(storage.absolute(output), pa.chunked_array(ids, pa.string()))
    wanted = totals.statuses.total() if status is None else totals.statuses[status]
    rows = _first(output, limit, status)
    yield from _lines(rows, answers, width)
    if wanted > limit:
        yield Text(f"{limit:,} of {many(wanted, 'row')}; --limit shows more", style="dim")
    if flags := Counter(f for r in rows for f in r["flags"] or ()):
        said = ", ".join(f"{clean(f)} {n:,}" for f, n in flags.most_common())
        yield Text.assemble(("! ", "yellow"), (f"flagged in the rows above: {said}", "dim"))
    yield _totals_line(totals)
    yield from _places(output)


def _first(output: str, limit: int, status: str | None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for batch in export.rows(output, _COLUMNS):
        rows = batch if status is None else batch.filter(pc.equal(batch["status"], status))
        found += rows.slice(0, limit - len(found)).to_pylist()
        if len(found) >= limit:
            break
    return found


def _lines(rows: list[dict[str, Any]], answers: bool, width: int | None) -> Iterator[RenderableType]:
    """A line for each row, and below it what does not fit into one: why it failed, or what was answered."""
    folder = _common_folder([r["audio_filepath"] for r in rows if r["audio_filepath"]])
    names = [_name(row, folder) for row in rows]
    widest = max(map(cell_len, [*names, "audio"]))
    name_width = widest if width is None else min(widest, max(_LEAST_NAME, width // 3))
    left = None if width is None else max(_LEAST_NAME, width - _BEFORE_NAME - name_width - 2)
    head = f"{'status':<8}{'length':>8}    {_fit('audio', name_width)}  {'answers' if answers else 'text'}"
    yield Text(head.rstrip(), style="dim", no_wrap=True)
    for row, name in zip(rows, names, strict=True):
        text, below = _answers(row) if answers and row["status"] == "ok" else _text(row)
        if left is not None and cell_len(text.plain) > left:
            if row["status"] == "failed":
                text, below = Text(), [text]
            text.truncate(left, overflow="ellipsis")
        line = Text(no_wrap=True)
        line.append(f"{row['status']:<8}", style=_STYLES[row["status"]])
        line.append(f"{'' if row['duration'] is None else clock(row['duration']):>8} ")
        mark = f"!{len(row['flags'])}" if row["flags"] else ""
        line.append(f"{mark:<3}{_fit(name, name_width)}  ", style="")
        yield line.append_text(text)
        for more in below:
            yield (
                Text(" " * _INDENT).append_text(more) if width is None else Padding(more, (0, 0, 0, _INDENT))
            )


def _fit(name: str, width: int) -> str:
    """A name in exactly so many columns; of a long one the end stays, which tells it from the others."""
    if cell_len(name) <= width:
        return name + " " * (width - cell_len(name))
    while cell_len(name) >= width:
        name = name[1:]
    return set_cell_size(f"…{name}", width)


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


def _text(row: dict[str, Any]) -> tuple[Text, list[Text]]:
    """The transcript on one line, and below it why there is none, or not all."""
    failure = row["failure"]
    reason = f"{failure['kind']}: {clean(failure['message'])}" if failure else ""
    style = "red" if row["status"] == "failed" else "yellow"
    why = Text(reason, style=style, overflow="fold")
    if row["status"] == "failed":
        return why, []
    below = [why] if reason else []
    said = clean((row["pred_text"] or "")[:_TEXT_CHARACTERS]) or "no speech"
    return Text(said, style="" if row["status"] == "ok" else "dim"), below


def _answers(row: dict[str, Any]) -> tuple[Text, list[Text]]:
    """Every answer by its name (or its question), a paragraph each."""
    found = []
    for answer in row["answers"] or ():
        text = Text(overflow="fold")
        text.append(f"{clean(answer['question'] or answer['name'])}: ", style="cyan")
        if answer["flags"]:
            text.append(f"[{clean(', '.join(answer['flags']))}] ", style="yellow")
        if answer["status"] == "ok":
            text.append(clean(answer["text"] or ""))
        else:
            text.append(f"{answer['failure']['kind']}: {clean(answer['failure']['message'])}", style="red")
        found.append(text)
    return Text("" if found else "no answers", style="dim"), found


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


def _places(output: str) -> Iterator[Text]:
    """Where the Parquet and the newest report are, with that report's word error rate and rtfx."""
    url = storage.absolute(output)
    places: list[tuple[str, str]] = []
    report = reports.find(url)
    if report is not None:
        if (wer := report.get("wer") or {}).get("wer") is not None:
            words = f"of {wer['num_words']:,} reference words in {wer['num_recordings']:,} recordings"
            places.append(("WER", f"{wer['wer']:.1%} {words}"))
        if rtfx := report.get("time", {}).get("rtfx"):
            places.append(("rtfx", f"{rtfx:.1f} seconds of audio per second"))
        if model := report.get("model"):
            facts = [model["licence"].partition(" http")[0], model.get("languages", "")]
            said = ", ".join(f for f in (f"{model['engine']}, {model['model']}", *facts) if f)
            places.append(("model", clean(storage.redact(said))))
    places.append(("transcripts", _place(f"{ledger.transcripts_url(url)}/*.parquet")))
    if report is not None:
        places.append(("report", _place(reports.page_url(url, report["run_id"]))))
    for name, said in places:
        yield Text.assemble((f"{name:<13}", "dim"), said, overflow="fold")


def _place(url: str) -> str:
    return clean(storage.readable(url))


def clock(seconds: Seconds) -> str:
    """A length of time for people: 7.4 s, 3:05, 1:02:09."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
