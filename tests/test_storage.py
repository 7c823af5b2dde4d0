"""storage: addresses, local files, a real S3 server and a real, ill-behaved web server."""

from __future__ import annotations

import errno
import gzip
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from botocore.exceptions import NoCredentialsError
from hypothesis import given
from hypothesis import strategies as st

from dawnchorus import storage
from dawnchorus.errors import ConfigError, StorageUnavailable, Terminal, Transient, UserError
from dawnchorus.storage import fetching, remote
from dawnchorus.storage.problems import explain
from s3_server import ACCESS_KEY, S3Server
from web import answering

MAX = 1 << 30

# ---------------------------------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    ("address", "canonical"),
    [
        ("/data/a b é.wav", "file:///data/a b é.wav"),
        ("/data/x/../50%#1?.wav", "file:///data/50%25%231%3F.wav"),
        ("file:///data/a%20b.wav", "file:///data/a b.wav"),
        ("file://localhost/data/a.wav", "file:///data/a.wav"),
        ("s3a://key:secret@bucket/a b#1.wav", "s3://bucket/a b#1.wav"),
        ("S3://bucket//two//slashes", "s3://bucket//two//slashes"),
        ("gcs://bucket/x", "gs://bucket/x"),
        ("HTTPS://me:pw@Example.org:443/a b/%c3%a9.mp3#t=1", "https://example.org/a%20b/%C3%A9.mp3"),
        ("http://h:8080/x?id=3&X-Amz-Signature=s&X-Amz-Expires=9", "http://h:8080/x?id=3"),
        ("https://h/x?sv=1&sig=abc&access_token=t", "https://h/x"),
        ("hf://datasets/me/set@main/a.wav", "hf://datasets/me/set@main/a.wav"),
    ],
)
def test_canonical_uri(address: str, canonical: str) -> None:
    assert storage.canonical_uri(address) == canonical
    assert storage.canonical_uri(canonical) == canonical


@pytest.mark.parametrize(
    ("address", "base", "canonical"),
    [
        ("./x/../a.wav", "s3://bucket/calls", "s3://bucket/calls/a.wav"),
        ("../a.wav", "s3://bucket/calls", "s3://bucket/a.wav"),
        ("../../../a.wav", "s3://bucket/calls", "s3://bucket/a.wav"),
        ("/mnt/a.wav", "s3://bucket/calls", "file:///mnt/a.wav"),
        ("s3://other/a.wav", "s3://bucket/calls", "s3://other/a.wav"),
        ("a b#1.wav", "https://h/calls", "https://h/calls/a%20b%231.wav"),
        ("/top/a.wav", "https://h/calls", "https://h/top/a.wav"),
        ("a:b.wav", "https://h/calls", "https://h/calls/a%3Ab.wav"),
        ("a.wav", "/data/calls", "file:///data/calls/a.wav"),
        ("a.wav", "file:///data/two words", "file:///data/two words/a.wav"),
    ],
)
def test_relative_addresses_resolve_against_the_folder(address: str, base: str, canonical: str) -> None:
    assert storage.canonical_uri(address, base) == canonical


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1))
def test_every_local_name_survives_the_round_trip(name: str) -> None:
    path = os.path.abspath("/data/" + name)
    uri = storage.canonical_uri(path)
    assert storage.local_path(uri) == path
    assert storage.canonical_uri(uri) == uri


def test_a_name_that_is_not_utf8_gets_an_ascii_uri() -> None:
    path = "/data/" + os.fsdecode(b"\xff\xfe.wav")
    assert storage.canonical_uri(path).isascii()
    assert storage.local_path(storage.canonical_uri(path)) == path


@pytest.mark.parametrize("address", ["memory://x/a.wav", "zip::s3://b/x.zip", "zip://a.wav::s3://b/x.zip"])
def test_addresses_that_are_refused(address: str) -> None:
    with pytest.raises(ConfigError):
        storage.canonical_uri(address)


def test_unknown_places_and_missing_packages_name_the_fix() -> None:
    with pytest.raises(UserError, match="Use a local path, s3://"):
        storage.exists("ipfs0://x/y")
    with pytest.raises(UserError, match="pip install gcsfs"):
        storage.exists("gs://x/y")


