"""Transcripts and answers out of an output: SRT, VTT, TXT, JSON lines, NeMo manifests; rows as batches.

Streams home file by home file; memory is bounded by a batch of rows (and 8 bytes per recording for the
names of files). Knows no engine and no run.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dawnchorus import ledger, storage
from dawnchorus.errors import ConfigError, UserError
from dawnchorus.export import formats
from dawnchorus.export.names import Item, Namer, common_folder, safe
from dawnchorus.wording import many

FORMATS = (*formats.PER_RECORDING, *formats.PER_LINE)
_BATCH_ROWS = 256
_WRITERS = 16
_NAME_COLUMNS = ["recording_id", "audio_filepath", "offset", "duration", "status"]
_ANSWER_COLUMNS = ["answers.list.element.name", "answers.list.element.status"]
_UNANSWERED = "unanswered"


@dataclass(slots=True)
class Exported:
    """What was written: files below (or one file at) `destination`, and rows by status."""

    destination: str
    format: str
    num_files: int = 0
    num_written: int = 0
    num_left_out: dict[str, int] = field(default_factory=dict)
    grew: bool = False
    answer: str | None = None

    @property
    def suffix(self) -> str:
        """How the names of files end: `.srt`, or `.summary.txt` for answers."""
        return f".{safe(self.answer)}.{self.format}" if self.answer else f".{self.format}"

    def sentence(self) -> str:
        """What a person wants to know, in one or two sentences."""
        files, place = many(self.num_files, "file"), storage.readable(self.destination)
        what = many(self.num_written, "answer" if self.answer else "recording")
        what += f" ({self.answer})" if self.answer else ""
        said = f"{what} as {self.format} in {files}: {place}."
        why = {"failed": "failed", "empty": "without speech", _UNANSWERED: "without this answer"}
        left = [f"{n:,} {why[s]}" for s, n in self.num_left_out.items() if n]
        if left:
            said += f" Left out: {', '.join(left)}."
        return said + (" The output grew meanwhile: export again." if self.grew else "")


def heard(batch: pa.RecordBatch) -> pa.Array:
    """Seconds of each row's audio; null where nothing was decoded: a slice that failed has the length that
    was asked for."""
    return pc.if_else(pc.is_valid(batch["coverage"]), batch["duration"], None)


def rows(
    output: str, columns: Sequence[str] | None = None, batch_rows: int = _BATCH_ROWS
) -> Iterator[pa.RecordBatch]:
    """Transcript rows, home file by home file, in their order; nothing when there is none yet.

    Raises:
        Transient, Terminal: the output cannot be read.
    """
    for info in storage.list_files(ledger.transcripts_url(storage.absolute(output)), ".parquet"):
        with storage.open_input(info.url) as f, pq.ParquetFile(f) as file:
            yield from file.iter_batches(batch_rows, columns=None if columns is None else list(columns))


def export(output: str, destination: str, format: str, answer: str | None = None) -> Exported:
    """Write the transcripts of `output` to `destination`: a folder for srt, vtt and txt, a file for
    jsonl and nemo; a path or any fsspec URL. What is there is replaced. With `answer` (and txt) it is the
    answers of that name in place of the transcripts.

    Raises:
        ConfigError: no such format, or one that takes no `answer`.
        UserError: there are no transcripts, or no answers of that name.
        Transient, Terminal: something cannot be read or written.
    """
    if format not in FORMATS:
        raise ConfigError(f"There is no export format {format!r}.", f"Choose one of: {', '.join(FORMATS)}.")
    if answer is not None and format != "txt":
        fix = f"Say --format txt --answer {answer}; jsonl holds every answer anyway."
        raise ConfigError(f"{format} holds no single answer.", fix)
    require_transcripts(output)
    done = Exported(storage.absolute(destination), format, answer=answer)
    if answer is not None:
        _require_answers(output, answer)
    _refuse_the_wrong_kind(destination, done)
    if format in formats.PER_LINE:
        _one_file(output, done)
    else:
        _many_files(output, done)
    return done


def _refuse_the_wrong_kind(destination: str, done: Exported) -> None:
    """A folder cannot become a file, nor a file a folder; in a bucket both may be there.
    `talk.srt` is no name of a folder."""
    one_file = done.format in formats.PER_LINE
    folder, dot, suffix = destination.rstrip("/").rpartition(".")
    if not one_file and dot and suffix.lower() in FORMATS and not destination.endswith("/"):
        fix = f"{done.format} is one file for each recording: give a folder, for example {folder}/"
        raise UserError(f"{destination} looks like a file.", f"{fix}.")
    if not storage.is_local(done.destination):
        return
    if one_file and storage.is_folder(done.destination):
        fix = f"{done.format} is one file, for example {destination.rstrip('/')}/transcripts.jsonl"
        raise UserError(f"{destination} is a folder.", f"{fix}.")
    if not one_file and not storage.is_folder(done.destination) and storage.exists(done.destination):
        raise UserError(f"{destination} is a file.", f"{done.format} needs a folder.")


def require_transcripts(output: str) -> None:
    """Make sure that `output` holds transcripts.

    Raises:
        UserError: it does not; says what to do.
    """
    url = storage.absolute(output)
    if storage.list_files(ledger.transcripts_url(url), ".parquet"):
        return
    if storage.list_files(ledger.chunks_url(url), ".parquet"):
        raise UserError(
            f"Nothing of {output} is published yet: recordings are being transcribed, or a run was stopped.",
            f"Wait, or publish what is complete: dawnchorus assemble {output}",
        )
    there = storage.is_folder(url)
    reason = "holds no transcripts" if there else "does not exist"
    raise UserError(f"{output} {reason}.", "Give the output folder or URL of a run.")


def _require_answers(output: str, name: str) -> None:
    """Make sure that there are answers of this name.

    Raises:
        UserError: there are none; says which there are.
    """
    names = {
        a["name"]
        for batch in rows(output, _ANSWER_COLUMNS, 16_384)
        for answers in batch["answers"].to_pylist()
        for a in answers or ()
    }
    if name not in names:
        there = f"There is: {', '.join(sorted(names))}." if names else f"Ask first: dawnchorus ask {output}"
        raise UserError(f"{output} holds no answer {name!r}.", there)


def _taken(batch: pa.RecordBatch, done: Exported) -> pa.RecordBatch:
    """The rows that the format takes; counts the others."""
    wanted = formats.STATUSES[done.format]
    for entry in pc.value_counts(batch["status"]).to_pylist():
        if entry["values"] not in wanted:
            before = done.num_left_out.get(entry["values"], 0)
            done.num_left_out[entry["values"]] = before + entry["counts"]
    taken = batch.filter(pc.is_in(batch["status"], value_set=pa.array(wanted)))
    if done.answer is None:
        return taken
    answered = _answered(taken, done.answer)
    unanswered = done.num_left_out.get(_UNANSWERED, 0) + len(taken) - len(answered)
    done.num_left_out[_UNANSWERED] = unanswered
    return answered


def _answered(batch: pa.RecordBatch, name: str) -> pa.RecordBatch:
    """The rows with an answer of this name."""
    rows_ = batch.select(["answers"]).to_pylist()
    return batch.filter(pa.array([formats.has_answer(row, name) for row in rows_], pa.bool_()))


def _one_file(output: str, done: Exported) -> None:
    line = formats.PER_LINE[done.format]
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", newline="\n", prefix="dawnchorus-export-") as f:
        for batch in rows(output):
            taken = _taken(batch, done)
            f.writelines(line(row) for row in taken.to_pylist())
            done.num_written += len(taken)
        f.flush()
        storage.put_file(done.destination, f.name)
    done.num_files = 1


def _many_files(output: str, done: Exported) -> None:
    folder = common_folder(i[1] for i in _items(output, done))
    namer = Namer(_items(output, done), folder, done.suffix)

    def render(row: dict[str, object]) -> str:
        if done.answer is not None:
            return formats.answer_text(row, done.answer)
        return formats.PER_RECORDING[done.format](row)

    def write(row: dict[str, object]) -> None:
        url = storage.join(done.destination, namer.name(_item(row)))
        storage.put_atomic(url, render(row).encode())

    with ThreadPoolExecutor(_WRITERS) as pool:
        for batch in rows(output):
            taken = _taken(batch, done)
            done.num_written += sum(1 for _ in pool.map(write, taken.to_pylist()))
    done.num_files = done.num_written
    done.grew = done.num_written != namer.num_names


def _items(output: str, done: Exported) -> Iterator[Item]:
    columns = _NAME_COLUMNS + (_ANSWER_COLUMNS if done.answer else [])
    for batch in rows(output, columns, 16_384):
        wanted = batch.filter(pc.is_in(batch["status"], value_set=pa.array(formats.STATUSES[done.format])))
        wanted = _answered(wanted, done.answer) if done.answer else wanted
        yield from (_item(row) for row in wanted.to_pylist())


def _item(row: dict[str, object]) -> Item:
    slice_ = row["offset"] is not None
    duration = row["duration"] if slice_ else None
    return (row["recording_id"], row["audio_filepath"], row["offset"], duration)  # type: ignore[return-value]
