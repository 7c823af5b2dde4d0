"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

import s3_server

# A shell starts what it puts into the background with Ctrl-C ignored, and that is passed on: the tests that
# press it would wait for what they begin until it ends by itself.
signal.signal(signal.SIGINT, signal.default_int_handler)

# What a person has set for other programs would change what the tests see.
for _name in [n for n in os.environ if n.startswith(("DAWNCHORUS_", "OTEL_"))]:
    del os.environ[_name]
for _name in ("RAY_ADDRESS", "FORCE_COLOR", "COLUMNS"):
    os.environ.pop(_name, None)
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"

settings.register_profile("tests", deadline=None)  # times are of the machine, not of the code
settings.load_profile("tests")


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3_server.S3Server]:
    """A real S3 server, started when the first test asks for it (2 s). See `s3_environment`."""
    with s3_server.running(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3_environment(s3: s3_server.S3Server, monkeypatch: pytest.MonkeyPatch) -> s3_server.S3Server:
    """The S3 server, with this process's AWS variables pointing at it during the test."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    return s3
