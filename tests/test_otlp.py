"""Traces that somebody does not want whole: what is not sent on purpose is not lost."""

from __future__ import annotations

import logging

import pytest

from collector import listening
from dawnchorus import tracing


@pytest.mark.parametrize(
    ("name", "value"), [("OTEL_TRACES_SAMPLER", "always_off"), ("OTEL_SDK_DISABLED", "True")]
)
def test_spans_that_are_not_recorded_are_not_missed(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with listening() as collector, caplog.at_level(logging.WARNING):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        monkeypatch.setenv(name, value)
        with tracing.root("run"), tracing.span("report"):
            tracing.windows([{"start": 1.0, "end": 2.0, "attributes": {}, "failures": []}])
    assert not collector.spans
    assert "did not reach" not in caplog.text
