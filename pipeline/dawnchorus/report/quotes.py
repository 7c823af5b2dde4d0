"""The report's sections on what was said: a few transcripts as they begin, and those that are flagged.

Gathered from transcript rows as they stream by, and as HTML.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dawnchorus.flags import TRANSCRIPT_FLAGS, Flag
from dawnchorus.report.markup import code, escape, say, table, where
from dawnchorus.report.tables import brief

_TRANSCRIPTS = 10
_EXAMPLES = 3
_CHARACTERS = 200
_MAX_FLAGS = 50
_ORDER = ("doubt", "audio", "note")
_TITLES = {"doubt": "doubtful", "audio": "the file", "note": "mended, no doubt"}
_UNKNOWN = Flag("doubt", "")


@dataclass(slots=True)
class Quotes:
    """Folds batches of transcript rows."""

    transcripts: list[dict[str, Any]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def add(self, rows: pa.RecordBatch) -> None:
        """Count a batch's flags, and keep the first rows that say something and of each flag."""
        said = pc.indices_nonzero(pc.equal(rows["status"], "ok")).to_pylist()
        room = _TRANSCRIPTS - len(self.transcripts)
        self.transcripts += [_quote(rows, i) for i in said[:room]]
        names = pc.list_flatten(rows["flags"]).to_pylist()
        self.counts.update(names)
        for name, i in zip(names, pc.list_parent_indices(rows["flags"]).to_pylist(), strict=True):
            kept = self.examples.setdefault(name, [])
            if len(kept) < _EXAMPLES:
                kept.append(_quote(rows, i))

    def flags(self) -> list[dict[str, Any]]:
        """One entry per flag, doubts first: how many, what it means, examples."""
        found = []
        for name, num in self.counts.most_common(_MAX_FLAGS):
            flag = TRANSCRIPT_FLAGS.get(name, _UNKNOWN)
            entry = {"flag": name, "num": num, "weight": flag.weight, "meaning": flag.meaning}
            found.append(entry | {"examples": self.examples[name]})
        return sorted(found, key=lambda f: _ORDER.index(f["weight"]))


def _quote(rows: pa.RecordBatch, i: int) -> dict[str, Any]:
    """A row's address, and how its text begins."""
    row, text = brief(rows, i), rows["pred_text"][i].as_py() or ""
    row = {n: row[n] for n in ("audio_filepath", "offset", "duration", "status")}
    return row | {"text": text[:_CHARACTERS] + ("…" if len(text) > _CHARACTERS else "")}


def flags(report: Mapping[str, Any]) -> str:
    """What is flagged, what each flag means, and which files have it."""
    found = report["flags"]
    if not found:
        return ""
    return f"<section><h2>Flags</h2>{''.join(_flag(f) for f in found)}</section>\n"


def _flag(found: Mapping[str, Any]) -> str:
    examples = [[where(e), say(e["text"])] for e in found["examples"]]
    more = found["num"] - len(examples)
    rest = f'<p class="more">and {more:,} more</p>' if more > 0 else ""
    return (
        f'<article class="kind flagged {escape(found["weight"])}">'
        f"<h3><b>{found['num']:,}</b> {code(found['flag'])} <small>{_TITLES[found['weight']]}</small></h3>"
        f"<p>{escape(found['meaning'])}</p>{table((), examples)}{rest}</article>"
    )


def transcripts(report: Mapping[str, Any]) -> str:
    """How the first few transcripts begin."""
    found = report["transcripts"]
    if not found:
        return ""
    rows = [[where(t), say(t["text"], _CHARACTERS + 1)] for t in found]
    title = "Transcripts" if report["totals"]["ok"] <= len(found) else "The first transcripts"
    return f'<section class="quotes"><h2>{title}</h2>{table((), rows)}</section>\n'
