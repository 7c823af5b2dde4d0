"""The reports that runs left in an output: which there are, and their pages. Makes none."""

from __future__ import annotations

import json
from typing import Any

from dawnchorus import storage

_MAX_BYTES = 64 << 20


def find(output: str, run_id: str | None = None) -> dict[str, Any] | None:
    """The report of one run of an output, or the one made last; None where there is none.

    Raises:
        StorageUnavailable, Transient: the output cannot be read.
    """
    newest: dict[str, Any] | None = None
    for info in storage.list_files(storage.join(output, "_runs"), "/report.json"):
        report: dict[str, Any] = json.loads(storage.read_bytes(info.url, _MAX_BYTES))
        if run_id is not None and report["run_id"] != run_id:
            continue
        if newest is None or report["made_at"] > newest["made_at"]:
            newest = report
    return newest


def page_url(output: str, run_id: str) -> str:
    """Where the page of a run's report lies."""
    return storage.join(output, "_runs", run_id, "report.html")


def page(output: str, run_id: str) -> bytes:
    """The page itself: one file of HTML that needs no other."""
    return storage.read_bytes(page_url(output, run_id), _MAX_BYTES)
