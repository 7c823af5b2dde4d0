"""The OpenTelemetry side of `tracing`: one provider per trace, sent by OTLP over HTTP in the background.

Imported only where traces are on. Knows no run.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Thread
from typing import Any

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from dawnchorus import __version__, logs
from dawnchorus.records import Seconds
from dawnchorus.storage import redact

_SEND_SECONDS: Seconds = 2.0
"""Longest that one request may take, unless OTEL_EXPORTER_OTLP_TIMEOUT says otherwise."""
_CLOSE_SECONDS: Seconds = 5.0
_TIMEOUTS = ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT")


class Traces:
    """One trace at work. Spans go through a queue of 2048; one that finds it full is dropped."""

    def __init__(self) -> None:
        # What does not arrive is said once, at the end.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        given = any(os.environ.get(t) for t in _TIMEOUTS)
        self.exporter = _Counting(OTLPSpanExporter(timeout=None if given else _SEND_SECONDS))
        name = os.environ.get("OTEL_SERVICE_NAME", "dawnchorus")
        resource = Resource.create({"service.name": name, "service.version": __version__})
        self.provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self.provider.add_span_processor(BatchSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("dawnchorus", __version__)
        self.root: trace.Span = trace.INVALID_SPAN
        self.num_made = 0

    @contextmanager
    def span(self, name: str, is_root: bool = False) -> Iterator[None]:
        """A span around a block; an error that leaves it is its status."""
        parent = trace.set_span_in_context(self.current())
        with self.tracer.start_as_current_span(
            name, parent, record_exception=False, set_status_on_exception=False
        ) as span:
            self.num_made += span.is_recording()
            if is_root:
                self.root = span
            try:
                yield
            except BaseException as e:
                span.set_status(trace.StatusCode.ERROR, f"{type(e).__name__}: {redact(str(e))[:300]}")
                raise

    def current(self) -> trace.Span:
        """The span around this code; the root in a thread that began outside of any."""
        here = trace.get_current_span()
        return here if here.is_recording() else self.root

    def describe(self, span: trace.Span, attributes: Mapping[str, Any]) -> None:
        """Set attributes, named for this project; None is left out."""
        span.set_attributes({f"dawnchorus.{k}": v for k, v in attributes.items() if v is not None})

    def window(
        self, start: float, end: float, attributes: Mapping[str, Any], failures: Sequence[Mapping[str, Any]]
    ) -> None:
        """A span of the past, with an event for each failure in it; times since the epoch."""
        parent = trace.set_span_in_context(self.current())
        span = self.tracer.start_span("window", parent, start_time=int(start * 1e9))
        self.num_made += span.is_recording()
        self.describe(span, attributes)
        for failure in failures:
            span.add_event("failure", {f"dawnchorus.{k}": v for k, v in failure.items()}, int(end * 1e9))
        span.end(int(end * 1e9))

    def close(self) -> None:
        """Send what is left, for some seconds; say what did not arrive."""
        sending = Thread(target=self.provider.shutdown, daemon=True, name="traces")
        sending.start()
        sending.join(_CLOSE_SECONDS)
        lost = self.num_made - self.exporter.num_sent
        if lost:
            said = f"{lost:,} of {self.num_made:,} spans of the trace did not reach the collector."
            logs.warning("traces_lost", said)
            if not logs.enabled():
                logging.getLogger(__name__).warning(said)


class _Counting(SpanExporter):
    """Counts the spans that arrived."""

    def __init__(self, exporter: SpanExporter) -> None:
        self.exporter = exporter
        self.num_sent = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self.exporter.export(spans)
        if result is SpanExportResult.SUCCESS:
            self.num_sent += len(spans)
        return result

    def shutdown(self) -> None:
        self.exporter.shutdown()
