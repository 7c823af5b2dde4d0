"""What an input is: which manifest files, or which audio files, in order."""

from __future__ import annotations

import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from dawnchorus import storage
from dawnchorus.audio import sniff
from dawnchorus.errors import DataError, ManifestError, StorageUnavailable, Terminal
from dawnchorus.wording import many

AUDIO_NAMES = (
    "3gp aac ac3 aif aifc aiff alac amr au caf dts eac3 flac gsm m4a m4b mka mkv mov mp2 mp3 mp4 mpeg mpg "
    "oga ogg opus ra snd sph spx ts tta voc w64 wav webm wma wv"
)
"""Suffixes by which a folder's audio and video files are known; what is inside decides how to decode."""
_AUDIO_SUFFIXES = frozenset(f".{name}" for name in AUDIO_NAMES.split())
_SHAPES = {
    ".jsonl": "json",
    ".json": "json",
    ".ndjson": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".m3u": "list",
}
_FORMAT_SHAPES = {n: n for n in ("csv", "tsv", "parquet", "list")} | {"nemo": "json", "lhotse": "json"}
_RANGE = re.compile(r"(?:\{|_OP_)(\d+)\.\.(\d+)(?:\}|_CL_)")
_MAX_SHARDS = 100_000
_MAX_MANIFEST_BYTES = 64 << 30
_MAX_SNIFFED = 1_000
"""Local files without an extension that are looked into, below one folder."""
_NO_EXTENSION = "without extension"


@dataclass(frozen=True, slots=True)
class Source:
    """One file of the input. `shape` is `audio`, `json`, `csv`, `tsv`, `parquet`, `list`, or None: look
    inside.
    `size_bytes` is known where it was listed."""

    url: str
    shape: str | None
    size_bytes: int | None = None


def find_sources(address: str, form: str, skipped: Counter[str] | None = None) -> list[Source]:
    """The files an input stands for, in order. `form` is `ManifestConfig.format`; `skipped` counts the files
    of a folder that are none of them, by extension.

    Raises:
        ManifestError: there is nothing; says what was looked for.
        StorageUnavailable: the place cannot be reached.
    """
    skipped = Counter() if skipped is None else skipped
    try:
        found = [s for part in expand_range(address) for s in _resolve(part, form, skipped)]
    except DataError as e:
        raise unavailable(e, address) from e
    if not found:
        raise ManifestError(f"There is nothing at {storage.redact(address)}.", _fix(address))
    return found


def expand_range(address: str, most: int = _MAX_SHARDS) -> list[str]:
    """NeMo's sharded form: `man__OP_0..7_CL_.json` or `man_{0..7}.json` -> eight addresses.

    Raises:
        ManifestError: a range runs backwards, or all of them together name more than `most`.
    """
    match = _RANGE.search(address)
    if match is None:
        return [address]
    first, last = int(match[1]), int(match[2])
    if not 0 <= last - first < most:
        raise ManifestError(
            f"{match[0]!r} is not a range of shards, or one of too many.",
            f"Write it as {{0..7}}; an address names {_MAX_SHARDS:,} at most.",
        )
    most //= last - first + 1
    width = len(match[1]) if match[1].startswith("0") else 0
    names = (f"{n:0{width}d}" for n in range(first, last + 1))
    return [
        a for n in names for a in expand_range(address[: match.start()] + n + address[match.end() :], most)
    ]


def local_copy(url: str) -> storage.Fetched:
    """A manifest file on this machine, verified; close it after use.

    Raises:
        ManifestError, StorageUnavailable: it cannot be read.
    """
    try:
        return storage.fetch(url, tempfile.gettempdir(), _MAX_MANIFEST_BYTES)
    except DataError as e:
        raise unavailable(e, url) from e


def unavailable(problem: DataError, address: str) -> ManifestError | StorageUnavailable:
    """A whole input that cannot be read, with the fix that applies there."""
    kind = StorageUnavailable if problem.transient else ManifestError
    fixes = {
        "credentials": "Set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or log in again.",
        "permission": "Ask for permission to read it.",
        "network": "Check the network and the address.",
        "throttled": "Try again later.",
    }
    remote = not storage.is_local(address)
    return kind(problem.message, fixes.get(problem.kind, _fix(address)) if remote else _fix(address))


