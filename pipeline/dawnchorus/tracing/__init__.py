"""OpenTelemetry traces of a run, where OTEL_EXPORTER_OTLP_ENDPOINT says who collects them; nothing elsewhere,
not even an import.

All spans are made in the driver: those of windows from what was committed, so that a trace is as long as the
tables and no worker waits for a collector. A collector that is away costs spans, and seconds at the end.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from dawnchorus import installing
from dawnchorus.errors import EngineUnavailable
from dawnchorus.storage import redact

if TYPE_CHECKING:
    from dawnchorus.tracing.otlp import Traces

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_MOST_FAILURES = 32
"""Failures that one window's span tells of; all of them are counted."""
_traces: Traces | None = None


def enabled() -> bool:
    """Whether somebody collects traces."""
    return (
        any(os.environ.get(e) for e in _ENDPOINTS)
        and os.environ.get("OTEL_SDK_DISABLED", "").lower() != "true"
    )


@contextmanager
def root(name: str) -> Iterator[None]:
    """A trace: its first span, around all that a command does. Also a decorator.

    Raises:
        EngineUnavailable: traces are wanted, and the extra `otel` is not installed.
    """
    global _traces
    if not enabled():
        yield
        return
    try:
        from dawnchorus.tracing.otlp import Traces
    except ImportError as e:
        raise EngineUnavailable(
            f"OTEL_EXPORTER_OTLP_ENDPOINT is set, and {e.name} is not installed.",
            f"{installing.command('otel')}, or unset it.",
        ) from e
    _traces = Traces()
    try:
        with _traces.span(name, is_root=True):
            yield
    finally:
        closing, _traces = _traces, None
        closing.close()


@contextmanager
def span(name: str) -> Iterator[None]:
    """A span below the current one, or the root's in a thread of its own. Also a decorator."""
    if _traces is None:
        yield
        return
    with _traces.span(name):
        yield


def about(**attributes: Any) -> None:
    """Attributes of the whole trace, on its root."""
    if _traces is not None:
        _traces.describe(_traces.root, attributes)


def describe(**attributes: Any) -> None:
    """Attributes of the current span."""
    if _traces is not None:
        _traces.describe(_traces.current(), attributes)


def windows(found: Iterable[dict[str, Any]]) -> None:
    """Spans of committed windows (`windows_of`) below the current span, at the times they were worked on."""
    if _traces is not None:
        for window in found:
            _traces.window(**window)


def windows_of(table: pa.Table, now: float) -> list[dict[str, Any]]:
    """What a span needs of each engine call in a committed part, read from its rows; times since the epoch.
    The first tells of all failures. A part in which no engine worked (recordings that ended or failed)
    is a moment, `now`.
    """
    timing = table["timing"].combine_chunks()
    spent = pc.struct_field(timing, "engine_seconds")
    begun = pc.if_else(pc.is_valid(spent), pc.struct_field(timing, "started_at"), now)
    worker = pc.fill_null(pc.struct_field(timing, "worker"), "")
    audio = pc.subtract(table["end"], table["start"]) if "end" in table.column_names else [0.0] * len(table)
    wait = pc.struct_field(timing, "wait_seconds")
    columns: dict[str, Any] = {"worker": worker, "begun": begun, "spent": spent, "wait": wait, "audio": audio}
    columns["works"] = pc.is_valid(spent)
    sums = [("spent", "sum"), ("wait", "sum"), ("audio", "sum"), ("works", "sum")]
    calls = pa.table(columns).group_by(["worker", "begun"]).aggregate(sums).to_pylist()
    calls = [c for c in calls if c["works_sum"]] or calls[:1]
    failures = table.filter(pc.is_valid(table["failure"]))
    made = [
        {
            "start": call["begun"],
            "end": call["begun"] + (call["spent_sum"] or 0.0),
            "attributes": {
                "worker": call["worker"],
                "num_rows": call["works_sum"],
                "engine_seconds": call["spent_sum"] or 0.0,
                "wait_seconds": call["wait_sum"] or 0.0,
                "audio_seconds": call["audio_sum"] or 0.0,
            },
            "failures": [],
        }
        for call in calls
    ]
    made[0]["attributes"]["num_failed"] = len(failures)
    made[0]["failures"] = [
        {
            "recording_id": row["recording_id"],
            **{k: row["failure"][k] for k in ("stage", "kind", "transient")},
        }
        | {"message": redact(row["failure"]["message"])}
        for row in failures.slice(0, _MOST_FAILURES).select(["recording_id", "failure"]).to_pylist()
    ]
    return made
