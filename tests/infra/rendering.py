"""What `kubectl kustomize` makes of a folder, for the few of its features that infra/kubernetes uses.

So that the objects are checked on machines without kubectl too; where there is one, a test compares the two.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]


def render(folder: Path) -> list[Object]:
    """The objects of a kustomization, in any order. Raises ValueError for what is not known here."""
    text = (folder / "kustomization.yaml").read_text(encoding="utf-8")
    recipe: Object = yaml.safe_load(text)
    objects: list[Object] = []
    for name in recipe.pop("resources"):
        path = folder / name
        objects += (
            render(path) if path.is_dir() else copy.deepcopy(list(yaml.safe_load_all(path.read_text())))
        )
    for generator in recipe.pop("configMapGenerator", []):
        data = {Path(f).name: (folder / f).read_text(encoding="utf-8") for f in generator["files"]}
        found = [
            o for o in objects if o["kind"] == "ConfigMap" and o["metadata"]["name"] == generator["name"]
        ]
        if (generator.get("behavior") == "replace") != bool(found):
            raise ValueError(f"{generator['name']} is not there, or there twice")
        for o in found:
            o["data"] = data
        if not found:
            objects.append(
                {
                    "apiVersion": "v1",
                    "kind": "ConfigMap",
                    "metadata": {"name": generator["name"]},
                    "data": data,
                }
            )
    for patch in recipe.pop("patches", []):
        for target in objects:
            if target["kind"] == patch["target"]["kind"]:
                for operation in yaml.safe_load(patch["patch"]):
                    apply(target, **operation)
    for image in recipe.pop("images", []):
        for container in (c for o in objects for c in containers(o)):
            if container.get("image", "").rpartition(":")[0] == image["name"]:
                container["image"] = f"{image['newName']}:{image['newTag']}"
    if namespace := recipe.pop("namespace", None):
        for o in objects:
            o["metadata"]["namespace"] = namespace
    if set(recipe) - {"apiVersion", "kind", "generatorOptions"}:
        raise ValueError(f"not known here: {sorted(recipe)}")
    return objects


def containers(node: Any) -> Iterator[Object]:
    """Every container in an object, at any depth."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("containers", "initContainers"):
                yield from value
            else:
                yield from containers(value)
    elif isinstance(node, list):
        for value in node:
            yield from containers(value)


def apply(target: Object, op: str, path: str, value: Any = None) -> None:
    """One operation of a JSON patch (RFC 6902)."""
    *parents, last = path.strip("/").split("/")
    node: Any = target
    for name in parents:
        node = node[int(name)] if isinstance(node, list) else node[name]
    key: Any = int(last) if isinstance(node, list) else last
    if op == "test":
        if node[key] != value:
            raise ValueError(f"{path} is {node[key]!r}, not {value!r}")
    elif op == "remove":
        del node[key]
    elif op == "replace" or (op == "add" and isinstance(node, dict)):
        if op == "replace":
            node[key]  # has to be there
        node[key] = value
    else:
        raise ValueError(f"not known here: {op} {path}")
