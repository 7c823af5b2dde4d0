"""Every Arrow schema: the only place where a table's columns are spelled. Frozen by a test.

`SCHEMA_VERSION` goes up whenever a schema here changes; it is a column of every table and part of the
fingerprint. All times are float64 seconds unless the name says otherwise.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from dawnchorus.records import Failure, Segment

SCHEMA_VERSION = 2

FAILURE = pa.struct(
    [
        pa.field("stage", pa.string()),
        pa.field("kind", pa.string()),
        pa.field("message", pa.string()),
        pa.field("transient", pa.bool_()),
        pa.field("attempts", pa.int32()),
    ]
)
WORD = pa.struct(
    [
        pa.field("start", pa.float64()),
        pa.field("end", pa.float64()),
        pa.field("word", pa.string()),
        pa.field("prob", pa.float32()),
    ]
)
_SEGMENT_FIELDS = [
    pa.field("start", pa.float64()),
    pa.field("end", pa.float64()),
    pa.field("text", pa.string()),
    pa.field("avg_logprob", pa.float32()),
    pa.field("speaker", pa.string()),
    pa.field("words", pa.list_(WORD)),
]
SEGMENT = pa.struct(_SEGMENT_FIELDS)
CHANNEL_SEGMENT = pa.struct([pa.field("channel", pa.int32()), *_SEGMENT_FIELDS])
CHANNEL_COUNT = pa.struct(
    [
        pa.field("channel", pa.int32()),
        pa.field("decoded_samples", pa.int64()),
        pa.field("silent_samples", pa.int64()),
        pa.field("damaged_samples", pa.int64()),
    ]
)
TIMING = pa.struct(
    [
        pa.field("worker", pa.string()),
        pa.field("started_at", pa.float64()),
        pa.field("decode_seconds", pa.float64()),
        pa.field("engine_seconds", pa.float64()),
        pa.field("wait_seconds", pa.float64()),
    ]
)
ANSWER = pa.struct(
    [
        pa.field("name", pa.string()),
        pa.field("question", pa.string()),
        pa.field("text", pa.string()),
        pa.field("json", pa.string()),
        pa.field("finish_reason", pa.string()),
        pa.field("flags", pa.list_(pa.string())),
        pa.field("status", pa.string()),
        pa.field("failure", FAILURE),
        pa.field("fingerprint", pa.string()),
    ]
)
COVERAGE = pa.struct(
    [
        pa.field("decoded", pa.float64()),
        pa.field("transcribed", pa.float64()),
        pa.field("silent", pa.float64()),
        pa.field("failed", pa.float64()),
    ]
)

RECORDINGS = pa.schema(
    [
        pa.field("recording_id", pa.string(), nullable=False),
        pa.field("audio_filepath", pa.string()),
        pa.field("offset", pa.float64()),
        pa.field("duration", pa.float64()),
        pa.field("claimed_duration", pa.float64()),
        pa.field("text", pa.string()),
        pa.field("metadata", pa.string()),
        pa.field("line", pa.string()),
        pa.field("failure", FAILURE),
        pa.field("size_bytes", pa.int64()),
    ]
)
"""Manifest rows. `offset` is set only for slices; `duration` is a slice's length; `claimed_duration`
is a whole object's hint; `metadata` a JSON object of the other columns; `line` says where the row
stands ("calls.jsonl:12"); `failure` is set for lines nobody can read; `size_bytes` is known where the
input was a folder listing, and only serves to estimate the duration."""

UNIT_ROWS = pa.schema(
    [
        pa.field("unit", pa.int32(), nullable=False),
        *list(RECORDINGS)[:7],
        pa.field("attempts", pa.int32(), nullable=False),
        pa.field("committed_chunk_ids", pa.list_(pa.string())),
    ]
)
"""The attempt's plan: one row per pending recording, one Parquet row group per unit. `attempts`
counts earlier tries; `committed_chunk_ids` need no transcription again."""

_CHUNK_KEY = [
    pa.field("kind", pa.string(), nullable=False),
    pa.field("recording_id", pa.string(), nullable=False),
    pa.field("decode_id", pa.string()),
    pa.field("chunk_id", pa.string(), nullable=False),
    pa.field("channel", pa.int32()),
    pa.field("chunk_index", pa.int32()),
    pa.field("start", pa.float64()),
    pa.field("end", pa.float64()),
    pa.field("input_start", pa.float64()),
    pa.field("input_end", pa.float64()),
    pa.field("damaged_samples", pa.int64()),
]
_CHUNK_END = [
    pa.field("num_chunks", pa.int32()),
    pa.field("sampling_rate", pa.int32()),
    pa.field("num_channels", pa.int32()),
    pa.field("channels", pa.list_(CHANNEL_COUNT)),
    pa.field("container_duration", pa.float64()),
    pa.field("source_version", pa.string()),
    pa.field("decoder", pa.string()),
]
_CHUNK_STATE = [
    pa.field("flags", pa.list_(pa.string())),
    pa.field("status", pa.string()),
    pa.field("failure", FAILURE),
    pa.field("attempt", pa.int32()),
    pa.field("timing", TIMING),
]

HOME_ROWS = pa.schema(
    [
        pa.field("home", pa.string(), nullable=False),
        *list(RECORDINGS),
        pa.field("publish", pa.bool_(), nullable=False),
        pa.field("parts", pa.list_(pa.string())),
    ]
)
"""What graph 2 has to publish: one Parquet row group per home file, its manifest rows in order. Those
marked `publish` are assembled anew from `parts`, the committed windows that hold their chunks; the
others only say where their present row belongs."""

DECODED = pa.schema(
    [
        *_CHUNK_KEY,
        *_CHUNK_END,
        *_CHUNK_STATE,
        pa.field("tries", pa.int32()),
        pa.field("waveform", pa.large_list(pa.int16())),
    ]
)
"""What travels from decode to the engine: int16 mono waveforms at the engine's rate. `tries` counts
the recording's earlier attempts."""

