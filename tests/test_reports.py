"""`dawnchorus report`: found in the output, said in a few lines, copied to a file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import outputs
from dawnchorus import reports
from dawnchorus.cli import app
from test_report import archive, made


def report(*words: object) -> Result:
    return CliRunner().invoke(app, ["report", *map(str, words)])


def test_says_what_a_run_came_to_and_where_its_page_is(tmp_path: Path) -> None:
    run = archive(tmp_path / "out")
    headline = made(tmp_path / "out", gpus_per_engine=1.0, accelerator="H100")["headline"]
    said = report(tmp_path / "out")
    assert said.exit_code == 0, said.output
    assert said.output.startswith(headline)
    assert "per H100 hour" in said.output
    assert str(run / "report.html") in said.output
    assert report(tmp_path / "out", "--run", outputs.RUN_ID).output == said.output


def test_the_page_is_copied(tmp_path: Path) -> None:
    run = archive(tmp_path / "out")
    made(tmp_path / "out")
    assert report(tmp_path / "out", "--save", tmp_path / "night.html").exit_code == 0
    assert (tmp_path / "night.html").read_bytes() == (run / "report.html").read_bytes()
    said = report(tmp_path / "out", "--save", tmp_path / "no" / "folder.html")
    assert (said.exit_code, "cannot be written" in said.output) == (2, True)


@pytest.mark.parametrize("words", [(), ("--run", "another")])
def test_without_a_report_it_says_how_to_see_the_run(tmp_path: Path, words: tuple[str, ...]) -> None:
    archive(tmp_path / "out")
    if words:
        made(tmp_path / "out")
    said = report(tmp_path / "out", *words)
    assert said.exit_code == 2
    assert "There is no report" in said.output
    assert "dawnchorus status" in said.output


@pytest.mark.parametrize("name", ["0" * 16, "f" * 16])
def test_the_latest_is_taken(tmp_path: Path, name: str) -> None:
    """Whatever the runs are called."""
    run = archive(tmp_path)
    older = made(tmp_path)
    shutil.copytree(run, run.with_name(name))
    newer = older | {"run_id": name, "made_at": older["made_at"] + 1}
    (run.with_name(name) / "report.json").write_text(json.dumps(newer), encoding="utf-8")
    found = reports.find(str(tmp_path))
    assert found is not None
    assert (found["run_id"], found["made_at"]) == (name, newer["made_at"])
