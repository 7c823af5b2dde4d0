"""A real run tells a collector of its spans, and its workers' logs of their events."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from collector import attributes, listening
from kit import Command, archive, chunk_rows, comparable, parts


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    """Where Ray keeps its logs; short, since its sockets lie below it too."""
    folder = Path(tempfile.mkdtemp(prefix="dc-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def spoken(folder: Path) -> Path:
    archive(folder / "audio", [9.0, 6.0], seed=51)
    (folder / "audio" / "letter.mp3").write_text("no audio at all")
    return folder / "audio"


@pytest.mark.slow
def test_a_run_is_one_trace_and_its_logs_name_it(tmp_path: Path, ray_folder: Path) -> None:
    with listening() as collector:
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, "DAWNCHORUS_LOG": "json"}
        env |= {"RAY_TMPDIR": str(ray_folder)}
        run = Command(str(spoken(tmp_path)), tmp_path / "out", {"workers.window_rows": 1}, env=env)
        events = [json.loads(line) for line in run.run().splitlines()]
    assert collector.paths == {"/v1/traces"}
    assert len({s.trace_id for s in collector.spans}) == 1
    assert {"run", "prepare", "attempt", "publish", "reconcile", "report", "window"} == {
        s.name for s in collector.spans
    }
    [root], [attempt] = collector.named("run"), collector.named("attempt")
    about = attributes(root)
    assert root.parent_span_id == b""
    assert (about["exit"], about["engine"], about["num_failed"], about["num_done"]) == (0, "fake", 1, 3)
    assert {s.parent_span_id for s in collector.named("window")} == {attempt.span_id}
    _windows_are_those_committed(collector.named("window"), run.output)
    assert {e["run_id"] for e in events[1:]} == {about["run_id"]}
    assert [e["event"] for e in events if e["event"] != "said"] == [
        *("run_started", "plan", "attempt_started", "attempt_ended", "run_done", "summary")
    ]
    _workers_wrote(ray_folder, about["run_id"], len(parts(run.output)))


def _windows_are_those_committed(spans: list[Any], output: Path) -> None:
    rows = [r for r in chunk_rows(output) if r["kind"] == "chunk"]
    told = [attributes(s) for s in spans]
    calls = {(r["timing"]["worker"], r["timing"]["started_at"]) for r in rows}
    assert len([t for t in told if t["num_rows"]]) == len(calls)
    assert {t["worker"] for t in told} - {""} == {worker for worker, _ in calls}
    assert sum(t["num_rows"] for t in told) == len(rows)
    assert sum(t["audio_seconds"] for t in told) == pytest.approx(sum(r["end"] - r["start"] for r in rows))
    spent = sum(s.end_time_unix_nano - s.start_time_unix_nano for s in spans) / 1e9
    assert spent == pytest.approx(sum(r["timing"]["engine_seconds"] for r in rows), abs=1e-3)
    [failure] = [e for s in spans for e in s.events]
    assert attributes(failure)["kind"] == "not_audio"


def _workers_wrote(ray_folder: Path, run_id: str, num_parts: int) -> None:
    files = (ray_folder / "ray").glob("session_2*/logs/worker-*.err")
    events = [json.loads(x) for f in files for x in f.read_text().splitlines() if x.startswith("{")]
    assert {e["run_id"] for e in events} == {run_id}
    [failed] = [e for e in events if e["event"] == "recording_failed"]
    assert (failed["kind"], failed["level"]) == ("not_audio", "warning")
    assert failed["audio_filepath"].endswith("audio/letter.mp3")
    assert sum(e["event"] == "window_committed" for e in events) == num_parts
    assert sum(e["event"] == "engine_loaded" for e in events) >= 1


@pytest.mark.slow
def test_a_collector_that_never_answers_changes_nothing(tmp_path: Path) -> None:
    audio = spoken(tmp_path)
    plain = Command(str(audio), tmp_path / "plain")
    plain.run()
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{deaf.getsockname()[1]}"}
        traced = Command(str(audio), tmp_path / "traced", env=env)
        said = traced.run()
    assert "spans of the trace did not reach the collector" in said
    assert comparable(plain.output) == comparable(traced.output)


ONE_SPAN = """
import time
from dawnchorus import tracing
with tracing.root("run"):
    with tracing.span("prepare"):
        pass
    began = time.monotonic()
print(time.monotonic() - began)
"""


@pytest.mark.parametrize("answers", [True, False])
def test_a_collector_that_is_away_costs_seconds_at_the_end(answers: bool) -> None:
    """Nobody listens, or somebody who never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        if answers:
            server.close()
        env = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}"}
        done = subprocess.run([sys.executable, "-c", ONE_SPAN], capture_output=True, text=True, env=env)
    assert done.returncode == 0
    assert float(done.stdout) < 30, "it waits for 5"
    assert done.stderr.splitlines() == ["2 of 2 spans of the trace did not reach the collector."]


def test_nothing_is_imported_where_nobody_collects() -> None:
    code = ONE_SPAN + "import sys; assert not any('opentelemetry' in m for m in sys.modules)"
    env = {k: v for k, v in os.environ.items() if not k.startswith("OTEL_")}
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", code], check=True, env=env)
    assert time.monotonic() - began < 30
