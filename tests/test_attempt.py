"""An attempt beside its graph: publishing now and then, whatever the store says."""

from __future__ import annotations

import time
from pathlib import Path
from threading import Event, Thread

from dawnchorus import config
from dawnchorus.attempt import Attempt
from dawnchorus.fence import Fence
from dawnchorus.placement import Node, share_out
from dawnchorus.prepare import prepare, survey
from kit import archive
from runner import Silent


def test_publishing_goes_on_after_a_store_was_away(tmp_path: Path) -> None:
    """The thread ended by the first refusal, with a traceback into the run's live line."""
    output = tmp_path / "out"
    tree = {"input": str(archive(tmp_path / "audio", [3.0], seed=72)), "output": str(output)}
    settings = config.build(tree | {"engine": {"name": "fake"}, "publish": {"every_seconds": 0.05}})
    prepared = prepare(settings)
    prepared.save()
    epoch = Fence(prepared.output, "r").acquire()
    attempt = Attempt(prepared, survey(prepared), epoch, share_out(settings, [Node(4.0)]), str(tmp_path))
    (output / "chunks").symlink_to("chunks")  # nobody can list it
    ui, over = Silent(), Event()
    thread = Thread(target=attempt._publish_often, args=(ui, over))
    thread.start()
    until = time.monotonic() + 20
    while len(ui.said) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    over.set()
    thread.join()
    assert len(ui.said) >= 2
    assert ui.said[0].startswith("Not published this time: ")
