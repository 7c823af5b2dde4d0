"""Every manifest shape -> batches of `schema.RECORDINGS`: streaming, columnar, without Ray.

NeMo JSONL (.gz and sharded forms too), CSV/TSV, Parquet, Lhotse cuts, a folder, a glob or a single file
of audio; from any place `storage` reaches. `read` streams, `snapshot` writes what a run is planned from.
"""

from dawnchorus.manifest.snapshot import Snapshot, snapshot
from dawnchorus.manifest.stream import Counts, read

__all__ = ["Counts", "Snapshot", "read", "snapshot"]
