"""What an input is: which manifest files, or which audio files, in order."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

from dawnchorus import storage
from dawnchorus.errors import DataError, ManifestError, StorageUnavailable

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
}
_FORMAT_SHAPES = {"nemo": "json", "lhotse": "json", "csv": "csv", "tsv": "tsv", "parquet": "parquet"}
_RANGE = re.compile(r"(?:\{|_OP_)(\d+)\.\.(\d+)(?:\}|_CL_)")
_MAX_SHARDS = 100_000
_MAX_MANIFEST_BYTES = 64 << 30
_FIX = "Check the path, and the credentials if it is a bucket."


@dataclass(frozen=True, slots=True)
class Source:
    """One file of the input. `shape` is `audio`, `json`, `csv`, `tsv`, `parquet`, or None: look inside.
    `size_bytes` is known where it was listed."""

    url: str
    shape: str | None
    size_bytes: int | None = None


def find_sources(address: str, form: str) -> list[Source]:
    """The files an input stands for, in order. `form` is `ManifestConfig.format`.

    Raises:
        ManifestError: there is nothing; says what was looked for.
        StorageUnavailable: the place cannot be reached.
    """
    try:
        found = [s for part in expand_range(address) for s in _resolve(part, form)]
    except DataError as e:
        raise _unavailable(e) from e
    if not found:
        raise ManifestError(f"There is nothing at {storage.redact(address)}.", _FIX)
    return found


def expand_range(address: str) -> list[str]:
    """NeMo's sharded form: `man__OP_0..7_CL_.json` or `man_{0..7}.json` -> eight addresses."""
    match = _RANGE.search(address)
    if match is None:
        return [address]
    first, last = int(match[1]), int(match[2])
    if not 0 <= last - first < _MAX_SHARDS:
        raise ManifestError(f"{match[0]!r} is not a range of shards.", "Write it as {0..7}.")
    width = len(match[1]) if match[1].startswith("0") else 0
    names = (f"{n:0{width}d}" for n in range(first, last + 1))
    return [a for n in names for a in expand_range(address[: match.start()] + n + address[match.end() :])]


def local_copy(url: str) -> storage.Fetched:
    """A manifest file on this machine, verified; close it after use.

    Raises:
        ManifestError, StorageUnavailable: it cannot be read.
    """
    try:
        return storage.fetch(url, tempfile.gettempdir(), _MAX_MANIFEST_BYTES)
    except DataError as e:
        raise _unavailable(e) from e


def _unavailable(problem: DataError) -> ManifestError | StorageUnavailable:
    kind = StorageUnavailable if problem.transient else ManifestError
    return kind(problem.message, _FIX)


def _resolve(address: str, form: str) -> Iterator[Source]:
    plain = storage.is_http(address)
    if not plain and storage.is_folder(address):
        yield from _folder(address, form)
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


def _folder(address: str, form: str) -> list[Source]:
    wanted = "audio" if form == "auto" else _shape("", form)
    files = [Source(f.url, _shape(f.url, "auto"), f.size_bytes) for f in storage.list_files(address)]
    found = [f for f in files if f.shape == wanted]
    if found:
        return found
    suffixes = AUDIO_NAMES if wanted == "audio" else " ".join(s for s in _SHAPES if _SHAPES[s] == wanted)
    manifests = [storage.name_of(f.url) for f in files if f.shape is not None and f.shape != "audio"]
    fix = f"Did you mean the manifest {manifests[0]!r} in it?" if manifests else _FIX
    place = f"the folder {storage.redact(address)} ({len(files)} files)"
    raise ManifestError(f"No file in {place} ends in one of: {suffixes}.", fix)


def _choose(files: list[storage.FileInfo], form: str) -> list[Source]:
    """Of what a pattern matches: the audio files; without any, the manifests; else look inside."""
    sources = [Source(f.url, _shape(f.url, form), f.size_bytes) for f in files]
    audio = [s for s in sources if s.shape == "audio"]
    return audio or [s for s in sources if s.shape is not None] or sources
