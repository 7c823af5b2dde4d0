"""Whole objects, verified, as local files; and sequential streams. Stage `fetch` of every recording."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Any

from dawnchorus.errors import Terminal, Transient
from dawnchorus.storage import remote
from dawnchorus.storage.local import info as local_info
from dawnchorus.storage.problems import explain, retrying
from dawnchorus.storage.urls import is_local, local_path, redact, scheme_of

_BLOCK_BYTES = 16 << 20
_HTTP_BLOCK_BYTES = 1 << 20
_PATIENCE_SECONDS = 300.0
_BYTES_PER_SECOND = 4 << 10
"""Beyond the patience, the least that an http server gives: a decoder's share of a slow line."""
_ENDLESS_BYTES_PER_SECOND = 64 << 10
"""Of an object whose length is not told: radio at 320 kbit/s has 40 kB/s, and no end."""
_HEAD_SECONDS = 10.0
_SETTLED_SECONDS = 1.1
"""Last-Modified counts in seconds."""
_PLAIN = {"Accept-Encoding": "identity"}


@dataclass(frozen=True, slots=True)
class Fetched:
    """A local file with an object's bytes. `temporary` ones are removed by `close()` or `with`."""

    path: str
    version: str
    size_bytes: int
    temporary: bool

    def close(self) -> None:
        """Remove the temporary file; again is fine."""
        if self.temporary:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)

    def __enter__(self) -> Fetched:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def fetch(url: str, scratch_dir: str, max_bytes: int) -> Fetched:
    """An object's bytes as a local file, verified; in bounded memory (16 MiB).

    Local files are used where they are. Remote ones go to a temporary file in `scratch_dir`; their
    length must be the listed one, and their version the same before and after.

    Raises:
        Terminal: `not_found`, `is_directory`, `too_large`.
        Transient: `changed`, `short_read`, `too_slow`, `network`, `throttled`, `credentials`,
            `permission`, `disk_full`.
    """
    if is_local(url):
        size, version = retrying(lambda: local_info(url), url, tries=1)
        _check_size(size, max_bytes, url)
        path = local_path(url)
        if not os.access(path, os.R_OK):
            raise Transient("permission", f"Reading {path} is not permitted.", "fetch")
        return Fetched(path, version, size, temporary=False)
    if scheme_of(url) in ("http", "https"):
        return retrying(lambda: _download(url, scratch_dir, max_bytes), url)
    listed, version = retrying(lambda: remote.info(url), url)
    if listed is None:
        raise Transient("short_read", f"The store does not say how long {redact(url)} is.", "fetch")
    size = listed
    _check_size(size, max_bytes, url)
    with _temporary(scratch_dir, url) as file:
        for start in range(0, size, _BLOCK_BYTES):
            end = min(size, start + _BLOCK_BYTES)
            file.write(retrying(lambda s=start, e=end: remote.read_range(url, s, e), url))  # type: ignore[misc]
        file.flush()
        written = file.tell()
        after = retrying(lambda: remote.info(url), url)
        if after != (size, version):
            raise Transient("changed", f"{redact(url)} changed while it was read.", "fetch")
        if written != size:
            raise Transient("short_read", f"{redact(url)} gave {written} of {size} bytes.", "fetch")
    return Fetched(file.name, version, size, temporary=True)


@contextlib.contextmanager
def _temporary(scratch_dir: str, url: str) -> Iterator[IO[bytes]]:
    """A temporary file that stays when all goes well and is removed when anything goes wrong."""
    name = ""
    try:
        os.makedirs(scratch_dir, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=scratch_dir, prefix=".fetch-", delete=False) as file:
            name = file.name
            yield file
    except BaseException as e:
        if name:
            os.unlink(name)
        problem = explain(e, url) if isinstance(e, OSError) else None
        if problem is None:
            raise
        raise problem from e


def _check_size(size: int | None, max_bytes: int, url: str) -> None:
    if size is not None and size > max_bytes:
        raise Terminal("too_large", f"{redact(url)} has {size} bytes, more than {max_bytes}.", "fetch")


def _download(url: str, scratch_dir: str, max_bytes: int) -> Fetched:
    """One GET of an http(s) object; a server may leave out the length, and may not know HEAD."""
    store, address = remote.filesystem(url)
    with (
        # A given size spares fsspec a HEAD, which some servers refuse.
        contextlib.closing(store.open(address, "rb", block_size=0, size=1, headers=_PLAIN)) as stream,
        _temporary(scratch_dir, url) as file,
    ):
        headers = stream.r.headers
        encoded = "Content-Encoding" in headers
        size = None if encoded or "Content-Length" not in headers else int(headers["Content-Length"])
        _check_size(size, max_bytes, url)
        began, pace = time.monotonic(), _ENDLESS_BYTES_PER_SECOND if size is None else _BYTES_PER_SECOND
        while block := stream.read(_HTTP_BLOCK_BYTES):
            file.write(block)
            _check_size(file.tell(), max_bytes, url)
            if time.monotonic() - began > _PATIENCE_SECONDS + file.tell() / pace:
                raise Transient("too_slow", f"{redact(url)} comes too slowly, or never ends.", "fetch")
        file.flush()
        written = file.tell()
        if size is not None and written != size:
            raise Transient("short_read", f"{redact(url)} gave {written} of {size} bytes.", "fetch")
        if _changed(store, address, headers):
            raise Transient("changed", f"{redact(url)} changed while it was read.", "fetch")
    version = headers.get("ETag") or headers.get("Last-Modified") or ""
    return Fetched(file.name, f"{version}/{written}".replace('"', ""), written, temporary=True)


def _changed(store: Any, address: str, before: Any) -> bool:
    """Whether ETag or Last-Modified differ now, and stay so: some servers make one up for each answer, and
    those that answer no HEAD say nothing."""
    now = _head(store, address)
    differ = [k for k in ("ETag", "Last-Modified") if k in before and k in now and before[k] != now[k]]
    if not differ:
        return False
    time.sleep(_SETTLED_SECONDS)
    again = _head(store, address)
    return any(again.get(k) == now[k] for k in differ)


def _head(store: Any, address: str) -> Any:
    """The headers of a HEAD, whose names ignore case; none where there is no answer."""
    import aiohttp
    import fsspec.asyn

    async def head() -> Any:
        session = await store.set_session()
        limit = aiohttp.ClientTimeout(total=_HEAD_SECONDS)
        async with session.head(address, headers=_PLAIN, allow_redirects=True, timeout=limit) as response:
            return response.headers if response.ok else {}

    try:
        return fsspec.asyn.sync(store.loop, head)
    except (OSError, aiohttp.ClientError, TimeoutError):
        return {}
