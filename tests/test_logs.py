"""Events as lines: what they hold, what they leave out, and how a person reads them."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from dawnchorus import logs


def said(code: str, **env: str) -> list[str]:
    """The lines that a process writes to stderr."""
    done = subprocess.run(
        [sys.executable, "-c", f"from dawnchorus import logs\n{code}"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **env},
    )
    assert not done.stdout
    return done.stderr.splitlines()


def test_an_event_is_one_json_object_on_one_line() -> None:
    code = "logs.bind(run_id='r1')\nlogs.warning('failed', 'two\\nlines 100% of', kind='crash', nothing=None)"
    [line] = said(code, DAWNCHORUS_LOG="json")
    event = json.loads(line)
    assert event.pop("time").endswith("+00:00")
    assert event == {
        "level": "warning",
        "event": "failed",
        "message": "two\nlines 100% of",
        "run_id": "r1",
        "kind": "crash",
    }


def test_no_credential_is_written() -> None:
    code = (
        "logs.event('e', 'at https://me:hunter2@host/a?X-Amz-Signature=5ec4e7', "
        "where=logs.address('https://host/a.mp3?token=5ec4e7'), deep={'url': 's3://k:hunter2@bucket/x'})"
    )
    [line] = said(code, DAWNCHORUS_LOG="json")
    assert "hunter2" not in line
    assert "5ec4e7" not in line
    assert json.loads(line)["where"] == "https://host/a.mp3"


def test_a_person_reads_messages_and_other_lines() -> None:
    event = {"time": "2027-01-31T07:00:01.000+00:00", "event": "plan", "message": "Plan", "rows": {"a": "b"}}
    assert logs.readable(json.dumps(event) + "\n") == "07:00:01 Plan\n         a: b\n"
    assert logs.readable(json.dumps({"event": "window_committed"}) + "\n") == ""
    hostile = {"event": "said", "message": "There is nothing at \x1b[2Ja.wav", "rows": ["no", "mapping"]}
    assert logs.readable(json.dumps(hostile)) == " There is nothing at [2Ja.wav\n"
    for line in ("INFO Ray says something\n", "[1, 2]\n", '{"other": "json"}\n'):
        assert logs.readable(line) == line


@given(st.lists(st.text(alphabet="ab\n", max_size=5)))
def test_lines_are_found_whatever_the_pieces(pieces: list[str]) -> None:
    assert "".join(logs.lines_of(pieces)) == "".join(pieces)
    assert list(logs.lines_of(pieces)) == "".join(pieces).splitlines(keepends=True)


def test_a_job_that_has_the_variable_is_not_told_again_and_nobody_unasked() -> None:
    """Ray refuses a variable that the job and its driver both set."""
    job = json.dumps({"runtime_env": {"env_vars": {"DAWNCHORUS_LOG": "json"}}})
    show = "print(logs.worker_env(), file=sys.stderr)\n"
    code = (
        f"import os, sys\n{show}os.environ['RAY_JOB_CONFIG_JSON_ENV_VAR'] = {job!r}\n{show}"
        f"os.environ['DAWNCHORUS_LOG'] = ''\n{show}logs.event('nobody asked for this')"
    )
    assert said(code, DAWNCHORUS_LOG="json") == ["{'DAWNCHORUS_LOG': 'json'}", "{}", "{}"]
