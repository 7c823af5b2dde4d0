"""What words on the command line mean before they are a configuration."""

from __future__ import annotations

from dawnchorus.cli.options import retried


def test_all_among_the_kinds_to_retry_is_all() -> None:
    assert retried(None) is None
    assert retried(["all"]) == retried(["crash", "all"]) == []
    assert retried(["crash", "timeout"]) == ["crash", "timeout"]
