"""Runs in the test's own process, with the fake engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dawnchorus import config
from dawnchorus.answers import Answered, Asking
from dawnchorus.cluster import Progress
from dawnchorus.placement import Resources
from dawnchorus.prepare import Prepared, Survey
from dawnchorus.run import Outcome, run

BASE = {"engine.name": "fake", "workers.window_rows": 8, "workers.engines": 1, "resume.backoff_seconds": 0.0}


class Silent:
    """A `run.Ui` that keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.surveys: list[Survey] = []
        self.asked: list[Asking] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def plan(self, prepared: Prepared, survey: Survey, use: Resources) -> None:
        self.surveys.append(survey)

    def asking(self, left: Asking, use: Resources) -> None:
        self.asked.append(left)

    def answering(self, left: int, answered: Answered, elapsed: float) -> None:
        pass

    def progress(self, survey: Survey, progress: Progress, elapsed: float) -> None:
        pass


class Runner:
    """Runs with the fake engine in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.output = folder / "out"
        self.log = folder / "calls.jsonl"
        self.script = folder / "script.json"
        self.ui = Silent()

    def __call__(self, source: object, output: object = None, **settings: Any) -> Outcome:
        """One run; keyword `a__b` is the configuration's key `a.b`."""
        options = {"log": str(self.log), "script": str(self.script), **settings.pop("options", {})}
        given = {
            **BASE,
            "engine.options": options,
            "input": str(source),
            "output": str(output or self.output),
        }
        given |= {k.replace("__", "."): v for k, v in settings.items()}
        self.ui = Silent()
        return run(config.build({}, (), given), self.ui)

    def calls(self) -> list[dict[str, Any]]:
        """What the engine transcribed so far."""
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []

    def tell(self, **script: Any) -> None:
        """Instructions for the fake engine."""
        self.script.write_text(json.dumps(script))
