"""A run's words as events, and as lines where no live line can change: what is told when, and tables."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console

from dawnchorus.cluster import Progress
from dawnchorus.lines import Lines
from dawnchorus.outcome import Exit
from dawnchorus.prepare import Survey
from dawnchorus.terminal import Terminal
from tables import manifest, recording

SURVEY = Survey(manifest(recording("a")), np.array([60.0]), {}, {}, 1, 0, 0, 0, 60.0, 0.0, alone=pa.array([]))


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """The fields of every event from now on."""
    monkeypatch.setenv("DAWNCHORUS_LOG", "json")
    heard: list[dict[str, Any]] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(vars(record)["fields"])

    ear = Ear()
    logging.getLogger("dawnchorus.events").addHandler(ear)
    yield heard
    logging.getLogger("dawnchorus.events").removeHandler(ear)


def test_the_next_attempt_is_heard_of_at_once(told: list[dict[str, Any]]) -> None:
    """Seconds begin anew with it: after an hour of the first it was silent for an hour."""
    lines = Lines(every=30.0)
    console = Console(file=io.StringIO(), width=200)
    terminal = Terminal(console, every=30.0)
    for elapsed in (1.0, 31.0, 40.0, 3600.0, 1.0, 20.0, 32.0):
        lines.progress(SURVEY, Progress(), elapsed)
        terminal.progress(SURVEY, Progress(), elapsed)
    assert [e["elapsed_seconds"] for e in told] == [31.0, 3600.0, 1.0, 32.0]
    assert len(console.file.getvalue().splitlines()) == 4  # type: ignore[attr-defined]


def test_no_row_of_a_table_is_lost(told: list[dict[str, Any]]) -> None:
    rows = [("placement", "1 x big"), ("", "2 x small"), ("", "3 x none"), ("  crash", "1"), ("  crash", "2")]
    Lines().ended(rows, "Done.", Exit.OK)
    assert told[-1]["rows"] == {"placement": "1 x big; 2 x small; 3 x none", "crash": "1; 2"}
