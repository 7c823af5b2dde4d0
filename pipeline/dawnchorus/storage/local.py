"""Files on this machine (or a mounted file system), with the same functions as `remote`."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from glob import iglob
from typing import IO

from dawnchorus.errors import StorageUnavailable, Terminal
from dawnchorus.storage.urls import local_path

_NO_HARD_LINKS = {errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
_NOWHERE = {errno.ENOENT, errno.ELOOP}
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}\.tmp")


def info(url: str) -> tuple[int, str]:
    """Size in bytes and version (size and time of change) of a file.

    Raises:
        FileNotFoundError, IsADirectoryError, PermissionError.
        Terminal: a pipe or a device, which might never end.
    """
    path = local_path(url)
    facts = os.stat(path)
    if stat.S_ISDIR(facts.st_mode):
        raise IsADirectoryError(path)
    if not stat.S_ISREG(facts.st_mode):
        raise Terminal("not_a_file", f"{path} is a pipe or a device, not a file.", "fetch")
    return facts.st_size, version_of(facts)


def version_of(facts: os.stat_result) -> str:
    """What tells two contents of one name apart."""
    return f"{facts.st_size}-{facts.st_mtime_ns}"


def read_range(url: str, start: int, end: int | None) -> bytes:
    """Bytes [start, end), or to the end; fewer at the end of the file."""
    with open(local_path(url), "rb") as f:
        f.seek(start)
        return f.read() if end is None else f.read(end - start)


def find(url: str) -> Iterator[tuple[str, int, str]]:
    """(name below `url`, size, version) of every regular file below a folder, hidden folders left out."""
    root = local_path(url)
    for folder, folders, names in os.walk(root, onerror=_reraise):
        folders[:] = sorted(n for n in folders if not n.startswith("."))
        for name in names:
            path = os.path.join(folder, name)
            if (facts := _regular(path)) is not None:
                yield os.path.relpath(path, root), facts.st_size, version_of(facts)


def glob(pattern: str) -> Iterator[tuple[str, int, str]]:
    """(path, size, version) of every regular file that matches a pattern and is not hidden."""
    for path in iglob(local_path(pattern), recursive=True):
        if (facts := _regular(path)) is not None:
            yield path, facts.st_size, version_of(facts)


def _regular(path: str) -> os.stat_result | None:
    """What is known of a regular file; None for what is none, for a link that leads nowhere, and for what
    went away between the listing and the look."""
    try:
        facts = os.stat(path)
    except OSError as e:
        if e.errno not in _NOWHERE:
            raise
        return None
    return facts if stat.S_ISREG(facts.st_mode) else None


def _reraise(error: OSError) -> None:
    if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
        raise error


def put(url: str, data: bytes | IO[bytes]) -> None:
    """Create or replace a file; readers see all of the old or all of the new, also after a power cut."""
    path = local_path(url)
    temporary = _write_beside(path, data)
    try:
        os.replace(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise
    _sync_folder(path)


def put_file(url: str, path: str) -> None:
    """`put` the content of another file, in bounded memory."""
    with open(path, "rb") as f:
        put(url, f)


def put_new(url: str, data: bytes) -> None:
    """Create a file; its content appears at once.

    Raises:
        FileExistsError: there is one already.
        StorageUnavailable: the file system cannot create a file and its content in one step.
    """
    path = local_path(url)
    temporary = _write_beside(path, data)
    try:
        os.link(temporary, path)
    except OSError as e:
        if e.errno not in _NO_HARD_LINKS:
            raise
        raise StorageUnavailable(
            f"{os.path.dirname(path)} is on a file system without hard links.",
            "Choose another disk or, for a mounted bucket, the bucket's own URL.",
        ) from e
    finally:
        os.unlink(temporary)
    _sync_folder(path)


def delete(url: str) -> None:
    """Remove a file; removing nothing is fine."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(local_path(url))


def remove_leftovers(url: str) -> int:
    """Remove what writers that were killed left below a folder; returns how many files."""
    num = 0
    for folder, folders, names in os.walk(local_path(url), onerror=_reraise):
        folders[:] = [n for n in folders if not n.startswith(".")]
        for name in filter(_TEMPORARY.fullmatch, names):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(folder, name))
                num += 1
    return num


def _write_beside(path: str, data: bytes | IO[bytes]) -> str:
    """A synced temporary file in the same folder; its name starts with a dot, so no listing shows it."""
    folder, name = os.path.split(os.path.abspath(path))
    os.makedirs(folder, exist_ok=True)
    # The name is cut because file systems allow 255 bytes.
    temporary = os.path.join(folder, f".{name[:40]}.{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as f:
            if isinstance(data, bytes):
                f.write(data)
            else:
                shutil.copyfileobj(data, f)
            f.flush()
            os.fsync(f.fileno())
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    return temporary


def _sync_folder(path: str) -> None:
    folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
