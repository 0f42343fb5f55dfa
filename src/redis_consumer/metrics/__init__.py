"""What is counted, and how do the counts come out? The doorway of this room; it holds no logic.

A metric is one line to count by, such as ``metrics.SWEPT.add("predict")``. Where nobody asked for metrics, it does
nothing, and takes no time worth speaking of.
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
