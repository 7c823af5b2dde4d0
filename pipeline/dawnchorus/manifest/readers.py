"""One local manifest file -> its rows, streamed: JSON lines, CSV/TSV, Parquet, a list of
paths, plain or gzipped.

Every row comes with its line number and either its fields or the failure of that line. A file that
cannot be a manifest at all raises ManifestError. Memory: one line (at most 1 MiB) or one Parquet batch.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from dawnchorus.errors import ManifestError, Terminal
from dawnchorus.manifest.fields import PATH_FIELDS, bad

MAX_LINE_BYTES = 1 << 20
_PARQUET_BATCH_ROWS = 2_048
_HEAD_BYTES = 1 << 16
_FEW_LINES = 50
_GZIP_MAGIC = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"
_QUOTED = re.compile(r'^"((?:[^"]|"")*)"$')


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a manifest. `line` counts from 1; `fields` is None when `problem` says why;
    `content` is the text as it stands there (shortened), for the id of a bad line."""

    line: int
    fields: Mapping[str, Any] | None
    content: str
    problem: Terminal | None = None


def read_rows(path: str, shape: str, name: str) -> Iterator[Row]:
    """The rows of the local file `path`, of shape `json`, `csv`, `tsv`, `list` or `parquet`. `name` is what
    people call it.

    Raises:
        ManifestError: the file is damaged, or has no column with the audio's address.
    """
    readers = {"json": _json_rows, "csv": _table_rows, "tsv": _table_rows, "list": _list_rows}
    try:
        if shape == "parquet":
            yield from _parquet_rows(path, name)
            return
        with _open(path) as file:
            yield from readers[shape](file, name, shape)
    except (EOFError, OSError, zlib.error, pa.ArrowException) as e:
        raise ManifestError(f"{name} is damaged: {e}.", "Copy or export it again.") from e


def sniff(path: str) -> str | None:
    """The shape of a local file by its first bytes: `json`, `csv`, `tsv`, `parquet`; None: no manifest."""
    with open(path, "rb") as f:
        if f.read(4) == b"PAR1":
            return "parquet"
    try:
        with _open(path) as f:
            head = f.readline(MAX_LINE_BYTES).removeprefix(_BOM).decode()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError):
        return None
    if head.lstrip().startswith(("{", "[")):
        return "json"
    delimiter = _delimiter(head)
    return None if delimiter is None else "tsv" if delimiter == "\t" else "csv"


def text_head(path: str) -> list[str] | None:
    """The lines that a local text file begins with, without blank ones and comments; None for other files."""
    with _open(path) as f:
        try:
            data = f.read(_HEAD_BYTES)
        except (OSError, EOFError, zlib.error):
            return None
    # The last line may be cut in the middle of a character.
    whole = data if len(data) < _HEAD_BYTES else data[: data.rfind(b"\n") + 1]
    try:
        text = whole.removeprefix(_BOM).decode()
    except UnicodeDecodeError:
        return None
    if not whole or not all(c.isprintable() or c.isspace() for c in text):
        return None
    return [line for line in map(_listed, text.splitlines()) if line] or None


def is_list(head: list[str], is_address: Callable[[str], bool]) -> bool:
    """Whether text that begins with these lines lists addresses: the first and most of the others are."""
    few = head[:_FEW_LINES]
    return is_address(few[0]) and sum(map(is_address, few)) > len(few) / 2


def _listed(line: str) -> str:
    """The address on a line of a list; nothing for a comment."""
    return "" if line.startswith("#") else line.strip()


def _list_rows(file: IO[bytes], name: str, shape: str) -> Iterator[Row]:
    for number, line, cut in _lines(file):
        problem = bad("line_too_long", f"The line is longer than {MAX_LINE_BYTES} bytes.") if cut else None
        try:
            address = _listed(line.decode())
        except UnicodeDecodeError as e:
            problem, address = bad("not_utf8", f"The line is not UTF-8 (byte {e.start})."), " "
        if problem is not None:
            yield Row(number, None, line.decode("utf-8", "replace"), problem)
        elif address:
            yield Row(number, {PATH_FIELDS[0]: address}, "")


def _open(path: str) -> IO[bytes]:
    with open(path, "rb") as f:
        packed = f.read(2) == _GZIP_MAGIC
    return cast(IO[bytes], gzip.open(path, "rb")) if packed else open(path, "rb", buffering=1 << 20)


def _lines(file: IO[bytes]) -> Iterator[tuple[int, bytes, bool]]:
    """(number, line without its end, whether it was cut at 1 MiB)."""
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        cut = len(line) > MAX_LINE_BYTES
        rest = line
        while cut and not rest.endswith(b"\n") and (rest := file.readline(MAX_LINE_BYTES)):
            pass
        if number == 1:
            line = line.removeprefix(_BOM)
        yield number, line.rstrip(b"\r\n"), cut


