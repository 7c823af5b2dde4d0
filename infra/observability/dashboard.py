"""Makes dashboard.json, the Grafana dashboard of a run: `python infra/observability/dashboard.py`.

Written as a list of questions, because a dashboard's JSON is 95 % layout.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_RUN = '{run_id=~"$run"}'
_RATE = "[$__rate_interval]"


def _sum(metric: str, by: str = "") -> str:
    grouped = f" by ({by})" if by else ""
    return f"sum{grouped} (rate(ray_dawnchorus_{metric}{_RUN}{_RATE}))"


def _gauge(metric: str, how: str = "max") -> str:
    return f"{how} by (run_id) (ray_dawnchorus_{metric}{_RUN})"


def _quantile(metric: str, q: float) -> str:
    return f"histogram_quantile({q}, sum by (le) (rate(ray_dawnchorus_{metric}_bucket{_RUN}{_RATE})))"


PANELS: list[tuple[str, str, str, list[tuple[str, str]]]] = [
    (
        "Speed: audio seconds per second",
        "How fast audio comes out. Flat and low with idle GPUs: decoding is the bottleneck.",
        "none",
        [
            ("decoded", _sum("audio_decoded_seconds_total")),
            ("transcribed", _sum("audio_transcribed_seconds_total")),
        ],
    ),
    (
        "Time that is left",
        "At the average rate so far, beside the time until notify.deadline.",
        "s",
        [
            ("left", _gauge("eta_seconds")),
            ("until the deadline", f"{_gauge('deadline')} - time()"),
        ],
    ),
    (
        "Audio that is left",
        "Partly estimated until every length is known.",
        "s",
        [("left", _gauge("audio_remaining_seconds"))],
    ),
    (
        "GPU-idle share",
        "Waiting for audio, above 0.1: add CPU nodes or raise workers.decoders. Not at work is all that a "
        "loaded engine does not spend on audio, its wait for the last long recordings too.",
        "percentunit",
        [
            (
                "waiting for audio",
                f"{_sum('engine_wait_seconds_total')} / ({_sum('engine_wait_seconds_total')} + "
                f"{_sum('engine_seconds_total')})",
            ),
            ("not at work", f"1 - {_sum('engine_seconds_total')} / sum(ray_dawnchorus_engines{_RUN})"),
        ],
    ),
    (
        "Time a chunk waits for an engine",
        "From its decoding until an engine takes it, the filling of its window included. Long: engines are "
        "the bottleneck, as they should be.",
        "s",
        [("median", _quantile("queue_seconds", 0.5)), ("95 %", _quantile("queue_seconds", 0.95))],
    ),
    (
        "Engines",
        "Those that are loaded, and engine seconds per second.",
        "none",
        [("loaded", _gauge("engines", "sum")), ("at work", _sum("engine_seconds_total"))],
    ),
    ("Decoders at work", "Decode seconds per second.", "none", [("busy", _sum("decode_seconds_total"))]),
    (
        "Recordings ended per minute",
        "By status; a failed one is a row with a reason.",
        "none",
        [("{{status}}", f"60 * {_sum('recordings_total', 'status')}")],
    ),
    (
        "Failures per minute",
        "By stage and kind, those of chunks too.",
        "none",
        [("{{stage}} {{kind}}", f"60 * {_sum('failures_total', 'stage, kind')}")],
    ),
    (
        "Seconds of one engine call",
        "What a crash costs is at most one of these per engine; 10 to 20 is meant.",
        "s",
        [("median", _quantile("window_seconds", 0.5)), ("95 %", _quantile("window_seconds", 0.95))],
    ),
    (
        "Chunks in one engine call",
        "Fewer than workers.window_rows: decoding does not fill the windows.",
        "none",
        [("median", _quantile("window_rows", 0.5)), ("5 %", _quantile("window_rows", 0.05))],
    ),
    (
        "Chunks in one model call",
        "Batches are packed within engine.batch_seconds. Halved ones did not fit the memory: lower it.",
        "none",
        [
            ("median", _quantile("batch_rows", 0.5)),
            ("95 %", _quantile("batch_rows", 0.95)),
            ("halved per minute", f"60 * {_sum('batches_halved_total')}"),
        ],
    ),
    (
        "Share of padding in model calls",
        "What a GPU computes for nothing. Above 0.2: larger windows (workers.window_rows) sort better.",
        "percentunit",
        [
            (
                "padding",
                f"{_sum('batch_padding_seconds_total')} / ({_sum('batch_padding_seconds_total')} + "
                f"{_sum('batch_audio_seconds_total')})",
            )
        ],
    ),
    (
        "Length of chunks",
        "Long chunks fill an engine better.",
        "s",
        [("median", _quantile("chunk_seconds", 0.5)), ("95 %", _quantile("chunk_seconds", 0.95))],
    ),
    (
        "Doubts",
        "Chunks that an engine cut and did again, and commits of what had been tried before, per minute.",
        "none",
        [
            ("redone", f"60 * {_sum('redone_splits_total')}"),
            ("retried", f"60 * {_sum('retries_total')}"),
        ],
    ),
    (
        "Time since a commit",
        "The run pauses itself after resume.stall_seconds.",
        "s",
        [("silent", _gauge("commit_age_seconds"))],
    ),
    (
        "Share of audio without speech",
        "Skipped before it costs engine time.",
        "percentunit",
        [("silent", f"{_sum('audio_silent_seconds_total')} / {_sum('audio_decoded_seconds_total')}")],
    ),
    (
        "Tokens and answers",
        "Tokens per second of transcripts and of answers; answers per minute by name.",
        "none",
        [
            ("transcript tokens", _sum("tokens_total")),
            ("answer tokens", _sum("answer_tokens_total")),
            ("{{name}} {{status}}", f"60 * {_sum('answers_total', 'name, status')}"),
        ],
    ),
]
"""Title, what to do about it, unit, and legend with PromQL."""


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana imports it."""
    source = {"type": "prometheus", "uid": "${source}"}
    panels = []
    for i, (title, text, unit, targets) in enumerate(PANELS):
        panels.append(
            {
                "id": i + 1,
                "type": "timeseries",
                "title": title,
                "description": text,
                "datasource": source,
                "gridPos": {"h": 8, "w": 8, "x": 8 * (i % 3), "y": 8 * (i // 3)},
                "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
                "targets": [
                    {"refId": chr(65 + n), "expr": expr, "legendFormat": legend, "datasource": source}
                    for n, (legend, expr) in enumerate(targets)
                ],
            }
        )
    variables = [
        {"name": "source", "type": "datasource", "query": "prometheus", "label": "Prometheus"},
        {
            "name": "run",
            "type": "query",
            "label": "Run",
            "datasource": source,
            "query": "label_values(ray_dawnchorus_audio_decoded_seconds_total, run_id)",
            "refresh": 2,
            "multi": True,
            "includeAll": True,
        },
    ]
    return {
        "uid": "dawnchorus",
        "title": "Dawn Chorus",
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": variables},
        "panels": panels,
    }


def text() -> str:
    """The file."""
    return json.dumps(dashboard(), indent=1) + "\n"


if __name__ == "__main__":
    (Path(__file__).parent / "dashboard.json").write_text(text(), encoding="utf-8")
