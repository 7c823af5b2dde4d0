"""The report's section on LLM mode: answers by prompt, gathered from committed rows, and as HTML."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dawnchorus import export, ledger, storage
from dawnchorus.report.markup import escape, number, say, table, where
from dawnchorus.report.words import length
from dawnchorus.wording import many

_EXAMPLES = 3
_MAX_NAMES = 40
_COLUMNS = ["recording_id", "audio_filepath", "offset", "status", "answers"]
_WORK = ["name", "num_tokens", "timing", "model"]


def gather(output: str, mine: Callable[[pa.Array], pa.Array] | None = None) -> list[dict[str, Any]]:
    """One entry per prompt name: how many answers are ok, failed, partial, invalid or cut; tokens and engine
    seconds of all its steps; a few examples. `mine` says which recording ids count (None: all)."""
    found: dict[str, dict[str, Any]] = {}
    for batch in export.rows(output, _COLUMNS):
        rows = batch.filter(pc.greater(pc.list_value_length(batch["answers"]), 0))
        rows = rows if mine is None else rows.filter(mine(rows["recording_id"]))
        for row in rows.to_pylist():
            for answer in row["answers"]:
                _add(found, row, answer)
    if found:
        _add_work(found, output)
    return [found[name] for name in sorted(found)][:_MAX_NAMES]


def _add(found: dict[str, dict[str, Any]], row: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
    counts = ("ok", "failed", "partial", "invalid_json", "repaired", "notes_cut", "cut")
    new = {"name": answer["name"], "question": answer["question"], **dict.fromkeys(counts, 0), "examples": []}
    entry = found.setdefault(answer["name"], new)
    entry[answer["status"]] += 1
    entry["cut"] += answer["finish_reason"] == "length"
    for flag in answer["flags"] or ():
        if flag in entry:
            entry[flag] += 1
    if len(entry["examples"]) < _EXAMPLES:
        why = answer["failure"]
        text = answer["text"] if answer["status"] == "ok" else f"{why['kind']}: {why['message']}"
        address = storage.redact(row["audio_filepath"] or "")
        entry["examples"].append({"audio_filepath": address, "offset": row["offset"], "text": text[:1_000]})


def _add_work(found: dict[str, dict[str, Any]], output: str) -> None:
    for entry in found.values():
        entry |= {"num_steps": 0, "num_tokens": 0, "engine_seconds": 0.0, "model": ""}
    for info in storage.list_files(ledger.answers_url(output), ".parquet"):
        part = storage.read_table(info.url, _WORK)
        spent = pc.struct_field(part["timing"], "engine_seconds")
        slim = pa.table(
            {"name": part["name"], "tokens": part["num_tokens"], "spent": spent, "model": part["model"]}
        )
        sums = [("tokens", "sum"), ("spent", "sum"), ("name", "count"), ("model", "max")]
        for row in slim.group_by("name").aggregate(sums).to_pylist():
            if row["name"] in found:
                entry = found[row["name"]]
                entry["num_steps"] += row["name_count"]
                entry["num_tokens"] += row["tokens_sum"] or 0
                entry["engine_seconds"] += row["spent_sum"] or 0.0
                entry["model"] = row["model_max"]


def section(report: Mapping[str, Any]) -> str:
    """Answers by prompt, with examples; nothing where nothing was asked."""
    names = report.get("answers") or []
    if not names:
        return ""
    rows = [
        [
            escape(n["question"] or n["name"]),
            f"{n['ok']:,}",
            f"{n['failed']:,}",
            _doubts(n),
            f"{n['num_tokens']:,}",
            length(n["engine_seconds"]),
            number(n["num_tokens"] / n["engine_seconds"] if n["engine_seconds"] else None),
            escape(n["model"]),
        ]
        for n in names
    ]
    head = ("prompt", "ok", "failed", "doubts", "tokens", "engine", "tokens/s", "model")
    examples = [[escape(n["name"]), where(e), say(e["text"])] for n in names for e in n["examples"]]
    listed = table(("prompt", "audio", "answer"), examples)
    return (
        f"<section><h2>Answers</h2>{table(head, rows)}<details><summary>{many(len(examples), 'example')}"
        f"</summary>{listed}</details></section>\n"
    )


def _doubts(entry: Mapping[str, Any]) -> str:
    words = {
        "partial": "in part",
        "notes_cut": "with cut notes",
        "cut": "cut at their limit",
        "invalid_json": "not as JSON",
        "repaired": "asked twice",
    }
    return escape(", ".join(f"{entry[k]:,} {w}" for k, w in words.items() if entry[k]))
