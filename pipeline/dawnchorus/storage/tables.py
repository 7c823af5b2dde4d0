"""Random access to objects, and Parquet on top of it."""

from __future__ import annotations

import io
from typing import IO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from dawnchorus.errors import Terminal
from dawnchorus.storage import local, remote
from dawnchorus.storage.problems import explain, retrying
from dawnchorus.storage.urls import is_local, local_path, redact

_BLOCK_BYTES = 1 << 20
_SMALL_BYTES = 4 << 20


class _RangeReader(io.RawIOBase):
    """Random access to a remote object by ranged reads, each with retries."""

    def __init__(self, url: str) -> None:
        self._url = url
        size, self._version = retrying(lambda: remote.info(url), url)
        if size is None:
            raise Terminal("no_length", f"{redact(url)} cannot be read in parts: no length.", "fetch")
        self.size: int = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readall(self) -> bytes:
        # The inherited one would ask for 8 KiB at a time.
        start, self._position = self._position, self.size
        if start >= self.size:
            return b""
        return retrying(lambda: remote.read_range(self._url, start, self.size), self._url)

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        end = min(self.size, self._position + len(buffer))
        if end <= self._position:
            return 0
        start = self._position
        data = retrying(lambda: remote.read_range(self._url, start, end), self._url)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def open_input(url: str) -> IO[bytes]:
    """Seekable random access to an object, for Parquet; remote ones are read in blocks of 1 MiB or more,
    and whole up to 4 MiB.

    Raises:
        FileNotFoundError: there is none.
        Transient, Terminal: it cannot be read.
    """
    try:
        if is_local(url):
            local.info(url)
            return open(local_path(url), "rb")
        reader = _RangeReader(url)
        if reader.size <= _SMALL_BYTES:
            return io.BytesIO(reader.readall())
        return cast(IO[bytes], io.BufferedReader(reader, _BLOCK_BYTES))
    except Terminal as e:
        if e.kind == "not_found":
            raise FileNotFoundError(redact(url)) from e
        raise
    except OSError as e:
        problem = explain(e, url)
        if problem is None or isinstance(e, FileNotFoundError):
            raise
        raise problem from e


def read_table(url: str, columns: list[str] | None = None) -> pa.Table:
    """A Parquet object as a table, optionally only some columns.

    Raises:
        FileNotFoundError: there is none.
        Transient, Terminal: it cannot be read.
        pyarrow.ArrowInvalid: it is not Parquet.
    """
    with open_input(url) as f, pq.ParquetFile(f) as parquet:
        return parquet.read(columns=columns)


def parquet_bytes(
    table: pa.Table, metadata: dict[str, str] | None = None, row_groups: list[int] | None = None
) -> bytes:
    """A table as one Parquet file (zstd). `metadata` is added to the schema's key-value metadata;
    `row_groups` are the numbers of rows of the groups, in order, and must add up to the table's."""
    if metadata:
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), **metadata})
    if row_groups is not None and sum(row_groups) != table.num_rows:
        raise ValueError(f"row groups hold {sum(row_groups)} rows, the table {table.num_rows}")
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, table.schema, compression="zstd") as writer:
        start = 0
        for rows in row_groups if row_groups is not None else [table.num_rows]:
            writer.write_table(table.slice(start, rows), row_group_size=max(rows, 1))
            start += rows
    return buffer.getvalue()
