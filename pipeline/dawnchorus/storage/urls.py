"""Addresses as text: one canonical URI per object, joining, and the removal of secrets. No I/O.

Canonical forms: `file:///absolute/path` with only `%`, `?`, `#`, control characters and bytes that
are not UTF-8 percent-encoded (spaces and other scripts stay readable); `s3://bucket/key` and other
object stores with the key exactly as the store has it; `http(s)://` as a browser would send it.
"""

from __future__ import annotations

import os
import posixpath
import re
from urllib.parse import quote, unquote, urljoin, urlsplit, urlunsplit

from dawnchorus.errors import ConfigError

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
_CHAINED = re.compile(r"^[A-Za-z0-9]+(://.*)?::.*://")
_SAME_STORE = {"s3a": "s3", "s3n": "s3", "gcs": "gs"}
_DEFAULT_PORTS = {"http": 80, "https": 443}
_SECRET_NAME = (
    r"x-amz-[a-z-]+|x-goog-[a-z-]+|awsaccesskeyid|googleaccessid|signature|sig|key-pair-id|"
    r"[a-z_-]*(?:token|secret|password|passwd|(?:api|access|subscription)[_-]?key|credential)[a-z_-]*|"
    r"(?:[a-z_-]*[_-])?auth(?:key|orization|entication)?(?:[_-][a-z_-]*)?|oauth_[a-z_]+"
)
_SECRET = re.compile(rf"^(?:{_SECRET_NAME})$", re.IGNORECASE)
_SECRET_IN_TEXT = re.compile(rf"(?i)([?&](?:{_SECRET_NAME})=)[^&\s\"'<>#)\\]*")
_SIGNED = re.compile(r"^(?:expires|policy|s[epvrt]|spr|sip|ske|skoid|sks|skt|sktid|skv)$", re.IGNORECASE)
"""What comes with a signature or a token (CloudFront's, Azure's) and changes with it; alone, words."""
_USERINFO_IN_TEXT = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)[^/\s@\"'?#]*@")


def scheme_of(url: str) -> str:
    """Lower-case scheme, `file` for local paths."""
    match = _SCHEME.match(url)
    scheme = match.group(1).lower() if match else "file"
    return _SAME_STORE.get(scheme, scheme)


def is_local(url: str) -> bool:
    """Whether the address is a local path or a `file://` URL."""
    return scheme_of(url) == "file"


def is_http(url: str) -> bool:
    """Whether the address is on the web: objects only, no folders and no listing."""
    return scheme_of(url) in _DEFAULT_PORTS


def local_path(url: str) -> str:
    """The operating system's path of a local address."""
    match = _SCHEME.match(url)
    if match is None:
        return os.path.expanduser(url) if url.startswith("~/") else url
    path = url[match.end() :]
    return unquote(path.removeprefix("localhost"), errors="surrogateescape")


def file_uri(path: str) -> str:
    """The canonical URI of a local path, made absolute."""
    return "file://" + _encode_local(os.path.abspath(path))


def canonical_uri(url: str, base: str | None = None) -> str:
    """The absolute URI that identifies an object: no userinfo, no secrets of a signed query.

    A relative `url` resolves against the folder `base`, or else the working directory. Calling it
    again changes nothing.

    Raises:
        ConfigError: `memory://`, which lives in one process, and chained URLs (`zip::s3://...`).
    """
    uri = absolute(url, base)
    if is_local(uri):
        return uri
    scheme, host, path, query, _ = _split(uri)
    return _unsplit(scheme, host.rpartition("@")[2], path, _public_query(query))


def absolute(url: str, base: str | None = None) -> str:
    """Like `canonical_uri`, but what is needed to fetch the object (userinfo, signed query) stays.

    Raises:
        ConfigError: as `canonical_uri`.
    """
    if _CHAINED.match(url):
        raise ConfigError(f"{redact(url)!r} is a chained URL.", "Unpack the archive and give a plain URL.")
    match = _SCHEME.match(url)
    if match is None:
        if base is not None and not is_local(base):
            return _below(base, url)
        folder = local_path(base) if base is not None else ""
        return file_uri(os.path.join(folder, local_path(url)))
    scheme = scheme_of(url)
    if scheme == "memory":
        raise ConfigError(
            f"{url!r} lives in one process only.", "Use a local path or a bucket that every worker can reach."
        )
    if scheme == "file":
        return file_uri(local_path(url))
    _, host, path, query, _ = _split(url)
    if scheme in _DEFAULT_PORTS:
        userinfo, at, bare = host.rpartition("@")
        host = userinfo + at + bare.lower().removesuffix(f":{_DEFAULT_PORTS[scheme]}")
        path = _encode_http(path) or "/"
        query = quote(query, safe="%/:?@!$&'()*+,;=-._~[]")
    return _unsplit(scheme, host, path, query)


