"""Which recordings somebody means: by id, by audio address, or by the name that `show` prints.

A whole audio object takes its slices along, and the bad lines of manifests that name it; a slice goes alone.
Reads manifest snapshots and addresses of transcripts; changes nothing.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from dawnchorus import duplicates, forgotten, ids, ledger, storage
from dawnchorus.errors import UserError
from dawnchorus.export.cues import clean
from dawnchorus.forgotten import Tombstone
from dawnchorus.schema import RECORDINGS
from dawnchorus.show import clock

_COLUMNS = ["recording_id", "audio_filepath", "offset", "failure"]
_KNOWN = pa.schema([RECORDINGS.field(n) for n in _COLUMNS])
_ID = re.compile(r"[0-9a-f]{32}")
_AT = re.compile(r"(?P<name>.+) @(?P<clock>[\d:,.]+(?: s)?)")
_SHOWN = 5
_READERS = 16
_MAX_COMPARED = 20_000


@dataclass(slots=True)
class Target:
    """One id to forget, and what is known of it."""

    recording_id: str
    audio_id: str | None = None
    address: str | None = None
    offset: float | None = None
    asked: set[str] = field(default_factory=set)

    def __str__(self) -> str:
        """As a person would call it."""
        if self.address is None:
            return self.recording_id
        name = clean(storage.shown(storage.redact(self.address)))
        return name if self.offset is None else f"{name} @{clock(self.offset)}"


def known(output: str) -> pa.Table:
    """Every recording that manifest snapshots and transcripts name: recording_id, audio_filepath, offset,
    failure, one row each (the manifests' first, whose addresses are whole)."""
    listed = storage.list_files(storage.join(output, "_runs"), ".parquet")
    urls = [f.url for f in listed if storage.parent(f.url).endswith("/manifest")]
    urls += [f.url for f in storage.list_files(ledger.transcripts_url(output), ".parquet")]

    def read(url: str) -> pa.Table:
        return storage.read_table(url, _COLUMNS).select(_COLUMNS).cast(_KNOWN)

    with ThreadPoolExecutor(_READERS) as pool:
        table = pa.concat_tables([_KNOWN.empty_table(), *pool.map(read, urls)])
    nameless = pc.is_null(table["audio_filepath"])
    return duplicates.first_of_each(table, {"key": table["recording_id"], "nameless": nameless})


def resolve(names: Iterable[str], rows: pa.Table, tombstones: Iterable[Tombstone]) -> dict[str, Target]:
    """What is meant by these names, by id, among the `known` rows and what was forgotten before.

    Raises:
        UserError: a name fits nothing, or several audio objects; says which are near, or which they are.
    """
    dead, found = list(tombstones), dict[str, Target]()
    for name in names:
        meant = _by_id(name, dead) or _by_address(name, rows, dead) or _by_name(name, rows)
        asked = ids.asked_id(name)
        meant = meant or [t.recording_id for t in dead if asked in t.asked]
        if not meant:
            raise unknown(name, rows)
        for one in meant:
            found.setdefault(one, Target(one)).asked.add(asked)
    return spread(found, rows)


def resolve_forgotten(names: Iterable[str], tombstones: Iterable[Tombstone]) -> set[str]:
    """The ids of what was forgotten under these names.

    Raises:
        UserError: nothing was, or only the whole audio was.
    """
    dead, found = list(tombstones), set[str]()
    for name in names:
        asked, meant = ids.asked_id(name), {name, forgotten.audio_id(name)} - {None}
        mine = {t for t in dead if meant & {t.recording_id, t.audio_id} or asked in t.asked}
        if not mine:
            raise UserError(f"{clean(name)!r} was not forgotten here.", "See forgotten.jsonl in the output.")
        found |= {t.recording_id for t in mine}
    left = {t.recording_id for t in dead} - found
    whole = {t.audio_id for t in dead if t.recording_id in found} & left
    if whole:
        raise UserError(f"The whole audio is forgotten, as {min(whole, key=str)}.", "Allow that again.")
    return found


def spread(targets: Mapping[str, Target], rows: pa.Table) -> dict[str, Target]:
    """The targets with what belongs to them among the `known` rows, and what these say of each."""
    found = dict(targets)
    for row in rows.filter(forgotten.covered(rows, targets)).to_pylist():
        one = found.setdefault(row["recording_id"], Target(row["recording_id"]))
        one.address, one.offset = row["audio_filepath"], row["offset"]
        one.audio_id = row["audio_filepath"] and forgotten.audio_id(row["audio_filepath"])
        whole = targets.get(one.audio_id or "")
        if whole is not None:
            one.asked |= whole.asked
            whole.address = one.address
    return found


def _by_id(name: str, dead: list[Tombstone]) -> list[str]:
    """An id, with what was forgotten along with it."""
    if not _ID.fullmatch(name):
        return []
    return [name, *(t.recording_id for t in dead if t.audio_id == name)]


def _by_address(name: str, rows: pa.Table, dead: list[Tombstone]) -> list[str]:
    """The id of the whole object at an address, where anything is or was known of it."""
    audio = forgotten.audio_id(name)
    if audio is None:
        return []
    before = [t.recording_id for t in dead if audio in (t.recording_id, t.audio_id)]
    there = pc.any(forgotten.covered(rows, [audio])).as_py()
    return sorted({audio, *before}) if before or there else []


def _by_name(name: str, rows: pa.Table) -> list[str]:
    """The audio whose address ends in this name, or the one slice that begins then.

    Raises:
        UserError: several do.
    """
    at = _AT.fullmatch(name)
    plain = at["name"] if at else name
    addresses = pc.unique(rows["audio_filepath"]).drop_null()
    # What `show` cleans of an address is seldom: compared as it stands first.
    hits = addresses.filter(pc.ends_with(addresses, f"/{plain.lstrip('/')}")).to_pylist()
    if not hits:
        hits = [a for a in addresses.to_pylist() if clean(storage.redact(a)).endswith(f"/{plain}")]
    if len(hits) > 1 and len({forgotten.audio_id(a) for a in hits}) > 1:
        raise UserError(
            f"{name!r} fits {len(hits):,} recordings: {_few(hits)}.", "Give more of the address, or an id."
        )
    if at and hits:
        mine = rows.filter(
            pc.is_in(rows["audio_filepath"], value_set=pa.array(hits, pa.string()))
        ).to_pylist()
        slices = [r for r in mine if r["offset"] is not None and clock(r["offset"]) == at["clock"]]
        if len(slices) > 1:
            raise UserError(
                f"{name!r} fits {len(slices)} slices: {_few([r['recording_id'] for r in slices])}.",
                "Give one of these ids.",
            )
        return [r["recording_id"] for r in slices]
    audio = forgotten.audio_id(hits[0]) if hits else None
    return [] if audio is None else [audio]


def _few(names: list[str]) -> str:
    shown = ", ".join(clean(storage.redact(n)) for n in names[:_SHOWN])
    return shown + (", ..." if len(names) > _SHOWN else "")


def loose_ids(
    names: Iterable[str], targets: Mapping[str, Target], rows: pa.Table, tombstones: Iterable[Tombstone]
) -> list[str]:
    """The names that are ids of which neither the `known` rows nor the tombstones know."""
    known = {t.audio_id for t in targets.values()}.union(*((t.recording_id, t.audio_id) for t in tombstones))
    left = [n for n in names if _ID.fullmatch(n) and n not in known]
    there = pc.is_in(pa.array(left, pa.string()), value_set=rows["recording_id"].combine_chunks()).to_pylist()
    return [n for n, is_there in zip(left, there, strict=True) if not is_there]


def unknown(name: str, rows: pa.Table) -> UserError:
    """Nothing of that name; with what is spelled alike."""
    addresses = pc.unique(rows["audio_filepath"]).drop_null()
    last = name.rstrip("/").rpartition("/")[2]
    near = addresses.filter(pc.match_substring(addresses, last, ignore_case=True))[:_SHOWN].to_pylist()
    if not near:
        by_last = {a.rpartition("/")[2]: a for a in addresses[:_MAX_COMPARED].to_pylist()}
        near = [by_last[n] for n in difflib.get_close_matches(last, by_last, _SHOWN)]
    fix = f"Near it: {_few(near)}." if near else "See dawnchorus show for what there is."
    return UserError(f"No recording {clean(name)!r} is here; nothing was done.", fix)
