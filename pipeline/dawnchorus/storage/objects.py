"""Objects by address, local or remote alike: list, read, put atomically, create once, delete."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from types import ModuleType

from dawnchorus.errors import DataError, StorageUnavailable, Terminal, UserError
from dawnchorus.storage import local, remote
from dawnchorus.storage.problems import retrying
from dawnchorus.storage.urls import is_local, join, redact, shown

_PROBE_PREFIX = ".dawnchorus-probe-"


@dataclass(frozen=True, slots=True)
class FileInfo:
    """One listed object. `version` changes whenever the content does."""

    url: str
    size_bytes: int
    version: str


def backend(url: str) -> ModuleType:
    """The module that serves an address."""
    return local if is_local(url) else remote


def exists(url: str) -> bool:
    """Whether there is an object (not a folder) at `url`.

    Raises:
        Transient: the store cannot be asked.
    """
    try:
        retrying(lambda: backend(url).info(url), url)
    except Terminal:
        return False
    return True


def is_folder(url: str) -> bool:
    """Whether `url` is a folder (in object stores: something lies below it).

    Raises:
        Transient: the store cannot be asked.
    """
    try:
        retrying(lambda: backend(url).info(url), url)
    except Terminal as e:
        return e.kind == "is_directory"
    return False


def read_bytes(url: str, max_bytes: int | None = None) -> bytes:
    """All of a small object.

    Raises:
        FileNotFoundError: there is none.
        Terminal: larger than `max_bytes`, a folder.
        Transient: the store cannot be read.
    """
    try:
        if max_bytes is None and not is_local(url):
            return retrying(lambda: remote.read_range(url, 0, None), url)
        size, _ = retrying(lambda: backend(url).info(url), url)
        end = None if max_bytes is None else max_bytes + 1
        # No range can be asked of an empty object.
        data: bytes = retrying(lambda: backend(url).read_range(url, 0, end), url) if size != 0 else b""
    except Terminal as e:
        if e.kind == "not_found":
            raise FileNotFoundError(redact(url)) from e
        raise
    if max_bytes is not None and len(data) > max_bytes:
        raise Terminal("too_large", f"{redact(url)} is larger than {max_bytes} bytes.", "fetch")
    return data


def list_files(url: str, suffix: str = "", hidden: list[str] | None = None) -> list[FileInfo]:
    """Every object below a folder whose name ends in `suffix`, sorted by URL; [] for a missing folder.

    Hidden names (a component that starts with a dot, temporary files among them) are left out, and put into
    `hidden` as far as the listing shows them.

    Raises:
        Transient: the store cannot be listed.
    """
    found = retrying(lambda: list(backend(url).find(url)), url)
    files = []
    for name, size, version in found:
        if name.startswith(".") or "/." in name:
            if hidden is not None:
                hidden.append(name)
        elif name.endswith(suffix):
            files.append(FileInfo(join(url, name), size, version))
    return sorted(files, key=lambda f: f.url)


def has_magic(url: str) -> bool:
    """Whether an address is a pattern with `*`, `?` or `[...]`."""
    return any(c in url for c in "*?[")


def glob(pattern: str) -> list[FileInfo]:
    """Every object that matches a pattern (`**` for any depth), sorted by URL.

    Raises:
        Transient: the store cannot be listed.
    """
    found = retrying(lambda: list(backend(pattern).glob(pattern)), pattern)
    return sorted((FileInfo(*f) for f in found), key=lambda f: f.url)


def put_atomic(url: str, data: bytes) -> None:
    """Create or replace an object; no reader ever sees a torn one. Folders are made as needed.

    Raises:
        Transient: the store cannot be written.
    """
    retrying(lambda: backend(url).put(url, data), url)


def put_file(url: str, path: str) -> None:
    """`put_atomic` with the content of a local file, in bounded memory.

    Raises:
        Transient: the store cannot be written.
    """
    retrying(lambda: backend(url).put_file(url, path), url)


def put_new(url: str, data: bytes) -> bool:
    """Create an object only if there is none; False if there is one. Of many writers one gets True.

    `data` must tell its writer apart (a host and process, a random number): when the reply to a
    creation is lost, some layer below asks again, and only the content says whose the object is.

    Raises:
        Transient: the store cannot be written.
    """

    def put() -> bool:
        try:
            backend(url).put_new(url, data)
        except FileExistsError:
            return _holds(url, data)
        return True

    return retrying(put, url)


def _holds(url: str, data: bytes) -> bool:
    size, _ = backend(url).info(url)
    return bool(size == len(data) and read_bytes(url) == data)


def delete(url: str) -> None:
    """Remove an object; removing nothing is fine.

    Raises:
        Transient: the store cannot be written.
    """
    retrying(lambda: backend(url).delete(url), url)


def remove_leftovers(url: str) -> int:
    """Remove the temporary files of writers that were killed, below a local folder that nobody else writes;
    object stores have none. Returns how many.

    Raises:
        Transient: the folder cannot be written.
    """
    return retrying(lambda: local.remove_leftovers(url), url) if is_local(url) else 0


def check_writable(url: str) -> None:
    """Write, create once, read and delete a probe below the folder `url`.

    Raises:
        StorageUnavailable: with the fix.
    """
    probe = join(url, _PROBE_PREFIX + secrets.token_hex(8))
    place = redact(url)
    try:
        first, second = put_new(probe, b"1"), put_new(probe, b"2")
        content = read_bytes(probe)
        delete(probe)
    except FileNotFoundError as e:
        raise StorageUnavailable(f"{place} forgets what is written to it.", "Choose another place.") from e
    except UserError as e:
        raise StorageUnavailable(e.message, e.fix) from e
    except DataError as e:
        if is_local(url):
            missing = e.kind == "not_found"
            reason = "no folder can be made there." if missing else e.message
            fix = "Choose a folder that you may write to."
        else:
            reason, fix = "it does not exist." if e.kind == "not_found" else e.message, _fix(e)
        raise StorageUnavailable(f"{shown(url)} cannot be written: {reason}", fix) from e
    if not first or second or content != b"1":
        raise StorageUnavailable(
            f"{place} does not honour conditional writes (If-None-Match).",
            "Use a store that does: without them two runs could write one output.",
        )


def _fix(problem: DataError) -> str:
    fixes = {
        "credentials": "Set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or log in again.",
        "permission": "Ask for write permission, or choose another place.",
        "not_found": "Create the bucket first, or check its name and AWS_ENDPOINT_URL.",
        "network": "Check the network and AWS_ENDPOINT_URL.",
        "disk_full": "Free some space.",
    }
    return fixes.get(problem.kind, "Choose another place.")
