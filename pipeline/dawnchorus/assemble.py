"""Chunks of one recording -> its Transcript row, and the account of its samples. Pure.

Rows come as dicts of `schema.CHUNKS`, the result is a dict of `schema.TRANSCRIPTS`. Knows neither
storage nor the ledger; what is missing or does not add up is for `reconcile` to say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dawnchorus import storage
from dawnchorus.chunking import join_seams
from dawnchorus.language import FLAG, maybe_not_english
from dawnchorus.records import Failure, Seconds
from dawnchorus.schema import SCHEMA_VERSION, failure_row

DURATION_TOLERANCE: Seconds = 0.1
"""Decoded against claimed length: a larger difference is flagged."""

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What every transcript row says of the run that made it."""

    engine: str
    model: str
    model_revision: str
    run_id: str
    fingerprint: str
    english_only: bool = False


@dataclass(frozen=True, slots=True)
class Account:
    """Integer samples of one channel: `transcribed + failed + silent == decoded` when all is well."""

    channel: int | None
    decoded: int
    transcribed: int
    failed: int
    silent: int

    @property
    def balanced(self) -> bool:
        """True when no sample is unaccounted for."""
        return self.transcribed + self.failed + self.silent == self.decoded


def samples(seconds: Seconds, sampling_rate: int) -> int:
    """Seconds at rest back to the integer samples they were made from."""
    return round(seconds * sampling_rate)


def account(end: Row, chunks: Sequence[Row]) -> list[Account]:
    """Where the samples of each channel went, recomputed from the committed rows.

    A chunk's damaged samples were lost before the engine heard them: they count as failed, as do the
    damaged samples outside chunks (the end row has the sum of both).
    """
    rate = end["sampling_rate"]
    accounts = []
    for count in end["channels"] or ():
        mine = [c for c in chunks if c["channel"] == count["channel"]]
        heard = {True: 0, False: 0}
        for c in mine:
            length = samples(c["end"], rate) - samples(c["start"], rate)
            heard[c["status"] == "failed"] += length - c["damaged_samples"]
        failed = heard[True] + count["damaged_samples"]
        accounts.append(
            Account(count["channel"], count["decoded_samples"], heard[False], failed, count["silent_samples"])
        )
    return accounts


def _coverage(end: Row, accounts: Sequence[Account]) -> dict[str, float]:
    rate = end["sampling_rate"]
    return {
        "decoded": sum(a.decoded for a in accounts) / rate,
        "transcribed": sum(a.transcribed for a in accounts) / rate,
        "silent": sum(a.silent for a in accounts) / rate,
        "failed": sum(a.failed for a in accounts) / rate,
    }


def _base(recording: Row, facts: RunFacts) -> dict[str, Any]:
    path = recording["audio_filepath"]
    return {
        "recording_id": recording["recording_id"],
        "audio_filepath": path and storage.redact(path),
        "offset": recording["offset"],
        "duration": recording["duration"],
        "claimed_duration": recording["claimed_duration"],
        "num_channels": None,
        "text": recording["text"],
        "pred_text": "",
        "segments": [],
        "answers": [],
        "coverage": None,
        "flags": [],
        "status": "failed",
        "failure": None,
        "metadata": recording["metadata"],
        "decode_id": None,
        "engine": facts.engine,
        "model": facts.model,
        "model_revision": facts.model_revision,
        "run_id": facts.run_id,
        "fingerprint": facts.fingerprint,
        "schema_version": SCHEMA_VERSION,
    }


def unreadable(recording: Row, facts: RunFacts) -> dict[str, Any]:
    """The transcript row of a manifest line that nobody can read."""
    return {**_base(recording, facts), "failure": recording["failure"]}


def assemble(recording: Row, end: Row, chunks: Sequence[Row], facts: RunFacts) -> dict[str, Any]:
    """The transcript row of a settled recording.

    `ok` when at least one chunk succeeded (flag `partial` if anything failed), `empty` when nothing
    was said, `failed` otherwise. Segments are in order of time over all channels.
    """
    row = _base(recording, facts)
    row["decode_id"] = end["decode_id"]
    failures = [f for f in [end["failure"], *(c["failure"] for c in chunks)] if f is not None]
    row["failure"] = _worst(failures)
    flags = set(end["flags"] or ()).union(*(c["flags"] or () for c in chunks))
    if end["channels"]:
        row["num_channels"] = end["num_channels"]
        row["coverage"] = _coverage(end, account(end, chunks))
        row["duration"] = max(c["decoded_samples"] for c in end["channels"]) / end["sampling_rate"]
        flags |= _length_flags(recording, end, row["duration"])
    succeeded = [c for c in chunks if c["status"] != "failed"]
    segments = _segments(succeeded)
    row["segments"] = segments
    row["pred_text"] = " ".join(s["text"].strip() for s in segments if s["text"].strip())
    if end["status"] == "failed" or (chunks and not succeeded):
        row["status"] = "failed"
    elif row["pred_text"]:
        row["status"] = "ok"
        flags |= {"partial"} if failures else set()
        if facts.english_only and maybe_not_english(row["pred_text"], _avg_logprob(succeeded)):
            flags.add(FLAG)
    else:
        row["failure"] = row["failure"] or _mostly_lost(row["coverage"])
        row["status"] = "failed" if row["failure"] else "empty"
    row["flags"] = sorted(flags)
    return row


def _avg_logprob(chunks: Sequence[Row]) -> float | None:
    """Mean over the tokens of all chunks that have one."""
    known = [(c["avg_logprob"], c["num_tokens"] or 0) for c in chunks if c["avg_logprob"] is not None]
    num_tokens = sum(n for _, n in known)
    return sum(p * n for p, n in known) / num_tokens if num_tokens else None


def _mostly_lost(coverage: Mapping[str, float] | None) -> dict[str, Any] | None:
    """Why a recording in which nobody speaks is no silent one: there is hardly anything to hear."""
    if coverage is None or coverage["failed"] <= coverage["decoded"] / 2:
        return None
    lost, all_ = coverage["failed"], coverage["decoded"]
    said = f"{lost:.1f} of {all_:.1f} s do not decode, and nobody speaks in the rest."
    return failure_row(Failure("decode", "damaged_audio", said, transient=False))


def _worst(failures: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The failure a row shows: one worth another try before a final one, else the first."""
    return next((f for f in failures if f["transient"]), failures[0] if failures else None)


def _length_flags(recording: Row, end: Row, decoded: Seconds) -> set[str]:
    slice_ = recording["offset"] is not None
    claims = [recording["duration"]] if slice_ else [recording["claimed_duration"], end["container_duration"]]
    off = any(c is not None and abs(c - decoded) > DURATION_TOLERANCE for c in claims)
    return {"duration_mismatch"} if off else set()


def _segments(chunks: Sequence[Row]) -> list[dict[str, Any]]:
    """Segments of all channels in order of time; what two overlapping windows both said, once."""
    by_channel: dict[int | None, list[Row]] = {}
    for chunk in sorted(chunks, key=lambda c: c["chunk_index"]):
        by_channel.setdefault(chunk["channel"], []).append(chunk)
    found = [{"channel": c, **s} for c, mine in by_channel.items() for s in join_seams(mine)]
    return sorted(found, key=lambda s: (s["start"], s["end"], s["channel"] or 0))
