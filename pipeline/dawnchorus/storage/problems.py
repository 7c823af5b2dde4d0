"""What went wrong with a store, as Transient or Terminal with a kind and a sentence; and when to retry.

Stores raise their own classes (botocore's, aiohttp's, gcsfs's). They are told apart by class name, HTTP
status and error code, so that no store's package has to be imported to explain its errors.
"""

from __future__ import annotations

import asyncio
import errno
import random
import time
from collections.abc import Callable
from typing import TypeVar

from dawnchorus.errors import DataError, Terminal, Transient
from dawnchorus.storage.urls import is_local, redact

_T = TypeVar("_T")

TRIES = 4
_FIRST_WAIT_SECONDS = 0.5
_LONGEST_WAIT_SECONDS = 8.0
RETRIED_KINDS = frozenset({"io", "network", "throttled", "short_read"})
"""Transient kinds worth another try at once; credentials, permission and a full disk need a person."""

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
_NO_SUCH_NAME = {errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP}
_CREDENTIAL_CODES = {
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidToken",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
    "UnauthorizedSSOTokenError",
}
_CREDENTIAL_CLASSES = {
    "CredentialRetrievalError",
    "GoogleAuthError",
    "NoCredentialsError",
    "PartialCredentialsError",
    "ProfileNotFound",
    "SSOError",
    "TokenRetrievalError",
    "UnauthorizedSSOTokenError",
}
_NO_CREDENTIALS = {"NoCredentialsError", "PartialCredentialsError"}
_THROTTLE_CODES = {
    "ConditionalRequestConflict",
    "OperationAborted",
    "RequestLimitExceeded",
    "ServiceUnavailable",
    "SlowDown",
    "ThrottlingException",
    "TooManyRequests",
    "TooManyRequestsException",
}
_NETWORK_CLASSES = {
    "ConnectionError",
    "ClientConnectionError",
    "ClientError",
    "ClientPayloadError",
    "ConnectionClosedError",
    "FSTimeoutError",
    "HTTPClientError",
    "IncompleteReadError",
    "ResponseStreamingError",
    "ServerTimeoutError",
}


def explain(error: BaseException, url: str) -> DataError | None:
    """The typed error for what a store raised about `url`; None when it is nobody's data or network
    (a bug, which should propagate)."""
    if isinstance(error, DataError):
        return error
    place = redact(url)
    names = {c.__name__ for e in _chain(error) for c in type(e).__mro__}
    code, status = code_of(error), status_of(error)
    if code in _CREDENTIAL_CODES or status == 401 or names & _CREDENTIAL_CLASSES:
        return Transient("credentials", _credentials(place, names, code), "fetch")
    if code in _THROTTLE_CODES or status in (429, 503):
        return Transient("throttled", f"The store is slowing down requests for {place}.", "fetch")
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, FileNotFoundError) or status in (404, 410) or number in _NO_SUCH_NAME:
        return Terminal("not_found", f"There is nothing at {place}.", "fetch")
    if isinstance(error, IsADirectoryError):
        return Terminal("is_directory", f"{place} is a folder, not a file.", "fetch")
    if isinstance(error, PermissionError) or status == 403:
        return Transient("permission", f"Access to {place} is not permitted.", "fetch")
    if number in _NO_SPACE:
        return Transient("disk_full", f"No space is left on the disk for {place}.", "fetch")
    said = _sentence(error)
    if status == 416:
        # Only ranges within the listed length are asked for.
        return Transient("changed", f"{place} became shorter while it was read.", "fetch")
    if "ParamValidationError" in names or (400 <= status < 500 and code != "RequestTimeout"):
        return Transient("refused", f"The store refused {place}: {said}.", "fetch")
    if is_local(url) and isinstance(error, OSError):
        return Transient("io", f"{place}: {said}.", "fetch")
    if isinstance(error, (OSError, EOFError, asyncio.TimeoutError)) or names & _NETWORK_CLASSES:
        return Transient("network", f"The connection for {place} failed: {said}.", "fetch")
    return None


def _credentials(place: str, names: set[str], code: str) -> str:
    if names & _NO_CREDENTIALS:
        # Without any no store says whether there is such a bucket.
        return f"There are no credentials for {place}."
    if "Expired" in code or code == "TokenRefreshRequired":
        return f"The credentials for {place} have expired."
    return f"The credentials for {place} are wrong or have expired."


def retrying(action: Callable[[], _T], url: str, tries: int = TRIES) -> _T:
    """The result of `action`; network and throttling errors are tried again with exponential backoff
    and full jitter (at most `tries` in all, so 3.5 s of waiting on average).

    Raises:
        Transient, Terminal: see `explain`.
    """
    for attempt in range(1, tries + 1):
        try:
            return action()
        except Exception as e:
            # Stores share no base class; what `explain` does not know propagates as it is.
            problem = explain(e, url)
            if problem is None:
                raise
            if problem.kind not in RETRIED_KINDS or attempt == tries:
                raise problem from e
        time.sleep(random.uniform(0, min(_LONGEST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * 2**attempt)))
    raise AssertionError("unreachable")


def _chain(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    step: BaseException | None = error
    while step is not None and step not in found:
        found.append(step)
        step = step.__cause__
    return found


def code_of(error: BaseException) -> str:
    """The store's own error code, e.g. `SlowDown`; s3fs keeps botocore's error as the cause."""
    for e in _chain(error):
        response = getattr(e, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
    return ""


def status_of(error: BaseException) -> int:
    """The HTTP status behind an error; 0 if there is none."""
    for e in _chain(error):
        response = getattr(e, "response", None)
        if isinstance(response, dict):
            return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    values = (getattr(error, name, None) for name in ("status", "status_code", "code"))
    return next((v for v in values if isinstance(v, int)), 0)


def _sentence(error: BaseException) -> str:
    text = redact(" ".join(str(error).split()))[:200].rstrip(".")
    return text or type(error).__name__
