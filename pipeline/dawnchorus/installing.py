"""The command that installs an extra of this distribution, into this Python, from where it came from.

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


@functools.cache
def command(extra: str) -> str:
    """A command for the shell that adds `extra` to this installation, at the tested versions where known."""
    folder = _checkout()
    if folder is None:
        return f"pip install 'dawnchorus[{extra}] @ file:///path/to/the/wheel'"
    versions = folder / "infra" / "constraints.txt"
    tested = ["-c", str(versions)] if versions.is_file() else []
    return shlex.join([sys.executable, "-m", "pip", "install", *tested, "-e", f"{folder}[{extra}]"])


def _checkout() -> Path | None:
    """The folder that this distribution was installed from, while it is there."""
    try:
        told = metadata.distribution("dawnchorus").read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return None
    url = urlsplit(str(json.loads(told)["url"]) if told else "")
    folder = Path(unquote(url.path))
    return folder if url.scheme == "file" and (folder / "pyproject.toml").is_file() else None
