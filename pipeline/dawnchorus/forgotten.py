"""What an output has forgotten: `forgotten.jsonl`, one line per id that no run may transcribe again.

A line holds ids and times only, never an address or a text: it outlives what it stands for. A whole audio
object that is forgotten takes its slices, and the bad lines that name it, along. Knows no tables of results.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dawnchorus import ids, storage
from dawnchorus.errors import ConfigError, UserError

FILE = "forgotten.jsonl"
COUNT_KEY = "dawnchorus.num_forgotten"
"""Key-value metadata of a manifest snapshot: how many of its rows were forgotten. It changes with the rows,
in one PUT."""
DIGEST_KEY = "dawnchorus.manifest_digest"
"""Which manifest it was a snapshot of, before anything was left out of it."""


@dataclass(frozen=True, slots=True)
class Tombstone:
    """One id. `audio_id` is the id of the whole audio object, where that is known; `asked` are hashes of the
    names it was asked for by; `forgotten_at` (since the epoch) is None until nothing of it is left."""

    recording_id: str
    audio_id: str | None = None
    asked: tuple[str, ...] = ()
    forgotten_at: float | None = None


def file_url(output: str) -> str:
    """Where the tombstones of an output lie."""
    return storage.join(output, FILE)


def read(output: str) -> list[Tombstone]:
    """The tombstones of an output; [] where nothing was forgotten.

    Raises:
        UserError: a line is none.
        Transient, Terminal: the output cannot be read.
    """
    try:
        text = storage.read_bytes(file_url(output)).decode()
    except FileNotFoundError:
        return []
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
            found.append(Tombstone(**{**fields, "asked": tuple(fields.get("asked", ()))}))
        except (ValueError, TypeError, AttributeError) as e:
            where = f"{storage.shown(file_url(output))}:{number}"
            raise UserError(f"{where} is no line of an erasure.", "Mend it, or delete the line.") from e
    return found


def write(output: str, tombstones: Iterable[Tombstone]) -> None:
    """Replace the tombstones of an output; whoever calls owns it."""
    text = "".join(json.dumps(asdict(t)) + "\n" for t in sorted(tombstones, key=lambda t: t.recording_id))
    storage.put_atomic(file_url(output), text.encode())


def audio_id(address: str) -> str | None:
    """Id of the whole object at an audio address; None where the address cannot be one."""
    try:
        return ids.recording_id(storage.canonical_uri(address))
    except (ConfigError, ValueError):
        return None


def covered(manifest: pa.Table, forgotten: Iterable[str]) -> pa.Array:
    """Which rows (`recording_id`, `audio_filepath`, `offset`, `failure`) these ids stand for: by their own
    id, and slices and bad lines by that of the whole audio."""
    wanted = pa.array(list(forgotten), pa.string())
    mine = pc.is_in(manifest["recording_id"], value_set=wanted)
    partly = pc.or_(pc.is_valid(manifest["offset"]), pc.is_valid(manifest["failure"]))
    paths = pc.unique(manifest.filter(partly)["audio_filepath"]).drop_null().to_pylist()
    known = set(wanted.to_pylist())
    named = pa.array([p for p in paths if audio_id(p) in known] if known else [], pa.string())
    by_audio = pc.and_(partly, pc.is_in(manifest["audio_filepath"], value_set=named))
    found = pc.or_(mine, by_audio)
    return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found


def leave_out(manifest: pa.Table, output: str) -> pa.Table:
    """The rows of a manifest that `output` has not forgotten."""
    tombstones = read(output)
    if not tombstones:
        return manifest
    return manifest.filter(pc.invert(covered(manifest, (t.recording_id for t in tombstones))))


class Saved(NamedTuple):
    """What a run's manifest snapshot says of itself."""

    num_rows: int
    num_forgotten: int
    digest: str


def saved(run_url: str) -> Saved | None:
    """What a run's manifest snapshot says of itself; None without one."""
    files = storage.list_files(storage.join(run_url, "manifest"), ".parquet")
    if not files:
        return None
    num_rows, num_forgotten, digest = 0, 0, ""
    for info in files:
        with storage.open_input(info.url) as f, pq.ParquetFile(f) as file:
            said = file.schema_arrow.metadata or {}
            num_rows += file.metadata.num_rows
            num_forgotten += int(said.get(COUNT_KEY.encode(), b"0"))
            digest = said.get(DIGEST_KEY.encode(), b"").decode()
    return Saved(num_rows, num_forgotten, digest)
