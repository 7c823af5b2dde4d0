"""A self-contained copy of a SALM: what machines without the hub need, with hashes and attribution.

The release on the hub is weights and configuration; tokenizer and configuration of its language model are
in another repository. A bundle has all of it under names of its own, in a folder or a bucket.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from dawnchorus import storage
from dawnchorus.engines import hub
from dawnchorus.engines.salm_files import (
    BACKBONE,
    BACKBONE_FILES,
    DEFAULT_MODEL,
    TOKENIZER_FILES,
    SalmFiles,
    read_json,
    verify,
)
from dawnchorus.engines.salm_manifest import MANIFEST, WEIGHTS, written
from dawnchorus.engines.salm_options import LICENCE, is_canary
from dawnchorus.engines.salm_source import find

ATTRIBUTION = "ATTRIBUTION.txt"


@dataclass(frozen=True, slots=True)
class Bundle:
    """What was made, and how large it is."""

    url: str
    num_files: int
    size_bytes: int
    weights_sha256: str

    def sentence(self) -> str:
        """For a person."""
        return (
            f"{self.num_files} files, {self.size_bytes / 1e9:,.2f} GB in {storage.shown(self.url)}; "
            f"weights SHA-256 {self.weights_sha256[:16]}…. Use it: engine.name=salm engine.model={self.url}"
        )


def bundle(model: str | None, destination: str, revision: str | None = None) -> Bundle:
    """Make a bundle in a folder or at a URL; the manifest comes last, so half a bundle is none.

    Raises:
        EngineUnavailable: the model is not here and cannot be fetched.
        Transient: the destination cannot be written.
    """
    files = find(model, revision)
    weights_sha256 = verify(files)
    assert files.weights is not None
    url = storage.absolute(destination)
    small = _small_files(files, model or DEFAULT_MODEL)
    storage.delete(storage.join(url, MANIFEST))
    for name, data in small.items():
        storage.put_atomic(storage.join(url, name), data)
    storage.put_file(storage.join(url, WEIGHTS), str(files.weights))
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in small.items()}
    manifest = written(digests | {WEIGHTS: weights_sha256}).encode()
    storage.put_atomic(storage.join(url, MANIFEST), manifest)
    size = sum(map(len, small.values())) + len(manifest) + files.weights.stat().st_size
    return Bundle(destination, len(small) + 2, size, weights_sha256)


def _small_files(files: SalmFiles, model: str) -> dict[str, bytes]:
    """Content of everything but weights and manifest, by name; paths of this machine do not go along."""
    config = read_json(files.config) | {"pretrained_llm": BACKBONE}
    found = {"config.json": (json.dumps(config, indent=2) + "\n").encode()}
    for name in TOKENIZER_FILES:
        if (files.tokenizer / name).is_file():
            found[name] = (files.tokenizer / name).read_bytes()
    for name in BACKBONE_FILES:
        if (files.backbone / name).is_file():
            found[f"{BACKBONE}/{name}"] = (files.backbone / name).read_bytes()
    source = storage.redact(model) if "://" in model else Path(model).name if Path(model).is_dir() else model
    of = f"{source}, revision {files.revision}" if files.revision else source
    changes = "Re-packed with the tokenizer and the configuration of its language model; weights unchanged."
    licence = LICENCE if is_canary(files) else hub.licence(files.config.parent, model)
    said = f"{licence.name}, {licence.url}\n{licence.attribution}"
    found[ATTRIBUTION] = f"{of}\n\n{said}\n\nOf this copy: {changes}\n".encode()
    return found