def test_join_and_names() -> None:
    assert storage.join("s3://b/out/", "chunks", "a b.parquet") == "s3://b/out/chunks/a b.parquet"
    assert storage.join("/out", "a%b") == "/out/a%b"
    assert storage.local_path(storage.join("file:///out", "a%b")) == "/out/a%b"
    assert storage.name_of("https://h/x/a%20b.wav?q=1") == "a b.wav"
    assert storage.parent("s3://b/x/man.jsonl") == "s3://b/x"
    assert storage.parent("https://h/x/man.jsonl?sig=1") == "https://h/x"


def test_words_that_are_no_secrets_tell_recordings_apart() -> None:
    asked = [
        "http://h/p?author=smith",
        "http://h/p?author=jones",
        "http://h/?show=7&se=1",
        "http://h/?show=7&se=2",
    ]
    assert [storage.canonical_uri(a) for a in asked] == asked
    assert [storage.redact(a) for a in asked] == asked
    signed = "http://h/a.wav?sv=1&se=2027&sp=r&sig=abc%3D&v=2"
    assert storage.canonical_uri(signed) == "http://h/a.wav?v=2"
    assert storage.canonical_uri("http://h/a.mp3?token=abc&expires=1700000000") == "http://h/a.mp3"
    names = ("auth", "x-auth", "authorization", "authkey", "auth_token", "access_key", "oauth_signature")
    for name in (*names, "subscription-key"):
        assert "hush" not in storage.redact(f"http://h/a?{name}=hush&b=1")
        assert storage.canonical_uri(f"http://h/a?{name}=hush&b=1") == "http://h/a?b=1"


def test_json_stays_json_without_its_secrets() -> None:
    told = {"template": 'Ask "https://shop.example/p?auth=KEY" why.', "b": 1}
    clean = json.loads(storage.redact(json.dumps(told)))
    assert clean == {"template": 'Ask "https://shop.example/p?auth=***" why.', "b": 1}


def test_redact_removes_what_opens_doors() -> None:
    text = "GET https://me:pw@h/x?id=1&X-Amz-Signature=abc&sig=def failed (s3://key:se/cret@b/x)"
    clean = storage.redact(text)
    assert "pw" not in clean
    assert "abc" not in clean
    assert "def" not in clean
    assert "id=1" in clean


