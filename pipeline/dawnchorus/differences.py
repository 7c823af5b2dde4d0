"""How the settings of a run differ from those that made what is there already. Reads what runs saved."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dawnchorus import storage


def differences_of(output: str, facts: Mapping[str, Any], other: str) -> str:
    """What of these fingerprint facts differs from those of a run with fingerprint `other`, when its run.json
    is in this output: `: key was 1, is 2; ...`, else nothing."""
    for info in storage.list_files(storage.join(output, "_runs"), "run.json"):
        about = json.loads(storage.read_bytes(info.url))
        if about["fingerprint"] == other:
            then = _flat(about["fingerprint_facts"])
            now = _flat(json.loads(json.dumps(dict(facts))))
            changed = sorted(k for k in then.keys() | now.keys() if then.get(k) != now.get(k))
            return ": " + "; ".join(f"{k} was {then.get(k)!r}, is {now.get(k)!r}" for k in changed)
    return ""


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted keys."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        inner = _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
        found |= inner
    return found
