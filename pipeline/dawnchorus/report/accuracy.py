"""Word error rate of the rows that have a reference; nothing where the scoring packages are missing.

Scoring is slow (about 100 kB of text a second), so of very many rows a sample is scored: those with the
smallest ids, which are hashes, whatever the order of rows.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dawnchorus import scoring
from dawnchorus.errors import UserError
from dawnchorus.report.tables import brief, keys
from dawnchorus.wording import many

_BUDGET_CHARACTERS = 2_000_000
_WORST = 8
_TEXT_CHARACTERS = 1_000


@dataclass(slots=True)
class Accuracy:
    """Folds batches of transcript rows; `result()` is the report's `wer`."""

    budget: int = _BUDGET_CHARACTERS
    below: int = 1 << 64
    scored: list[tuple[int, int, scoring.Score]] = field(default_factory=list)
    worst: list[dict[str, Any]] = field(default_factory=list)
    size: int = 0
    num_rows: int = 0
    missing: str = ""

    def add(self, rows: pa.RecordBatch) -> None:
        """Score the rows of a batch that have a reference, did not fail and are in the sample."""
        has = pc.and_(pc.is_valid(rows["text"]), pc.not_equal(rows["status"], "failed"))
        told = rows.filter(pc.fill_null(pc.and_(has, pc.not_equal(rows["text"], "")), False))
        self.num_rows += len(told)
        for i, key in enumerate(keys(told["recording_id"]).tolist() if not self.missing else ()):
            if key >= self.below:
                continue
            text, said = told["text"][i].as_py(), told["pred_text"][i].as_py() or ""
            try:
                score = scoring.score(text, said)
            except UserError as e:
                self.missing = str(e)
                return
            self.scored.append((key, len(text), score))
            self.size += len(text)
            self._remember(told, i, score, text, said)
            while self.size > self.budget and len(self.scored) > 1:
                self._halve()

    def _halve(self) -> None:
        self.below = int(statistics.median_high(key for key, _, _ in self.scored))
        self.scored = [entry for entry in self.scored if entry[0] < self.below]
        self.size = sum(size for _, size, _ in self.scored)

    def _remember(self, rows: pa.RecordBatch, i: int, score: scoring.Score, text: str, said: str) -> None:
        if not score.errors or score.wer is None:
            return
        if len(self.worst) < _WORST or score.errors > self.worst[-1]["errors"]:
            texts = {"text": text[:_TEXT_CHARACTERS], "pred_text": said[:_TEXT_CHARACTERS]}
            entry = brief(rows, i) | texts | {"wer": score.wer, "errors": score.errors}
            self.worst = sorted([*self.worst, entry], key=lambda e: -e["errors"])[:_WORST]

    def result(self) -> dict[str, Any]:
        """`wer` (None without references or without the packages), its counts, the recordings with most
        errors, and a note on what was not scored."""
        total = sum((score for _, _, score in self.scored), scoring.Score())
        note = ""
        if self.missing and self.num_rows:
            note = f"Not scored: {many(self.num_rows, 'recording')} with a reference. {self.missing}"
        elif len(self.scored) < self.num_rows:
            note = f"A sample of {len(self.scored):,} of {self.num_rows:,} recordings with a reference."
        return {
            "wer": total.wer,
            "num_words": total.num_words,
            "substitutions": total.substitutions,
            "deletions": total.deletions,
            "insertions": total.insertions,
            "num_recordings": len(self.scored),
            "worst": self.worst,
            "note": note,
        }
