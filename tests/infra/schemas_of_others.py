"""The official schemas that infra/ is checked against, as JSON Schema validators."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import jsonschema

_HERE = Path(__file__).parent / "schemas"


def rayjob() -> jsonschema.Draft202012Validator:
    """KubeRay's RayJob. An unknown field is an error, where a cluster would drop it without a word."""
    raw = json.loads(gzip.decompress((_HERE / "kuberay-rayjob-v1.json.gz").read_bytes()))
    raw["properties"]["metadata"] = {"type": "object"}
    return jsonschema.Draft202012Validator(_strict(raw))


def skypilot(part: str) -> jsonschema.Draft202012Validator:
    """SkyPilot's `task`, or its `resources`."""
    return jsonschema.Draft202012Validator(json.loads((_HERE / "skypilot-task.json").read_text())[part])


def _strict(node: Any) -> Any:
    if isinstance(node, list):
        return [_strict(x) for x in node]
    if not isinstance(node, dict):
        return node
    strict = {k: _strict(v) for k, v in node.items()}
    if isinstance(node.get("properties"), dict) and "type" in node and "additionalProperties" not in node:
        strict["additionalProperties"] = False
    return strict
