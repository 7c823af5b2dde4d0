"""Objects in remote stores, through fsspec: configured here and nowhere else.

Credentials and endpoints come from the environment or the AWS profile (AWS_PROFILE, AWS_ACCESS_KEY_ID,
AWS_ENDPOINT_URL[_S3], AWS_REGION, ...), never from the YAML. Options of a store can be given the way
fsspec documents it, e.g. FSSPEC_S3_ANON=true for public buckets. Knows neither retries nor our errors.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Iterator
from typing import Any

from dawnchorus.errors import UserError
from dawnchorus.storage.problems import status_of
from dawnchorus.storage.urls import absolute, redact, scheme_of

_PACKAGES = {"gs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs", "hf": "huggingface_hub"}
_CONNECT_SECONDS = 10
_READ_SECONDS = 60
_LOCK = threading.Lock()


def filesystem(url: str) -> tuple[Any, str]:
    """The fsspec file system of a remote address, and the address in the form it wants.

    One instance per process and set of AWS variables; listings are never cached, so that what others
    write is seen.

    Raises:
        UserError: no such scheme, or the package that serves it is not installed.
    """
    scheme = scheme_of(url)
    uri = absolute(url)
    if scheme in ("http", "https"):
        return _http(os.getpid()), uri
    settings = tuple(sorted(kv for kv in os.environ.items() if kv[0].startswith(("AWS_", "FSSPEC_"))))
    with _LOCK:
        return _store(scheme, os.getpid(), settings), uri[uri.index("://") + 3 :]


def is_known(url: str) -> bool:
    """Whether there is such a kind of storage at all; its package need not be installed here."""
    return scheme_of(url) in _schemes()


@functools.cache
def _schemes() -> frozenset[str]:
    import fsspec

    return frozenset(fsspec.available_protocols())


@functools.cache
def _store(scheme: str, pid: int, settings: tuple[tuple[str, str], ...]) -> Any:
    import fsspec

    options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
    if scheme == "s3":
        options |= _s3_options()
    try:
        store = fsspec.filesystem(scheme, **options)
    except ImportError as e:
        package = _PACKAGES.get(scheme, "the package it names")
        raise UserError(f"{scheme}:// needs a package: {e}.", f"Run: pip install {package}") from e
    except TypeError as e:
        raise UserError(
            f"{scheme}:// is not set up: {e}.",
            f"Set what it needs as FSSPEC_{scheme.upper()}_..., or use another.",
        ) from e
    except ValueError as e:
        raise UserError(
            f"{scheme}:// is not a kind of storage known here.",
            "Use a local path, s3://, http(s)://, gs://, az:// or hf://.",
        ) from e
    if scheme == "s3":
        # `problems.retrying` is the one retry loop; s3fs and botocore below it would multiply.
        store.retries = 1
    return store


def _s3_options() -> dict[str, Any]:
    config: dict[str, Any] = {
        "connect_timeout": _CONNECT_SECONDS,
        "read_timeout": _READ_SECONDS,
        "retries": {"mode": "standard", "total_max_attempts": 1},
        "max_pool_connections": 32,
    }
    if "AWS_REQUEST_CHECKSUM_CALCULATION" not in os.environ:
        # The default since 2025 sends trailing checksums, which many S3-compatible stores refuse.
        config["request_checksum_calculation"] = "when_required"
    # With one request at a time a whole object is one GET, without asking for its length first.
    options: dict[str, Any] = {"config_kwargs": config, "max_concurrency": 1}
    region = os.environ.get("AWS_REGION")
    if region and "AWS_DEFAULT_REGION" not in os.environ:
        # botocore reads only AWS_DEFAULT_REGION; the other SDKs read AWS_REGION.
        options["client_kwargs"] = {"region_name": region}
    return options


@functools.cache
def _http(pid: int) -> Any:
    import aiohttp
    import fsspec

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=_READ_SECONDS)
    return fsspec.filesystem(
        "https",
        use_listings_cache=False,
        skip_instance_cache=True,
        client_kwargs={"timeout": timeout, "trust_env": True},
    )


def info(url: str) -> tuple[int | None, str]:
    """Size in bytes (None: the server does not say) and version of an object.

    Raises:
        FileNotFoundError, IsADirectoryError, PermissionError, or what the store raises.
    """
    store, path = filesystem(url)
    try:
        facts = store.info(path)
    except PermissionError:
        # A HEAD has no body: only a GET says whether the key or the permission is wrong.
        store.cat_file(path, start=0, end=1)
        raise
    if facts.get("type") == "directory":
        raise IsADirectoryError(redact(url))
    return facts.get("size"), version_of(facts)


def version_of(facts: dict[str, Any]) -> str:
    """What tells two contents of one name apart: ETag, generation, or time of change and size."""
    for key in ("ETag", "etag", "generation", "md5Hash", "content_md5", "blob_id"):
        if facts.get(key):
            return str(facts[key]).strip('"')
    for key in ("LastModified", "last_modified", "updated", "mtime"):
        if facts.get(key):
            return f"{facts[key]}/{facts.get('size')}"
    return f"size/{facts.get('size')}"


def read_range(url: str, start: int, end: int | None) -> bytes:
    """Bytes [start, end), or to the end; fewer at the end of the object."""
    store, path = filesystem(url)
    # A range can be asked of no empty object.
    whole = start == 0 and end is None
    data: bytes = store.cat_file(path) if whole else store.cat_file(path, start=start, end=end)
    return data


def find(url: str) -> Iterator[tuple[str, int, str]]:
    """(name below `url`, size, version) of every object below a folder."""
    store, path = filesystem(url)
    prefix = path.strip("/") + "/"
    try:
        found = store.find(path.rstrip("/"), detail=True)
    except FileNotFoundError:
        return
    for name, facts in found.items():
        name = name.lstrip("/")
        if name.startswith(prefix) and len(name) > len(prefix):
            yield name[len(prefix) :], int(facts.get("size") or 0), version_of(facts)


def glob(pattern: str) -> Iterator[tuple[str, int, str]]:
    """(URL, size, version) of every object that matches a pattern."""
    store, path = filesystem(pattern)
    for name, facts in store.glob(path, detail=True).items():
        if facts.get("type") != "directory":
            yield f"{scheme_of(pattern)}://{name.lstrip('/')}", int(facts.get("size") or 0), version_of(facts)


def put(url: str, data: bytes) -> None:
    """Create or replace an object; readers see all of the old or all of the new."""
    store, path = filesystem(url)
    store.pipe_file(path, data)


def put_file(url: str, path: str) -> None:
    """`put` the content of a local file, large ones in parts; they appear when the last part is there."""
    store, address = filesystem(url)
    store.put_file(path, address)


def put_new(url: str, data: bytes) -> None:
    """Create an object.

    Raises:
        FileExistsError: there is one already.
    """
    store, path = filesystem(url)
    try:
        store.pipe_file(path, data, mode="create")
    except OSError as e:
        # s3fs knows AWS's wording of a failed condition only.
        if status_of(e) == 412:
            raise FileExistsError(redact(url)) from e
        raise


def delete(url: str) -> None:
    """Remove an object; removing nothing is fine."""
    store, path = filesystem(url)
    try:
        store.rm_file(path)
    except FileNotFoundError:
        return
