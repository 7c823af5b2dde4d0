"""Everything the report says, as one JSON-able dict, from committed rows and what the run saved.

Works without the process that ran: all of it can be gathered again tomorrow. Knows no HTML.
"""

from __future__ import annotations

import functools
import json
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dawnchorus import cost, earlier, forgotten, storage
from dawnchorus.config import CostConfig
from dawnchorus.reconcile import Reconciliation
from dawnchorus.records import Seconds
from dawnchorus.report import answers, quotes, timing, words
from dawnchorus.report.accuracy import Accuracy
from dawnchorus.report.tables import (
    CHUNK_SECONDS,
    MAX_FAILURES,
    WORDS_PER_MINUTE,
    Rows,
    Work,
    among,
    manifest_keys,
    num_elsewhere,
    read_work,
    rows_of_run,
)
from dawnchorus.report.typed import commands, without_secrets

REPORT_VERSION = 2
"""Of the shape of `report.json`."""
_SLOWEST = 8


def gather(
    output: str,
    run_id: str,
    found: Reconciliation,
    started: float,
    cpus_per_engine: float | None = None,
    gpus_per_engine: float | None = None,
    accelerator: str | None = None,
    now: float | None = None,
    until: float | None = None,
) -> dict[str, Any]:
    """The report of a run whose tables `reconcile` found as `found`; the others as in `report.make`."""
    now = time.time() if now is None else now
    url = storage.join(output, "_runs", run_id)
    about = json.loads(storage.read_bytes(storage.join(url, "run.json")))
    wanted = manifest_keys(url)
    work = read_work(output, run_id, wanted)
    slowest = np.argsort(-work.engine_seconds)[:_SLOWEST]
    rows, accuracy, said = Rows(), Accuracy(), quotes.Quotes()
    keep_old = about["config"]["resume"]["other_fingerprint"] == "keep-old"
    for batch, at in rows_of_run(output, wanted, None if keep_old else about["fingerprint"]):
        rows.add(batch, at, slowest)
        accuracy.add(batch)
        said.add(batch)
    spent = _time(output, run_id, work, rows, started, until or now)
    ours = functools.partial(among, wanted)
    report = {
        "report_version": REPORT_VERSION,
        "run_id": run_id,
        "made_at": now,
        "output": storage.readable(output),
        "totals": {
            **_totals(found, rows, about, (forgotten.saved(url) or (0, 0))[1]),
            "elsewhere": num_elsewhere(output, wanted) if earlier.reading_of(about, url).whole else 0,
        },
        "coverage": {"audio": rows.audio_seconds, **rows.coverage},
        "failures": _failures(rows),
        "flags": said.flags(),
        "transcripts": said.transcripts,
        "wer": accuracy.result(),
        "answers": answers.gather(output, ours),
        **spent,
        "chunk_seconds": _histogram(CHUNK_SECONDS, work.chunk_counts),
        "words_per_minute": _histogram(WORDS_PER_MINUTE, rows.pace_counts),
        "longest": rows.longest,
        "slowest": _slowest(rows, work, slowest),
        "reconciliation": {"num_problems": found.num_problems, "problems": list(found.problems)},
        "cost": _cost(about, spent["time"], cpus_per_engine, gpus_per_engine, accelerator),
        "model": _model(about),
        "fingerprint": about["fingerprint"],
        "config": without_secrets(about["config"]),
        "commands": commands(about["config"], output),
    }
    return report | {"headline": words.headline(report)}


def _totals(found: Reconciliation, rows: Rows, about: dict[str, Any], num_forgotten: int) -> dict[str, int]:
    return {
        "recordings": found.num_recordings,
        "ok": found.num_ok,
        "empty": found.num_empty,
        "failed": found.num_failed,
        "partial": found.num_partial,
        "missing": found.num_missing,
        "forgotten": num_forgotten,
        "transient": found.num_transient,
        "duplicates": about["num_duplicates"],
        "bad_lines": about["num_bad"],
        "words": rows.num_words,
    }


def _failures(rows: Rows) -> dict[str, Any]:
    kinds = [
        {
            "stage": key[0],
            "kind": key[1],
            "transient": key[2],
            "partial": key[3],
            "num": num,
            "hint": words.hint(key[1], key[2]),
            "examples": [_short(e) for e in rows.examples.get(key, ())],
        }
        for key, num in sorted(rows.kinds.items(), key=lambda k: (k[0][3], -k[1], k[0]))
    ]
    return {
        "num": rows.kinds.total(),
        "kinds": kinds,
        "rows": [_short(r) for r in sorted(rows.failures, key=lambda r: (r["kind"], r["audio_filepath"]))],
        "max_rows": MAX_FAILURES,
    }


def _short(row: dict[str, Any]) -> dict[str, Any]:
    return row | {n: words.cut(row[n], 1_000) for n in ("audio_filepath", "message") if n in row}


