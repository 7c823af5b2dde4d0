"""`stop` of a run that takes its time: it is not ended in the middle of publishing."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from typer.testing import CliRunner

from dawnchorus import progress
from dawnchorus.cli import app, remote
from dawnchorus.progress import Status


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """A job server with one job that writes to `tmp_path`, and what it was told to do."""
    told: list[str] = []

    class JobServer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            about = {"dawnchorus.job": "job", "dawnchorus.output": str(tmp_path)}
            job = {"type": "SUBMISSION", "submission_id": "job-1", "status": "RUNNING", "metadata": about}
            job |= {"entrypoint": "true", "message": "", "start_time": 1_000}
            version = {"version": "4", "ray_version": "2.60.0", "ray_commit": "", "session_name": ""}
            self.answer(version if self.path.startswith("/api/version") else [job])

        def do_POST(self) -> None:
            told.append(self.path)
            self.answer({"stopped": True})

        def answer(self, what: object) -> None:
            said = json.dumps(what).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *words: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), JobServer) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", told
        server.shutdown()


@pytest.mark.parametrize(("silent", "said"), [(0.0, "is still publishing"), (900.0, "was told to end it")])
def test_only_a_run_that_says_nothing_is_ended(
    silent: float,
    said: str,
    cluster: tuple[str, list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address, told = cluster
    monkeypatch.setattr(remote, "_STOP_SECONDS", 0.5)
    now = time.time()
    status = Status("r", "publishing", 1, now - 1000, now - silent, submission_id="job-1")
    progress.write(str(tmp_path / "_runs" / "r"), status)
    done = CliRunner().invoke(app, ["stop", str(tmp_path), "--address", address])
    assert said in " ".join(done.output.split())
    assert bool(told) == bool(silent)
