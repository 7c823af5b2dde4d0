"""Tells somebody how a run ended: a program that reads JSON, or a webhook. Knows no run.

A message that cannot be delivered is said, and changes nothing else: the run is what it is.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from dawnchorus import storage
from dawnchorus.config import NotifyConfig
from dawnchorus.records import Seconds

_COMMAND_SECONDS: Seconds = 60.0
_WEBHOOK_SECONDS: Seconds = 15.0


def tell(config: NotifyConfig, event: str, news: Mapping[str, Any]) -> list[str]:
    """Send `news` where `config` says, if `event` is worth telling; returns what went wrong, as sentences.

    The body is `{"event": ..., **news}` with credentials in URLs taken out, plus a `text` that chat
    services show.
    """
    if event not in config.on:
        return []
    body = storage.redact(json.dumps({"event": event, **news})).encode()
    problems = []
    if config.command:
        problems += _run(config.command, body)
    if config.webhook_env is not None:
        problems += _post(config.webhook_env, body)
    return problems


def _run(command: list[str], body: bytes) -> list[str]:
    try:
        done = subprocess.run(command, input=body, capture_output=True, timeout=_COMMAND_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as e:
        return [f"notify.command {command[0]!r} did not run: {type(e).__name__}."]
    return [f"notify.command {command[0]!r} ended with {done.returncode}."] if done.returncode else []


def _post(variable: str, body: bytes) -> list[str]:
    url = os.environ.get(variable, "")
    if urlsplit(url).scheme not in ("http", "https"):
        return [f"notify.webhook_env: ${variable} holds no http(s) address."]
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=_WEBHOOK_SECONDS):
            return []
    except urllib.error.HTTPError as e:
        return [f"notify.webhook_env: the address in ${variable} answered {e.code}."]
    except (OSError, ValueError, http.client.HTTPException) as e:
        # The reason only: the error's own text may quote the address.
        return [f"notify.webhook_env: the address in ${variable} was not reached ({type(e).__name__})."]
