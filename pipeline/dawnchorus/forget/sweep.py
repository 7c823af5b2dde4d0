"""Takes ids out of what an output holds: rows of Parquet files, notes, reports.

Every step is one PUT or one deletion per file, and finds nothing to do when it is repeated. A part keeps its
name, a hash of the chunks it had: plans and ledgers know it by that, and who transcribes them all again one
day overwrites it.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dawnchorus import earlier, forgotten, publishing, report, storage
from dawnchorus.forgotten import COUNT_KEY
from dawnchorus.reconcile import reconcile

TABLES = ("chunks", "answers", "transcripts", "plans of attempts", "manifests")
"""In the order in which they are swept: manifests last, they know the names."""
_AT_ONCE = 8
_GONE = "(forgotten)"

Check = Callable[[], None]
"""Raises when another run owns the output by now."""


def count(output: str, ids: pa.Array) -> Counter[str]:
    """How many rows of these ids each table holds."""
    return _each(output, TABLES, lambda url, table: _num_held(url, ids))


def rows(output: str, ids: pa.Array, tables: Iterable[str], check: Check) -> Counter[str]:
    """Take the rows of these ids out of `tables`; returns how many each lost."""
    return _each(output, tables, lambda url, table: _rewrite(url, ids, table == "manifests", check))


def _each(output: str, tables: Iterable[str], act: Callable[[str, str], int]) -> Counter[str]:
    found = Counter[str]()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for table in tables:
            urls = _files(output, table)
            found[table] += sum(pool.map(act, urls, [table] * len(urls)))
    return found


def _files(output: str, table: str) -> list[str]:
    if table in ("chunks", "answers", "transcripts"):
        return [f.url for f in storage.list_files(storage.join(output, table), ".parquet")]
    urls = [f.url for f in storage.list_files(storage.join(output, "_runs"), ".parquet")]
    return [u for u in urls if (storage.parent(u).endswith("/manifest")) == (table == "manifests")]


def _num_held(url: str, ids: pa.Array) -> int:
    table = storage.read_table(url, ["recording_id"])
    if "recording_id" not in table.column_names:
        return 0
    return pc.sum(pc.is_in(table["recording_id"], value_set=ids)).as_py() or 0


def _rewrite(url: str, ids: pa.Array, is_manifest: bool, check: Check) -> int:
    """One file without these ids; a file without rows goes, but for a manifest, which keeps the count."""
    num = _num_held(url, ids)
    if not num:
        return 0
    if not is_manifest:
        return earlier.remove_rows(url, ids, check)
    table = storage.read_table(url)
    kept = table.filter(pc.invert(pc.is_in(table["recording_id"], value_set=ids)))
    check()
    said = dict(table.schema.metadata or {})
    said[COUNT_KEY.encode()] = str(int(said.get(COUNT_KEY.encode(), b"0")) + num).encode()
    storage.put_atomic(url, storage.parquet_bytes(kept.replace_schema_metadata(said)))
    return num


def notes(output: str, ids: Iterable[str], addresses: Iterable[str], check: Check) -> int:
    """Replace every text in the JSON files of runs that names one of these ids or audio addresses; returns
    how many files changed. Reports are made anew instead: see `reports`."""
    spelled = {*ids, *(form for a in addresses for form in _forms(a))}
    # A longer address is that of another file.
    named = re.compile(rf"(?<![\w.-])(?:{'|'.join(map(re.escape, spelled))})(?![\w/-]|\.\w)")
    changed = 0
    for info in storage.list_files(storage.join(output, "_runs"), ".json"):
        if "/_fence/" in info.url or info.url.endswith("/report.json"):
            continue
        old = json.loads(storage.read_bytes(info.url))
        new = _without(old, named)
        if info.url.endswith("/run.json") and _is_input(new, addresses):
            new["config"]["input"] = _GONE
        if new != old:
            check()
            storage.put_atomic(info.url, json.dumps(new, indent=1).encode())
            changed += 1
    return changed


def _forms(address: str) -> set[str]:
    """The ways in which messages spell an audio address."""
    uri = storage.canonical_uri(address)
    return {address, storage.redact(address), uri, storage.readable(uri)}


def _is_input(about: dict[str, Any], addresses: Iterable[str]) -> bool:
    """Whether the input of a run was one of these, perhaps seen from the folder it was started in."""
    name = storage.name_of(about["config"]["input"])
    asked = about["config"]["input"].removeprefix("./")
    return bool(name) and any(f"/{storage.readable(a)}".endswith(f"/{asked}") for a in addresses)


def _without(tree: Any, named: re.Pattern[str]) -> Any:
    if isinstance(tree, dict):
        return {k: _without(v, named) for k, v in tree.items()}
    if isinstance(tree, list):
        return [_without(v, named) for v in tree]
    return _GONE if isinstance(tree, str) and named.search(tree) else tree


def reports(output: str, check: Check) -> int:
    """Make the reports of runs that had forgotten rows anew, from those that are left; returns how many."""
    num = 0
    for job in publishing.jobs_of(output):
        there = storage.exists(storage.join(job.run_url, "report.json"))
        if not there or not (saved := forgotten.saved(job.run_url)) or not saved.num_forgotten:
            continue
        about = json.loads(storage.read_bytes(storage.join(job.run_url, "run.json")))
        keep_old = about["config"]["resume"]["other_fingerprint"] == "keep-old"
        found = reconcile(output, job.manifest, job.facts.fingerprint, keep_old)
        check()
        report.renew_rows(output, job.facts.run_id, found)
        num += 1
    return num
