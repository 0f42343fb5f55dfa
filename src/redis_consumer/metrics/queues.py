"""Defines the metrics of queues, which the exporter reads from Redis."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from redis_consumer.metrics.recording import Counter, Gauge, Metric
from redis_consumer.text import in_utf8

UP = Gauge("redis_consumer_up", "1 if Redis responds; 0 if not, and then there are no metrics of queues")
JOBS = Gauge(
    "redis_consumer_queue_jobs",
    "Jobs that are waiting in the queue, running (with workers of any software), or dead letters",
    ("queue", "state"),
)
UNFINISHED = Gauge(
    "redis_consumer_queue_unfinished_jobs",
    "Jobs that wait, run, or wait for their children. Workers are needed while there are any",
    ("queue",),
)
OLDEST = Gauge(
    "redis_consumer_queue_oldest_waiting_seconds",
    "Seconds since the oldest waiting job was submitted; 0 for an empty queue",
    ("queue",),
)
WORKERS = Gauge(
    "redis_consumer_queue_workers", "Workers that are alive: they have renewed their registration in time", ("queue",)
)
ENDED = Counter(
    "redis_consumer_queue_ended_total",
    "Jobs that ended: done, failed (also cancelled), or dead: failed, and listed as a dead letter",
    ("queue", "status"),
)
ATTEMPTS = Counter("redis_consumer_queue_attempts_total", "Runs of jobs that ended, for any reason", ("queue",))
SWEPT = Counter(
    "redis_consumer_queue_swept_total", "Jobs that returned to the queue because their worker disappeared", ("queue",)
)
MEMORY = Gauge(
    "redis_consumer_redis_memory_bytes",
    "Memory of Redis: used, and its limit: maxmemory, or all of the machine where that is 0",
    ("kind",),
)

#: In the order in which they are documented.
ALL: tuple[Metric, ...] = (UP, JOBS, UNFINISHED, OLDEST, WORKERS, ENDED, ATTEMPTS, SWEPT, MEMORY)


def text_of_queues(figures: Mapping[Metric, Mapping[tuple[str, ...], float]]) -> bytes:
    """Return values in the format of Prometheus.

    Args:
        figures: for each metric its numbers by the values of its labels.
    """
    import prometheus_client
    from prometheus_client.registry import Collector

    class Figures(Collector):
        def collect(self) -> Iterator[Any]:
            return map(_family, figures, figures.values())

    registry = prometheus_client.CollectorRegistry()
    registry.register(Figures())
    return prometheus_client.generate_latest(registry)


def _family(metric: Metric, numbers: Mapping[tuple[str, ...], float]) -> Any:
    from prometheus_client import core

    kind = core.CounterMetricFamily if metric.kind == "counter" else core.GaugeMetricFamily
    family = kind(metric.name, metric.meaning, labels=metric.labels)
    for values, number in numbers.items():
        family.add_metric([in_utf8(value) for value in values], number)
    return family
