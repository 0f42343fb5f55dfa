"""Which settings are there?

Each field is the environment variable of the same name in upper case (contract, section 7, and ours besides).
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import Any

from pydantic import Field, PrivateAttr, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from redis_consumer.settings.kinds import (
    Allowed,
    BucketUrl,
    CloudProvider,
    Compartment,
    Compression,
    Count,
    CropMode,
    Endpoint,
    Factor,
    Fraction,
    HealthAddress,
    LogFormat,
    LogLevel,
    ModelName,
    ModelNames,
    Port,
    QueueName,
    ResultUrls,
    Seconds,
    Secret,
    ServerUrl,
    SignedFor,
    Size,
    Switch,
    TensorDtype,
    Text,
    Timeout,
    WorkerName,
)

MASK = "********"

CONFLICT = "conflict"
"""Type of the error for a value that is allowed by itself; its message says what it is at odds with."""


@dataclass(frozen=True)
class Setting:
    """One setting as people see it.

    Attributes:
        name: the environment variable.
        value: what holds now, a mask where it is a secret that is given.
        source: where the value came from.
        description: what it means, its unit and what 0 means.
    """

    name: str
    value: str | int | float | bool | None
    source: str
    description: str


def _host_name(_: dict[str, Any]) -> str:
    return f"{socket.gethostname().replace(':', '-')}-{os.getpid()}"


class Settings(BaseSettings):
    """Every setting, checked and frozen.

    ``Settings(...)`` holds its arguments and defaults only; `redis_consumer.settings.load_settings` also reads the
    environment and the files. Field names and the variables' own names are both taken as arguments.
    """

    model_config = SettingsConfigDict(
        alias_generator=str.upper,
        populate_by_name=True,
        frozen=True,
        extra="forbid",
        case_sensitive=True,
        validate_default=False,
        hide_input_in_errors=True,
    )

    _sources: dict[str, str] = PrivateAttr(default_factory=dict)

    # The queue
    queue: QueueName = Field(default="predict", description="Queue that is served; `zip` consumers serve <QUEUE>-zip")
    consumer_type: Text = Field(
        default="image", description="Consumer: a built-in name, an entry point or package.module:Class"
    )
    segmentation_queue: QueueName = Field(default="predict", description="Queue to which tracking sends its frames")
    hostname: WorkerName = Field(
        default_factory=_host_name,
        description="Name of this worker; in a pod the pod's name. Unset: host and process id",
    )
    interval: Timeout = Field(default=10.0, description="Former pause between two looks at child jobs; not used")
    empty_queue_timeout: Seconds = Field(
        default=5.0,
        description="Seconds that `Consumer.consume()` waits for a job, in scripts that call it; workers don't read it",
    )
    do_nothing_timeout: Seconds = Field(
        default=0.5,
        description="Seconds of pause after `Consumer.consume()` put a job back; 0 for none; workers don't read it",
    )
    expire_time: Count = Field(
        default=3600,
        description="Seconds after the end of a divided job, such as an archive, when its child jobs expire; 0 at once",
    )
    metadata_expire_time: Count = Field(
        default=30, description="Seconds for which a model's metadata is kept; 0 asks the model server each time"
    )
    grace_period: Seconds = Field(
        default=25.0,
        description="Seconds a running job may take after SIGTERM before it is given back; 0 gives it back at once",
    )
    model_cache: str = Field(
        default="",
        description="Folder for downloaded models, of one bucket alone; empty: one of this worker that ends with it",
    )
    concurrency: Size = Field(
        default=1, description="Slots of a worker for each of its queues: processes that each run one job at a time"
    )
    threads: Size = Field(
        default=1, description="Threads of a slot that each run one job at a time, for consumers that mostly wait"
    )
    health_address: HealthAddress = Field(
        default="", description="Where probes ask: host:port that answers GET /live and /ready; empty for none"
    )
    job_timeout: Timeout = Field(
        default=3600.0, description="Seconds after which a running job's process is ended; the attempt counts"
    )
    stall_timeout: Seconds = Field(
        default=0.0, description="Seconds without progress after which a job's process is ended; 0 for never"
    )
    max_attempts: Size = Field(default=5, description="Runs of a job before it is failed and listed as a dead letter")
    max_rss_mb: Count = Field(
        default=0, description="MB of memory above which a slot is replaced after its job; 0 for any"
    )
    lease_timeout: Timeout = Field(
        default=10.0, description="Seconds after which the jobs of a worker that went silent are run elsewhere"
    )
    renew_interval: Timeout = Field(default=3.0, description="Seconds between two renewals of the leases of a worker")
    sweep_interval: Timeout = Field(default=5.0, description="Seconds between two looks for jobs of dead workers")

    # Redis
    redis_host: Text = Field(default="redis-master", description="Host of Redis, or of its Sentinel")
    redis_port: Port = Field(default=6379, description="Port of Redis, or of its Sentinel")
    redis_password: Secret = Field(default=None, description="Password of Redis; empty for none")
    redis_timeout: Seconds = Field(default=3.0, description="Seconds between two attempts to reach Redis; 0 for none")

    redis_wait_replicas: Count = Field(
        default=0, description="Replicas that must have a submission or a result before it counts as safe; 0 asks none"
    )

    # The model server
    tf_host: Text = Field(default="tf-serving", description="Host of TensorFlow Serving")
    tf_port: Port = Field(default=8500, description="gRPC port of TensorFlow Serving")
    model_server: ServerUrl = Field(
        default_factory=lambda data: f"tfs://{data.get('tf_host')}:{data.get('tf_port')}",
        description="Model server: tfs://host:port for TensorFlow Serving, oip://host:port for the Open Inference "
        "Protocol, several hosts divided by commas, tfss:// and oips:// for TLS; onnx:// runs models in the worker; "
        "empty: tfs://TF_HOST:TF_PORT",
    )
    warm_up: ModelNames = Field(
        default="", description="Models that each slot loads, or asks the model server for, before its first job"
    )
    model_server_ca: str = Field(
        default="", description="PEM file of the authorities that vouch for the model server; empty: well-known ones"
    )
    model_server_headers: Secret = Field(
        default=None, description="Headers of each call of the model server, name=value,name=value; empty for none"
    )
    tf_tensor_name: Text = Field(
        default="image", description="Name of the input that takes the image, for models with several"
    )
    tf_tensor_dtype: TensorDtype = Field(
        default="DT_FLOAT", description="Former type of the input; not used, models say their own"
    )
    tf_max_batch_size: Size = Field(default=64, description="Tiles in one call of the model server at most")
    tf_min_model_size: Size = Field(
        default=128,
        description="Side in pixels of the tile for which TF_MAX_BATCH_SIZE holds; larger tiles go in smaller batches",
    )
    max_call_bytes: Size = Field(
        default=16 << 20,
        description="Bytes of tiles in one call of the model server, and in its reply, at most; one tile may have more",
    )
    calls_in_flight: Size = Field(
        default=4, description="Calls of the model server that one image has under way at once; 1 for one by one"
    )
    grpc_timeout: Timeout = Field(
        default=30.0, description="Seconds that one call of the model server may take; more above 16 MiB"
    )
    grpc_compression: Compression = Field(
        default="none", description="Compression of requests: none, gzip or deflate; costs more than it saves nearby"
    )
    grpc_backoff: Seconds = Field(default=3.0, description="Seconds before a failed call is tried again; 0 for none")
    max_retry: Count = Field(default=5, description="How often one failed call is tried again; 0 for never")
    dp_host: Text = Field(default="data-processing", description="Host of the former data-processing server; not used")
    dp_port: Port = Field(default=8080, description="Port of the former data-processing server; not used")

    # The bucket
    storage_bucket: BucketUrl = Field(
        default="s3://default-bucket",
        description="Bucket: s3://, gs://, az://, file:/// or memory://; wins over CLOUD_PROVIDER and its buckets",
    )
    max_download_bytes: Size = Field(default=16 << 30, description="Bytes that an object may have to be downloaded")
    storage_max_backoff: Timeout = Field(
        default=60.0, description="Seconds between two attempts to reach the bucket at most"
    )
    cloud_provider: CloudProvider = Field(
        default="gke", description="Without STORAGE_BUCKET: AWS_S3_BUCKET or GKE_BUCKET"
    )
    aws_s3_bucket: Text = Field(default="default-bucket", description="Name of the S3 bucket, without STORAGE_BUCKET")
    gke_bucket: Text = Field(default="default-bucket", description="Name of the GCS bucket, without STORAGE_BUCKET")
    aws_region: Text = Field(default="us-east-1", description="Region of the S3 bucket")
    aws_access_key_id: Secret = Field(default=None, description="Key id for S3; empty or specify_me: the machine's own")
    aws_secret_access_key: Secret = Field(
        default=None, description="Key for S3; empty or specify_me: the machine's own"
    )
    aws_endpoint_url: Endpoint = Field(
        default="", description="Address of an S3 that isn't Amazon's; empty for Amazon's"
    )
    azure_storage_account_name: str = Field(
        default="", description="Name of the Azure account; needed for az:// buckets"
    )
    azure_storage_account_key: Secret = Field(
        default=None, description="Key of the Azure account; empty: the machine's own"
    )
    google_application_credentials: str = Field(
        default="", description="Path of a service account's JSON for GCS; empty: the machine's own"
    )
    result_urls: ResultUrls = Field(
        default="public", description="public: plain links to results; signed: links that expire"
    )
    signed_url_expire_s: SignedFor = Field(
        default=86400, description="Seconds for which a signed link to a result holds"
    )

    # Models by kind of image
    nuclear_model: ModelName = Field(
        default="NuclearSegmentation:6", description="Model for nuclei (label 0), and without one"
    )
    cytoplasm_model: ModelName = Field(default="CytoplasmSegmentation:5", description="Model for cytoplasm (label 1)")
    phase_model: ModelName = Field(default="PhaseCytoSegmentation:0", description="Model for phase contrast (label 2)")
    nuclear_postprocess: Text = Field(default="deep_watershed", description="Post-processing for NUCLEAR_MODEL")
    cytoplasm_postprocess: Text = Field(default="deep_watershed", description="Post-processing for CYTOPLASM_MODEL")
    phase_postprocess: Text = Field(default="deep_watershed", description="Post-processing for PHASE_MODEL")
    cuts: Count = Field(default=0, description="Pieces into which a side of tracking's frames is cut; 0 for automatic")

    # Detection of scale and label
    scale_detect_enabled: Switch = Field(
        default=False, description="Whether a model finds the scale of jobs that give none"
    )
    scale_detect_model: ModelName = Field(default="ScaleDetection:1", description="Model that finds the scale")
    scale_detect_sample: Size = Field(
        default=3, description="Every how many-th piece of the image is looked at for the scale"
    )
    scale_reshape_size: Size = Field(default=216, description="Side in pixels of the pieces looked at for the scale")
    label_detect_enabled: Switch = Field(
        default=False, description="Whether a model finds the label of jobs that give none"
    )
    label_detect_model: ModelName = Field(default="LabelDetection:1", description="Model that finds the label")
    label_detect_sample: Size = Field(
        default=3, description="Every how many-th piece of the image is looked at for the label"
    )
    label_reshape_size: Size = Field(default=216, description="Side in pixels of the pieces looked at for the label")
    max_scale: Factor = Field(default=10.0, description="Largest scale that a job may ask for")
    min_scale: Factor = Field(
        default_factory=lambda data: 1 / data.get("max_scale", 10.0),
        validate_default=True,
        description="Smallest scale that a job may ask for; empty: 1 / MAX_SCALE",
    )

    # Limits of images
    max_image_height: Size = Field(default=2048, description="Pixels that an image may be high at most")
    max_image_width: Size = Field(default=2048, description="Pixels that an image may be wide at most")
    max_image_frames: Size = Field(default=60, description="Frames that a movie may have at most")

    # Limits of archives
    max_archive_bytes: Size = Field(
        default=10 << 30, description="Bytes that the images of an archive may have once they are unpacked"
    )
    max_archive_members: Size = Field(default=100_000, description="Files that an archive may hold")

    # Tracking
    tracking_model: ModelName = Field(default="NuclearTrackingInf:6", description="Model that links cells")
    tracking_segment_model: ModelName = Field(default="panoptic:3", description="Model that segments tracking's frames")
    tracking_postprocess_function: Text = Field(
        default="retinanet", description="Post-processing of TRACKING_SEGMENT_MODEL"
    )
    drift_correct_enabled: Switch = Field(default=False, description="Whether tracking removes the stage's drift first")
    normalize_tracking: Switch = Field(default=True, description="Whether tracking normalises each frame")
    neighborhood_scale_size: Size = Field(default=30, description="Pixels around a cell that the linking model sees")
    max_distance: Factor = Field(default=50.0, description="Pixels that a cell may move between two frames at most")
    track_length: Size = Field(default=8, description="Frames of a track that the linking model sees")
    division: Fraction = Field(default=0.9, description="Probability above which a new cell is a daughter")
    birth: Fraction = Field(default=0.99, description="Cost of a track that begins")
    death: Fraction = Field(default=0.99, description="Cost of a track that ends")
    caliban_model: ModelName = Field(
        default_factory=lambda data: data.get("tracking_model"),
        description="Model that links cells in caliban jobs; empty: TRACKING_MODEL",
    )
    neighborhood_encoder: ModelName = Field(
        default="NuclearTrackingNE:6", description="Model that encodes cells for linking"
    )
    appearance_dim: Size = Field(default=32, description="Side in pixels of a cell's picture for the encoder")
    crop_mode: CropMode = Field(default="resize", description="How a cell's picture is cut: resize or fixed")
    caliban_norm: Switch = Field(default=True, description="Whether a cell's picture is normalised")

    # Multiplexed images and spots
    multiplex_model: ModelName = Field(default="MultiplexSegmentation:9", description="Older name of MESMER_MODEL")
    mesmer_model: ModelName = Field(
        default_factory=lambda data: data.get("multiplex_model"),
        description="Model for multiplexed images; empty: MULTIPLEX_MODEL",
    )
    mesmer_compartment: Compartment = Field(
        default="whole-cell", description="What is found: whole-cell, nuclear or both"
    )
    polaris_model: ModelName = Field(default="SpotDetection:3", description="Model that finds spots")
    polaris_threshold: Fraction = Field(default=0.95, description="Probability above which a pixel is a spot")
    polaris_clip: Switch = Field(
        default=False, description="Whether the brightest and darkest pixels are clipped first"
    )
    polaris_scale: Factor = Field(default=0.38, description="Scale of the cell images that go with spots")

    # Logs
    debug: Switch = Field(
        default=False, description="Older switch: true is LOG_LEVEL=DEBUG, false is INFO, unless LOG_LEVEL is set"
    )
    log_level: LogLevel = Field(default="DEBUG", description="Least severity that is logged")
    log_format: LogFormat = Field(default="text", description="text: lines to read; json: one JSON object a line")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take arguments only, so that building a value never depends on the machine."""
        return (init_settings,)

    @model_validator(mode="before")
    @classmethod
    def _follow_older_names(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Let CLOUD_PROVIDER with its buckets, and DEBUG, decide what their newer names leave open."""
        values = {name.upper(): text.strip() if isinstance(text, str) else text for name, text in given.items()}
        provider = str(values.get("CLOUD_PROVIDER", "gke")).lower()
        if "STORAGE_BUCKET" not in values and values.keys() & {"CLOUD_PROVIDER", "AWS_S3_BUCKET", "GKE_BUCKET"}:
            scheme, name = ("s3", "AWS_S3_BUCKET") if provider == "aws" else ("gs", "GKE_BUCKET")
            values["STORAGE_BUCKET"] = f"{scheme}://{values.get(name, 'default-bucket')}"
        if "LOG_LEVEL" not in values and "DEBUG" in values:
            values["LOG_LEVEL"] = (
                "DEBUG" if str(values["DEBUG"]).lower() in {"true", "1", "yes", "on", "y", "t"} else "INFO"
            )
        return values

    @field_validator("min_scale", mode="after")
    @classmethod
    def _stay_below_the_largest(cls, scale: float, info: ValidationInfo) -> float:
        largest = info.data.get("max_scale", scale)
        if scale > largest:
            words = "{smallest} is above MAX_SCALE, which is {largest}; let MIN_SCALE be the smaller of both"
            raise PydanticCustomError(CONFLICT, words, {"smallest": f"{scale:g}", "largest": f"{largest:g}"})
        return scale

    @property
    def storage_bucket_url(self) -> str:
        """URL of the bucket, whichever variables named it."""
        return self.storage_bucket

    @property
    def model_server_url(self) -> str:
        """URL of the model server, whichever variables named it."""
        return self.model_server

    def is_given(self, name: str) -> bool:
        """Whether somebody set this variable, rather than leave it at its default."""
        return self.source(name) != "default"

    def source(self, name: str) -> str:
        """Where the value of a variable came from, e.g. ``environment`` or ``default``."""
        field = name.lower()
        return self._sources.get(name.upper(), "argument" if field in self.model_fields_set else "default")

    def describe(self) -> list[Setting]:
        """List every setting for people; secrets are masked."""
        return [self._describe(name) for name in type(self).model_fields]

    def _describe(self, field: str) -> Setting:
        value = getattr(self, field)
        if isinstance(value, SecretStr):
            value = MASK
        description = type(self).model_fields[field].description or ""
        return Setting(field.upper(), value, self.source(field), description)


def allowed_values(name: str) -> str | None:
    """Say in words what a variable may be, None where the words of pydantic serve."""
    field = Settings.model_fields[name.lower()]
    for mark in field.metadata:
        if isinstance(mark, Allowed):
            return mark.words
    choices = getattr(field.annotation, "__args__", ())
    if choices and all(isinstance(choice, str) for choice in choices):
        return "one of " + ", ".join(choices)
    return None
