"""Defines the settings of workers: queue, Redis, bucket, logs and traces."""

from __future__ import annotations

import os
import socket
from typing import Any

from pydantic import BaseModel, Field

from redis_consumer.options import (
    METADATA_EXPIRE_S,
    RESULT_URLS,
    SIGNED_URL_EXPIRE_S,
    STORAGE_MAX_BACKOFF_S,
    QueueOptions,
    WorkerLimits,
)
from redis_consumer.settings.kinds import (
    BucketUrl,
    CloudProvider,
    Count,
    Endpoint,
    HealthAddress,
    LogFormat,
    LogLevel,
    Port,
    QueueName,
    RedisAddress,
    ResultUrls,
    Seconds,
    Secret,
    SignedFor,
    Size,
    Switch,
    Text,
    Timeout,
    WorkerName,
)


def _host_name(_: dict[str, Any]) -> str:
    return f"{socket.gethostname().replace(':', '-')}-{os.getpid()}"


class QueueSettings(BaseModel):
    """The queue, and how a worker serves it."""

    queue: QueueName = Field(
        default="predict", description="Queue that the worker serves; `zip` consumers serve <QUEUE>-zip"
    )
    consumer_type: Text = Field(
        default="image", description="Consumer: a built-in name, an entry point or package.module:Class"
    )
    segmentation_queue: QueueName = Field(default="predict", description="Queue to which tracking sends its frames")
    hostname: WorkerName = Field(
        default_factory=_host_name,
        description="Name of this worker; in a pod, the pod's name. Unset: host name and process id",
    )
    interval: Timeout = Field(default=10.0, description="Former pause between two checks of child jobs; not used")
    empty_queue_timeout: Seconds = Field(
        default=5.0,
        description="Seconds that `Consumer.consume()` waits for a job, in scripts that call it; workers don't read it",
    )
    do_nothing_timeout: Seconds = Field(
        default=0.5,
        description="Seconds of pause after `Consumer.consume()` put a job back; 0 for none; workers don't read it",
    )
    expire_time: Count = Field(
        default=QueueOptions.child_expire_s,
        description="Seconds after the end of a parent job until its child jobs expire; 0 for at once",
    )
    metadata_expire_time: Count = Field(
        default=METADATA_EXPIRE_S, description="Seconds for which a model's metadata is cached; 0 for no cache"
    )
    grace_period: Seconds = Field(
        default=WorkerLimits.grace_period_s,
        description="Seconds that a running job can take after SIGTERM before it returns to its queue; 0 for none",
    )
    model_cache: str = Field(
        default="",
        description="Folder for downloaded models of one bucket; empty: a folder that is removed when the worker ends",
    )
    concurrency: Size = Field(
        default=1, description="Slots of a worker for each of its queues: processes that each run one job at a time"
    )
    threads: Size = Field(
        default=1, description="Threads of a slot that each run one job at a time, for consumers that mostly wait"
    )
    health_address: HealthAddress = Field(
        default="",
        description="host:port that serves GET /live, /ready and /metrics; empty for none",
    )
    job_timeout: Timeout = Field(
        default=WorkerLimits.job_timeout_s,
        description="Seconds after which a running job's process is killed; the attempt counts",
    )
    stall_timeout: Seconds = Field(
        default=WorkerLimits.stall_timeout_s,
        description="Seconds without progress after which a job's process is killed; 0 for never",
    )
    max_attempts: Size = Field(
        default=QueueOptions.max_attempts,
        description="Runs of a job before it becomes failed and a dead letter",
    )
    result_ttl: Count = Field(
        default=QueueOptions.result_ttl_s,
        description="Seconds after which the hash of an ended job or dead letter expires; 0 for never. "
        "redis-consumer prune also removes objects",
    )
    max_rss_mb: Count = Field(
        default=WorkerLimits.max_rss_mb,
        description="MB of memory above which a slot is replaced after its job; 0 for no limit",
    )
    lease_timeout: Timeout = Field(
        default=QueueOptions.lease_s,
        description="Seconds after which another worker can run the jobs of a worker that stopped renewing",
    )
    renew_interval: Timeout = Field(
        default=WorkerLimits.renew_s, description="Seconds between two renewals of the leases of a worker"
    )
    sweep_interval: Timeout = Field(
        default=WorkerLimits.sweep_s, description="Seconds between two sweeps for jobs of dead workers"
    )


