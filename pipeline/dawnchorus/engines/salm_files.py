"""Where a SALM's files are, and which they are: hub name, folder or bundle. Loads no weights.

A checkpoint is `config.json` and `model.safetensors`. The language model's tokenizer and configuration
belong to it, too: a bundle holds them (tokenizer beside `config.json`, `llm_backbone/config.json`), the
release on the hub only names them (`pretrained_llm`), and they come from that repository.
Buckets: see `salm_staging`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dawnchorus import installing
from dawnchorus.engines import hub
from dawnchorus.engines.salm_manifest import MANIFEST, WEIGHTS, checked, read_manifest
from dawnchorus.errors import EngineUnavailable

DEFAULT_MODEL = "nvidia/canary-qwen-2.5b"
PINNED: Mapping[str, str] = {
    DEFAULT_MODEL: "b1469e1bba1cfe140205529c79c434ca47180960",
    "Qwen/Qwen3-1.7B": "70d244cc86ccca08cf5af4e1e306ecf908b1ad5e",
}
"""Hub commits used where the configuration names no revision."""
INSTALL = installing.command("nemo")
BACKBONE = "llm_backbone"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)
BACKBONE_FILES = ("config.json", "generation_config.json")
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
# Keys of config.json that name places, and those that only say who wrote the file.
_NO_CONTENT = frozenset({"pretrained_llm", "pretrained_asr", "_name_or_path", "transformers_version"})


@dataclass(frozen=True, slots=True)
class SalmFiles:
    """One checkpoint on this machine. `weights` is None where only the rest was asked for; `revision`
    is the hub's commit or empty; `weights_sha256` is what the hub or the manifest says, or empty;
    `manifest` holds the SHA-256 of a bundle's files by name."""

    config: Path
    weights: Path | None
    tokenizer: Path
    backbone: Path
    revision: str = ""
    weights_sha256: str = ""
    manifest: Mapping[str, str] = field(default_factory=dict)


def from_folder(folder: Path, revision: str = "", weights: bool = True) -> SalmFiles:
    """The files of a checkpoint folder; what it only names is taken from the hub.

    Raises:
        EngineUnavailable: a file is missing; names it.
    """
    config = _needed(folder / "config.json")
    manifest = read_manifest(folder / MANIFEST) if (folder / MANIFEST).is_file() else {}
    llm = str(read_json(config).get("pretrained_llm", ""))
    tokenizer = _first_with("tokenizer.json", (folder, folder / BACKBONE, folder / llm))
    backbone = _first_with("config.json", (folder / BACKBONE, folder / llm) if llm else (folder / BACKBONE,))
    if tokenizer is None or backbone is None:
        if not _HUB_NAME.fullmatch(llm):
            missing = "tokenizer.json" if tokenizer is None else f"{BACKBONE}/config.json"
            raise EngineUnavailable(f"{folder} has no {missing}.", "Make a bundle with: dawnchorus bundle")
        from_hub = hub_folder(llm, None, (*TOKENIZER_FILES, *BACKBONE_FILES))
        tokenizer, backbone = tokenizer or from_hub, backbone or from_hub
    found = _needed(folder / WEIGHTS) if weights else None
    return SalmFiles(config, found, tokenizer, backbone, revision, manifest.get(WEIGHTS, ""), manifest)


def from_hub(name: str, revision: str | None, weights: bool = True) -> SalmFiles:
    """The files of a hub repository, downloaded where they are not here yet.

    Raises:
        EngineUnavailable: the hub cannot be reached, or has no such repository or revision.
    """
    if not _HUB_NAME.fullmatch(name):
        raise EngineUnavailable(f"There is no folder {name!r}, and it is no hub name.", "Give a folder.")
    folder = hub_folder(name, revision, ("config.json", WEIGHTS) if weights else ("config.json",))
    files = from_folder(folder, revision=folder.name, weights=weights)
    return replace(files, weights_sha256=hub.claimed_sha256(folder, name, WEIGHTS) or "")


def hub_folder(name: str, revision: str | None, patterns: Sequence[str]) -> Path:
    """Folder of a hub snapshot with the files of these names, at a pinned commit where one is known."""
    return hub.fetch(name, revision or PINNED.get(name), patterns, INSTALL)


def content_facts(files: SalmFiles) -> dict[str, Any]:
    """Hashes of all but the weights; the same for a release and a bundle made of it."""
    return {
        "config_sha256": _json_sha256(files.config),
        "tokenizer_sha256": hub.actual_sha256(files.tokenizer / "tokenizer.json"),
        "llm_sha256": _json_sha256(files.backbone / "config.json"),
    }


def verify(files: SalmFiles) -> str:
    """SHA-256 of the weights, after comparing everything with the manifest (a bundle) or the hub's name.

    Raises:
        EngineUnavailable: a file is not what it should be.
    """
    assert files.weights is not None
    root = files.config.parent
    for name, digest in files.manifest.items():
        if name != WEIGHTS:
            checked(_needed(root / name), digest, hub.actual_sha256(root / name))
    return checked(files.weights, files.weights_sha256, hub.actual_sha256(files.weights))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        EngineUnavailable: it is none.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError) as e:
        raise EngineUnavailable(f"{path} cannot be read as JSON: {e}.", "Fetch the model again.") from e
    if not isinstance(found, dict):
        raise EngineUnavailable(f"{path} is no JSON object.", "Fetch the model again.")
    return found


def _json_sha256(path: Path) -> str:
    content = {k: v for k, v in read_json(path).items() if k not in _NO_CONTENT}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _needed(path: Path) -> Path:
    if not path.is_file():
        raise EngineUnavailable(f"There is no {path}.", "Fetch the model again, or make a bundle of it.")
    return path


def _first_with(name: str, folders: Iterable[Path]) -> Path | None:
    return next((f for f in folders if (f / name).is_file()), None)
