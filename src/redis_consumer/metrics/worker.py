"""Defines the metrics of a worker."""

from __future__ import annotations

from redis_consumer.metrics.recording import Counter, Gauge, Histogram, Metric

#: Seconds: of calls, of stages, and of jobs up to an hour.
CALL_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
JOB_BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)

#: How a run of a job may end.
JOB_STATUSES = ("done", "failed", "dead", "cancelled", "waiting", "given_back", "lost", "crashed")
#: Why a slot may end before its time.
DEATH_CAUSES = ("signal", "exit", "job_timeout", "stall_timeout", "stop")

INFO = Gauge(
    "redis_consumer_info",
    "Always 1; the labels give version, consumer and queue of each slot",
    ("version", "queue", "consumer"),
)
JOBS = Counter(
    "redis_consumer_jobs_total",
    f"Runs of jobs by how they ended: {', '.join(JOB_STATUSES)}; those of a killed slot aren't among them",
    ("queue", "consumer", "status"),
)
JOB_SECONDS = Histogram(
    "redis_consumer_job_seconds",
    "Seconds that a run of a job took",
    ("queue", "consumer"),
    buckets=JOB_BUCKETS,
)
STAGE_SECONDS = Histogram(
    "redis_consumer_stage_seconds",
    "Seconds for which jobs had a status: started (download), pre-processing, predicting, post-processing, "
    "saving-results (and upload), and those of plug-ins",
    ("consumer", "stage"),
    buckets=JOB_BUCKETS,
)
ATTEMPTS = Counter("redis_consumer_attempts_total", "Runs of jobs that began", ("queue",))
SWEPT = Counter(
    "redis_consumer_swept_total",
    "Jobs that this worker returned to their queue because their worker disappeared",
    ("queue",),
)
SLOT_DEATHS = Counter(
    "redis_consumer_slot_deaths_total", f"Slots that ended before their time: {', '.join(DEATH_CAUSES)}", ("cause",)
)
MODEL_SERVER_SECONDS = Histogram(
    "redis_consumer_model_server_seconds",
    "Seconds that one call of a model took, without waiting for its turn or for another try",
    ("model",),
    buckets=CALL_BUCKETS,
)
MODEL_SERVER_ERRORS = Counter(
    "redis_consumer_model_server_errors_total",
    "Calls of a model that failed, by gRPC's code; each try counts",
    ("model", "code"),
)
BYTES = Counter("redis_consumer_bytes_total", "Bytes from the bucket (download) and to it (upload)", ("direction",))
RETRIES = Counter(
    "redis_consumer_retries_total", "Commands of redis and calls of model_server that were repeated", ("dependency",)
)

#: In the order in which they are documented.
ALL: tuple[Metric, ...] = (
    JOBS,
    JOB_SECONDS,
    STAGE_SECONDS,
    ATTEMPTS,
    SWEPT,
    SLOT_DEATHS,
    MODEL_SERVER_SECONDS,
    MODEL_SERVER_ERRORS,
    BYTES,
    RETRIES,
    INFO,
)
