"""Collects the metrics of a worker and of its queues. This module only re-exports names.

To count, call a metric, such as ``metrics.SWEPT.add("predict")``. If metrics are off, this does nothing and takes
almost no time.
"""

from redis_consumer.metrics import queues, worker
from redis_consumer.metrics.queues import text_of_queues
from redis_consumer.metrics.recording import CONTENT_TYPE, Counter, Gauge, Histogram, Metric, mend, start, stop, text
from redis_consumer.metrics.worker import (
    ATTEMPTS,
    BYTES,
    DEATH_CAUSES,
    INFO,
    JOB_SECONDS,
    JOB_STATUSES,
    JOBS,
    MODEL_SERVER_ERRORS,
    MODEL_SERVER_SECONDS,
    RETRIES,
    SLOT_DEATHS,
    STAGE_SECONDS,
    SWEPT,
)

__all__ = [
    "ATTEMPTS",
    "BYTES",
    "CONTENT_TYPE",
    "DEATH_CAUSES",
    "INFO",
    "JOBS",
    "JOB_SECONDS",
    "JOB_STATUSES",
    "MODEL_SERVER_ERRORS",
    "MODEL_SERVER_SECONDS",
    "RETRIES",
    "SLOT_DEATHS",
    "STAGE_SECONDS",
    "SWEPT",
    "Counter",
    "Gauge",
    "Histogram",
    "Metric",
    "mend",
    "queues",
    "start",
    "stop",
    "text",
    "text_of_queues",
    "worker",
]
