"""The section `notify` of the configuration: who is told of a run, and when it should be done."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime

from dawnchorus.config.sections import Section, key


class NotifyConfig(Section):
    """Who is told when a run ends, fails or stalls."""

    command: list[str] = key(
        [], "A program and its arguments; it reads the news as JSON. No shell is involved.", text=False
    )
    webhook_env: str | None = key(
        None,
        "Name of the environment variable that holds a URL to POST the news to as JSON; the URL is a secret, "
        "so it is never written down.",
        text=False,
    )
    deadline: AwareDatetime | None = key(
        None,
        "When the run should be done, with its time zone, such as 2027-01-31T07:00+01:00: `late` is told "
        "when it will not be, and the shipped alert fires.",
        text=False,
    )
    on: list[Literal["done", "incomplete", "failed", "stalled", "stopped", "late"]] = key(
        ["done", "incomplete", "failed", "stalled", "late"], "What is worth telling.", text=False
    )
