"""From what a configuration calls a model to its files on this machine: hub name, folder or URL.

A bundle in a bucket is staged once per machine: below `cache/models/`, in a folder named by the hash of
its manifest, so that two bundles never mix; by one process at a time; every file verified by size, version
and SHA-256 before it gets its name.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from dawnchorus import storage
from dawnchorus.engines import hub
from dawnchorus.engines.salm_files import DEFAULT_MODEL, SalmFiles, from_folder, from_hub
from dawnchorus.engines.salm_manifest import MANIFEST, WEIGHTS, checked, parsed
from dawnchorus.engines.staging import alone, cache_folder, is_remote
from dawnchorus.errors import DataError, EngineUnavailable

_MOST_BYTES = 1 << 40
_MOST_MANIFEST_BYTES = 1 << 20


def find(
    model: str | None, revision: str | None, cache: str | None = None, weights: bool = True
) -> SalmFiles:
    """The files of a model, fetched where they are not here yet; without `weights` all but these.

    Raises:
        EngineUnavailable: it cannot be fetched, or is not what its manifest says.
    """
    name = model or DEFAULT_MODEL
    if is_remote(name):
        return from_folder(_staged(name, cache_folder(cache), weights), weights=weights)
    folder = Path(storage.local_path(name))
    if folder.is_dir():
        return from_folder(folder, weights=weights)
    return from_hub(name, revision, weights=weights)


def _staged(url: str, cache: Path, weights: bool) -> Path:
    """Local folder of a bundle's files."""
    place = storage.redact(url)
    try:
        base = storage.absolute(url)
        text = storage.read_bytes(storage.join(base, MANIFEST), _MOST_MANIFEST_BYTES)
        manifest = parsed(text.decode("utf-8", "replace"), f"{place}/{MANIFEST}")
        folder = cache / hashlib.sha256(text).hexdigest()[:16]
        with alone(folder):
            for name, digest in manifest.items():
                if (weights or name != WEIGHTS) and not (folder / name).is_file():
                    _fetch(storage.join(base, name), folder / name, digest)
            if not (folder / MANIFEST).is_file():
                storage.put_atomic(str(folder / MANIFEST), text)
    except FileNotFoundError as e:
        raise EngineUnavailable(
            f"{place} is no bundle: it has no {MANIFEST}.", f"Make one: dawnchorus bundle MODEL {place}"
        ) from e
    except DataError as e:
        raise EngineUnavailable(f"The bundle {place} cannot be fetched: {e.message}", "Try again.") from e
    return folder


def _fetch(url: str, target: Path, digest: str) -> None:
    target.parent.mkdir(exist_ok=True)
    with storage.fetch(url, str(target.parent), _MOST_BYTES) as fetched:
        checked(Path(storage.redact(url)), digest, hub.actual_sha256(Path(fetched.path)))
        os.chmod(fetched.path, 0o644)  # other users of this machine read the cache, too
        os.replace(fetched.path, target)
