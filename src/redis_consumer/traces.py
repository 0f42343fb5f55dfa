"""Sends OpenTelemetry spans for the runs and stages of jobs.

The library is an extra. Only `start` imports it. It reads its own variables, such as ``OTEL_SERVICE_NAME``,
``OTEL_EXPORTER_OTLP_HEADERS`` and ``OTEL_TRACES_SAMPLER``.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from redis_consumer import __version__
from redis_consumer.errors import SettingsError

#: Fields of a job that name the span it belongs to (W3C Trace Context).
CONTEXT_FIELDS = ("traceparent", "tracestate")
#: Characters that such a field may have.
MAX_CONTEXT = 4096
#: Seconds for which an ending process waits to send its last spans.
FLUSH_S = 2.0
#: Outcomes of a run that are errors.
ERRORS = frozenset({"failed", "dead", "crashed"})

#: Makes the spans; None if no spans are sent.
tracer: Any = None
_provider: Any = None


def start(endpoint: str, worker: str) -> None:
    """Send the spans of this process in a separate thread. Call it again in each process after a fork.

    Args:
        endpoint: base URL of a collector that accepts OTLP over HTTP, e.g. ``http://collector:4318``.
        worker: name of the worker.

    Raises:
        SettingsError: the extra isn't installed.
    """
    global _provider, tracer
    try:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise SettingsError(
            f"OTEL_EXPORTER_OTLP_ENDPOINT={endpoint}: traces need the extra otel; "
            "run pip install 'kiosk-redis-consumer[otel]', or leave the variable empty"
        ) from error

    ours = {"service.name": "redis-consumer", "service.version": __version__, "service.instance.id": worker}
    resource = Resource.create(ours).merge(OTELResourceDetector().detect())
    _provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    _provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces")))
    trace.set_tracer_provider(_provider)  # for spans that a plug-in makes
    tracer = _provider.get_tracer("redis_consumer", __version__)


def stop(timeout_s: float = FLUSH_S) -> None:
    """Send the remaining spans, and then no more. Wait for the collector for at most `timeout_s`."""
    global _provider, tracer
    provider, _provider, tracer = _provider, None, None
    if provider is not None:
        flush = threading.Thread(target=provider.shutdown, name="last-spans", daemon=True)
        flush.start()
        flush.join(timeout_s)


class RunSpans:
    """A span for the run of a job, which starts now, and one for each of its stages. Call `start` first.

    Spans that a plug-in makes during the run in the same thread are children of the run's span.

    Args:
        name: name of the run's span.
        fields: fields of the job. Its trace context is the parent.
        attributes: attributes of the run's span.
    """

    def __init__(self, name: str, fields: Mapping[str, str], attributes: Mapping[str, str | int]) -> None:
        from opentelemetry.context import attach
        from opentelemetry.trace import SpanKind, set_span_in_context

        self._tracer = tracer
        parent = _context_of(fields)
        self._run = tracer.start_span(name, parent, kind=SpanKind.CONSUMER, attributes=attributes)
        self._context = set_span_in_context(self._run)
        self._token = attach(self._context)
        self._stage: Any = None

    def tell(self, attributes: Mapping[str, str]) -> None:
        """Add attributes to the run's span."""
        self._run.set_attributes(attributes)

    def begin_stage(self, name: str) -> None:
        """Begin a stage."""
        self._stage = self._tracer.start_span(name, self._context)

    def end_stage(self) -> None:
        """End the stage, if there is one."""
        if self._stage is not None:
            self._stage.end()
        self._stage = None

    def end(self, status: str) -> None:
        """End the run with its outcome."""
        from opentelemetry.context import detach
        from opentelemetry.trace import StatusCode

        self._run.set_attribute("job.status", status)
        if status in ERRORS:
            self._run.set_status(StatusCode.ERROR)
        self._run.end()
        detach(self._token)


def carried(fields: Mapping[str, str]) -> dict[str, str]:
    """Return the trace context for the children of a job: the current span, or the context of the job."""
    if tracer is None:
        return _given(fields)
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier


def _context_of(fields: Mapping[str, str]) -> Any:
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    # A context that can't be read starts a new trace.
    return TraceContextTextMapPropagator().extract(_given(fields), context=Context())


def _given(fields: Mapping[str, str]) -> dict[str, str]:
    """Return the trace context of a job; none if it is too long, because each child gets a copy."""
    return {name: fields[name] for name in CONTEXT_FIELDS if len(fields.get(name, "")) in range(1, MAX_CONTEXT)}
