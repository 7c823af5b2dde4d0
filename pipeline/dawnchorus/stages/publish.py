"""Home files: read the committed windows, assemble what is settled, replace the file with one PUT.

One call publishes one home file, whole; whoever repeats it, writes the same bytes' worth of rows. Knows
no engine and no audio.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dawnchorus import fence, storage
from dawnchorus.assemble import RunFacts, assemble, unreadable
from dawnchorus.ledger import chunks_url, resolve, settle, transcripts_url
from dawnchorus.plan import Snapshot
from dawnchorus.schema import CHUNKS, TRANSCRIPTS

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
        new = self._assembled(rows.filter(rows["publish"]))
        url = storage.join(transcripts_url(self.output), home)
        old = storage.read_table(url).cast(TRANSCRIPTS) if storage.exists(url) else TRANSCRIPTS.empty_table()
        table = merge(old, new, rows["recording_id"])
        fence.check(self.output, self.epoch)
        storage.put_atomic(url, storage.parquet_bytes(table, self.metadata))
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
        made = [self._row(r, chunks_of) for r, chunks_of in _by_recording(rows, chunks)]
        return pa.Table.from_pylist(made, schema=TRANSCRIPTS)

    def _row(self, recording: dict[str, Any], chunks: list[dict[str, Any]]) -> dict[str, Any]:
        if recording["failure"] is not None:
            return unreadable(recording, self.facts)
        end = next(c for c in chunks if c["kind"] == "end")
        return assemble(recording, end, [c for c in chunks if c["kind"] == "chunk"], self.facts)


def _by_recording(rows: pa.Table, chunks: pa.Table) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Each recording with the rows of the one decode that counts."""
    settled = settle(chunks)
    decode = dict(zip(settled["recording_id"].to_pylist(), settled["decode_id"].to_pylist(), strict=True))
    held: dict[str, list[dict[str, Any]]] = {}
    for chunk in chunks.to_pylist():
        if decode.get(chunk["recording_id"]) == chunk["decode_id"]:
            held.setdefault(chunk["recording_id"], []).append(chunk)
    for recording in rows.to_pylist():
        yield recording, held.get(recording["recording_id"], [])


def merge(old: pa.Table, new: pa.Table, order: pa.ChunkedArray) -> pa.Table:
    """`old` with the rows of `new` in place of those with the same id, sorted as in `order`; rows of
    recordings that `order` does not name come first, as they stood."""
    kept = old.filter(
        pc.invert(pc.is_in(old["recording_id"], value_set=new["recording_id"].combine_chunks()))
    )
    table = pa.concat_tables([kept, new])
    position = pc.fill_null(pc.index_in(table["recording_id"], value_set=order.combine_chunks()), -1)
    return table.take(pc.sort_indices(pa.table({"p": position}), sort_keys=[("p", "ascending")]))
