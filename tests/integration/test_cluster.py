"""From a laptop to a cluster and back: submit, status, logs, stop, against a real Ray head."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import head
from dawnchorus import progress
from dawnchorus.progress import Status
from kit import PATIENCE, archive, transcripts


@pytest.fixture(scope="module")
def metrics_port() -> int:
    return head.free_port()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, metrics_port: int) -> Iterator[str]:
    patient = {"RAY_JOB_STOP_WAIT_TIME_S": "30", "RAY_metrics_report_interval_ms": "500"}
    with head.running(tmp_path_factory.mktemp("head"), env=patient, metrics_port=metrics_port) as where:
        yield where


def command(*words: str, code: int = 0, python: str = sys.executable, **env: str) -> str:
    """What the command printed."""
    done = subprocess.run(
        [python, "-m", "dawnchorus.cli", *words],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env={**os.environ, "COLUMNS": "120", **env},
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def _interrupted(*words: str) -> str:
    """What a command that prints something says on stderr when Ctrl-C ends it after that."""
    begun = [sys.executable, "-m", "dawnchorus.cli", *words]
    with subprocess.Popen(begun, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
    assert process.returncode == 130, said
    return said


def submit(
    folder: Path, address: str, pace: float = 0.0, python: str = sys.executable, more: tuple[str, ...] = ()
) -> str:
    return command(
        *("submit", "--address", address, "--shared-paths", *words(folder, pace), *more), python=python
    )


def words(folder: Path, pace: float = 0.0) -> list[str]:
    options = json.dumps({"seconds_per_audio_second": pace, "log": str(folder / "calls.jsonl")})
    return [
        *("--input", str(folder / "audio"), "--output", str(folder / "out"), "--engine", "fake"),
        *(f"engine.options={options}", "workers.window_rows=1", "plan.unit_seconds=10", "workers.engines=1"),
    ]


def status(folder: Path) -> dict[str, Any]:
    files = list((folder / "out").glob("_runs/*/progress.json"))
    return json.loads(files[0].read_text()) if files else {}


def wait_for_state(folder: Path, *states: str) -> dict[str, Any]:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        found = status(folder)
        if found.get("state") in states:
            return found
        time.sleep(0.5)
    raise AssertionError(f"not {states} but {status(folder)}")


def metrics_of(port: int, run_id: str) -> dict[str, float]:
    """What Prometheus would scrape of a run, summed over its processes: `name{label=value,...}` -> value."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            lines = [line for line in answer.read().decode().splitlines() if f'run_id="{run_id}"' in line]
    except OSError:  # busy: it is asked again
        return {}
    found: dict[str, float] = {}
    for line in lines:
        name, _, rest = line.partition("{")
        labels = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        mine = ",".join(f"{k}={labels[k]}" for k in ("kind", "stage", "status") if k in labels)
        found[f"{name}{{{mine}}}"] = found.get(f"{name}{{{mine}}}", 0.0) + float(line.rpartition(" ")[2])
    return found


@pytest.mark.slow
def test_a_run_is_submitted_watched_and_read(address: str, metrics_port: int, tmp_path: Path) -> None:
    archive(tmp_path / "audio", [9.0, 5.0], seed=41)
    (tmp_path / "audio" / "letter.mp3").write_text("no audio at all")
    job = submit(tmp_path, address).split()[0].removesuffix("-1")
    watched = command("status", str(tmp_path / "out"), "--watch", "--address", address)
    first = rf"\S+ ({job}-1|starting|transcribing|publishing): "
    assert re.match(first, watched), "into a pipe it says at once how it is, in a line"
    assert "not_audio 1" in watched
    assert watched.endswith("All 3 recordings are accounted for.\n")
    run_id = status(tmp_path)["run_id"]
    assert transcripts(tmp_path / "out")["status"].to_pylist().count("ok") == 2
    told = command("logs", str(tmp_path / "out"), "--address", address)
    assert "All 3 recordings" in told
    assert "Joining the cluster at" in told
    assert "logging.cc" not in told
    raw = command("logs", str(tmp_path / "out"), "--address", address, "--raw")
    events = [json.loads(line) for line in raw.splitlines() if line.startswith("{")]
    assert {"run_started", "plan", "attempt_started", "run_done", "summary"} <= {e["event"] for e in events}
    assert {e["run_id"] for e in events[2:]} == {run_id}
    assert run_id in command("list", str(tmp_path / "out"))
    found = status(tmp_path)
    assert (found["exit"], found["num_done"], found["submission_id"]) == (0, 3, f"{job}-1")

    until = time.monotonic() + 30
    while (metrics := metrics_of(metrics_port, run_id)).get(
        "ray_dawnchorus_recordings_total{status=ok}"
    ) != 2.0:
        assert time.monotonic() < until, metrics
        time.sleep(0.5)
    assert metrics["ray_dawnchorus_failures_total{kind=not_audio,stage=decode}"] == 1.0
    assert metrics["ray_dawnchorus_audio_decoded_seconds_total{}"] == pytest.approx(14.0, abs=0.5)
    transcribed = metrics["ray_dawnchorus_audio_transcribed_seconds_total{}"]
    assert metrics["ray_dawnchorus_batch_audio_seconds_total{}"] == pytest.approx(transcribed, abs=0.5)
    assert metrics["ray_dawnchorus_batch_rows_count{}"] == metrics["ray_dawnchorus_queue_seconds_count{}"]

    again = submit(tmp_path, address)
    assert f"{job}-2" in again, "the same run, submitted once more"
    followed = command("logs", str(tmp_path / "out"), "--address", address, "--follow")
    assert "already done" in followed
    assert len((tmp_path / "calls.jsonl").read_text().splitlines()) == len(
        {json.loads(line)["hash"] for line in (tmp_path / "calls.jsonl").read_text().splitlines()}
    )
    here = command(*("run", *words(tmp_path)))
    assert "already done" in here
    listed = command("list", str(tmp_path / "out")).splitlines()
    assert [line.split()[0] for line in listed[1:]] == [run_id], "submitted or not, it is one run"


