"""A real S3 server for tests: OpenStack Swift with s3api and tempauth, four processes on loopback.

`running(folder)` starts it, waits until it answers, and stops it by process id. Everything (data, logs,
configuration) lies in `folder`, whose file system must hold extended attributes. It honours
`If-None-Match: *` but not `If-Match`.
"""

from __future__ import annotations

import contextlib
import functools
import getpass
import itertools
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REGION = "us-east-1"
ACCESS_KEY = "test:tester"
SECRET_KEY = "testing"
_START_SECONDS = 60.0
_BACKENDS = ("account", "container", "object")

_SWIFT_CONF = """
[swift-hash]
swift_hash_path_suffix = tests
swift_hash_path_prefix = tests

[storage-policy:0]
name = only
default = yes
"""

_BACKEND_CONF = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = {user}
swift_dir = {folder}
devices = {folder}/devices
mount_check = false
# Nobody else fills this disk; the default would refuse writes on a file system that is 99 % full.
fallocate_reserve = 0
max_clients = {clients}
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
"""

_PROXY_CONF = """
[DEFAULT]
bind_ip = {host}
bind_port = {port}
workers = 0
user = {user}
swift_dir = {folder}
[pipeline:main]
pipeline = catch_errors gatekeeper healthcheck proxy-logging listing_formats bulk s3api tempauth slo dlo proxy-logging proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:healthcheck]
use = egg:swift#healthcheck
[filter:proxy-logging]
use = egg:swift#proxy_logging
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:bulk]
use = egg:swift#bulk
[filter:s3api]
use = egg:swift#s3api
location = {region}
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing .admin
user_test_reader = reading
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
"""  # noqa: E501 - one pipeline is one line

_MAKE_RINGS = """
import sys
from swift.common.ring import RingBuilder
folder, *pairs = sys.argv[1:]
for pair in pairs:
    kind, port = pair.split("=")
    ring = RingBuilder(2, 1, 0)
    ring.add_dev({"id": 0, "region": 1, "zone": 1, "ip": "127.0.0.1", "port": int(port),
                  "device": "disk", "weight": 1.0})
    ring.rebalance()
    ring.get_ring().save(f"{folder}/{kind}.ring.gz")
"""


@dataclass
class S3Server:
    """A running server. `env` is what a process needs to use it, and nothing of the machine's own."""

    endpoint: str
    env: dict[str, str]
    _counter: Iterator[int] = field(default_factory=itertools.count, repr=False)

    def make_bucket(self) -> str:
        """A new bucket's URL: `s3://bucket-0`."""
        name = f"bucket-{next(self._counter)}"
        self.client.create_bucket(Bucket=name)
        return f"s3://{name}"

    @functools.cached_property
    def client(self) -> Any:
        """A botocore client, independent of the code under test."""
        import botocore.session
        from botocore.config import Config

        return botocore.session.Session().create_client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            region_name=REGION,
            config=Config(request_checksum_calculation="when_required", retries={"total_max_attempts": 1}),
        )


@contextlib.contextmanager
def running(folder: Path, host: str = "127.0.0.1") -> Iterator[S3Server]:
    """Start a server with its files in `folder` and its proxy on `host`, and stop it at the end."""
    ports = dict(zip(("proxy", *_BACKENDS), _free_ports(1 + len(_BACKENDS)), strict=True))
    _configure(folder, ports, host)
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for kind in ports:
            processes.append(_start(folder, kind))
        endpoint = f"http://{host}:{ports['proxy']}"
        hosts = {"proxy": host}
        urls = [f"http://{hosts.get(kind, '127.0.0.1')}:{port}/healthcheck" for kind, port in ports.items()]
        _wait(folder, processes, urls)
        yield S3Server(endpoint, _environment(endpoint))
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]


def _configure(folder: Path, ports: dict[str, int], host: str) -> None:
    (folder / "devices" / "disk").mkdir(parents=True)
    try:
        os.setxattr(folder / "devices" / "disk", "user.swift", b"works")
    except OSError as e:
        raise RuntimeError(f"{folder} holds no extended attributes: choose another --basetemp") from e
    facts = {"folder": folder, "user": getpass.getuser(), "region": REGION}
    (folder / "swift.conf").write_text(_SWIFT_CONF)
    (folder / "proxy.conf").write_text(_PROXY_CONF.format(port=ports["proxy"], host=host, **facts))
    for kind in _BACKENDS:
        # Swift checks If-None-Match before it writes, so two creations at the same moment can both pass.
        # One request at a time gives what AWS promises: check and creation are one step.
        clients = 1 if kind == "object" else 1024
        conf = _BACKEND_CONF.format(port=ports[kind], kind=kind, clients=clients, **facts)
        (folder / f"{kind}.conf").write_text(conf)
    pairs = [f"{kind}={ports[kind]}" for kind in _BACKENDS]
    subprocess.run([sys.executable, "-c", _MAKE_RINGS, str(folder), *pairs], check=True)


def _start(folder: Path, kind: str) -> subprocess.Popen[bytes]:
    module = "obj" if kind == "object" else kind
    code = f"from swift.{module}.server import main; main()"
    command = [sys.executable, "-W", "ignore", "-c", code, str(folder / f"{kind}.conf"), "-v"]
    with open(folder / f"{kind}.log", "wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, start_new_session=True)


def _wait(folder: Path, processes: list[subprocess.Popen[bytes]], urls: list[str]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    for url in urls:
        while not _answers(url):
            dead = [p.args for p in processes if p.poll() is not None]
            if dead or time.monotonic() > deadline:
                logs = "\n".join(f.read_text()[-2000:] for f in sorted(folder.glob("*.log")))
                raise RuntimeError(f"the S3 server does not start; ended: {dead}\n{logs}")
            time.sleep(0.1)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def _environment(endpoint: str) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_REGION": REGION,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
