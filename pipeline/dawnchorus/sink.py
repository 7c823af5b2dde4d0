"""A window of results -> one committed part: deterministic name, one atomic PUT, fenced.

The commit happens inside the write task, so what a crash costs is the windows in flight. Knows nothing
of engines or audio.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from ray.data.block import Block, BlockAccessor
from ray.data.datasource import Datasink

from dawnchorus import fence, ids, storage
from dawnchorus.records import Seconds
from dawnchorus.schema import CHUNKS


class ChunkSink(Datasink[None]):
    """Writes windows of `schema.CHUNKS` rows below `<output>/chunks/`.

    A replayed window has the same chunk ids, hence the same name: it overwrites itself. `tally`, if
    given, is a Ray actor handle whose `add` is told what was committed.
    """

    def __init__(
        self, output: str, epoch: int, fingerprint: str, metadata: dict[str, str], tally: Any = None
    ) -> None:
        self.output = output
        self.epoch = epoch
        self.fingerprint = fingerprint
        self.metadata = metadata
        self.tally = tally

    def write(self, blocks: Iterable[Block], ctx: Any) -> None:
        """Commit the rows of one write task as one part.

        Raises:
            Fenced: another run owns the output by now; nothing was written.
        """
        tables = [BlockAccessor.for_block(b).to_arrow() for b in blocks]
        table = pa.concat_tables(
            [t.select(CHUNKS.names).cast(CHUNKS) for t in tables if len(t)] or [CHUNKS.empty_table()]
        )
        if not len(table):
            return
        name = f"part-{ids.part_id(self.fingerprint, table['chunk_id'].to_pylist())}.parquet"
        fence.check(self.output, self.epoch)
        storage.put_atomic(
            storage.join(self.output, "chunks", name), storage.parquet_bytes(table, self.metadata)
        )
        if self.tally is not None:
            self.tally.add.remote(*summary(table))


def summary(table: pa.Table) -> tuple[dict[str, float], dict[str, Seconds], dict[str, Seconds]]:
    """What a committed window adds to the progress: counts, how far each recording has come, and the
    whole length of those that ended in it (seconds)."""
    chunk = table.filter(pc.equal(table["kind"], "chunk"))
    end = table.filter(pc.equal(table["kind"], "end"))
    counts = {
        "num_chunks": len(chunk),
        "num_failed": pc.sum(pc.equal(end["status"], "failed")).as_py() or 0,
        "engine_seconds": pc.sum(pc.struct_field(chunk["timing"], "engine_seconds")).as_py() or 0.0,
    }
    reached = chunk.group_by("recording_id").aggregate([("end", "max")])
    ended = {
        row["recording_id"]: max((c["decoded_samples"] for c in row["channels"] or ()), default=0)
        / row["sampling_rate"]
        for row in end.select(["recording_id", "channels", "sampling_rate"]).to_pylist()
    }
    return (
        counts,
        dict(zip(reached["recording_id"].to_pylist(), reached["end_max"].to_pylist(), strict=True)),
        ended,
    )