def _json_rows(file: IO[bytes], name: str, shape: str) -> Iterator[Row]:
    for number, line, cut in _lines(file):
        if not line.strip():
            continue
        if number == 1 and line.lstrip().startswith(b"["):
            raise ManifestError(f"{name} holds one JSON array.", "Write one JSON object on each line.")
        try:
            if cut:
                raise bad("line_too_long", f"The line is longer than {MAX_LINE_BYTES} bytes.")
            yield Row(number, _object(line), "")
        except Terminal as e:
            yield Row(number, None, line.decode("utf-8", "replace"), e)


def _object(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as e:
        raise bad("not_utf8", f"The line is not UTF-8 (byte {e.start}).") from e
    except (ValueError, RecursionError) as e:
        raise bad("invalid_json", f"The line is not JSON: {e}.") from e
    if not isinstance(value, dict):
        raise bad("invalid_json", "The line is not a JSON object.")
    return value


def _delimiter(header: str) -> str | None:
    """The delimiter that makes a column of the header the audio's address."""
    for delimiter in ("\t", ",", ";"):
        names = [n.strip() for n in next(csv.reader([header.strip("\r\n")], delimiter=delimiter), [])]
        if set(names) & set(PATH_FIELDS) and (len(names) > 1 or delimiter == ","):
            return delimiter
    return None


def _table_rows(file: IO[bytes], name: str, shape: str) -> Iterator[Row]:
    csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))
    lines = _Lines(file)
    header = next(lines, "")
    delimiter = _delimiter(header)
    if delimiter is None:
        raise _no_path_column(name, header.strip()[:200])
    columns = [c.strip() for c in next(csv.reader([header], delimiter=delimiter))]
    # Tab-separated values have no quoting: a text may start with a quotation mark.
    if delimiter == "\t":
        reader = csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        first = lines.number + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as e:
            if lines.number > first:
                raise ManifestError(
                    f"{name}:{first}: a quotation mark is not closed ({e}).", "Mend it."
                ) from e
            yield Row(first, None, str(e), bad("invalid_csv", f"The row is not CSV: {e}."))
            continue
        if any(cells) or lines.was_cut:
            yield _table_row(first, columns, cells, lines.was_cut)


def _table_row(line: int, columns: list[str], cells: list[str], was_cut: bool) -> Row:
    content = "\t".join(cells)
    problem = None
    if was_cut:
        problem = bad("line_too_long", f"The line is longer than {MAX_LINE_BYTES} bytes.")
    elif not content.isascii() and any("\udc80" <= c <= "\udcff" for c in content):
        problem = bad("not_utf8", "The row is not UTF-8.")
    elif len(cells) > len(columns):
        problem = bad("wrong_columns", f"The row has {len(cells)} fields, the header {len(columns)}.")
    if problem is not None:
        return Row(line, None, content.encode("utf-8", "replace").decode(), problem)
    # An empty cell is no value: nothing else could say so here.
    return Row(line, {c: _unquoted(v) for c, v in zip(columns, cells, strict=False) if v}, content)


def _unquoted(cell: str) -> str:
    """A cell without the quotation marks that some programs put around it in a TSV all the same."""
    match = _QUOTED.match(cell)
    return match[1].replace('""', '"') if match else cell


class _Lines:
    """The lines of a file as text for `csv`; bytes that are not UTF-8 become surrogates. `number` is
    the line last given, `was_cut` whether it was longer than allowed."""

    def __init__(self, file: IO[bytes]) -> None:
        self._lines = _lines(file)
        self.number = 0
        self.was_cut = False

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        self.number, line, self.was_cut = next(self._lines)
        return line.decode("utf-8", "surrogateescape") + "\n"


def _parquet_rows(path: str, name: str) -> Iterator[Row]:
    with pq.ParquetFile(path) as parquet:
        schema = parquet.schema_arrow
        # Embedded audio would be read into memory for nothing.
        columns = [f.name for f in schema if not _holds_bytes(f.type)]
        if not set(columns) & set(PATH_FIELDS):
            raise _no_path_column(name, ", ".join(schema.names)[:200])
        number = 0
        for batch in parquet.iter_batches(batch_size=_PARQUET_BATCH_ROWS, columns=columns):
            for fields in batch.to_pylist():
                number += 1
                yield Row(number, fields, "")


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return True
    return any(_holds_bytes(kind.field(i).type) for i in range(kind.num_fields))


def _no_path_column(name: str, found: str) -> ManifestError:
    return ManifestError(
        f"{name} has no column {PATH_FIELDS[0]!r}; its first line is: {found}",
        f"Add a header with {PATH_FIELDS[0]}, in UTF-8.",
    )
