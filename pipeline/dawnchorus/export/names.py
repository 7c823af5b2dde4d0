"""Where an audio address goes below an export folder: readable, unique, safe on any disk. Pure.

Names come from manifests nobody vouches for: no name may leave the folder, hide, or take another's
place. Knows the addresses only, no storage.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import unicodedata
from collections.abc import Iterable, Iterator
from urllib.parse import unquote, urlsplit

import numpy as np

from dawnchorus import storage
from dawnchorus.records import Seconds

_UNSAFE = re.compile(r'[\x00-\x1f\x7f-\x9f<>:"/\\|?*\ud800-\udfff\u202a-\u202e\u2066-\u2069]')
_RESERVED = re.compile(r"(?i)^(con|prn|aux|nul|com\d|lpt\d)(\.|$)")
_LIKE_ID = re.compile(r"(^|[./])([0-9a-f]{12}|[0-9a-f]{32})$")
_COMPONENT_BYTES = 150
_NAME_BYTES = 800

Item = tuple[str, str, Seconds | None, Seconds | None]
"""recording_id, audio_filepath, offset, duration of a slice."""


def components(address: str) -> list[str]:
    """Scheme and host, folders and file name of an absolute address."""
    if storage.is_local(address):
        return ["file", *storage.local_path(address).strip("/").split("/")]
    scheme, _, rest = address.partition("://")
    if scheme in ("http", "https"):
        parts = urlsplit(address)
        return [f"{scheme}:{parts.netloc}", *unquote(parts.path).strip("/").split("/")]
    host, _, key = rest.partition("/")
    return [f"{scheme}:{host}", *key.strip("/").split("/")]


def safe(component: str) -> str:
    """A file name of at most 150 bytes that no system gives a meaning to; longer ones are cut and hashed."""
    name = _UNSAFE.sub("_", unicodedata.normalize("NFC", component)).rstrip(" .")
    if not name or name.startswith(".") or _RESERVED.match(name):
        name = f"_{name.lstrip('.')}"
    if len(name.encode()) <= _COMPONENT_BYTES:
        return name
    digest = hashlib.blake2b(component.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()
    return name.encode()[: _COMPONENT_BYTES - 13].decode("utf-8", "ignore").rstrip(" .") + f"-{digest}"


def common_folder(addresses: Iterable[str]) -> list[str]:
    """The components of the deepest folder that holds every address."""
    common: list[str] | None = None
    for address in addresses:
        folder = components(address)[:-1]
        if common is None:
            common = folder
        alike = (a == b for a, b in zip(common, folder, strict=False))
        common = common[: sum(itertools.takewhile(bool, alike))]
    return common or []


class Namer:
    """Relative file names for recordings; two passes over the same recordings.

    Names follow the audio's folders below their common folder, without the audio's extension; a slice
    adds its span. Recordings whose names would meet (also on disks that ignore case) all get 12 digits
    of their id, so that a name does not depend on the order of rows. Holds 8 bytes per recording.
    """

    def __init__(self, items: Iterable[Item], folder: list[str], suffix: str) -> None:
        self.depth = len(folder)
        self.suffix = suffix
        keys = np.fromiter((_key(self._plain(i)) for i in items), np.uint64)
        values, counts = np.unique(keys, return_counts=True)
        self.num_names = len(keys)
        self.shared = values[counts > 1]

    def name(self, item: Item) -> str:
        """The recording's file name, with `/` between folders."""
        plain = self._plain(item)
        at = int(np.searchsorted(self.shared, key := _key(plain)))
        meets = at < len(self.shared) and self.shared[at] == key
        if len(plain.encode()) > _NAME_BYTES:
            return f"{item[0]}{self.suffix}"
        unique = f".{item[0][:12]}" if meets or _LIKE_ID.search(plain) else ""
        return f"{plain}{unique}{self.suffix}"

    def _plain(self, item: Item) -> str:
        return "/".join(self._parts(item))

    def _parts(self, item: Item) -> Iterator[str]:
        _, address, offset, duration = item
        *folders, name = components(address)
        for folder in folders[self.depth :]:
            # A folder must not have the name of a file beside it.
            made = safe(folder)
            yield f"{made}_" if made.lower().endswith(self.suffix) else made
        stem, dot, extension = name.rpartition(".")
        stem = stem if dot and stem and len(extension) <= 5 else name
        if offset is not None:
            stem += f"_{offset:.3f}-" + ("end" if duration is None else f"{offset + duration:.3f}")
        yield safe(stem)


def _key(name: str) -> int:
    folded = unicodedata.normalize("NFKC", name.casefold()).encode()
    return int.from_bytes(hashlib.blake2b(folded, digest_size=8).digest(), "little")
