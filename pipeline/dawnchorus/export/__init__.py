"""Transcripts out of an output: SRT, VTT, TXT, JSON lines, NeMo manifests; and rows as record batches.

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
from dawnchorus.export.names import Item, Namer, common_folder

FORMATS = (*formats.PER_RECORDING, *formats.PER_LINE)
_BATCH_ROWS = 256
_WRITERS = 16
_NAME_COLUMNS = ["recording_id", "audio_filepath", "offset", "duration", "status"]


@dataclass(slots=True)
class Exported:
    """What was written: files below (or one file at) `destination`, and rows by status."""

    destination: str
    format: str
    num_files: int = 0
    num_written: int = 0
    num_left_out: dict[str, int] = field(default_factory=dict)
    grew: bool = False

    def sentence(self) -> str:
        """What a person wants to know, in one or two sentences."""
        files = "1 file" if self.num_files == 1 else f"{self.num_files:,} files"
        place = storage.readable(self.destination)
        said = f"{self.num_written:,} recordings as {self.format} in {files}: {place}."
        why = {"failed": "failed", "empty": "without speech"}
        left = [f"{n:,} {why[s]}" for s, n in self.num_left_out.items() if n]
        if left:
            said += f" Left out: {', '.join(left)}."
        return said + (" The output grew meanwhile: export again." if self.grew else "")


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


def export(output: str, destination: str, format: str) -> Exported:
    """Write the transcripts of `output` to `destination`: a folder for srt, vtt and txt, a file for
    jsonl and nemo; a path or any fsspec URL. What is there is replaced.

    Raises:
        ConfigError: no such format.
        UserError: there are no transcripts.
        Transient, Terminal: something cannot be read or written.
    """
    if format not in FORMATS:
        raise ConfigError(f"There is no export format {format!r}.", f"Choose one of: {', '.join(FORMATS)}.")
    require_transcripts(output)
    done = Exported(storage.absolute(destination), format)
    _refuse_the_wrong_kind(destination, done)
    if format in formats.PER_LINE:
        _one_file(output, done)
    else:
        _many_files(output, done)
    return done


def _refuse_the_wrong_kind(destination: str, done: Exported) -> None:
    """A folder cannot become a file, nor a file a folder; in a bucket both may be there."""
    if not storage.is_local(done.destination):
        return
    one_file = done.format in formats.PER_LINE
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


def _taken(batch: pa.RecordBatch, done: Exported) -> pa.RecordBatch:
    """The rows that the format takes; counts the others."""
    wanted = formats.STATUSES[done.format]
    for entry in pc.value_counts(batch["status"]).to_pylist():
        if entry["values"] not in wanted:
            before = done.num_left_out.get(entry["values"], 0)
            done.num_left_out[entry["values"]] = before + entry["counts"]
    return batch.filter(pc.is_in(batch["status"], value_set=pa.array(wanted)))


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
    render = formats.PER_RECORDING[done.format]
    folder = common_folder(i[1] for i in _items(output, done.format))
    namer = Namer(_items(output, done.format), folder, f".{done.format}")

    def write(row: dict[str, object]) -> None:
        url = storage.join(done.destination, namer.name(_item(row)))
        storage.put_atomic(url, render(row).encode())

    with ThreadPoolExecutor(_WRITERS) as pool:
        for batch in rows(output):
            taken = _taken(batch, done)
            done.num_written += sum(1 for _ in pool.map(write, taken.to_pylist()))
    done.num_files = done.num_written
    done.grew = done.num_written != namer.num_names


def _items(output: str, format: str) -> Iterator[Item]:
    for batch in rows(output, _NAME_COLUMNS, 16_384):
        wanted = batch.filter(pc.is_in(batch["status"], value_set=pa.array(formats.STATUSES[format])))
        yield from (_item(row) for row in wanted.to_pylist())


def _item(row: dict[str, object]) -> Item:
    slice_ = row["offset"] is not None
    duration = row["duration"] if slice_ else None
    return (row["recording_id"], row["audio_filepath"], row["offset"], duration)  # type: ignore[return-value]
