"""Who is told: a real program, a real web server, and what never leaves the machine."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from dawnchorus.config import NotifyConfig
from dawnchorus.notify import tell

NEWS = {"text": "all is well", "run_id": "r1", "output": "s3://key:secret@bucket/out", "exit": 0}


class _Hook(BaseHTTPRequestHandler):
    heard: ClassVar[list[Any]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.heard.append((self.path, self.headers["Content-Type"], json.loads(body)))
        self.send_response(500 if "broken" in self.path else 200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


@pytest.fixture
def hook() -> Iterator[str]:
    _Hook.heard.clear()
    server = HTTPServer(("127.0.0.1", 0), _Hook)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_program_reads_the_news_and_no_secret(tmp_path: Path) -> None:
    keep = f"import sys; open({str(tmp_path / 'news')!r}, 'w').write(sys.stdin.read())"
    assert tell(NotifyConfig(command=[sys.executable, "-c", keep]), "done", NEWS) == []
    news = json.loads((tmp_path / "news").read_text())
    assert (news["event"], news["run_id"], news["exit"]) == ("done", "r1", 0)
    assert "secret" not in json.dumps(news)


def test_a_webhook_is_posted_to_and_its_address_never_said(
    hook: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = NotifyConfig(webhook_env="HOOK")
    monkeypatch.setenv("HOOK", f"{hook}/services/T0KEN")
    assert tell(config, "incomplete", NEWS) == []
    [(path, kind, body)] = _Hook.heard
    assert (path, kind, body["event"]) == ("/services/T0KEN", "application/json", "incomplete")
    monkeypatch.setenv("HOOK", f"{hook}/broken/T0KEN")
    [said] = tell(config, "done", NEWS)
    assert "answered 500" in said
    assert "T0KEN" not in said
    monkeypatch.setenv("HOOK", "http://127.0.0.1:1/T0KEN")
    [said] = tell(config, "done", NEWS)
    assert "was not reached" in said
    assert "T0KEN" not in said
    for value in ("http://127.0.0.1:1/T0KEN and more", "http://127.0.0.1:T0KEN/"):
        monkeypatch.setenv("HOOK", value)
        [said] = tell(config, "done", NEWS)
        assert "was not reached (InvalidURL)" in said
        assert "T0KEN" not in said
    for value in ("", "file:///etc/passwd"):
        monkeypatch.setenv("HOOK", value)
        assert "holds no http(s) address" in tell(config, "done", NEWS)[0]


def test_what_fails_is_said_and_what_is_not_asked_for_is_not_sent(tmp_path: Path) -> None:
    assert "did not run" in tell(NotifyConfig(command=[str(tmp_path / "nothing")]), "failed", NEWS)[0]
    assert "ended with 3" in tell(NotifyConfig(command=["sh", "-c", "exit 3"]), "failed", NEWS)[0]
    assert tell(NotifyConfig(command=["sh", "-c", "exit 3"], on=["failed"]), "done", NEWS) == []
