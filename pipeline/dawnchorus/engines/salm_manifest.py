"""The list of a bundle's files with their SHA-256, in the format of `sha256sum`. Pure but for reading it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from dawnchorus.errors import EngineUnavailable

MANIFEST = "MANIFEST.sha256"
WEIGHTS = "model.safetensors"
_LINE = re.compile(r"([0-9a-f]{64})  ((?:llm_backbone/)?\w[\w.-]*)")


def read_manifest(path: Path) -> dict[str, str]:
    """SHA-256 by file name, from a file; see `parsed`."""
    try:
        return parsed(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as e:
        raise EngineUnavailable(f"{path} cannot be read: {e}.", "Make the bundle again.") from e


def parsed(text: str, place: str) -> dict[str, str]:
    """SHA-256 by file name.

    Raises:
        EngineUnavailable: a line is no hash and plain name, or the weights are not listed.
    """
    found: dict[str, str] = {}
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            raise EngineUnavailable(f"{place} has a line that is no hash and name.", "Make the bundle again.")
        found[match[2]] = match[1]
    if WEIGHTS not in found:
        raise EngineUnavailable(f"{place} does not list {WEIGHTS}.", "Make the bundle again.")
    return found


def written(digests: Mapping[str, str]) -> str:
    """The manifest's text."""
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))


def checked(path: Path, expected: str, found: str) -> str:
    """`found`, when it is what was expected (or nothing was).

    Raises:
        EngineUnavailable: the file is another one.
    """
    if expected and found != expected:
        raise EngineUnavailable(
            f"{path} is not what it should be: SHA-256 {found[:16]}…, expected {expected[:16]}….",
            "Fetch the model again.",
        )
    return found
