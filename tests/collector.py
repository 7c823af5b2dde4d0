"""An OTLP/HTTP collector on loopback that keeps the spans it is sent."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from web import answering


class Collector:
    """Where it listens, and what it got."""

    def __init__(self, port: int) -> None:
        self.endpoint = f"http://127.0.0.1:{port}"
        self.paths: set[str] = set()
        self.spans: list[Any] = []

    def named(self, name: str) -> list[Any]:
        return [s for s in self.spans if s.name == name]


def attributes(of: Any) -> dict[str, Any]:
    """Of a span or an event, without the project's prefix."""
    return {
        a.key.removeprefix("dawnchorus."): getattr(a.value, a.value.WhichOneof("value"))
        for a in of.attributes
    }


@contextmanager
def listening() -> Iterator[Collector]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            request = ExportTraceServiceRequest.FromString(body)
            collector.paths.add(self.path)
            collector.spans += [
                s for r in request.resource_spans for scope in r.scope_spans for s in scope.spans
            ]
            self.send_response(200)
            self.end_headers()
            self.wfile.write(ExportTraceServiceResponse().SerializeToString())

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    with answering(Handler) as port:
        collector = Collector(port)
        yield collector
