"""infra/skypilot: the task by SkyPilot's own schemas, its scripts by shellcheck, its YAML by ours."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml
from schemas_of_others import skypilot

from dawnchorus import config
from dawnchorus.outcome import Exit

ROOT = Path(__file__).parents[2]
FILE = ROOT / "infra" / "skypilot" / "dawnchorus.yaml"
SHELLCHECK = Path(sys.executable).with_name("shellcheck")


def _task() -> dict[str, Any]:
    return dict(yaml.safe_load(FILE.read_text(encoding="utf-8")))


def test_task_is_what_skypilots_own_schema_says() -> None:
    task = _task()
    errors = [*skypilot("task").iter_errors(task), *skypilot("resources").iter_errors(task["resources"])]
    assert not [f"{e.json_path}: {e.message}" for e in errors]


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("task", {"num_node": 2}),
        ("task", {"envs": {"1BAD": "x"}}),
        ("resources", {"use_spots": True}),
        ("resources", {"job_recovery": {"recover_on_exit_codes": [300]}}),
        ("resources", {"accelerators": {"L4": 1, "A100": 1, "T4": "x"}}),
    ],
)
def test_schema_refuses(part: str, change: dict[str, Any]) -> None:
    whole = _task() if part == "task" else _task()["resources"]
    assert list(skypilot(part).iter_errors({**whole, **change}))


@pytest.mark.parametrize("part", ["setup", "run"])
def test_shellcheck_finds_nothing(part: str) -> None:
    done = subprocess.run(
        [SHELLCHECK, "--shell=bash", "-"],
        input=_task()[part],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_configuration_in_the_script_is_one() -> None:
    task = _task()
    assert "ray stop" not in task["run"].replace("`ray stop`", ""), "it would end SkyPilot's own Ray"
    (text,) = re.findall(r"<<'YAML'\n(.*?)\n\s*YAML\n", task["run"], re.DOTALL)
    built = config.build(
        yaml.safe_load(textwrap.dedent(text)),
        [f"input={task['envs']['INPUT']}", f"output={task['envs']['OUTPUT']}"],
    )
    assert built.engine.device == "cuda"


def test_what_a_repetition_mends_is_recovered() -> None:
    codes = _task()["resources"]["job_recovery"]["recover_on_exit_codes"]
    assert {Exit.INCOMPLETE, Exit.OWNED} == set(codes)
