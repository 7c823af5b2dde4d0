"""Dashboard and alerts name metrics that exist, with labels they have, in PromQL that parses."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path

import promql_parser
import pyarrow as pa
import pytest
import yaml

from dawnchorus import metrics
from dawnchorus.engines.batching import counted, run_in_batches
from dawnchorus.schema import ANSWERS, CHUNKS

FOLDER = Path(__file__).parents[2] / "infra" / "observability"
_SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
NAMES = {f"ray_{n}{s}": m for n, m in metrics.METRICS.items() for s in _SUFFIXES[m.kind]}


def expressions() -> Iterator[tuple[str, str]]:
    for panel in json.loads((FOLDER / "dashboard.json").read_text())["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]


@pytest.mark.parametrize(("where", "expr"), list(expressions()))
def test_expression_parses_and_names_what_exists(where: str, expr: str) -> None:
    ready = expr.replace("$__rate_interval", "1m").replace("$run", ".*")
    promql_parser.parse(ready)
    named = set(re.findall(r"ray_dawnchorus_\w+", ready))
    assert named
    assert named <= NAMES.keys()
    for labels in re.findall(r"by \(([^)]*)\)", ready):
        allowed = {"run_id", "le"} | {x for n in named for x in NAMES[n].labels}
        assert {x.strip() for x in labels.split(",")} <= allowed


def test_every_metric_is_looked_at() -> None:
    seen = " ".join(expr for _, expr in expressions())
    assert {n for n in metrics.METRICS if n not in seen} == set()


def test_the_dashboard_is_the_one_that_is_made() -> None:
    spec = importlib.util.spec_from_file_location("dashboard", FOLDER / "dashboard.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    assert made.text() == (FOLDER / "dashboard.json").read_text()


def test_a_window_is_observed() -> None:
    timing = {"worker": "w", "started_at": 0.0, "decode_seconds": None, "engine_seconds": 2.0}
    failed = {"stage": "transcribe", "kind": "crash", "message": "m", "transient": False, "attempts": 2}
    ended = {"channel": None, "decoded_samples": 160_000, "silent_samples": 16_000, "damaged_samples": 0}
    base = {"recording_id": "r", "run_id": "run", "chunk_id": "c"}
    rows = [
        {**base, "kind": "chunk", "start": 0.0, "end": 4.0, "status": "ok", "num_tokens": 7, "num_splits": 1}
        | {"timing": {**timing, "wait_seconds": 0.5}},
        {**base, "kind": "chunk", "start": 4.0, "end": 9.0, "status": "failed", "failure": failed}
        | {"timing": {**timing, "wait_seconds": 0.0}},
        {**base, "kind": "end", "status": "ok", "sampling_rate": 16_000, "channels": [ended]}
        | {"timing": {**timing, "decode_seconds": 0.25, "engine_seconds": None, "wait_seconds": None}},
    ]
    said = metrics.of_window(pa.Table.from_pylist(rows, schema=CHUNKS))
    values = {
        (name, *sorted(labels.values())): value for name, value, labels in said if "chunk_s" not in name
    }
    assert {n for n, *_ in said} <= metrics.METRICS.keys()
    assert values["dawnchorus_audio_decoded_seconds",] == 10.0
    assert values["dawnchorus_audio_silent_seconds",] == 1.0
    assert values["dawnchorus_audio_transcribed_seconds",] == 9.0
    assert values["dawnchorus_engine_seconds",] == 4.0
    assert values["dawnchorus_engine_wait_seconds",] == 0.5
    assert values["dawnchorus_retries",] == 1.0
    assert values["dawnchorus_failures", "crash", "transcribe"] == 1.0
    assert values["dawnchorus_recordings", "ok"] == 1.0
    assert values["dawnchorus_window_rows",] == 2.0
    assert [v for n, v, _ in said if n == "dawnchorus_chunk_seconds"] == [4.0, 5.0]


def test_an_engine_call_is_observed() -> None:
    """Batches of two and one, padded to the longer of the two, after half a minute in the queue."""
    with counted() as seen:
        run_in_batches(
            [4.0, 3.0, 9.0],
            [4.0, 3.0, 9.0],
            9.0,
            lambda b: b,
            lambda _: False,
            lambda x, _: x,
            [4.0, 2.0, 9.0],
        )
    said = metrics.of_batches(seen, 30.0)
    assert {n for n, *_ in said} <= metrics.METRICS.keys()
    assert [v for n, v, _ in said if n == "dawnchorus_batch_rows"] == [1.0, 2.0]
    values = {name: value for name, value, _ in said}
    assert values["dawnchorus_batch_audio_seconds"] == 15.0
    assert values["dawnchorus_batch_padding_seconds"] == 2.0
    assert values["dawnchorus_batches_halved"] == 0.0
    assert values["dawnchorus_queue_seconds"] == 30.0


def test_what_nobody_knows_is_not_told() -> None:
    assert [n for n, *_ in metrics.of_progress(5.0, None, 1.0, None)] == [
        "dawnchorus_audio_remaining_seconds",
        "dawnchorus_commit_age_seconds",
    ]
    assert ("dawnchorus_eta_seconds", 60.0, {}) in metrics.of_progress(5.0, 60.0, 1.0, None)


def test_answers_are_observed() -> None:
    row = {"kind": "answer", "name": "summary", "status": "ok", "num_tokens": 30, "run_id": "run"}
    table = pa.Table.from_pylist([row, {**row, "kind": "piece"}], schema=pa.schema(_nullable(ANSWERS)))
    said = metrics.of_answers(table)
    assert ("dawnchorus_answers", 1.0, {"name": "summary", "status": "ok"}) in said
    assert said[0] == ("dawnchorus_answer_tokens", 60.0, {})


def _nullable(schema: pa.Schema) -> list[pa.Field]:
    return [f.with_nullable(True) for f in schema]
