"""Structured logs: one JSON object per line on stderr where DAWNCHORUS_LOG=json is set, nothing elsewhere.

What a line says is one event with fields: never a transcript, never a credential. Drivers and workers write
alike; where a worker's stderr goes is Ray's choice. Knows no run.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import cache
from typing import Any

from dawnchorus import storage
from dawnchorus.wording import printable

VARIABLE = "DAWNCHORUS_LOG"
_JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Where Ray's job server tells a driver its runtime environment."""
_bound: dict[str, Any] = {}


def enabled() -> bool:
    """Whether this process writes events."""
    return os.environ.get(VARIABLE, "").lower() == "json"


def worker_env() -> dict[str, str]:
    """What workers of a cluster need to hear to write events too. Nothing where the job says so already: Ray
    refuses a variable that is said twice."""
    job = json.loads(os.environ.get(_JOB_VARIABLE) or "{}")
    said = ((job.get("runtime_env") or {}).get("env_vars")) or {}
    return {VARIABLE: "json"} if enabled() and VARIABLE not in said else {}


def bind(**fields: Any) -> None:
    """Fields of every event of this process from now on, such as its `run_id`."""
    _bound.update(fields)


def event(name: str, message: str = "", /, **fields: Any) -> None:
    """Write one event; fields that are None are left out."""
    if enabled():
        _logger().info(message, extra={"event": name, "fields": {**_bound, **fields}})


def warning(name: str, message: str = "", /, **fields: Any) -> None:
    """The same for what somebody may have to look at."""
    if enabled():
        _logger().warning(message, extra={"event": name, "fields": {**_bound, **fields}})


def address(url: str | None) -> str | None:
    """Where an audio object is, without credentials, and without the query that a signed address has."""
    if url is None:
        return None
    return storage.shown(url.partition("?")[0] if storage.is_http(url) else url)


def readable(line: str) -> str:
    """A line of a log for a person: the message and the rows of an event, other lines as they are.

    Events without a message, which are there to be counted, become "". What JSON had escaped steers no
    terminal.
    """
    try:
        said = json.loads(line)
    except ValueError:
        return line
    if not isinstance(said, dict) or "event" not in said:
        return line
    if not said.get("message"):
        return ""
    rows = said.get("rows")
    more = rows.items() if isinstance(rows, dict) else ()
    at = str(said.get("time", ""))[11:19]
    return printable("".join([f"{at} {said['message']}\n", *(f"         {k}: {v}\n" for k, v in more)]))


def lines_of(pieces: Iterable[str]) -> Iterator[str]:
    """A log that comes in pieces, line by line, each with its end."""
    rest = ""
    for piece in pieces:
        *whole, rest = (rest + piece).split("\n")
        yield from (f"{line}\n" for line in whole)
    if rest:
        yield rest


@cache
def _logger() -> logging.Logger:
    logger = logging.getLogger("dawnchorus.events")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Line())
    logger.addHandler(handler)
    return logger


class _Line(logging.Formatter):
    """A record as one JSON object, `time` in UTC."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        said = {"time": at, "level": record.levelname.lower(), "event": getattr(record, "event", "")}
        if record.getMessage():
            said["message"] = record.getMessage()
        said |= {k: v for k, v in getattr(record, "fields", {}).items() if v is not None}
        return storage.redact(json.dumps(said, ensure_ascii=False, default=str))
