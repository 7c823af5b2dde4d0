"""Ray's authentication mode, always said aloud: left to itself Ray 2.60 turns token authentication on for a
new local cluster and never for a joined one, which then refuses every call for twenty seconds."""

from __future__ import annotations

import os


def set_mode() -> None:
    """`token` where the environment has one (RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH), else `disabled`; what
    RAY_AUTH_MODE says already stays."""
    token = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    os.environ.setdefault("RAY_AUTH_MODE", "token" if token else "disabled")
