"""The entry point of a submitted run, on the cluster: `python -m dawnchorus.driver needs.txt run.yaml`.

Says which Python this is and what it lacks before anything of the package is imported, so it imports nothing
but the standard library until then.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

_OLDEST = (3, 11)


def missing(names: Iterable[str]) -> list[str]:
    """Those of the distributions that this Python does not have."""
    here = {_plain(str(d.metadata["Name"])) for d in metadata.distributions()}
    return [name for name in names if _plain(name) not in here]


def problem(needs: Path) -> str | None:
    """Why no run can start in this Python, with what to install; None where one can. `needs` holds the names
    of distributions, one a line."""
    version = ".".join(map(str, sys.version_info[:3]))
    this = f"{sys.executable} (Python {version})"
    if sys.version_info < _OLDEST:
        return f"{this}, which runs Ray on this cluster, is too old: Dawn Chorus needs Python 3.11 or newer."
    lacks = missing(needs.read_text(encoding="utf-8").split())
    if not lacks:
        return None
    return (
        f"{this}, which runs Ray on this cluster, has no {', '.join(lacks)}. "
        "Install Dawn Chorus with its engine there, on every node: "
        f"{sys.executable} -m pip install '/path/to/dawnchorus[whisper,score,cluster]' (or its wheel)."
    )


def main() -> None:
    """Run the configuration that the command line names."""
    needs, config = sys.argv[1:]
    said = problem(Path(needs))
    if said is not None:
        sys.stderr.write(f"Error: {said}\n")
        sys.exit(2)
    _take_name()
    from dawnchorus import cli

    sys.argv = ["dawnchorus", "run", config]
    cli.main()


def _take_name() -> None:
    """Be called like a driver that was not submitted: `leave` looks for that when its machine goes."""
    with contextlib.suppress(OSError):  # no Linux, or one that lets nobody
        Path("/proc/self/comm").write_text("dawnchorus", encoding="ascii")


def _plain(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


if __name__ == "__main__":
    main()
