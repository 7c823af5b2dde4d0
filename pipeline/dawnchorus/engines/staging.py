"""Models in buckets, fetched once per machine and version below `engine.cache`, by one process at a time.

Which file is which version is what the listing says (size and ETag); whether its bytes are right is for the
engine, which knows the hash.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO

from dawnchorus import storage
from dawnchorus.errors import DataError, EngineUnavailable
from dawnchorus.storage import FileInfo

CACHE_VARIABLE = "DAWNCHORUS_CACHE"
_MOST_BYTES = 1 << 40
_MOST_FILES = 500


def is_remote(model: str) -> bool:
    """Whether a model's name is the address of something in a bucket."""
    return "://" in model and not storage.is_local(model)


def cache_folder(cache: str | None) -> Path:
    """Where this machine keeps models that came from buckets: `cache`, else `$DAWNCHORUS_CACHE`, else
    `~/.cache/dawnchorus`."""
    chosen = cache or os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "dawnchorus"
    return Path(chosen) / "models"


def staged_file(url: str, cache: str | None) -> Path:
    """One file of a bucket, on this machine.

    Raises:
        EngineUnavailable: it is not there, or cannot be fetched.
    """
    whole = storage.absolute(url)
    found = [f for f in _listed(storage.parent(whole), url) if f.url == whole]
    if not found:
        raise EngineUnavailable(f"There is no {storage.redact(url)}.", "Check engine.model.")
    return _kept(storage.parent(whole), found, found, cache) / storage.name_of(whole)


def staged_folder(url: str, patterns: Sequence[str], cache: str | None) -> Path:
    """The files right below a folder of a bucket whose names match, in a folder of this machine. Later
    calls with other patterns add to the same one.

    Raises:
        EngineUnavailable: there is nothing, or it cannot be fetched.
    """
    base = storage.absolute(url)
    top = [f for f in _listed(base, url) if storage.parent(f.url) == base.rstrip("/")]
    if not top:
        raise EngineUnavailable(f"There is no model in {storage.redact(url)}.", "Check engine.model.")
    if len(top) > _MOST_FILES:
        raise EngineUnavailable(
            f"{storage.redact(url)} has {len(top):,} files.", "Name a model's own folder."
        )
    wanted = [f for f in top if any(fnmatchcase(storage.name_of(f.url), p) for p in patterns)]
    return _kept(base, top, wanted, cache)


def _listed(folder: str, url: str) -> list[FileInfo]:
    try:
        return storage.list_files(folder)
    except DataError as e:
        raise EngineUnavailable(f"{storage.redact(url)} cannot be read: {e.message}", "Try again.") from e


def _kept(base: str, version_of: list[FileInfo], wanted: list[FileInfo], cache: str | None) -> Path:
    """The folder of one version of these files, with those that are wanted in it."""
    lines = [
        storage.canonical_uri(base),
        *(f"{f.url[len(base) :]} {f.size_bytes} {f.version}" for f in version_of),
    ]
    folder = cache_folder(cache) / hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
    try:
        with alone(folder):
            for file in wanted:
                target = folder / storage.name_of(file.url)
                if not target.is_file():
                    with storage.fetch(file.url, str(folder), _MOST_BYTES) as fetched:
                        os.chmod(fetched.path, 0o644)  # other users of this machine read the cache, too
                        os.replace(fetched.path, target)
    except DataError as e:
        raise EngineUnavailable(f"{storage.redact(base)} cannot be fetched: {e.message}", "Try again.") from e
    return folder


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """A folder of the cache, made where there is none, for one process at a time; what one left behind when
    it was killed is removed.

    Raises:
        EngineUnavailable: the cache cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = _lock(folder.parent / f"{folder.name}.lock")
    except OSError as e:
        raise EngineUnavailable(
            f"Models from buckets cannot be kept in {folder.parent}: {e.strerror}.",
            f"Set engine.cache or {CACHE_VARIABLE} to a folder that may be written.",
        ) from e
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left in folder.rglob(".fetch-*"):
            with contextlib.suppress(PermissionError):  # of another user, who removes it
                left.unlink()
        yield


def _lock(path: Path) -> IO[str]:
    try:
        return path.open("a")
    except PermissionError:
        # Another user's, who fetched what is read here; network disks want it writable where it can be.
        return path.open()
