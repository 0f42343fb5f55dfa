"""A collector of OpenTelemetry on this machine: takes spans by OTLP over HTTP, as the official messages have them."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


@dataclass
class Collected:
    """What came.

    Attributes:
        url: base of the collector's address.
        requests: those that came, decoded.
        headers: of the last one.
        status: to answer with.
    """

    url: str = ""
    requests: list[ExportTraceServiceRequest] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 200

    @property
    def spans(self) -> list[Any]:
        """All spans."""
        return [
            span
            for request in list(self.requests)
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def named(self, name: str) -> list[Any]:
        """Spans of a name, in the order of their start."""
        found = [span for span in self.spans if span.name == name]
        return sorted(found, key=lambda span: int(span.start_time_unix_nano))

    def resource(self) -> dict[str, Any]:
        """What the sender says of itself."""
        return attributes_of(self.requests[0].resource_spans[0].resource)


def attributes_of(holder: Any) -> dict[str, Any]:
    """Attributes by name."""
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in holder.attributes}


@contextmanager
def collector() -> Iterator[Collected]:
    """Run one until the block ends."""
    collected = Collected()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            if self.path == "/v1/traces" and collected.status == 200:
                collected.headers = dict(self.headers)
                collected.requests.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(collected.status)
            self.send_header("Content-Type", "application/x-protobuf")
            self.end_headers()
            self.wfile.write(ExportTraceServiceResponse().SerializeToString())

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collected.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield collected
        finally:
            server.shutdown()
            thread.join()