# ---------------------------------------------------------------------- the same promises everywhere


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty folder, on disk and on S3."""
    if request.param == "local":
        return str(tmp_path / "place")
    server: S3Server = request.getfixturevalue("s3_environment")
    return f"{server.make_bucket()}/place"


NAMES = ["a.bin", "deep/er/b b#1%.bin", "é?.bin"]


def test_what_is_put_is_listed_read_and_deleted(place: str) -> None:
    assert storage.list_files(place) == []
    urls = [storage.join(place, n) for n in NAMES]
    for url in urls:
        assert not storage.exists(url)
        storage.put_atomic(url, url.encode())
    storage.put_atomic(storage.join(place, ".hidden/x.bin"), b"")
    storage.put_atomic(storage.join(place, ".x.bin"), b"")
    listed = storage.list_files(place)
    assert [f.url for f in listed] == sorted(urls)
    assert [f.size_bytes for f in listed] == [len(u.encode()) for u in sorted(urls)]
    assert [storage.read_bytes(u) for u in urls] == [u.encode() for u in urls]
    assert storage.list_files(place, "b#1%.bin")[0].url == urls[1]
    assert storage.exists(urls[1])
    assert not storage.exists(storage.join(place, "deep"))
    assert storage.is_folder(storage.join(place, "deep"))
    before = listed[0].version
    storage.put_atomic(listed[0].url, b"other")
    assert storage.list_files(place)[0].version != before
    storage.delete(urls[0])
    storage.delete(urls[0])
    assert not storage.exists(urls[0])
    with pytest.raises(FileNotFoundError):
        storage.read_bytes(urls[0])


def test_glob_finds_what_matches(place: str) -> None:
    for name in ("x/a.wav", "x/b.mp3", "x/y/c.wav", "d.wav"):
        storage.put_atomic(storage.join(place, name), b"")

    def found(pattern: str) -> list[str]:
        return [f.url.removeprefix(place + "/") for f in storage.glob(storage.join(place, pattern))]

    assert found("x/*.wav") == ["x/a.wav"]
    assert found("**/*.wav") == ["d.wav", "x/a.wav", "x/y/c.wav"]
    assert found("nothing*") == []


def test_read_bytes_is_bounded(place: str) -> None:
    url = storage.join(place, "x")
    storage.put_atomic(url, b"12345")
    assert storage.read_bytes(url, max_bytes=5) == b"12345"
    with pytest.raises(Terminal, match="too_large"):
        storage.read_bytes(url, max_bytes=4)


def test_put_new_creates_once(place: str) -> None:
    url = storage.join(place, "fence/1")
    assert storage.put_new(url, b"first")
    assert not storage.put_new(url, b"second")
    assert storage.read_bytes(url) == b"first"
    assert [f.url for f in storage.list_files(place)] == [url]


def test_of_racing_writers_exactly_one_creates(place: str) -> None:
    for trial in range(5):
        url = storage.join(place, f"fence/{trial}")
        start = threading.Barrier(4)

        def write(writer: int, url: str = url, start: threading.Barrier = start) -> bool:
            start.wait()
            return storage.put_new(url, b"%d" % writer)

        with ThreadPoolExecutor(4) as pool:
            won = list(pool.map(write, range(4)))
        assert won.count(True) == 1
        assert storage.read_bytes(url) == b"%d" % won.index(True)


def test_a_reader_never_sees_a_torn_object(place: str, tmp_path: Path) -> None:
    url = storage.join(place, "big")
    contents = [bytes([i]) * (20 << 20) for i in range(2)]
    storage.put_atomic(url, contents[0])
    begun, done = threading.Event(), threading.Event()

    def read() -> set[tuple[int, int]]:
        seen = set()
        while not done.is_set():
            data = storage.read_bytes(url)
            seen.add((len(data), len(set(data[:: 1 << 16]))))
            begun.set()
        return seen

    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(read)
        try:
            assert begun.wait(60)
            for i in range(1, 5):
                storage.put_atomic(url, contents[i % 2])
        finally:
            done.set()
        assert reader.result() == {(20 << 20, 1)}


def test_tables_keep_metadata_and_row_groups(place: str) -> None:
    url = storage.join(place, "t.parquet")
    table = pa.table({"a": list(range(10)), "b": [str(i) for i in range(10)]})
    storage.put_atomic(url, storage.parquet_bytes(table, {"licence": "free"}, [1, 7, 2]))
    assert storage.read_table(url).equals(table)
    assert storage.read_table(url, ["b"]).column_names == ["b"]
    with storage.open_input(url) as f, pq.ParquetFile(f) as parquet:
        sizes = [parquet.metadata.row_group(i).num_rows for i in range(parquet.num_row_groups)]
        assert parquet.schema_arrow.metadata[b"licence"] == b"free"
    assert sizes == [1, 7, 2]
    with pytest.raises(ValueError, match="9 rows"):
        storage.parquet_bytes(table, row_groups=[9])
    with pytest.raises(FileNotFoundError):
        storage.read_table(storage.join(place, "none.parquet"))


def test_empty_tables_and_objects(place: str, tmp_path: Path) -> None:
    url = storage.join(place, "empty")
    storage.put_atomic(url, storage.parquet_bytes(pa.table({"a": pa.array([], pa.int64())})))
    assert storage.read_table(url).num_rows == 0
    storage.put_atomic(url, b"")
    assert storage.read_bytes(url) == b""
    with storage.fetch(url, str(tmp_path), MAX) as fetched:
        assert fetched.size_bytes == 0


def test_open_input_seeks_and_reads_across_blocks(place: str) -> None:
    for size in (0, (3 << 20) + 17, (5 << 20) + 17):
        url, data = storage.join(place, f"x{size}"), os.urandom(size)
        storage.put_atomic(url, data)
        with storage.open_input(url) as f:
            for start, count in [(0, 10), (1 << 20, 2 << 20), ((3 << 20) + 10, 100), (5, 0), (7, -1)]:
                f.seek(start)
                assert f.read(count) == data[start:][: None if count < 0 else count]
            assert f.seek(0, os.SEEK_END) == len(data)
            assert f.read() == b""


def test_fetch_gives_the_bytes_and_their_version(place: str, tmp_path: Path) -> None:
    url, data = storage.join(place, "a #1.wav"), os.urandom((17 << 20) + 3)
    storage.put_atomic(url, data)
    scratch = tmp_path / "scratch"
    with storage.fetch(url, str(scratch), MAX) as fetched:
        assert Path(fetched.path).read_bytes() == data
        assert fetched.size_bytes == len(data)
        assert fetched.version == storage.list_files(place)[0].version
    assert storage.is_local(url) or list(scratch.iterdir()) == []
    assert storage.exists(url)


@pytest.mark.parametrize(
    ("name", "kind"), [("none.wav", "not_found"), ("", "is_directory"), ("a.wav/b.wav", "not_found")]
)
def test_fetch_of_what_is_no_file(place: str, tmp_path: Path, name: str, kind: str) -> None:
    storage.put_atomic(storage.join(place, "a.wav"), b"x")
    with pytest.raises(Terminal) as e:
        storage.fetch(storage.join(place, name) if name else place, str(tmp_path), MAX)
    assert (e.value.kind, e.value.stage) == (kind, "fetch")


def test_fetch_refuses_what_is_too_large(place: str, tmp_path: Path) -> None:
    url = storage.join(place, "x")
    storage.put_atomic(url, b"12345")
    with pytest.raises(Terminal, match="too_large"):
        storage.fetch(url, str(tmp_path), 4)


def test_check_writable_leaves_nothing_behind(place: str) -> None:
    storage.check_writable(place)
    assert storage.list_files(place) == []


# ----------------------------------------------------------------------------------------- local only


def test_a_pipe_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Terminal, match="not_a_file"):
        storage.fetch(str(tmp_path / "pipe"), str(tmp_path), MAX)


def test_check_writable_explains(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageUnavailable):
        storage.check_writable(str(tmp_path / "file"))


def test_a_failed_put_leaves_no_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(Terminal, match="is_directory"):
        storage.put_atomic(str(tmp_path / "folder"), b"x")
    assert os.listdir(tmp_path) == ["folder"]


# -------------------------------------------------------------------------------------------- s3 only


def test_an_object_overwritten_during_the_fetch_is_transient(
    s3_environment: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By as many bytes as before, between two of its blocks."""
    url = storage.join(s3_environment.make_bucket(), "x")
    storage.put_atomic(url, bytes(20 << 20))
    num_read = 0

    def read(where: str, start: int, end: int | None) -> bytes:
        nonlocal num_read
        data = remote.read_range(where, start, end)
        num_read += 1
        if num_read == 1:
            storage.put_atomic(url, b"x" * (20 << 20))
        return data

    monkeypatch.setattr(fetching, "remote", SimpleNamespace(info=remote.info, read_range=read))
    with pytest.raises(Transient, match="changed while it was read") as e:
        storage.fetch(url, str(tmp_path), MAX)
    assert (e.value.kind, num_read) == ("changed", 2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("variables", "kind"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "credentials"),
        ({"AWS_ACCESS_KEY_ID": "nobody"}, "credentials"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "credentials"),
        ({"AWS_ACCESS_KEY_ID": "test:reader", "AWS_SECRET_ACCESS_KEY": "reading"}, "permission"),
    ],
)
def test_wrong_keys_are_transient(
    s3_environment: S3Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    kind: str,
) -> None:
    url = storage.join(s3_environment.make_bucket(), "x")
    storage.put_atomic(url, b"x")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Transient) as e:
        storage.fetch(url, str(tmp_path), MAX)
    assert e.value.kind == kind
    with pytest.raises(Transient, match=kind):
        storage.exists(url)
    with pytest.raises(StorageUnavailable) as unavailable:
        storage.check_writable(url)
    assert unavailable.value.fix