def _fix(address: str) -> str:
    if storage.is_local(address):
        return "Check the path."
    return "Check the address." if storage.is_http(address) else "Check the name of the bucket and the path."


def _resolve(address: str, form: str, skipped: Counter[str]) -> Iterator[Source]:
    plain = storage.is_http(address)
    if not plain and storage.is_folder(address):
        yield from _folder(address, form, skipped)
    elif plain or not storage.has_magic(address) or storage.exists(address):
        yield Source(address, _shape(address, form))
    else:
        yield from _choose(storage.glob(address), form)


def _shape(url: str, form: str) -> str | None:
    if form == "audio":
        return "audio"
    if form in _FORMAT_SHAPES:
        return _FORMAT_SHAPES[form]
    name = storage.name_of(url).lower().removesuffix(".gz")
    suffix = name[name.rfind(".") :] if "." in name else ""
    return "audio" if suffix in _AUDIO_SUFFIXES else _SHAPES.get(suffix)


def names_audio(url: str) -> bool:
    """Whether an address ends like audio."""
    return _shape(url, "auto") == "audio"


def _folder(address: str, form: str, skipped: Counter[str]) -> list[Source]:
    wanted = "audio" if form == "auto" else _shape("", form)
    hidden: list[str] = []
    listed = storage.list_files(address, hidden=hidden)
    files = [Source(f.url, _shape(f.url, "auto"), f.size_bytes) for f in listed if not f.url.endswith("/")]
    if wanted == "audio":
        files = _looked_into(files)
    found = [f for f in files if f.shape == wanted]
    skipped.update(_extension(f.url) for f in files if f.shape != wanted)
    skipped.update({"hidden": len(hidden)} if hidden else {})
    if found:
        return found
    place = f"the folder {storage.redact(address)}"
    if not files:
        raise ManifestError(f"There are no files in {place}.", _fix(address))
    suffixes = AUDIO_NAMES if wanted == "audio" else " ".join(s for s in _SHAPES if _SHAPES[s] == wanted)
    manifests = [storage.name_of(f.url) for f in files if f.shape is not None and f.shape != "audio"]
    fix = f"Did you mean the manifest {manifests[0]!r} in it?" if manifests else _fix(address)
    raise ManifestError(f"No file in {place} ({many(len(files), 'file')}) ends in one of: {suffixes}.", fix)


def _extension(url: str) -> str:
    """`.txt`, or that there is none."""
    name = storage.name_of(url)
    stem, dot, extension = name.rpartition(".")
    return f".{extension.lower()[:12]}" if dot and stem and extension else _NO_EXTENSION


def _looked_into(files: list[Source]) -> list[Source]:
    """The files, with those on this machine that have no extension known by their first bytes."""
    left, found = _MAX_SNIFFED, []
    for file in files:
        if (
            file.shape is None
            and left
            and storage.is_local(file.url)
            and _extension(file.url) == _NO_EXTENSION
        ):
            left -= 1
            file = replace(file, shape="audio" if is_audio(storage.local_path(file.url)) else None)
        found.append(file)
    return found


def is_audio(path: str) -> bool:
    """Whether the first bytes of a local file are those of an audio format that is known."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        # It can be read tomorrow, and says so then; today its bytes tell nothing.
        return False
    try:
        return sniff.sniff(fd).format != "unknown"
    except Terminal:
        return False
    finally:
        os.close(fd)


def _choose(files: list[storage.FileInfo], form: str) -> list[Source]:
    """Of what a pattern matches: the audio files; without any, the manifests; else look inside."""
    sources = [Source(f.url, _shape(f.url, form), f.size_bytes) for f in files]
    audio = [s for s in sources if s.shape == "audio"]
    return audio or [s for s in sources if s.shape is not None] or sources
