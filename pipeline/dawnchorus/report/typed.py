"""What a person types after a run: the commands that go on with it, look at it and export it. Pure.

Made of the configuration that the run saved, without what is secret in it.
"""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

import yaml
from pydantic import BaseModel

from dawnchorus import ledger, storage
from dawnchorus.config import RunConfig, config_keys

_SECRET = re.compile(r"(?i)token|secret|passw|api_?key|credential")


def without_secrets(tree: Any, name: str = "") -> Any:
    """A configuration as anybody may read it."""
    if isinstance(tree, dict):
        return {k: without_secrets(v, str(k)) for k, v in tree.items()}
    if isinstance(tree, list):
        return [without_secrets(v, name) for v in tree]
    if isinstance(tree, str):
        return "***" if _SECRET.search(name) else storage.redact(tree)
    return tree


def _typed(value: Any) -> str:
    """A value as one types it after `key=`: JSON is YAML."""
    if isinstance(value, dict):
        plain = {
            k: v.model_dump(exclude_none=True) if isinstance(v, BaseModel) else v for k, v in value.items()
        }
        return json.dumps(plain)
    if not isinstance(value, str):
        return json.dumps(value, default=str)
    try:
        return value if yaml.safe_load(value) == value else json.dumps(value)
    except yaml.YAMLError:
        return json.dumps(value)


def commands(tree: dict[str, Any], output: str) -> dict[str, str]:
    """What to type: to go on, to publish, to look and to export."""
    config = RunConfig.model_validate(without_secrets(tree))
    changed = [
        f"{key.name}={_typed(value)}"
        for key in config_keys()
        if key.name not in ("input", "output", "resume.retry_failed", "notify.command")
        and (value := key.value_of(config)) != key.default
    ]
    place = storage.readable(output)
    run = ["dawnchorus", "run", *changed, "--input", config.input, "--output", config.output]
    table = f"'{ledger.transcripts_url(place)}/*.parquet'"
    return {
        "resume": shlex.join(run),
        "retry_failed": shlex.join([*run, "--retry-failed", "all"]),
        "show_failed": shlex.join(["dawnchorus", "show", place, "--status", "failed", "--limit", "1000"]),
        "query_failed": f"SELECT audio_filepath, failure FROM {table} WHERE failure IS NOT NULL",
        "export": shlex.join(["dawnchorus", "export", place, "subtitles", "--format", "srt"]),
    }
