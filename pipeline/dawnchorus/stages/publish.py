"""Home files: read the committed windows, assemble what is settled, replace the file with one PUT.

One call publishes one home file, whole; whoever repeats it, writes the same bytes' worth of rows. Answers
are folded into rows the same way. Knows no engine and no audio.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dawnchorus import fence, ids, storage
from dawnchorus.assemble import RunFacts, assemble, unreadable
from dawnchorus.duplicates import resolve, resolve_steps
from dawnchorus.ledger import answers_url, chunks_url, settle, transcripts_url
from dawnchorus.plan import Snapshot
from dawnchorus.schema import ANSWER, ANSWERS, CHUNKS, TRANSCRIPTS

PUBLISHED = pa.schema([("home", pa.string()), ("num_rows", pa.int64()), ("num_new", pa.int64())])


@dataclass(frozen=True, slots=True)
class Publish:
    """Callable for `map_batches` over home numbers: one `PUBLISHED` row per home file written."""

    homes: Snapshot
    output: str
    epoch: int
    facts: RunFacts
    metadata: dict[str, str]

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Publish the home files named in column `id`.

        Raises:
            Fenced: another run owns the output by now.
        """
        for home in batch["id"].to_pylist():
            yield self._publish(self.homes.read(home))

    def _publish(self, rows: pa.Table) -> pa.Table:
        home = rows["home"][0].as_py()
        old, said = _read_home(self.output, home)
        new = keep_answers(old, self._assembled(rows.filter(rows["publish"])))
        table = merge(old, new, rows["recording_id"])
        _put_home(self.output, home, self.epoch, table, {**said, **self.metadata})
        return pa.table([[home], [len(table)], [len(new)]], schema=PUBLISHED)

    def _assembled(self, rows: pa.Table) -> pa.Table:
        """Transcript rows of the recordings in `rows`, from their committed windows."""
        parts = sorted(set(pc.list_flatten(rows["parts"]).to_pylist()))
        wanted = rows["recording_id"].combine_chunks()
        tables = [CHUNKS.empty_table()]
        for part in parts:
            table = storage.read_table(storage.join(chunks_url(self.output), part))
            mine = pc.and_(
                pc.is_in(table["recording_id"], value_set=wanted),
                pc.equal(table["fingerprint"], self.facts.fingerprint),
            )
            tables.append(table.filter(mine).cast(CHUNKS))
        chunks = resolve(pa.concat_tables(tables))
        made = [self._row(*found) for found in _by_recording(rows, chunks)]
        return pa.Table.from_pylist(made, schema=TRANSCRIPTS)

    def _row(
        self, recording: dict[str, Any], chunks: list[dict[str, Any]], settled: dict[str, Any]
    ) -> dict[str, Any]:
        if recording["failure"] is not None:
            return unreadable(recording, self.facts)
        end = next(c for c in chunks if c["kind"] == "end")
        row = assemble(recording, end, [c for c in chunks if c["kind"] == "chunk"], self.facts)
        if row["failure"] is not None:
            # Of everything in it that failed: by these `publishing.due` knows it again.
            about = {n: settled[n] for n in ("transient", "attempts")}
            row["failure"] = row["failure"] | about
        return row


