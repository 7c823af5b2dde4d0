"""Files of a model: in a folder, or on the hub by name; which they are, and what its card says of them.

Downloads what is asked for and loads nothing: no torch, no pickles. Hub files are read from the cache
where they are there, also without a network.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from dawnchorus.engines.base import Licence
from dawnchorus.engines.staging import is_remote, staged_folder
from dawnchorus.engines.whisper_weights import looks_like_a_path, refusal, weights_sha256
from dawnchorus.errors import EngineUnavailable

HUB = "https://huggingface.co"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_CARD_BYTES = 1 << 20


def is_local(model: str) -> bool:
    """Whether a model's name is a path of this machine."""
    return (looks_like_a_path(model) and "://" not in model) or Path(model).expanduser().exists()


def absolute(model: str | None) -> str | None:
    """A model as it can be found from any folder: a path of this machine whole, a name as it is."""
    return os.path.abspath(Path(model).expanduser()) if model and is_local(model) else model


def fetch(
    model: str, revision: str | None, patterns: Sequence[str], install: str, cache: str | None = None
) -> Path:
    """Folder with the top-level files of a model that match; a local one as it is, one from a bucket below
    `cache`.

    Raises:
        EngineUnavailable: no such folder or repository, no network, no huggingface_hub.
    """
    if is_remote(model):
        return staged_folder(model, patterns, cache)
    if is_local(model):
        folder = Path(model).expanduser()
        if not folder.is_dir():
            raise EngineUnavailable(f"There is no folder {model}.", "Check engine.model.")
        return folder
    try:
        import httpx2
        from huggingface_hub import snapshot_download
    except ImportError as e:
        raise EngineUnavailable("huggingface_hub is not installed.", install) from e
    try:
        found = snapshot_download(
            model, revision=revision, allow_patterns=list(patterns), ignore_patterns=["*/*"]
        )
    except (OSError, ValueError, httpx2.HTTPError) as e:
        raise EngineUnavailable(
            f"The model {model!r} is not in the cache, and the hub did not give it: {refusal(e)}.",
            "Check engine.model and the network, or name a local folder.",
        ) from e
    return Path(found)


def commit(folder: Path, model: str) -> str | None:
    """The hub's commit that a fetched folder is, or None for a model from elsewhere."""
    return None if is_local(model) or is_remote(model) else folder.name


def weight_files(folder: Path) -> list[str]:
    """Names of the safetensors files that transformers would load from a folder with its small files.

    Raises:
        EngineUnavailable: the index names something else than files beside it.
    """
    index = folder / _INDEX
    if not index.exists():
        return [_SINGLE]
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as e:
        raise EngineUnavailable(f"{index} is no index of weights.", "Copy the model's files anew.") from e
    if any(not isinstance(n, str) or Path(n).name != n or not n.endswith(".safetensors") for n in names):
        raise EngineUnavailable(f"{index} names files elsewhere.", "Use a model with safetensors weights.")
    return names


def claimed_sha256(folder: Path, model: str, name: str) -> str | None:
    """SHA-256 of a weight file: of a local one its own, of a hub model what the cache or the hub says.

    None: there is no such file. (`actual_sha256` reads the bytes; loading does that.)
    """
    path = folder / name
    if is_local(model):
        return weights_sha256(path) if path.exists() else None
    if path.exists():
        said = path.resolve().name
        return said if _SHA256.fullmatch(said) else weights_sha256(path)
    return None if is_remote(model) else _sha256_on_hub(model, folder.name).get(name)


def _sha256_on_hub(model: str, revision: str) -> dict[str, str]:
    import httpx2
    from huggingface_hub import HfApi

    try:
        files = HfApi().model_info(model, revision=revision, files_metadata=True).siblings or ()
    except (OSError, ValueError, httpx2.HTTPError) as e:
        raise EngineUnavailable(
            f"The weights of {model!r} are not in the cache, and the hub does not answer "
            f"({type(e).__name__}).",
            "Check the network, or name a local folder.",
        ) from e
    return {f.rfilename: f.lfs.sha256 for f in files if f.lfs is not None}


def digest(parts: Iterable[tuple[str, str]]) -> str:
    """One SHA-256 over names and SHA-256s of files."""
    lines = sorted(f"{name}\0{sha256}\n" for name, sha256 in parts)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def actual_sha256(path: Path) -> str:
    """SHA-256 of the bytes of a file, remembered while it does not change."""
    return weights_sha256(path.resolve())


def licence(folder: Path | None, model: str) -> Licence:
    """What the model's card says of its licence; a model without a card has one nobody knows here."""
    local = is_local(model) or is_remote(model)
    name, page = Path(model).name, f"{HUB}/{model}"
    said = _card(folder).get("license_name") or _card(folder).get("license") if folder is not None else None
    if isinstance(said, str) and said.strip() and said != "other":
        return Licence(said.strip(), "" if local else page, f"{name if local else model}, by its model card")
    unknown = "unknown: see where the model is from" if local else "see the model's page"
    return Licence(unknown, "" if local else page, name if local else model)


def languages(folder: Path) -> list[str]:
    """Language codes that the model's card names; empty where it names none."""
    said = _card(folder).get("language")
    return [str(x).lower() for x in (said if isinstance(said, list) else [said] if said else [])]


def _card(folder: Path) -> dict[str, Any]:
    """The YAML that a model card begins with."""
    try:
        with (folder / "README.md").open(encoding="utf-8", errors="replace") as f:
            text = f.read(_CARD_BYTES)
    except OSError:
        return {}
    found = re.match(r"---\s*\n(.*?)\n---\s*(?:\n|$)", text, re.DOTALL)
    try:
        tree = yaml.safe_load(found.group(1)) if found else None
    except yaml.YAMLError:
        return {}
    return tree if isinstance(tree, dict) else {}
