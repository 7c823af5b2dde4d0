"""A window of results -> one committed part: deterministic name, one atomic PUT, fenced.

The commit happens inside the write task, so what a crash costs is the windows in flight. Knows nothing
of engines or audio.
"""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.data.block import Block, BlockAccessor
from ray.data.datasource import Datasink
from ray.data.datasource.datasink import WriteResult

from dawnchorus import fence, ids, logs, metrics, storage, tracing
from dawnchorus.records import Seconds
from dawnchorus.schema import ANSWERS, CHUNKS


class _PartSink(Datasink[None]):
    """Writes windows of rows as parts below one folder of the output.

    A replayed window has the same ids, hence the same name: it overwrites itself. `tally`, if given, is a
    Ray actor handle whose `add` is told what was committed.
    """

    folder: ClassVar[str]
    schema: ClassVar[pa.Schema]
    keys: ClassVar[tuple[str, ...]]
    """Columns that together name a row; the part is named after them."""

    def __init__(
        self, output: str, epoch: int, fingerprint: str, metadata: dict[str, str], tally: Any = None
    ) -> None:
        self.output = output
        self.epoch = epoch
        self.fingerprint = fingerprint
        self.metadata = metadata
        self.tally = tally
        self.traced = tracing.enabled()
        self.num_rows = 0

    def write(self, blocks: Iterable[Block], ctx: Any) -> None:
        """Commit the rows of one write task as one part.

        Raises:
            Fenced: another run owns the output by now; nothing was written.
        """
        tables = [BlockAccessor.for_block(b).to_arrow() for b in blocks]
        table = pa.concat_tables(
            [t.select(self.schema.names).cast(self.schema) for t in tables if len(t)]
            or [self.schema.empty_table()]
        )
        if not len(table):
            return
        names = pc.binary_join_element_wise(*(table[k] for k in self.keys), "/").to_pylist()
        name = f"part-{ids.part_id(self.fingerprint, names)}.parquet"
        fence.check(self.output, self.epoch)
        storage.put_atomic(
            storage.join(self.output, self.folder, name), storage.parquet_bytes(table, self.metadata)
        )
        run_id = table["run_id"][0].as_py()
        metrics.tell(run_id, self.observed(table))
        if logs.enabled():
            self.log(table, run_id, name)
        if self.tally is not None:
            windows = tracing.windows_of(table, time.time()) if self.traced else []
            # Heard before the graph ends: nothing orders calls of two processes. A tally that is gone is no
            # fault of the window.
            ray.wait([self.tally.add.remote(*self.told(table), windows)], timeout=5)

    def on_write_complete(self, write_result: WriteResult[None]) -> None:
        """Keep how many rows the graph committed, in the process that ran it."""
        self.num_rows = write_result.num_rows

    def told(self, table: pa.Table) -> tuple[Any, ...]:
        """What `tally.add` is told of a committed window."""
        raise NotImplementedError

    def observed(self, table: pa.Table) -> list[metrics.Observation]:
        """What Prometheus is told of a committed window."""
        raise NotImplementedError

    def log(self, table: pa.Table, run_id: str, part: str) -> None:
        """What the log is told of a committed window: the window, and each row that failed."""
        about = {"run_id": run_id, "part": part, "worker": socket.gethostname()}
        failed = table.filter(pc.is_valid(table["failure"]))
        logs.event("window_committed", **about, num_rows=len(table), num_failed=len(failed))
        for row in failed.filter(pc.not_equal(failed["kind"], "end")).to_pylist():
            failure = row["failure"]
            named = {k: row.get(k) for k in ("recording_id", "chunk_id", "start", "end", "step_id", "name")}
            why = {k: failure[k] for k in ("stage", "kind", "transient", "attempts")}
            logs.warning("row_failed", failure["message"], run_id=run_id, **named, **why)


class ChunkSink(_PartSink):
    """Windows of `schema.CHUNKS` rows, below `<output>/chunks/`."""

    folder, schema, keys = "chunks", CHUNKS, ("chunk_id",)

    def observed(self, table: pa.Table) -> list[metrics.Observation]:
        """See `metrics.of_window`."""
        return metrics.of_window(table)

    def told(self, table: pa.Table) -> tuple[Any, ...]:
        """See `summary`."""
        return summary(table)

    def log(self, table: pa.Table, run_id: str, part: str) -> None:
        """The engine's cuts too: each chunk that it split and did again."""
        super().log(table, run_id, part)
        for row in table.filter(pc.greater(table["num_splits"], 0)).to_pylist():
            named = {k: row[k] for k in ("recording_id", "chunk_id", "start", "end", "num_splits")}
            logs.event("chunk_redone", run_id=run_id, **named)


class AnswerSink(_PartSink):
    """Windows of `schema.ANSWERS` rows, below `<output>/answers/`."""

    # Two recordings that say the same have the same steps.
    folder, schema, keys = "answers", ANSWERS, ("recording_id", "step_id")

    def observed(self, table: pa.Table) -> list[metrics.Observation]:
        """See `metrics.of_answers`."""
        return metrics.of_answers(table)

    def told(self, table: pa.Table) -> tuple[Any, ...]:
        """See `answer_summary`."""
        return (answer_summary(table),)


def summary(
    table: pa.Table,
) -> tuple[dict[str, float], dict[str, Seconds], dict[str, Seconds], dict[str, int]]:
    """What a committed window adds to the progress: counts, how far each recording has come, the whole
    length of those that ended in it (seconds), and the failures of those that failed, by kind."""
    chunk = table.filter(pc.equal(table["kind"], "chunk"))
    end = table.filter(pc.equal(table["kind"], "end"))
    failed = end.filter(pc.equal(end["status"], "failed"))
    counts = {
        "num_chunks": len(chunk),
        "num_failed": len(failed),
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
        dict(Counter(pc.struct_field(failed["failure"], "kind").to_pylist())),
    )


def answer_summary(table: pa.Table) -> dict[str, float]:
    """What a committed window of answers adds to the progress."""
    answer = pc.equal(table["kind"], "answer")
    failed = pc.and_(answer, pc.equal(table["status"], "failed"))
    return {
        "num_steps": len(table),
        "num_answers": pc.sum(answer).as_py() or 0,
        "num_failed": pc.sum(failed).as_py() or 0,
        "num_tokens": pc.sum(table["num_tokens"]).as_py() or 0,
    }