@dataclass(frozen=True, slots=True)
class Fold:
    """Callable for `map_batches` over home numbers: puts committed answers into the rows they belong to.

    `wanted` are the answer fingerprints that count, by name; for other names it is the latest answer.
    One `PUBLISHED` row per home file; `num_new` counts the rows that changed, and without any the file
    stays as it is.
    """

    homes: Snapshot
    output: str
    epoch: int
    wanted: Mapping[str, str]
    metadata: dict[str, str]

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Fold into the home files named in column `id`.

        Raises:
            Fenced: another run owns the output by now.
        """
        for number in batch["id"].to_pylist():
            yield self._fold(self.homes.read(number))

    def _fold(self, group: pa.Table) -> pa.Table:
        home = group["home"][0].as_py()
        old, said = _read_home(self.output, home)
        answers = _answers_of(self.output, group)
        column = old["answers"].to_pylist()
        changed = 0
        for i, recording in enumerate(old["recording_id"].to_pylist()):
            if recording in answers:
                spoken = ids.transcript_hash(old["segments"][i].as_py())
                mine = [a for a in answers[recording] if a["transcript_hash"] == spoken]
                folded = fold(column[i] or [], mine, self.wanted)
                changed += folded != column[i]
                column[i] = folded
        if changed:
            at = TRANSCRIPTS.get_field_index("answers")
            table = old.set_column(at, TRANSCRIPTS.field(at), pa.array(column, TRANSCRIPTS.field(at).type))
            _put_home(self.output, home, self.epoch, table, {**said, **self.metadata})
        return pa.table([[home], [len(old)], [changed]], schema=PUBLISHED)


def fold(
    present: Sequence[Mapping[str, Any]], committed: Sequence[Mapping[str, Any]], wanted: Mapping[str, str]
) -> list[dict[str, Any]]:
    """The answers of one transcript, by name: of its committed `answer` rows that of the wanted
    fingerprint, else the latest; what is `present` and not committed stays."""
    by_name: dict[str, list[Mapping[str, Any]]] = {}
    for row in committed:
        by_name.setdefault(row["name"], []).append(row)
    found = {a["name"]: dict(a) for a in present}
    for name, rows in by_name.items():
        best = _chosen(rows, wanted.get(name))
        found[name] = {f.name: best.get(f.name) for f in ANSWER} | {"fingerprint": best["answer_fingerprint"]}
    return [found[name] for name in sorted(found)]


def _chosen(rows: Sequence[Mapping[str, Any]], wanted: str | None) -> Mapping[str, Any]:
    """Of answers of one name: those of the wanted fingerprint, else of the latest; the best of them."""
    prints = {r["answer_fingerprint"] for r in rows}
    print_ = wanted if wanted in prints else max(rows, key=lambda r: r["attempt"])["answer_fingerprint"]
    mine = [r for r in rows if r["answer_fingerprint"] == print_]
    return max(mine, key=lambda r: (r["status"] == "ok", r["attempt"], r["step_id"]))


def keep_answers(old: pa.Table, new: pa.Table) -> pa.Table:
    """`new` rows with the answers of the `old` ones where what was said is the same."""
    asked = old.filter(pc.greater(pc.list_value_length(old["answers"]), 0))
    asked = asked.filter(pc.is_in(asked["recording_id"], value_set=new["recording_id"].combine_chunks()))
    if not len(asked):
        return new
    kept = {
        r["recording_id"]: (ids.transcript_hash(r["segments"]), r["answers"])
        for r in asked.select(["recording_id", "segments", "answers"]).to_pylist()
    }
    rows = new.to_pylist()
    for row in rows:
        spoken, answers = kept.get(row["recording_id"], ("", []))
        row["answers"] = answers if ids.transcript_hash(row["segments"]) == spoken else []
    return pa.Table.from_pylist(rows, schema=TRANSCRIPTS)


def _answers_of(output: str, group: pa.Table) -> dict[str, list[dict[str, Any]]]:
    """Committed `answer` rows of the recordings in `group`."""
    wanted = group["recording_id"].combine_chunks()
    tables = [ANSWERS.empty_table()]
    for part in sorted(set(pc.list_flatten(group["parts"]).to_pylist())):
        table = storage.read_table(storage.join(answers_url(output), part)).cast(ANSWERS)
        mine = pc.is_in(table["recording_id"], value_set=wanted)
        tables.append(table.filter(pc.and_(mine, pc.equal(table["kind"], "answer"))))
    found: dict[str, list[dict[str, Any]]] = {}
    for row in resolve_steps(pa.concat_tables(tables)).to_pylist():
        found.setdefault(row["recording_id"], []).append(row)
    return found


def _read_home(output: str, home: str) -> tuple[pa.Table, dict[str, str]]:
    """A home file as it stands, empty where there is none, and its key-value metadata."""
    url = storage.join(transcripts_url(output), home)
    if not storage.exists(url):
        return TRANSCRIPTS.empty_table(), {}
    table = storage.read_table(url)
    said = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
    return table.cast(TRANSCRIPTS), said


def _put_home(output: str, home: str, epoch: int, table: pa.Table, metadata: dict[str, str]) -> None:
    """Replace a home file with one PUT."""
    fence.check(output, epoch)
    url = storage.join(transcripts_url(output), home)
    storage.put_atomic(url, storage.parquet_bytes(table, metadata))


def _by_recording(
    rows: pa.Table, chunks: pa.Table
) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]]:
    """Each recording with the rows of the one decode that counts, and its row of `settle`."""
    settled = {r["recording_id"]: r for r in settle(chunks).to_pylist()}
    held: dict[str, list[dict[str, Any]]] = {i: [] for i in settled}
    for chunk in chunks.to_pylist():
        found = settled.get(chunk["recording_id"])
        if found is not None and found["decode_id"] == chunk["decode_id"]:
            held[chunk["recording_id"]].append(chunk)
    for recording in rows.to_pylist():
        name = recording["recording_id"]
        yield recording, held.get(name, []), settled.get(name, {})


def merge(old: pa.Table, new: pa.Table, order: pa.ChunkedArray) -> pa.Table:
    """`old` with the rows of `new` in place of those with the same id, sorted as in `order`; rows of
    recordings that `order` does not name come first, as they stood."""
    kept = old.filter(
        pc.invert(pc.is_in(old["recording_id"], value_set=new["recording_id"].combine_chunks()))
    )
    table = pa.concat_tables([kept, new])
    position = pc.fill_null(pc.index_in(table["recording_id"], value_set=order.combine_chunks()), -1)
    return table.take(pc.sort_indices(pa.table({"p": position}), sort_keys=[("p", "ascending")]))