def _time(output: str, run_id: str, work: Work, rows: Rows, started: float, until: float) -> dict[str, Any]:
    """Wall, engine, waiting and decoding time: in sum, by attempt, by worker, and along the way."""
    speech = rows.coverage.get("transcribed", 0.0) + rows.coverage.get("failed", 0.0)
    scale = rows.audio_seconds / speech if speech else 1.0
    begun = _begun(output, run_id) or {1: started}
    ended = _ended(storage.join(output, "_runs", run_id))
    tries = timing.attempts(work.windows, work.ends_of_attempt, begun, until, scale, ended)
    engine = sum(t["engine_seconds"] for t in tries)
    wait = sum(t["wait_seconds"] for t in tries)
    # A command that found nothing to do is no work: it must not make the run slower.
    worked = [t for t in tries if t["num_chunks"] or t["num_recordings"]]
    wall = sum(t["wall_seconds"] for t in worked or tries)
    audio = sum(t["audio_seconds"] for t in tries)
    crew = timing.workers(work.windows)
    return {
        "time": {
            "started_at": tries[0]["started_at"],
            "ended_at": until,
            "wall_seconds": wall,
            "audio_seconds": audio,
            "rtfx": audio / wall if wall else None,
            "engine_rtfx": audio / engine if engine else None,
            "engine_seconds": engine,
            "wait_seconds": wait,
            "idle_share": timing.share(wait, engine),
            "decode_seconds": work.decode_seconds,
            "decode_share": timing.share(work.decode_seconds, engine),
            "num_workers": len(crew),
            "num_chunks": work.num_chunks,
            "num_failed_chunks": work.num_failed_chunks,
            "audio_per_speech": scale,
        },
        "attempts": tries,
        "workers": crew,
        "rtfx_over_time": timing.over_time(work.windows, tries, scale),
    }


def _ended(run_url: str) -> dict[int, float]:
    """When the attempts ended that the run's last report knew: none of them gets shorter by a later one."""
    url = storage.join(run_url, "report.json")
    known = json.loads(storage.read_bytes(url))["attempts"] if storage.exists(url) else ()
    return {t["attempt"]: t["ended_at"] for t in known}


def _begun(output: str, run_id: str) -> dict[int, float]:
    """When each attempt of the run took the output over."""
    begun = {}
    for info in storage.list_files(storage.join(output, "_runs", "_fence"), ".json"):
        owner = json.loads(storage.read_bytes(info.url))
        if owner["run_id"] == run_id:
            begun[int(owner["epoch"])] = float(owner["time"])
    return begun


def _histogram(edges: NDArray[Any], counts: NDArray[np.int64]) -> dict[str, Any]:
    """Counts between edges, from the first bin that holds something to the last; the last bin of all
    holds what is beyond it as well."""
    used = np.flatnonzero(counts)
    first, last = (int(used.min()), int(used.max()) + 1) if len(used) else (0, 0)
    return {
        "edges": [float(e) for e in edges[first : last + 1]],
        "counts": [int(c) for c in counts[first:last]],
        "open_ended": last == len(counts),
    }


def _slowest(rows: Rows, work: Work, slowest: NDArray[np.int64]) -> list[dict[str, Any]]:
    """Recordings that kept the engine longest, with their own speed."""
    found = []
    for i in slowest:
        row, spent = rows.picked.get(int(i)), float(work.engine_seconds[i])
        if row is not None and spent > 0:
            rtfx = row["duration"] / spent if row["duration"] else None
            found.append({**_short(row), "engine_seconds": spent, "rtfx": rtfx})
    return found


def _cost(
    about: dict[str, Any],
    spent: dict[str, Any],
    cpus: float | None,
    gpus: float | None,
    accelerator: str | None,
) -> dict[str, Any]:
    """Hours that somebody pays for, those of the engines as long as they were held, and their price."""
    held: Seconds = spent["engine_seconds"] + spent["wait_seconds"]
    gpu_hours = None if gpus is None else held / 3600 * gpus
    made: dict[str, Any] = {
        "engine": {"cpus": cpus, "gpus": gpus, "accelerator": accelerator},
        "engine_hours": held / 3600,
        "gpu_hours": gpu_hours,
        "cpu_hours": None if cpus is None else (spent["decode_seconds"] + held * cpus) / 3600,
    }
    config = CostConfig.model_validate(about["config"].get("cost", {}))
    price = cost.price(config, accelerator) if gpu_hours else None
    if price is None or gpu_hours is None:
        return made | {"dollars": None, "per_1000_hours": None, "said": []}
    audio: Seconds = spent["audio_seconds"]
    bill = cost.bill(config, price, gpu_hours, audio)
    said = cost.sentences(bill, audio, gpu_hours)
    return made | {"dollars": bill.dollars, "per_1000_hours": bill.per_1000_hours, "said": said}


def _model(about: dict[str, Any]) -> dict[str, str]:
    metadata = about["metadata"]
    return {
        "engine": about["engine"],
        "model": about["model"],
        "revision": about["model_revision"],
        "licence": metadata.get("dawnchorus.licence", ""),
        "attribution": metadata.get("dawnchorus.attribution", ""),
        "languages": metadata.get("dawnchorus.languages", ""),
        "version": metadata.get("dawnchorus.version", ""),
    }