def test_keys_come_from_the_profile(
    s3_environment: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = storage.join(s3_environment.make_bucket(), "x")
    (tmp_path / "config").write_text(
        f"[profile night]\nendpoint_url = {s3_environment.endpoint}\nregion = us-east-1\n"
        f"aws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = testing\n"
    )
    for name in s3_environment.env:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "night")
    storage.put_atomic(url, b"x")
    assert storage.read_bytes(url) == b"x"


def test_a_missing_bucket_is_named_with_the_fix(s3_environment: S3Server, tmp_path: Path) -> None:
    with pytest.raises(StorageUnavailable, match="Create the bucket first"):
        storage.check_writable("s3://no-such-bucket/out")
    with pytest.raises(Terminal, match="not_found"):
        storage.fetch("s3://no-such-bucket/a.wav", str(tmp_path), MAX)
    with pytest.raises(StorageUnavailable, match="Invalid bucket name"):
        storage.check_writable("s3://no such bucket/out")


@pytest.mark.slow
def test_a_dead_endpoint_is_a_network_failure(
    s3_environment: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(Transient) as e:
        storage.fetch("s3://bucket/a.wav", str(tmp_path), MAX)
    assert e.value.kind == "network"


def test_what_others_write_is_listed_at_once(s3_environment: S3Server) -> None:
    bucket = s3_environment.make_bucket()
    folder = storage.join(bucket, "chunks")
    storage.put_atomic(storage.join(folder, "a"), b"")
    assert len(storage.list_files(folder)) == 1
    s3_environment.client.put_object(Bucket=bucket.removeprefix("s3://"), Key="chunks/b", Body=b"")
    assert len(storage.list_files(folder)) == 2
    assert storage.exists(storage.join(folder, "b"))


# ------------------------------------------------------------- servers that misbehave, web and S3 alike

BODY = bytes(range(256)) * 8192
Answer = Callable[[BaseHTTPRequestHandler, int], None]


@contextmanager
def web(answer: Answer) -> Iterator[str]:
    """A server whose `answer(request, number of the request)` does as it likes; its address."""
    requests: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            answer(self, len(requests))

        do_HEAD = do_GET
        do_PUT = do_GET

        def log_message(self, *args: object) -> None:
            return

    with answering(Handler) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(params=["http", "s3"])
def scheme(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways in which such a server is reached."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "any")
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    return str(request.param)


def fetch(server: str, scheme: str, scratch: Path, max_bytes: int = MAX) -> storage.Fetched:
    if scheme == "http":
        return storage.fetch(f"http://me:pw@{server[7:]}/a%20b.wav?token=hush", str(scratch), max_bytes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", server)
        return storage.fetch("s3://bucket/a b.wav", str(scratch), max_bytes)


def reply(request: BaseHTTPRequestHandler, body: bytes, status: int = 200, **headers: str) -> None:
    request.send_response(status)
    for name, value in headers.items():
        request.send_header(name.replace("_", "-"), value)
    request.end_headers()
    if request.command == "GET":
        request.wfile.write(body)


def with_length(request: BaseHTTPRequestHandler, number: int) -> None:
    reply(request, BODY, Content_Length=str(len(BODY)), ETag='"v1"')


def without_length_or_head(request: BaseHTTPRequestHandler, number: int) -> None:
    reply(request, BODY, 200 if request.command == "GET" else 405)


def gzipped(request: BaseHTTPRequestHandler, number: int) -> None:
    body = gzip.compress(BODY)
    reply(request, body, Content_Length=str(len(body)), Content_Encoding="gzip")


def busy_at_first(request: BaseHTTPRequestHandler, number: int) -> None:
    if number < 3:
        reply(request, b"", 503, Content_Length="0")
    else:
        with_length(request, number)


def cut_short_at_first(request: BaseHTTPRequestHandler, number: int) -> None:
    if number < 3:
        cut_short(request, number)
    else:
        with_length(request, number)


def cut_short(request: BaseHTTPRequestHandler, number: int) -> None:
    reply(request, BODY[:-1], Content_Length=str(len(BODY)), ETag='"v1"')


def changing(request: BaseHTTPRequestHandler, number: int) -> None:
    tag = "before" if number == 1 else "after"
    reply(request, BODY, Content_Length=str(len(BODY)), ETag=f'"{tag}"')


def restless(request: BaseHTTPRequestHandler, number: int) -> None:
    """Podcasts whose advertisements are put in for each listener."""
    reply(request, BODY, Content_Length=str(len(BODY)), ETag=f'"v{number}"')


def deaf_to_head(request: BaseHTTPRequestHandler, number: int) -> None:
    if request.command == "HEAD":
        request.close_connection = True
        request.connection.close()
        return
    reply(request, BODY, Content_Length=str(len(BODY)), ETag='"v1"')


def status(code: int) -> Answer:
    return lambda request, number: reply(request, b"no", code)


@pytest.mark.parametrize("answer", [with_length, busy_at_first, cut_short_at_first])
def test_fetch_gets_there_in_the_end(answer: Answer, scheme: str, tmp_path: Path) -> None:
    with web(answer) as server, fetch(server, scheme, tmp_path) as fetched:
        assert Path(fetched.path).read_bytes() == BODY
        assert fetched.size_bytes == len(BODY)
        assert "v1" in fetched.version
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("answer", [without_length_or_head, gzipped])
def test_web_servers_may_leave_things_out(answer: Answer, tmp_path: Path) -> None:
    with web(answer) as server, fetch(server, "http", tmp_path) as fetched:
        assert Path(fetched.path).read_bytes() == BODY


@pytest.mark.parametrize("answer", [restless, deaf_to_head])
def test_what_a_web_server_says_afterwards_is_not_believed_alone(answer: Answer, tmp_path: Path) -> None:
    """The body had its length: it was fetched four times, and refused."""
    asked: list[str] = []

    def noted(request: BaseHTTPRequestHandler, number: int) -> None:
        asked.append(request.command)
        answer(request, number)

    with web(noted) as server, fetch(server, "http", tmp_path) as fetched:
        assert Path(fetched.path).read_bytes() == BODY
    assert asked.count("GET") == 1


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (changing, "changed"),
        (status(404), "not_found"),
        (status(403), "permission"),
        (status(401), "credentials"),
        (status(400), "refused"),
    ],
)
def test_what_goes_wrong(answer: Answer, kind: str, scheme: str, tmp_path: Path) -> None:
    with web(answer) as server, pytest.raises((Transient, Terminal)) as e:
        fetch(server, scheme, tmp_path)
    assert (e.value.kind, e.value.stage) == (kind, "fetch")
    assert "hush" not in str(e.value)
    assert "pw" not in str(e.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "kinds"),
    [(cut_short, {"network", "short_read"}), (status(429), {"throttled"}), (status(500), {"network"})],
)
def test_what_stays_wrong_after_every_retry(
    answer: Answer, kinds: set[str], scheme: str, tmp_path: Path
) -> None:
    with web(answer) as server, pytest.raises(Transient) as e:
        fetch(server, scheme, tmp_path)
    assert e.value.kind in kinds
    assert list(tmp_path.iterdir()) == []


