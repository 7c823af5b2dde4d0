"""Identities as pure functions of content, never of position in a run or of time.

All ids are lower-case hex of BLAKE2b: 32 digits (128 bits) for recordings, chunks and decodes, 16 for
runs and fingerprints.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from dawnchorus.records import Chunk, Seconds

_ID_BYTES = 16
_SHORT_BYTES = 8


def _digest(parts: Iterable[str], num_bytes: int = _ID_BYTES) -> str:
    """Hex digest of a sequence of strings; each is length-prefixed, so ("ab","c") != ("a","bc")."""
    h = hashlib.blake2b(digest_size=num_bytes)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        h.update(len(data).to_bytes(8, "little"))
        h.update(data)
    return h.hexdigest()


def microseconds(seconds: Seconds) -> int:
    """Seconds to integer microseconds, rounded to nearest; the only form in which times enter ids."""
    return round(seconds * 1_000_000)


def recording_id(uri: str, offset: Seconds | None = None, duration: Seconds | None = None) -> str:
    """Id of a recording.

    `uri` is the canonical absolute URI without credentials (`storage.canonical_uri`). A slice (an
    `offset`, even 0) adds offset and duration in integer microseconds.
    """
    if offset is None:
        return _digest(["recording", uri])
    length = "end" if duration is None else str(microseconds(duration))
    return _digest(["slice", uri, str(microseconds(offset)), length])


def bad_line_id(manifest_uri: str, line: str, content: str) -> str:
    """Id of the failed row that stands for a manifest line nobody can read."""
    return _digest(["bad-line", manifest_uri, line, content])


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def decode_id(facts: Mapping[str, Any]) -> str:
    """Id of one way of decoding one version of one object: source version, decoder and version,
    resampler, channels, VAD and chunk parameters."""
    return _digest(["decode", canonical_json(facts)])


def asked_id(name: str) -> str:
    """Id of what somebody called a recording when asking to forget it."""
    return _digest(["asked", name])


def chunk_id(recording: str, decode: str, chunk: Chunk) -> str:
    """Id of one chunk; the end row of a recording has `end_row_id`."""
    channel = "mix" if chunk.channel is None else str(chunk.channel)
    spans = (chunk.chunk_index, chunk.start, chunk.end, chunk.input_start, chunk.input_end)
    return _digest(["chunk", recording, decode, channel, *(str(x) for x in spans)])


def end_row_id(recording: str, decode: str, status: str) -> str:
    """Id of the row that ends a recording; a failed decode and a good one are different rows."""
    return _digest(["end", recording, decode, status])


def fingerprint(facts: Mapping[str, Any]) -> str:
    """Id of everything that can change `pred_text`."""
    return _digest(["fingerprint", canonical_json(facts)], _SHORT_BYTES)


def part_id(fingerprint_: str, chunk_ids: Iterable[str]) -> str:
    """Id of one window of committed rows: a replayed window overwrites itself."""
    return _digest(["part", fingerprint_, *sorted(chunk_ids)])


def run_id(output: str, manifest_digest: str, fingerprint_: str) -> str:
    """Id of a run: the same command over the same input into the same output is the same run."""
    return _digest(["run", output, manifest_digest, fingerprint_], _SHORT_BYTES)


def transcript_hash(segments: Iterable[Mapping[str, Any]]) -> str:
    """Id of what was said by whom and when; `segments` are rows with channel, speaker, start, end, text."""
    parts = ["transcript"]
    for s in segments:
        times = (str(microseconds(s["start"])), str(microseconds(s["end"])))
        parts += [str(s["channel"]), s["speaker"] or "", *times, s["text"] or ""]
    return _digest(parts)


def answer_fingerprint(facts: Mapping[str, Any]) -> str:
    """Id of everything but the transcript that can change an answer."""
    return _digest(["answer", canonical_json(facts)], _SHORT_BYTES)


def step_id(fingerprint_: str, transcript: str, prompt: str) -> str:
    """Id of one step towards an answer: the whole text of its prompt is in it."""
    return _digest(["step", fingerprint_, transcript, prompt])
