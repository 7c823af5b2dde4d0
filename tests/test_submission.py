"""What a laptop says to a job server, and what it says of one that is none."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from dawnchorus import config
from dawnchorus.errors import ConfigError
from dawnchorus.submission import Cluster, Submitted, Unreachable, anywhere, check, next_id


class JobServer(BaseHTTPRequestHandler):
    """A job server with one job, which writes to s3://bucket/out/."""

    def do_GET(self) -> None:
        version = {"version": "4", "ray_version": "2.60.0", "ray_commit": "", "session_name": ""}
        about = {"dawnchorus.job": "job", "dawnchorus.output": "s3://bucket/out/"}
        job = {"type": "SUBMISSION", "submission_id": "job-1", "status": "RUNNING", "metadata": about}
        job |= {"entrypoint": "true", "message": "", "start_time": 1_000}
        said = json.dumps(version if self.path.startswith("/api/version") else [job]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, format: str, *words: object) -> None:
        """Says nothing."""


@contextmanager
def job_server(kind: type[JobServer] = JobServer) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextmanager
def other_server() -> Iterator[str]:
    """A port on which something else than HTTP is spoken, as on Ray's 6379."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            with listening.accept()[0] as connection:
                connection.recv(1_000)
                connection.sendall(b"\x00\x00\x12\x04 no HTTP\r\n\r\n")

        Thread(target=answer, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_another_port_of_the_head_is_no_job_server() -> None:
    with other_server() as address, pytest.raises(Unreachable, match="No Ray job server answers"):
        Cluster(address)


@pytest.mark.parametrize("address", ["http://HEAD:PORT", "http://he ad:8265"])
def test_what_is_no_url_is_said(address: str) -> None:
    with pytest.raises(Unreachable, match="Check the address"):
        Cluster(address)


@pytest.mark.parametrize("address", ["head:8265", "ray://head:10001", "auto"])
def test_an_address_begins_with_http(address: str) -> None:
    """Ray would look for a cluster of its own behind these for 45 s."""
    with pytest.raises(ConfigError, match="begins with http"):
        Cluster(address)


def test_a_token_that_is_missing_is_said(tmp_path: Path) -> None:
    """In a process of its own: Ray keeps a token once it has one."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_AUTH")}
    environment |= {"RAY_AUTH_MODE": "token", "HOME": str(tmp_path)}
    with job_server() as address:
        words = [sys.executable, "-m", "dawnchorus.cli", "logs", str(tmp_path), "--address", address]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("Error: No Ray job server answers")
    assert "RAY_AUTH_TOKEN" in done.stderr


class Expiring(JobServer):
    """A job server behind a session that ends."""

    def do_GET(self) -> None:
        if self.path.startswith("/api/version"):
            return super().do_GET()
        self.send_response(403)
        self.send_header("Content-Length", "0")
        self.end_headers()
        return None


def test_a_session_that_ends_is_a_cluster_that_cannot_be_reached() -> None:
    with job_server(Expiring) as address:
        cluster = Cluster(address)
        with pytest.raises(Unreachable, match="RAY_AUTH_TOKEN"):
            cluster.submissions("s3://bucket/out")


@pytest.mark.parametrize("output", ["s3://bucket/out", "s3://bucket/out/"])
def test_a_submission_is_found_with_and_without_a_slash(output: str) -> None:
    with job_server() as address:
        assert [s.submission_id for s in Cluster(address).submissions(output)] == ["job-1"]


def test_a_number_is_not_given_again() -> None:
    """Ray forgets jobs that are deleted, and refuses an id twice."""
    left = [Submitted(f"job-{n}", "job", "", "SUCCEEDED", "", 0.0, 0.0) for n in (2, 10)]
    assert next_id("job", left) == "job-11"
    assert next_id("job", []) == "job-1"


def test_what_only_the_nodes_have_is_not_looked_for_here(tmp_path: Path) -> None:
    """Volumes of a cluster's pods; and no folder is made on the laptop in their place."""
    settings = config.build({"input": str(tmp_path / "in"), "output": str(tmp_path / "out")})
    check(settings, shared_paths=True)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConfigError, match=r"input = .* is a path on this machine"):
        check(settings)


def test_prices_on_the_laptop_are_refused_and_paths_are_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tree = {"input": "s3://bucket/in", "output": "s3://bucket/out", "cost": {"prices": "mine.yaml"}}
    settings = anywhere(config.build(tree | {"engine": {"model": "./model"}}))
    assert settings.cost.prices == str(tmp_path / "mine.yaml")
    assert settings.engine.model == str(tmp_path / "model")
    assert settings.input == "s3://bucket/in"
    with pytest.raises(ConfigError, match=r"cost\.prices = "):
        check(settings)
