"""From engine calls to attempts, workers and rtfx over time. Pure arithmetic on numpy arrays.

Times of day are seconds since the epoch; rtfx is audio seconds per wall second, where speech is scaled to
audio (pauses included) by one factor for the whole run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dawnchorus.records import Seconds

_STEPS = 96
_MAX_WORKERS = 1_000


def attempts(
    windows: pa.Table,
    ends: Mapping[int, int],
    begun: Mapping[int, float],
    until: float,
    scale: float,
    ended: Mapping[int, float] | None = None,
) -> list[dict[str, Any]]:
    """One entry per attempt that began or committed, in order. `begun`: when each took the output over;
    the last of them lasts `until` now, the others until their last commit, or what `ended` says of them."""
    found = []
    for number in sorted({*begun, *windows["attempt"].to_pylist(), *ends}):
        mine = windows.filter(pc.equal(windows["attempt"], number))
        starts, stops = _spans(mine)
        first = float(starts.min()) if len(mine) else None
        start = begun.get(number, first if first is not None else until)
        stop = float(stops.max()) if len(mine) else start
        if begun and number == max(begun):
            stop = max(stop, until)
        else:
            stop = max(stop, (ended or {}).get(number, stop))
        audio = _sum(mine, "speech_seconds") * scale
        found.append(
            {
                "attempt": number,
                "started_at": start,
                "ended_at": max(stop, start),
                "wall_seconds": max(stop - start, 0.0),
                "num_chunks": int(_sum(mine, "num_chunks")),
                "num_recordings": int(ends.get(number, 0)),
                "audio_seconds": audio,
                "engine_seconds": _sum(mine, "engine_seconds"),
                "wait_seconds": _sum(mine, "wait_seconds"),
                "rtfx": audio / (stop - start) if stop > start else None,
            }
        )
    return found


def workers(windows: pa.Table) -> list[dict[str, Any]]:
    """Engine and waiting time of each engine process, busiest first, at most 1,000."""
    grouped = windows.group_by("worker").aggregate(
        [("engine_seconds", "sum"), ("wait_seconds", "sum"), ("num_chunks", "sum"), ("started_at", "count")]
    )
    found = [
        {
            "worker": row["worker"],
            "engine_seconds": row["engine_seconds_sum"],
            "wait_seconds": row["wait_seconds_sum"],
            "idle_share": share(row["wait_seconds_sum"], row["engine_seconds_sum"]),
            "num_chunks": row["num_chunks_sum"],
            "num_windows": row["started_at_count"],
        }
        for row in grouped.sort_by([("engine_seconds_sum", "descending")]).slice(0, _MAX_WORKERS).to_pylist()
    ]
    return found


def share(part: float, rest: float) -> float:
    """`part` of `part + rest`; 0 of nothing."""
    return part / (part + rest) if part + rest > 0 else 0.0


def over_time(windows: pa.Table, tries: Sequence[Mapping[str, Any]], scale: float) -> list[dict[str, Any]]:
    """rtfx in equal steps of working time: the attempts one after the other, without the gaps between.

    Every call's audio is spread evenly over the call.
    """
    tries = [t for t in tries if t["num_chunks"] and t["wall_seconds"] > 0]
    total = sum(t["wall_seconds"] for t in tries)
    series = []
    for attempt in tries:
        mine = windows.filter(pc.equal(windows["attempt"], attempt["attempt"]))
        starts, stops = _spans(mine)
        audio = mine["speech_seconds"].to_numpy() * scale
        num = max(1, round(attempt["wall_seconds"] / total * _STEPS))
        step = attempt["wall_seconds"] / num
        edges = attempt["started_at"] + np.arange(num + 1) * step
        done = np.array([_done_by(edge, starts, stops, audio) for edge in edges])
        rtfx = [round(float(r), 3) for r in np.diff(done) / step]
        series.append({"attempt": attempt["attempt"], "step_seconds": step, "rtfx": rtfx})
    return series


def _done_by(
    edge: float, starts: NDArray[np.float64], stops: NDArray[np.float64], audio: NDArray[np.float64]
) -> float:
    part = np.clip((edge - starts) / np.maximum(stops - starts, 1e-9), 0.0, 1.0)
    return float((part * audio).sum())


def _spans(windows: pa.Table) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    starts = windows["started_at"].to_numpy()
    return starts, starts + windows["engine_seconds"].to_numpy()


def _sum(table: pa.Table, column: str) -> Seconds:
    return float(pc.sum(table[column]).as_py() or 0.0)