def join(base: str, *names: str) -> str:
    """`base` with plain names (no percent-encoding) below it, in the style of `base`."""
    scheme = scheme_of(base) if _SCHEME.match(base) else ""
    for name in names:
        if scheme == "file":
            name = _encode_local(name)
        elif scheme in _DEFAULT_PORTS:
            name = quote(name, safe="/")
        base = f"{base.rstrip('/')}/{name}"
    return base


def shown(url: str) -> str:
    """A URL as a person would write it here: below the working folder a relative path, elsewhere on
    this machine an absolute one."""
    if not is_local(url):
        return redact(url)
    path = local_path(url)
    near = os.path.relpath(path)
    return path if near.startswith("..") else near


def parent(url: str) -> str:
    """The folder an object lies in, without a trailing slash; queries go."""
    if _SCHEME.match(url) is None:
        return os.path.dirname(url) or "."
    scheme, host, path, _, _ = _split(url)
    return _unsplit(scheme, host, posixpath.dirname(path.rstrip("/")), "")


def name_of(url: str) -> str:
    """The last component of an address, readable: `calls.jsonl`."""
    if is_local(url):
        return posixpath.basename(local_path(url).rstrip("/"))
    scheme, host, path, _, _ = _split(url)
    name = posixpath.basename(path.rstrip("/")) or host
    return unquote(name) if scheme in _DEFAULT_PORTS else name


def readable(url: str) -> str:
    """An address for people: the path of a local one; never a secret."""
    return local_path(url) if is_local(url) else redact(url)


def redact(text: str) -> str:
    """`text` with the userinfo and the secret query values of every URL in it removed."""
    return _SECRET_IN_TEXT.sub(r"\1***", _USERINFO_IN_TEXT.sub(r"\1", text))


def _encode_local(path: str) -> str:
    raw = path.encode("utf-8", "surrogateescape")
    readable = raw.decode("utf-8", "backslashreplace") == path
    if readable:
        return re.sub(r"[%?#\x00-\x1f\x7f]", lambda m: quote(m.group()), path)
    return quote(raw)


def _encode_http(path: str) -> str:
    """Percent-encode what a URL cannot hold; escapes already there stay, in upper case."""
    path = re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", path)
    path = re.sub(r"%[0-9A-Fa-f]{2}", lambda m: m.group().upper(), path)
    return quote(path, safe="%/:@!$&'()*+,;=-._~")


def _split(url: str) -> tuple[str, str, str, str, str]:
    """scheme, host (or bucket), path, query, fragment. Keys of object stores may hold `?` and `#`."""
    scheme = scheme_of(url)
    if scheme in _DEFAULT_PORTS:
        parts = urlsplit(url)
        return scheme, parts.netloc, parts.path, parts.query, parts.fragment
    host, slash, key = url[url.index("://") + 3 :].partition("/")
    return scheme, host, slash + key, "", ""


def _unsplit(scheme: str, host: str, path: str, query: str) -> str:
    if scheme in _DEFAULT_PORTS:
        return urlunsplit((scheme, host, path, query, ""))
    return f"{scheme}://{host}{path}"


def _public_query(query: str) -> str:
    pairs = [(unquote(p.partition("=")[0]), p) for p in query.split("&")] if query else []
    signed = any(_SECRET.match(name) for name, _ in pairs)
    return "&".join(p for name, p in pairs if not (_SECRET.match(name) or (signed and _SIGNED.match(name))))


def _below(base: str, name: str) -> str:
    """A relative name, or an absolute path, seen from a remote folder."""
    scheme, host, path, _, _ = _split(base)
    if scheme in _DEFAULT_PORTS:
        return absolute(urljoin(f"{base.rstrip('/')}/", _encode_reference(name)))
    if name.startswith(("/", "~/")):
        return file_uri(local_path(name))
    return f"{scheme}://{host}" + posixpath.normpath(posixpath.join(path or "/", name))


def _encode_reference(name: str) -> str:
    path, mark, query = name.partition("?")
    return _encode_http(path).replace(":", "%3A") + mark + query
