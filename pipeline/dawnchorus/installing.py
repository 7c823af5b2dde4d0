"""What is installed, and the command that adds an extra of this distribution, from where it came from.

Knows no engine. The distribution is on no index: what was installed from a folder is named by that folder.
"""

from __future__ import annotations

import functools
import json
import shlex
import sys
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlsplit

from dawnchorus.errors import EngineUnavailable


@functools.cache
def command(extra: str) -> str:
    """A command for the shell that adds `extra` to this installation, at the tested versions where known."""
    folder = _checkout()
    if folder is None:
        return f"pip install 'dawnchorus[{extra}] @ file:///path/to/the/wheel'"
    versions = folder / "infra" / "constraints.txt"
    tested = ["-c", str(versions)] if versions.is_file() else []
    return shlex.join([sys.executable, "-m", "pip", "install", *tested, "-e", f"{folder}[{extra}]"])


def versions(extra: str, *packages: str) -> dict[str, str]:
    """The packages' versions without the build: a driver may have torch for CPUs, and workers for GPUs.

    Raises:
        EngineUnavailable: one of them is not installed; says the command that adds `extra`.
    """
    try:
        return {p: metadata.version(p).partition("+")[0] for p in packages}
    except metadata.PackageNotFoundError as e:
        raise EngineUnavailable(f"{e.name} is not installed.", command(extra)) from e


def _checkout() -> Path | None:
    """The folder that this distribution was installed from, while it is there."""
    try:
        told = metadata.distribution("dawnchorus").read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return None
    url = urlsplit(str(json.loads(told)["url"]) if told else "")
    folder = Path(unquote(url.path))
    return folder if url.scheme == "file" and (folder / "pyproject.toml").is_file() else None
