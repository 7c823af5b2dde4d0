"""The report of a run: `report.json` and a self-contained `report.html`, from committed rows alone.

`make` gathers, writes both and returns the JSON's content. It can be made again at any time.
"""

from __future__ import annotations

import functools
import json
from typing import Any

from dawnchorus import fence, storage, tracing
from dawnchorus.reconcile import Reconciliation
from dawnchorus.report import answers, words
from dawnchorus.report.gathering import REPORT_VERSION, gather
from dawnchorus.report.page import render
from dawnchorus.report.tables import among, manifest_keys
from dawnchorus.reports import page_url

_OF_THE_WORK = ("time", "attempts", "workers", "rtfx_over_time", "chunk_seconds", "cost")


@tracing.span("report")
def make(
    output: str,
    run_id: str,
    found: Reconciliation,
    started: float,
    *,
    cpus_per_engine: float | None = None,
    gpus_per_engine: float | None = None,
    accelerator: str | None = None,
    now: float | None = None,
    until: float | None = None,
    epoch: int | None = None,
) -> dict[str, Any]:
    """Gather the report of a run, write it beside the run's other files, and return it.

    `found` is what `reconcile` found; `started` is when the present command began, `until` when it had
    transcribed (None: `now`), `now` when it ends (None: at this moment), in seconds since the epoch; CPUs and
    GPUs of one engine, where known, turn engine hours into theirs, and `accelerator` those into money.
    `epoch` is the attempt that writes it, where one does.

    Raises:
        Fenced: another run owns the output by now; nothing was written.
        FileNotFoundError: the run saved nothing.
        Transient, Terminal: the output cannot be read or written.
    """
    each = (cpus_per_engine, gpus_per_engine, accelerator)
    if each[:2] == (None, None):
        # Nothing was left to transcribe: what it took before is not forgotten.
        each = _engines_before(output, run_id)
    made = gather(output, run_id, found, started, *each, now, until)
    _write(output, run_id, made, epoch)
    return made


def _engines_before(output: str, run_id: str) -> tuple[float | None, float | None, str | None]:
    """CPUs and GPUs of an engine, and which GPUs, by the run's last report."""
    url = storage.join(output, "_runs", run_id, "report.json")
    old = json.loads(storage.read_bytes(url)) if storage.exists(url) else {}
    if old.get("report_version") != REPORT_VERSION:
        return None, None, None
    known = old["cost"]["engine"]
    return known["cpus"], known["gpus"], known["accelerator"]


def renew_answers(output: str, run_id: str, epoch: int | None = None) -> None:
    """Bring the answers of a report up to date, where there is one, and leave all else.

    Raises:
        Fenced: as `make`.
    """
    url = storage.join(output, "_runs", run_id, "report.json")
    if not storage.exists(url):
        return
    made = json.loads(storage.read_bytes(url))
    if made["report_version"] != REPORT_VERSION:
        return  # its page cannot be made from it
    wanted = manifest_keys(storage.join(output, "_runs", run_id))
    _write(
        output, run_id, made | {"answers": answers.gather(output, functools.partial(among, wanted))}, epoch
    )


def renew_rows(output: str, run_id: str, found: Reconciliation) -> None:
    """Make a report, where there is one, anew from the rows that are left; what the work took stays as it was
    found then, since the record of it may be gone.

    Raises:
        FileNotFoundError: the run saved nothing.
    """
    url = storage.join(output, "_runs", run_id, "report.json")
    if not storage.exists(url):
        return
    old = json.loads(storage.read_bytes(url))
    spent = old["time"]
    kept = _OF_THE_WORK if old["report_version"] == REPORT_VERSION else ()
    made = gather(output, run_id, found, spent["started_at"], now=old["made_at"], until=spent["ended_at"]) | {
        name: old[name] for name in kept
    }
    _write(output, run_id, made | {"headline": words.headline(made)})


def _write(output: str, run_id: str, made: dict[str, Any], epoch: int | None = None) -> None:
    # It quotes transcripts: what was forgotten while it was gathered must not come back by it.
    if epoch is not None:
        fence.check(output, epoch)
    text = json.dumps(made, indent=1, ensure_ascii=False, allow_nan=False)
    storage.put_atomic(storage.join(output, "_runs", run_id, "report.json"), text.encode())
    storage.put_atomic(page_url(output, run_id), render(made).encode())


__all__ = ["REPORT_VERSION", "make", "renew_answers", "renew_rows"]