class RedisSettings(BaseModel):
    """Redis."""

    redis_url: RedisAddress = Field(
        default=None,
        description="Address of Redis, or of its Sentinel: redis://, rediss:// with TLS, or unix://; overrides "
        "REDIS_HOST, REDIS_PORT and, if it has them, user and password",
    )
    redis_host: Text = Field(default="redis-master", description="Host of Redis, or of its Sentinel")
    redis_port: Port = Field(default=6379, description="Port of Redis, or of its Sentinel")
    redis_username: str = Field(default="", description="ACL user of Redis; empty for the default one")
    redis_password: Secret = Field(default=None, description="Password of Redis; empty for none")
    redis_timeout: Seconds = Field(default=3.0, description="Seconds between two attempts to reach Redis; 0 for none")

    redis_master_name: str = Field(
        default="", description="Name of the Sentinel's master; can be empty if the Sentinel has only one"
    )
    redis_ca: str = Field(
        default="", description="PEM file of the authority that signed Redis' certificate; empty: those of the system"
    )
    redis_client_cert: str = Field(
        default="", description="PEM file of the worker's certificate for Redis; empty for none"
    )
    redis_client_key: str = Field(
        default="", description="PEM file of the certificate's key; empty if REDIS_CLIENT_CERT contains it"
    )
    redis_wait_replicas: Count = Field(
        default=QueueOptions.replicas,
        description="Replicas that must confirm each submission and each result; 0 for none",
    )


class BucketSettings(BaseModel):
    """The bucket."""

    storage_bucket: BucketUrl = Field(
        default="s3://default-bucket",
        description="Bucket: s3://, gs://, az://, file:/// or memory://; overrides CLOUD_PROVIDER and its buckets",
    )
    max_download_bytes: Size = Field(default=16 << 30, description="Largest object that is downloaded, in bytes")
    storage_max_backoff: Timeout = Field(
        default=STORAGE_MAX_BACKOFF_S, description="Longest pause between two attempts to reach the bucket, in seconds"
    )
    cloud_provider: CloudProvider = Field(
        default="gke", description="Without STORAGE_BUCKET: AWS_S3_BUCKET or GKE_BUCKET"
    )
    aws_s3_bucket: Text = Field(default="default-bucket", description="Name of the S3 bucket, without STORAGE_BUCKET")
    gke_bucket: Text = Field(default="default-bucket", description="Name of the GCS bucket, without STORAGE_BUCKET")
    aws_region: Text = Field(default="us-east-1", description="Region of the S3 bucket")
    aws_access_key_id: Secret = Field(
        default=None, description="Key id for S3; empty or specify_me: the machine's own credentials"
    )
    aws_secret_access_key: Secret = Field(
        default=None, description="Key for S3; empty or specify_me: the machine's own credentials"
    )
    aws_endpoint_url: Endpoint = Field(
        default="", description="Address of an S3 service other than Amazon's; empty for Amazon's"
    )
    azure_storage_account_name: str = Field(
        default="", description="Name of the Azure account; needed for az:// buckets"
    )
    azure_storage_account_key: Secret = Field(
        default=None, description="Key of the Azure account; empty: the machine's own credentials"
    )
    google_application_credentials: str = Field(
        default="", description="Path of a service account's JSON file for GCS; empty: the machine's own credentials"
    )
    result_urls: ResultUrls = Field(
        default=RESULT_URLS, description="public: plain links to results; signed: links that expire"
    )
    signed_url_expire_s: SignedFor = Field(
        default=SIGNED_URL_EXPIRE_S, description="Seconds for which a signed link to a result works"
    )


class LogSettings(BaseModel):
    """Logs and traces."""

    debug: Switch = Field(
        default=False, description="Older switch: true is LOG_LEVEL=DEBUG, false is INFO, unless LOG_LEVEL is set"
    )
    log_level: LogLevel = Field(default="DEBUG", description="Least severity that is logged")
    log_format: LogFormat = Field(default="text", description="text: lines to read; json: one JSON object a line")
    otel_exporter_otlp_endpoint: Endpoint = Field(
        default="",
        description="Collector of spans by OTLP over HTTP, e.g. http://collector:4318; needs the extra "
        "otel; empty for none",
    )
