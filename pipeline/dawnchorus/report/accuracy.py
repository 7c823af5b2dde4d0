"""Word error rate of the rows that have a reference; nothing where the scoring packages are missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa


@dataclass(slots=True)
class Accuracy:
    """Folds batches of transcript rows; `result()` is the report's `wer`."""

    note: str = ""

    def add(self, rows: pa.RecordBatch) -> None:
        """Score the rows of a batch that have a reference and did not fail."""

    def result(self) -> dict[str, Any]:
        """`wer` (None without references), its counts, and a note."""
        return {"wer": None, "num_words": 0, "num_recordings": 0, "note": self.note}
