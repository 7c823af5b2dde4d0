"""`dawnchorus forget`: takes recordings out of everything an output holds, and keeps them out.

What is to go is written down first, as ids, in `forgotten.jsonl`; then it goes, and only when nothing is
found any more do the lines say so. Whoever is killed on the way and repeats it, finishes. Fenced like a run.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from dawnchorus import fence, forgotten, storage
from dawnchorus.errors import UserError
from dawnchorus.forget import naming, sweep
from dawnchorus.forget.naming import Target
from dawnchorus.forgotten import Tombstone
from dawnchorus.wording import many

_MAX_SWEEPS = 5


@dataclass(frozen=True, slots=True)
class Erasure:
    """What would be forgotten: `targets` by id, `begun` ids of an erasure that was cut off, the rows of both
    by table, and how many other recordings of the same audio stay."""

    output: str
    targets: dict[str, Target]
    begun: frozenset[str]
    counts: Counter[str]
    num_staying: int

    @property
    def is_done(self) -> bool:
        """Whether all of it is forgotten already, and nothing is left."""
        return not self.counts.total() and not self.begun and not self.targets


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What went: rows by table, notes and reports that changed, and where tombstones lie."""

    num_recordings: int
    counts: Counter[str]
    num_notes: int
    num_reports: int
    place: str

    def sentence(self) -> str:
        """For the person who asked for it."""
        tables = ", ".join(f"{n:,} of {t}" for t, n in self.counts.items() if n) or "none were left"
        return (
            f"{many(self.num_recordings, 'id')} forgotten; rows removed: {tables}. "
            f"Looked again: nothing is left. {many(self.num_reports, 'report')} made anew."
        )


OUT_OF_REACH = (
    "Not reached from here: the audio itself, your manifest, exports and copies you made, logs and messages "
    "of runs, and older versions or backups that the bucket or disk keeps."
)


def plan(output: str, names: Sequence[str]) -> Erasure:
    """What forgetting these recordings would take away; changes nothing.

    Raises:
        UserError: there is no run, or a name fits nothing or too much.
    """
    url = storage.absolute(output)
    if not any(storage.is_folder(storage.join(url, n)) for n in ("_runs", "transcripts", "chunks")):
        raise UserError(f"There is no run in {output}.", "Give the output folder of a run.")
    rows, tombstones = naming.known(url), forgotten.read(url)
    targets = naming.resolve(names, rows, tombstones)
    for one in naming.loose_ids(names, targets, rows, tombstones):
        # Its manifest may be gone: then only the tables can say that there is such a recording.
        if not sweep.count(url, pa.array([one])).total():
            raise naming.unknown(one, rows)
    done = {t.recording_id for t in tombstones if t.forgotten_at is not None}
    begun = frozenset(t.recording_id for t in tombstones) - done
    counts = sweep.count(url, pa.array(sorted({*targets, *begun}), pa.string()))
    # What is done and was left by nobody is not shown again.
    fresh = targets if counts.total() else {i: t for i, t in targets.items() if i not in done}
    return Erasure(url, fresh, begun, counts, _num_staying(targets, rows))


def _num_staying(targets: dict[str, Target], rows: pa.Table) -> int:
    """Recordings that share the audio of a target and are none."""
    audio = {t.audio_id for t in targets.values() if t.audio_id}
    together = rows.filter(forgotten.covered(rows, audio))["recording_id"].to_pylist()
    return len(set(together) - targets.keys())


def forget(erasure: Erasure, take_over: bool = False) -> Forgotten:
    """Do it.

    Raises:
        OutputOwned: a run owns the output.
        Fenced: a run took it over meanwhile; the same command finishes.
    """
    url = erasure.output
    owner = fence.Fence(url, "forget")
    owner.acquire(take_over)

    def check() -> None:
        fence.check(url, owner.epoch)

    with owner:
        # A run may have been at work since the plan was made.
        rows, tombstones = naming.known(url), forgotten.read(url)
        asked = {**erasure.targets, **{i: Target(i) for i in _begun(tombstones)}}
        targets = naming.spread(asked, rows)
        tombstones = _with(tombstones, targets)
        check()
        forgotten.write(url, tombstones)
        num_notes = sweep.notes(url, targets, _addresses(targets, rows), check)
        counts = _sweep(url, pa.array(sorted(targets), pa.string()), check)
        storage.remove_leftovers(url)
        num_reports = sweep.reports(url, check)
        check()
        now = time.time()
        forgotten.write(url, [replace(t, forgotten_at=t.forgotten_at or now) for t in tombstones])
    return Forgotten(len(targets), counts, num_notes, num_reports, storage.shown(forgotten.file_url(url)))


def _begun(tombstones: Iterable[Tombstone]) -> list[str]:
    return [t.recording_id for t in tombstones if t.forgotten_at is None]


def _with(tombstones: Iterable[Tombstone], targets: dict[str, Target]) -> list[Tombstone]:
    """The tombstones with those of `targets`, which nobody has carried out yet."""
    found = {t.recording_id: t for t in tombstones}
    for one in targets.values():
        old = found.get(one.recording_id, Tombstone(one.recording_id))
        asked = tuple(sorted({*old.asked, *one.asked}))
        found[one.recording_id] = Tombstone(one.recording_id, one.audio_id or old.audio_id, asked, None)
    return list(found.values())


def _addresses(targets: dict[str, Target], rows: pa.Table) -> set[str]:
    """The addresses of the targets that no recording has that stays."""
    mine = pc.is_in(rows["recording_id"], value_set=pa.array(list(targets), pa.string()))
    staying = set(rows.filter(pc.invert(mine))["audio_filepath"].to_pylist())
    return {t.address for t in targets.values() if t.address} - staying


def _sweep(url: str, ids: pa.Array, check: sweep.Check) -> Counter[str]:
    """Sweep until a look finds nothing: a writer that was fenced may just have been in its last PUT.

    Raises:
        UserError: something goes on writing.
    """
    total = Counter[str]()
    for _ in range(_MAX_SWEEPS):
        found = sweep.rows(url, ids, sweep.TABLES, check)
        total += found
        if not found.total():
            return total
    raise UserError("Rows keep coming back: something else writes there.", "Stop it, and repeat this.")


def allow_again(output: str, names: Sequence[str], take_over: bool = False) -> int:
    """Let the next run transcribe these again; brings nothing back. Returns how many ids.

    Raises:
        UserError: one of them was not forgotten, or its whole audio was.
        OutputOwned: a run owns the output.
    """
    url = storage.absolute(output)
    owner = fence.Fence(url, "forget")
    tombstones = forgotten.read(url)
    named = naming.resolve_forgotten(names, tombstones)
    owner.acquire(take_over)
    with owner:
        tombstones = forgotten.read(url)
        kept = [t for t in tombstones if t.recording_id not in named]
        fence.check(url, owner.epoch)
        forgotten.write(url, kept)
    return len(tombstones) - len(kept)