CHUNKS = pa.schema(
    [
        *_CHUNK_KEY,
        pa.field("segments", pa.list_(SEGMENT)),
        pa.field("avg_logprob", pa.float32()),
        pa.field("num_tokens", pa.int32()),
        pa.field("num_splits", pa.int32()),
        pa.field("finish_reason", pa.string()),
        *_CHUNK_STATE,
        *_CHUNK_END,
        pa.field("run_id", pa.string()),
        pa.field("fingerprint", pa.string()),
        pa.field("schema_version", pa.int32()),
    ]
)
"""`chunks/`: one row per chunk, and one `kind = end` row per recording and decode."""

TRANSCRIPTS = pa.schema(
    [
        pa.field("recording_id", pa.string(), nullable=False),
        pa.field("audio_filepath", pa.string()),
        pa.field("offset", pa.float64()),
        pa.field("duration", pa.float64()),
        pa.field("claimed_duration", pa.float64()),
        pa.field("num_channels", pa.int32()),
        pa.field("text", pa.string()),
        pa.field("pred_text", pa.string()),
        pa.field("segments", pa.list_(CHANNEL_SEGMENT)),
        pa.field("answers", pa.list_(ANSWER)),
        pa.field("coverage", COVERAGE),
        pa.field("flags", pa.list_(pa.string())),
        pa.field("status", pa.string()),
        pa.field("failure", FAILURE),
        pa.field("metadata", pa.string()),
        pa.field("decode_id", pa.string()),
        pa.field("engine", pa.string()),
        pa.field("model", pa.string()),
        pa.field("model_revision", pa.string()),
        pa.field("run_id", pa.string()),
        pa.field("fingerprint", pa.string()),
        pa.field("schema_version", pa.int32()),
    ]
)
"""`transcripts/`: exactly one row per recording; the table people read."""

ASK_ROWS = pa.schema(
    [
        pa.field("home", pa.string(), nullable=False),
        pa.field("recording_id", pa.string(), nullable=False),
        pa.field("parts", pa.list_(pa.string())),
    ]
)
"""What graph 3 has to look at: one Parquet row group per home file, its recordings to ask about (or to fold
answers into), each with the committed windows of answers that name it."""

_STEP = [
    pa.field("kind", pa.string(), nullable=False),
    pa.field("recording_id", pa.string(), nullable=False),
    pa.field("transcript_hash", pa.string(), nullable=False),
    pa.field("name", pa.string(), nullable=False),
    pa.field("question", pa.string()),
    pa.field("answer_fingerprint", pa.string(), nullable=False),
    pa.field("step_id", pa.string(), nullable=False),
    pa.field("step", pa.int32()),
    pa.field("inputs", pa.list_(pa.string())),
    pa.field("flags", pa.list_(pa.string())),
    pa.field("failure", FAILURE),
]

STEPS = pa.schema(
    [
        *_STEP,
        pa.field("prompt", pa.string()),
        pa.field("max_tokens", pa.int32()),
        pa.field("tries", pa.int32()),
    ]
)
"""What travels to the language model: one request per row. `tries` counts the step's earlier attempts; a
row with a `failure` is not asked, it only has to be committed."""

ANSWERS = pa.schema(
    [
        *_STEP,
        pa.field("text", pa.string()),
        pa.field("json", pa.string()),
        pa.field("finish_reason", pa.string()),
        pa.field("num_tokens", pa.int32()),
        pa.field("status", pa.string()),
        pa.field("timing", TIMING),
        pa.field("attempt", pa.int32()),
        pa.field("run_id", pa.string()),
        pa.field("engine", pa.string()),
        pa.field("model", pa.string()),
        pa.field("model_revision", pa.string()),
        pa.field("schema_version", pa.int32()),
    ]
)
"""`answers/`: one row per step towards an answer. `kind` is `piece` (notes on a part of a long transcript),
`combine` (notes of notes) or `answer`; `inputs` are the step ids of the notes a step was given."""


def failure_row(failure: Failure | None) -> dict[str, Any] | None:
    """A Failure as a value of the FAILURE struct."""
    if failure is None:
        return None
    return {
        "stage": failure.stage,
        "kind": failure.kind,
        "message": failure.message,
        "transient": failure.transient,
        "attempts": failure.attempts,
    }


def segment_row(segment: Segment, shift: float = 0.0) -> dict[str, Any]:
    """A Segment as a value of the SEGMENT struct, its times moved by `shift` seconds."""
    return {
        "start": segment.start + shift,
        "end": segment.end + shift,
        "text": segment.text,
        "avg_logprob": segment.avg_logprob,
        "speaker": segment.speaker,
        "words": [
            {"start": w.start + shift, "end": w.end + shift, "word": w.word, "prob": w.prob}
            for w in segment.words
        ],
    }
