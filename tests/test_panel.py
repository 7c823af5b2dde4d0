"""A run's status as it is shown: the bar, the line, the table, and which submission belongs to which run."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from rich.console import Console

from dawnchorus import panel, progress
from dawnchorus.cli.remote import Seen, View
from dawnchorus.errors import Transient
from dawnchorus.progress import Status
from dawnchorus.submission import Submitted

NOW = 1_800_000_000.0


def status(**changes: object) -> Status:
    given: dict[str, object] = {
        "run_id": "5e9d2e87d6d77d22",
        "state": "transcribing",
        "epoch": 1,
        "started_at": NOW - 600,
        "updated_at": NOW - 5,
        "num_recordings": 24,
    }
    return Status(**(given | changes))  # type: ignore[arg-type]


def printed(what: object, width: int = 80) -> str:
    text = io.StringIO()
    Console(file=text, width=width).print(what)
    return text.getvalue()


def test_nothing_of_nothing_is_no_bar() -> None:
    shown = printed(panel.status_panel(status(), now=NOW))
    assert "0 of 24" in shown
    assert "%" not in shown
    assert "100%" not in printed(panel.status_panel(status(total_audio=480.0), now=NOW))


def test_what_is_nearly_done_is_not_done() -> None:
    """Estimated lengths may be too short: then there is no audio left, and there are recordings."""
    nearly = status(total_audio=10.0, done_audio=10.0, num_done=23)
    assert "99%" in printed(panel.status_panel(nearly, now=NOW))
    done = status(total_audio=10.0, done_audio=10.0, num_done=24)
    assert "100%" in printed(panel.status_panel(done, now=NOW))


def test_a_line_says_how_it_is() -> None:
    line = panel.status_line(
        status(num_done=3, num_failed=1, total_audio=480.0, done_audio=120.0, rtfx=12.0, eta_seconds=30.0),
        now=NOW,
    )
    assert (
        line == "transcribing: 3 of 24 recordings, 1 failed, audio 25%  2 min of 8 min, rtfx 12.0, 30 s left"
    )
    waiting = submitted("dawnchorus-0-1", "PENDING", NOW)
    assert panel.status_line(None, waiting, NOW) == "dawnchorus-0-1: pending"


@pytest.mark.parametrize("width", [60, 80, 200])
def test_no_id_is_cut(width: int) -> None:
    run = status(updated_at=NOW - 11_000, total_audio=36_000.0, done_audio=23_000.0, rtfx=112.5)
    shown = printed(panel.runs_table([run, status(run_id="a-name-of-my-own-2027-01")], NOW), width)
    assert "5e9d2e87d6d77d22" in shown
    assert "a-name-of-my-own-2027-01" in shown


def submitted(submission_id: str, state: str, started: float) -> Submitted:
    return Submitted(submission_id, submission_id.rpartition("-")[0], "", state, "", started, None)


class Jobs:
    """A cluster that was asked for its submissions."""

    def __init__(self, *jobs: Submitted) -> None:
        self.jobs = list(jobs)

    def submissions(self, output: str) -> list[Submitted]:
        return self.jobs


def look(output: Path, *jobs: Submitted, run: str | None = None) -> tuple[str | None, str | None]:
    """The run and the submission that are shown."""
    found, job = panel.look(str(output), run, Jobs(*jobs))  # type: ignore[arg-type]
    return found and found.run_id, job and job.submission_id


def test_a_submission_and_its_run_find_each_other(tmp_path: Path) -> None:
    first, second = submitted("job-1", "FAILED", NOW - 900), submitted("job-2", "RUNNING", NOW - 500)
    assert look(tmp_path, first) == (None, "job-1"), "it ended before it wrote"
    progress.write(str(tmp_path / "_runs" / "one"), status(run_id="one", submission_id="job-1"))
    assert look(tmp_path, first) == ("one", "job-1")
    assert look(tmp_path, first, second) == (None, "job-2"), "it has not begun to write"
    progress.write(str(tmp_path / "_runs" / "one"), status(run_id="one", submission_id="job-2"))
    assert look(tmp_path, first, second) == ("one", "job-2")
    assert look(tmp_path, first, second, run="one") == ("one", "job-2")
    assert look(tmp_path, first, second, run="job-2") == ("one", "job-2")


def test_a_cluster_made_anew_counts_from_one_and_yesterdays_run_is_not_tonights(tmp_path: Path) -> None:
    ended = status(run_id="one", submission_id="job-1", state="ended", exit=130, updated_at=NOW - 9_000)
    progress.write(str(tmp_path / "_runs" / "one"), ended)
    assert look(tmp_path, submitted("job-1", "RUNNING", NOW - 60)) == (None, "job-1")
    assert look(tmp_path, submitted("job-1", "STOPPED", NOW - 12_000)) == ("one", "job-1")


def test_a_run_here_after_a_submission_is_the_one_shown(tmp_path: Path) -> None:
    job = submitted("job-1", "STOPPED", NOW - 900)
    progress.write(str(tmp_path / "_runs" / "one"), status(run_id="one", updated_at=NOW))
    assert look(tmp_path, job) == ("one", None)
    broken = submitted("job-2", "FAILED", NOW + 60)
    assert look(tmp_path, job, broken) == (None, "job-2"), "the news is that it could not start"


def test_who_watches_goes_on_when_the_store_is_away_for_a_while(tmp_path: Path) -> None:
    """A laptop that slept has no network for some seconds; the run has not ended."""

    class Away(View):
        def look(self) -> Seen:
            raise Transient("network", "The connection failed.")

    seen = (status(), None)
    assert Away(str(tmp_path), None, None).look_again(seen) == seen


def test_the_last_line_of_a_job_that_could_not_start_is_for_people() -> None:
    event = '{"time": "2027-01-31T07:00:01.000+00:00", "event": "error", "message": "Error: no such engine."}'
    job = replace(submitted("job-1", "FAILED", NOW), message=f"exit code 2, last logs:\n{event}")
    said = printed(panel.status_panel(None, job, NOW))
    assert "07:00:01 Error: no such engine." in said
    assert "event" not in said


def test_an_end_on_another_day_has_its_date() -> None:
    near, far = (printed(panel.status_panel(status(eta_seconds=e), now=NOW)) for e in (0.0, 180_000.0))
    assert re.search(r"left +0 s, until \d\d:\d\d\s", near)
    assert re.search(r"left +50.0 h, until 2027-01-\d\d \d\d:\d\d\s", far)


class JobServer(BaseHTTPRequestHandler):
    """A job server of which soon only the proxy before it is left."""

    alive = True

    def do_GET(self) -> None:
        said = b'{"version": "4", "ray_version": "2.60.0", "ray_commit": "", "session_name": ""}'
        said = said if self.path.startswith("/api/version") else b"[]"
        self.send_response(200 if JobServer.alive else 502)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *words: object) -> None:
        pass


def test_a_cluster_that_goes_while_one_looks_leaves_the_output(tmp_path: Path) -> None:
    progress.write(str(tmp_path / "_runs" / "one"), status(run_id="one"))
    JobServer.alive = True
    with ThreadingHTTPServer(("127.0.0.1", 0), JobServer) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        through_proxy, direct = View(str(tmp_path), None, address), View(str(tmp_path), None, address)
        assert through_proxy.cluster is not None
        JobServer.alive = False
        assert through_proxy.look()[0] == progress.read(str(tmp_path / "_runs" / "one"))
        assert through_proxy.cluster is None
        assert View(str(tmp_path), None, address).cluster is None
        server.shutdown()
    assert direct.look()[0] == progress.read(str(tmp_path / "_runs" / "one"))
    assert direct.cluster is None
