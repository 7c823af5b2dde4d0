"""Calls of an engine that may end its process: what does so twice when alone is given up, not tried for ever.

Remembers on local disk what was going on. Knows nothing of what the engine does.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from dawnchorus import ids
from dawnchorus.errors import RunPaused, Terminal
from dawnchorus.records import Hypothesis, Stage

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Words:
    """How messages speak of the work: a stage, an item, what is done to it, was done, and what to blame."""

    stage: Stage
    item: str
    doing: str
    done: str
    blame: str


class Quarantine:
    """Calls an engine for a window: all at once, or one by one where that window ended a process before."""

    def __init__(self, folder: Path, words: Words) -> None:
        self.notes = _Notes(folder)
        self.words = words

    def call(
        self, names: Sequence[str], items: Sequence[T], act: Callable[[Sequence[T]], list[Hypothesis]]
    ) -> list[Hypothesis]:
        """What `act` returns for `items`, which go by `names`, in order.

        Raises:
            RunPaused: every item so far ended its process.
        """
        if not items:
            return []
        window = ids.part_id("window", names)
        if not self.notes.deaths(window):
            with self.notes.during(window):
                return _checked(act(items), len(items))
        return [self._alone(n, i, act) for n, i in zip(names, items, strict=True)]

    def _alone(self, name: str, item: T, act: Callable[[Sequence[T]], list[Hypothesis]]) -> Hypothesis:
        words = self.words
        if self.notes.deaths(name) >= 2:
            if self.notes.num_killers() > 1 and not self.notes.any_success():
                raise RunPaused(
                    f"the engine's process died at each of {self.notes.num_killers()} {words.item}s and "
                    f"{words.done} none: that is the engine, not {words.blame} (is its memory enough?)"
                )
            message = f"{words.doing} this {words.item} alone ended the engine's process twice"
            failure = Terminal("crash", message, words.stage).failure()
            return Hypothesis(finish_reason="error", error=failure)
        with self.notes.during(name):
            return _checked(act([item]), 1)[0]


def _checked(hypotheses: list[Hypothesis], count: int) -> list[Hypothesis]:
    if len(hypotheses) != count:
        raise AssertionError(f"the engine returned {len(hypotheses)} hypotheses for {count} inputs")
    return hypotheses


_SUCCESS = "succeeded"


class _Notes:
    """What was going on when a process ended: one small local file per window or item.

    A file that is still there when the same work comes again means that the process died of it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def deaths(self, name: str) -> int:
        """How often a process ended during `name`."""
        path = self.folder / name
        return path.stat().st_size if path.exists() else 0

    def num_killers(self) -> int:
        """How many items ended their process twice, each alone."""
        return sum(p.stat().st_size >= 2 for p in self.folder.iterdir())

    def any_success(self) -> bool:
        """Whether any call has returned since this folder was made."""
        return (self.folder / _SUCCESS).exists()

    def during(self, name: str) -> _Note:
        """A context: noted while it runs, forgotten when it returns or raises."""
        return _Note(self.folder / name)


class _Note:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        with open(self.path, "ab") as f:
            f.write(b"x")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            (self.path.parent / _SUCCESS).touch()
        size = self.path.stat().st_size
        if size <= 1:
            self.path.unlink()
        else:
            os.truncate(self.path, size - 1)
