"""Files and objects anywhere: everything fsspec, and the only package that knows URLs and credentials.

Every function takes an absolute URL or a local path as text. What cannot be read or written becomes
Transient or Terminal with stage `fetch` (see `problems`); only `read_bytes`, `open_input` and
`read_table` raise FileNotFoundError for a missing object, as Python's `open` does. Messages hold no
credentials.
"""

from dawnchorus.storage.fetching import Fetched, fetch
from dawnchorus.storage.objects import (
    FileInfo,
    check_writable,
    delete,
    exists,
    glob,
    has_magic,
    is_folder,
    list_files,
    put_atomic,
    put_file,
    put_new,
    read_bytes,
    remove_leftovers,
)
from dawnchorus.storage.remote import is_known
from dawnchorus.storage.tables import open_input, parquet_bytes, read_table
from dawnchorus.storage.urls import (
    absolute,
    canonical_uri,
    file_uri,
    is_http,
    is_local,
    join,
    local_path,
    name_of,
    parent,
    readable,
    redact,
    shown,
)

__all__ = [
    "Fetched",
    "FileInfo",
    "absolute",
    "canonical_uri",
    "check_writable",
    "delete",
    "exists",
    "fetch",
    "file_uri",
    "is_folder",
    "glob",
    "has_magic",
    "is_http",
    "is_known",
    "is_local",
    "join",
    "list_files",
    "local_path",
    "name_of",
    "open_input",
    "parent",
    "parquet_bytes",
    "put_atomic",
    "put_file",
    "put_new",
    "read_bytes",
    "read_table",
    "readable",
    "redact",
    "remove_leftovers",
    "shown",
]
