"""Counts, coverage, rtfx and failures of a run, from committed rows; JSON and HTML."""

from __future__ import annotations

from typing import Any

from dawnchorus import storage
from dawnchorus.reconcile import Reconciliation


def page_url(output: str, run_id: str) -> str:
    """Where the report's page lies."""
    return storage.join(output, "_runs", run_id, "report.html")


def make(output: str, run_id: str, found: Reconciliation, started: float) -> dict[str, Any]:
    return {}
