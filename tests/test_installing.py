"""The command that installs an extra: one that works where it is printed."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from dawnchorus import installing

ROOT = Path(__file__).parent.parent


def test_a_checkout_is_installed_from_by_its_own_python() -> None:
    words = shlex.split(installing.command("hf"))
    assert words[:4] == [sys.executable, "-m", "pip", "install"]
    assert Path(words[words.index("-c") + 1]) == ROOT / "infra" / "constraints.txt"
    assert words[-2:] == ["-e", f"{ROOT}[hf]"]