@pytest.mark.slow
def test_a_run_at_work_is_found_and_stopped_through_its_output(
    address: str, metrics_port: int, tmp_path: Path
) -> None:
    archive(tmp_path / "audio", [6.0, *[20.0] * 9], seed=42)
    submit(tmp_path, address, pace=2.0, more=("notify.deadline=2099-01-31T07:00+01:00",))
    begun = wait_for_state(tmp_path, "transcribing")
    run_id = begun["run_id"]
    gauges = {f"ray_dawnchorus_{g}{{}}" for g in ("engines", "commit_age_seconds", "deadline")}
    gauges.add("ray_dawnchorus_audio_remaining_seconds{}")
    until = time.monotonic() + 60
    while not gauges <= (metrics := metrics_of(metrics_port, run_id)).keys():
        assert time.monotonic() < until, metrics
        time.sleep(0.5)
    assert metrics["ray_dawnchorus_engines{}"] == 1.0
    assert metrics["ray_dawnchorus_deadline{}"] == 4073522400.0
    assert "is at work already" in submit(tmp_path, address, pace=2.0)
    assert _interrupted("logs", str(tmp_path / "out"), "--follow", "--address", address) == (
        "Not looking any more; the run goes on.\n"
    )
    said = command("stop", str(tmp_path / "out"))
    assert "Stopped." in said
    found = status(tmp_path)
    assert (found["state"], found["exit"]) == ("ended", 130)
    assert found["num_done"] < found["num_recordings"]
    assert found["total_audio"] >= begun["total_audio"] > 0.0, "the plan's, though less was done"
    assert "100%" not in command("status", str(tmp_path / "out"))
    assert "has ended" in command("stop", str(tmp_path / "out"))


@pytest.mark.slow
def test_a_job_that_could_not_start_says_why(address: str, tmp_path: Path) -> None:
    archive(tmp_path / "audio", [3.0], seed=45)
    said = submit(tmp_path, address, more=("engine.options={no_such: 1}",))
    until = time.monotonic() + PATIENCE
    while "failed" not in (how := command("status", str(tmp_path / "out"), "--address", address)):
        assert time.monotonic() < until, how
        time.sleep(0.5)
    assert said.split()[0] in how
    ended = command("stop", str(tmp_path / "out"), "--address", address)
    assert f"{said.split()[0]} has failed on the cluster" in ended
    assert "no_such" in ended, "the last lines of its log"


def test_a_cluster_that_is_gone_leaves_the_output(tmp_path: Path) -> None:
    run = Status("5e9d2e87d6d77d22", "transcribing", 1, time.time() - 9000, time.time() - 8000)
    progress.write(str(tmp_path / "_runs" / run.run_id), run)
    nobody = f"http://127.0.0.1:{head.free_port()}"
    said = command("status", str(tmp_path), DAWNCHORUS_ADDRESS=nobody)
    assert f"The cluster is unreachable at {nobody}" in said
    assert f"run {run.run_id}  silent for 2.2 h" in said
    assert run.run_id in command("list", str(tmp_path), DAWNCHORUS_ADDRESS=nobody, COLUMNS="40")
    said = command("stop", str(tmp_path), "--address", nobody, code=2)
    assert "its cluster does not answer" in said
    assert "Give its --address" not in said
    said = command("logs", str(tmp_path), "--address", nobody, code=2)
    assert "No Ray job server answers" in said


@pytest.mark.slow
def test_what_the_cluster_cannot_see_is_refused(address: str, tmp_path: Path) -> None:
    archive(tmp_path / "audio", [3.0], seed=43)
    words = ("submit", "--input", str(tmp_path / "audio"), "--output", str(tmp_path / "out"))
    said = command(*words, "--address", address, code=2)
    assert "which the cluster cannot see" in said
    assert "Which cluster?" in command(*words, "--shared-paths", code=2, DAWNCHORUS_ADDRESS="")
    nobody = f"http://127.0.0.1:{head.free_port()}"
    said = command(*words, "--shared-paths", "--address", nobody, code=2)
    assert "No Ray job server answers" in said
    assert not (tmp_path / "out" / "transcripts").exists()
    assert "There is no run" in command("status", str(tmp_path / "nothing"), code=2)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_laptop_needs_the_base_install_only(address: str, tmp_path: Path) -> None:
    """Another venv, without any extra: no torch, no decoder, no engine, and no dashboard of Ray's."""
    root = Path(__file__).parents[2]
    venv.create(tmp_path / "laptop", with_pip=True)
    python = str(tmp_path / "laptop" / "bin" / "python")
    constraints = str(root / "infra" / "constraints.txt")
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, "--constraint", constraints, str(root)], check=True, timeout=900)
    probe = (
        "import importlib.util as u; print([m for m in ('torch', 'av', 'faster_whisper') if u.find_spec(m)])"
    )
    done = subprocess.run([python, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

    archive(tmp_path / "audio", [4.0, 6.0], seed=44)
    assert "is submitted" in submit(tmp_path, address, python=python)
    watched = command("status", str(tmp_path / "out"), "--watch", "--address", address, python=python)
    assert "Both recordings are accounted for." in watched
    assert "Both recordings" in command("logs", str(tmp_path / "out"), "--address", address, python=python)
    assert "2 recordings" in command("show", str(tmp_path / "out"), python=python)
