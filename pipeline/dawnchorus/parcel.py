"""What travels to a cluster with a submitted run: this package, the run's YAML, and how to start it there.

Not a wheel: the job's folder is on its Python path, so nothing has to be installed on any node. Knows no
cluster.
"""

from __future__ import annotations

import re
import shutil
from importlib import metadata
from pathlib import Path

import yaml

import dawnchorus
from dawnchorus.config import RunConfig

ENTRYPOINT = "exec sh start.sh"
"""What Ray's job server runs, in the parcel's folder."""

_CONFIG, _NEEDS = "run.yaml", "needs.txt"
_START = f"""\
#!/bin/sh
# Which Python runs Ray here? PATH does not tell: a head may be started as /path/to/venv/bin/ray. The raylet,
# an ancestor of this shell, was told it.
pid=$PPID
while [ -z "$python" ] && [ "${{pid:-0}}" -gt 1 ]; do
    python=$(tr '\\0' '\\n' < "/proc/$pid/cmdline" | sed -n 's/^--python_worker_command=\\([^ ]*\\) .*/\\1/p')
    pid=$(sed -n 's/^PPid:[[:space:]]*//p' "/proc/$pid/status")
done
[ -x "$python" ] || python=$(command -v python3 || command -v python)
exec "$python" -m dawnchorus.driver {_NEEDS} {_CONFIG}
"""


def pack(folder: Path, config: RunConfig) -> Path:
    """The parcel of a run, made in `folder`: about 0.5 MB, and nothing of the user's folder."""
    parcel = folder / "run"
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(Path(dawnchorus.__file__).parent, parcel / "dawnchorus", ignore=ignore)
    text = yaml.safe_dump(config.model_dump(mode="json", exclude_defaults=True), sort_keys=False)
    (parcel / _CONFIG).write_text(text, encoding="utf-8")
    (parcel / _NEEDS).write_text("".join(f"{name}\n" for name in _needs()), encoding="utf-8")
    (parcel / "start.sh").write_text(_START, encoding="utf-8")
    return parcel


def _needs() -> list[str]:
    """Distributions that the base install has; what an engine needs is for the engine to tell."""
    try:
        wanted = metadata.requires("dawnchorus") or ()
    except metadata.PackageNotFoundError:
        return []
    return sorted(re.split(r"[^\w.-]", r, maxsplit=1)[0] for r in wanted if "extra ==" not in r)