def test_a_body_without_end_stops_at_the_limit(tmp_path: Path) -> None:
    with web(without_length_or_head) as server, pytest.raises(Terminal, match="too_large"):
        fetch(server, "http", tmp_path, len(BODY) - 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("told", [True, False])
def test_a_body_that_drips_is_given_up(told: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Internet radio has no length; a tarpit says any."""
    until = time.monotonic() + 20

    def drip(request: BaseHTTPRequestHandler, number: int) -> None:
        request.send_response(200)
        if told:
            request.send_header("Content-Length", str(1 << 30))
        request.end_headers()
        while time.monotonic() < until:
            request.wfile.write(b"x")
            time.sleep(0.05)

    monkeypatch.setattr(fetching, "_PATIENCE_SECONDS", 0.5)
    with web(drip) as server, pytest.raises(Transient, match="too slowly") as e:
        fetch(server, "http", tmp_path)
    assert (e.value.kind, e.value.stage) == ("too_slow", "fetch")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("winner", [b"mine", b"theirs"])
def test_a_lost_reply_does_not_lose_the_creation(winner: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first PUT creates the object (or another writer's came first), but its reply is lost; the
    second finds it there."""

    def answer(request: BaseHTTPRequestHandler, number: int) -> None:
        if request.command != "PUT":
            reply(request, winner, Content_Length=str(len(winner)), ETag='"v1"')
            return
        request.protocol_version = "HTTP/1.1"
        request.send_response_only(100)
        request.end_headers()
        request.rfile.read(int(request.headers["Content-Length"]))
        if number == 1:
            request.close_connection = True
        else:
            reply(request, b"", 412, Content_Length="0", Connection="close")

    with web(answer) as server:
        for name, value in {"ENDPOINT_URL": server, "ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b"}.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        assert storage.put_new("s3://bucket/x", b"mine") == (winner == b"mine")


@pytest.mark.parametrize(
    ("error", "kind", "transient"),
    [
        (OSError(errno.ENOSPC, "full"), "disk_full", True),
        (OSError(errno.ENAMETOOLONG, "long"), "not_found", False),
        (PermissionError("no"), "permission", True),
        (TimeoutError("slow"), "network", True),
        (FileNotFoundError("no"), "not_found", False),
    ],
)
def test_errors_get_stable_kinds(error: Exception, kind: str, transient: bool) -> None:
    problem = explain(error, "s3://bucket/x")
    assert problem is not None
    assert (problem.kind, problem.transient) == (kind, transient)


def test_missing_credentials_are_not_called_wrong() -> None:
    missing = explain(NoCredentialsError(), "s3://bucket/x")
    assert missing is not None
    assert missing.message == "There are no credentials for s3://bucket/x."


def test_bugs_are_not_explained_away() -> None:
    assert explain(TypeError("a bug"), "s3://bucket/x") is None


def test_links_that_lead_nowhere_are_not_listed(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    (tmp_path / "b.wav").symlink_to("nowhere")
    (tmp_path / "c.wav").symlink_to("c.wav")
    assert [f.url for f in storage.glob(f"{tmp_path}/*.wav")] == [str(tmp_path / "a.wav")]
    assert [f.url for f in storage.list_files(str(tmp_path))] == [str(tmp_path / "a.wav")]
