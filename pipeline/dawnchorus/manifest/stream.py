"""An input -> validated batches of `schema.RECORDINGS`, in the manifest's order, each recording once.

Holds one batch of Python rows at a time. Identical rows collapse and are counted; a row with the id of
an earlier one but another text or metadata is a bad line (the first stays).
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from dawnchorus import ids, storage
from dawnchorus.config import RunConfig
from dawnchorus.errors import ManifestError, Terminal
from dawnchorus.manifest import readers
from dawnchorus.manifest.duplicates import CONFLICTING, NEW, Seen, id_array
from dawnchorus.manifest.fields import addresses, bad, recording_of
from dawnchorus.manifest.sources import Source, find_sources, local_copy, names_audio
from dawnchorus.records import Recording
from dawnchorus.schema import RECORDINGS, failure_row

BATCH_ROWS = 16_384
_NUM_EXAMPLES = 10


@dataclass
class Counts:
    """What was met so far. `num_lines` counts every row of the manifest, duplicates and those left out
    by a pilot as well; `examples` are the first bad lines; `files` the manifests, or the listed folder;
    `skipped` the files of a folder that were left out, by extension."""

    num_lines: int = 0
    num_bad: int = 0
    num_duplicates: int = 0
    examples: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)

    def note_bad(self, line: str, problem: Terminal) -> None:
        """Count a bad line."""
        self.num_bad += 1
        if len(self.examples) < _NUM_EXAMPLES:
            self.examples.append(f"{line}: {problem.message}")


class _Line(NamedTuple):
    recording: Recording
    line: str
    problem: Terminal | None
    size_bytes: int | None = None


def read(config: RunConfig, counts: Counts | None = None) -> Iterator[pa.RecordBatch]:
    """The recordings of `config.input` as batches of the RECORDINGS schema, at most 16,384 rows each.

    `config.limit` keeps the first N good recordings, `config.sample` a share chosen by recording id
    (1 % is contained in 2 %). Bad lines are rows with `failure` set. `counts` is filled on the way.

    Raises:
        ManifestError: the input does not exist, or a file of it cannot be a manifest.
        StorageUnavailable: it cannot be reached.
    """
    counts = Counts() if counts is None else counts
    seen = Seen()
    threshold = _sample_threshold(config.sample)
    left = config.limit
    for lines in _batched(_all_lines(config.input, config.manifest.format, counts)):
        kept = _select(_deduplicate(lines, seen, counts), threshold)
        if left is not None:
            kept, left = _first(kept, left)
        if kept:
            yield _batch(kept)
        if left == 0:
            return


def _all_lines(address: str, form: str, counts: Counts) -> Iterator[_Line]:
    sources = find_sources(address, form, counts.skipped)
    for source in sources:
        if source.shape == "audio":
            counts.files = counts.files or [storage.canonical_uri(address)]
            counts.num_lines += 1
            yield _audio_line(source)
        else:
            yield from _manifest_lines(source, form, counts, alone=len(sources) == 1)


def _audio_line(source: Source) -> _Line:
    # A listed name need not be UTF-8; its canonical URI is.
    url = storage.canonical_uri(source.url) if storage.is_local(source.url) else source.url
    line = storage.name_of(url).encode("utf-8", "replace").decode()
    try:
        recording = recording_of({"audio_filepath": url}, "/")
    except Terminal as e:
        return _bad_line(url, line, "", e)
    return _Line(recording, line, None, source.size_bytes)


def _manifest_lines(source: Source, form: str, counts: Counts, alone: bool) -> Iterator[_Line]:
    uri, name, base = (
        storage.canonical_uri(source.url),
        storage.name_of(source.url),
        storage.parent(source.url),
    )
    cut_or_not = form if form in ("nemo", "lhotse") else "auto"
    counts.files.append(uri)
    with local_copy(source.url) as copy:
        shape = source.shape or readers.sniff(copy.path) or _of_text(copy.path, base, name, alone)
        if shape is None:
            counts.num_lines += 1
            yield _audio_line(source)
            return
        for row in readers.read_rows(copy.path, shape, name):
            counts.num_lines += 1
            line = f"{name}:{row.line}"
            problem = row.problem
            if row.fields is not None:
                try:
                    yield _Line(recording_of(row.fields, base, cut_or_not), line, None)
                    continue
                except Terminal as e:
                    problem = e
            assert problem is not None
            yield _bad_line(uri, line, row.content or str(row.fields), problem)


def _of_text(path: str, base: str, name: str, alone: bool) -> str | None:
    """`list` for a text file with a path or URL on each line; None for what may be audio.

    Raises:
        ManifestError: the whole input is another text.
    """
    head = readers.text_head(path)
    if head is None:
        return None
    if readers.is_list(head, lambda line: _is_there(line, base)):
        return "list"
    if not alone:
        return None
    raise ManifestError(
        f"{name} is a text file, but no manifest and no list of audio: its first line is {head[0][:80]!r}.",
        "Write one path or URL a line, or a manifest with a column audio_filepath.",
    )


def _is_there(line: str, base: str) -> bool:
    """Whether a line is an address that has to be audio: by its suffix, or because the file is there."""
    try:
        path, _ = addresses(line, base)
    except Terminal:
        return False
    return names_audio(path) or (storage.is_local(path) and os.path.isfile(storage.local_path(path)))


def _bad_line(uri: str, line: str, content: str, problem: Terminal, path: str | None = None) -> _Line:
    recording = Recording(ids.bad_line_id(uri, line, content), path or "")
    return _Line(recording, line, problem)


def _batched(lines: Iterable[_Line]) -> Iterator[list[_Line]]:
    batch: list[_Line] = []
    for line in lines:
        batch.append(line)
        if len(batch) == BATCH_ROWS:
            yield batch
            batch = []
    if batch:
        yield batch


def _content_hash(recording: Recording) -> bytes:
    text = "" if recording.text is None else f"={recording.text}"
    return hashlib.blake2b(f"{text}\0{recording.metadata}".encode(), digest_size=8).digest()


def _deduplicate(lines: list[_Line], seen: Seen, counts: Counts) -> list[_Line]:
    contents = np.frombuffer(b"".join(_content_hash(x.recording) for x in lines), dtype=np.uint64)
    states = seen.add(id_array([x.recording.recording_id for x in lines]), contents)
    kept = []
    for line, state in zip(lines, states.tolist(), strict=True):
        if state == CONFLICTING:
            line = _conflict(line)
        elif state != NEW:
            counts.num_duplicates += 1
            continue
        if line.problem is not None:
            counts.note_bad(line.line, line.problem)
        kept.append(line)
    return kept


def _conflict(line: _Line) -> _Line:
    r = line.recording
    message = f"{storage.redact(r.audio_filepath)} was listed before with another text or other columns."
    content = f"{r.recording_id} {r.text} {r.metadata}"
    return _bad_line(
        r.audio_filepath, line.line, content, bad("conflicting_duplicate", message), r.audio_filepath
    )


def _sample_threshold(sample: str | None) -> int:
    """Ids whose first 8 bytes are below this number are in the sample."""
    return 1 << 64 if sample is None else round(float(sample.rstrip("%")) / 100 * (1 << 64))


def _select(lines: list[_Line], threshold: int) -> list[_Line]:
    if threshold >= 1 << 64:
        return lines
    return [x for x in lines if int(x.recording.recording_id[:16], 16) < threshold]


def _first(lines: list[_Line], left: int) -> tuple[list[_Line], int]:
    """The lines up to the `left`-th good one, and how many are still wanted."""
    kept = []
    for line in lines:
        if left == 0:
            break
        left -= line.problem is None
        kept.append(line)
    return kept, left


def _failure(line: _Line) -> dict[str, Any] | None:
    if line.problem is None:
        return None
    failure = line.problem.failure()
    return failure_row(replace(failure, message=f"{line.line}: {failure.message}"))


def _batch(lines: list[_Line]) -> pa.RecordBatch:
    rows: list[tuple[Any, ...]] = [
        (
            x.recording.recording_id,
            x.recording.audio_filepath or None,
            x.recording.offset,
            x.recording.duration,
            x.recording.claimed_duration,
            x.recording.text,
            x.recording.metadata,
            x.line,
            _failure(x),
            x.size_bytes,
        )
        for x in lines
    ]
    columns = zip(*rows, strict=True)
    arrays = [pa.array(c, type=f.type) for c, f in zip(columns, RECORDINGS, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=RECORDINGS)
