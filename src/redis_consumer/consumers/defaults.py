"""Creates the parts of a consumer from the settings, if its constructor got only the contract's arguments.

This is the only module below the command line that reads settings. It reads them at each call, so that users can assign
to ``settings.NAME``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redis_consumer import machine, options, settings
from redis_consumer.job import Job, ModelId
from redis_consumer.models import ModelStore
from redis_consumer.models.card import ModelChoices
from redis_consumer.provenance import record
from redis_consumer.redis import RedisClient
from redis_consumer.segmentation.options import SegmentationOptions
from redis_consumer.storage import Storage

if TYPE_CHECKING:
    from redis_consumer.serving.base import ModelServer


def current() -> settings.Settings:
    """Return all settings with their current values."""
    return settings.current()


def processing_functions() -> dict[str, dict[str, Callable[..., Any]]]:
    """Return the functions by kind (``pre``, ``post``) and name, including those that a script has added."""
    return settings.PROCESSING_FUNCTIONS


def output_dir() -> str:
    """Folder for results of the older software."""
    return settings.OUTPUT_DIR


def is_setting(name: str) -> bool:
    """Return whether there is a setting of this name."""
    return settings.is_setting(name)


def variables(names: Iterable[str]) -> dict[str, settings.Variable]:
    """Return variables that aren't settings, by name, if they are set."""
    return settings.read_variables(names)


def read_anew() -> AbstractContextManager[None]:
    """Load the settings again at their first use within the block."""
    return settings.read_anew()


def run_setup(options: Mapping[str, str], secrets: Collection[str]) -> record.RunSetup:
    """Return the options and settings of a run for its provenance record.

    Args:
        options: values of the consumer's options, without secrets.
        secrets: names of the options whose values are secret.
    """
    model_server, _, _ = settings.current().model_server.partition("://")
    return record.RunSetup(options, secrets, recorded_settings(), model_server)


def recorded_settings() -> dict[str, Any]:
    """Values of the settings that a provenance record holds, and under ``given`` the names that were given."""
    now = settings.current()
    values = {name: getattr(now, name.lower()) for name in record.SETTINGS}
    return {**values, "given": settings.given(record.SETTINGS)}


def max_job_bytes() -> int:
    """Return the bytes of memory that one job is allowed: ``MAX_JOB_MB``, or the job's share of the container's
    memory.
    """
    now = settings.current()
    return now.max_job_mb * 10**6 or machine.usable_bytes() // (now.concurrency * now.threads)


def queue_options() -> options.QueueOptions:
    """Times and limits of the jobs of a queue."""
    now = settings.current()
    return options.QueueOptions(
        lease_s=now.lease_timeout,
        max_attempts=now.max_attempts,
        replicas=now.redis_wait_replicas,
        child_expire_s=now.expire_time,
        result_ttl_s=now.result_ttl,
    )


def image_limits() -> options.ImageLimits:
    """Largest size of an image."""
    now = settings.current()
    return options.ImageLimits(
        max_height=now.max_image_height, max_width=now.max_image_width, max_frames=now.max_image_frames
    )


def archive_limits() -> options.ArchiveLimits:
    """Limits for the content of an archive."""
    now = settings.current()
    return options.ArchiveLimits(max_bytes=now.max_archive_bytes, max_members=now.max_archive_members)


def movie_limits() -> options.MovieLimits:
    """Limits for the file of a movie. Its frames are read one by one, so only a given setting limits their number."""
    frames = image_limits()
    if not settings.current().is_given("MAX_IMAGE_FRAMES"):
        frames = replace(frames, max_frames=None)
    return options.MovieLimits(frames, archive_limits(), max_job_bytes())


def tiling_options() -> options.TilingOptions:
    """Sizes of tiles and of the calls that carry them."""
    now = settings.current()
    return options.TilingOptions(
        max_tile_yx=(now.max_image_height, now.max_image_width),
        max_batch=now.tf_max_batch_size,
        min_model_px=now.tf_min_model_size,
        max_call_bytes=now.max_call_bytes,
        calls_in_flight=now.calls_in_flight,
        input_name=now.tf_tensor_name,
    )


def scale_detection() -> options.DetectionOptions:
    """The model that detects the scale of an image."""
    now = settings.current()
    return options.DetectionOptions(
        now.scale_detect_model, now.scale_detect_enabled, now.scale_detect_sample, now.scale_reshape_size
    )


def label_detection() -> options.DetectionOptions:
    """The model that detects the label of an image."""
    now = settings.current()
    return options.DetectionOptions(
        now.label_detect_model, now.label_detect_enabled, now.label_detect_sample, now.label_reshape_size
    )


def link_options() -> options.LinkOptions:
    """Limits for the movement of cells."""
    return options.LinkOptions(max_distance_px=settings.current().max_distance)


def linking_model(job: Job) -> ModelId | None:
    """The model that links cells: the job's own or that of the settings; None if no setting names one.

    Whether the model is served makes no difference: results must not change while a model is unavailable.
    """
    now = settings.current()
    if not (now.is_given("CALIBAN_MODEL") or now.is_given("TRACKING_MODEL")):
        return None
    own = job.model if job.get("model_version").strip() else None
    return own or ModelId.parse(now.caliban_model if now.is_given("CALIBAN_MODEL") else now.tracking_model)


def linking_model_options() -> options.LinkingModelOptions:
    """Inputs of the model that links cells."""
    now = settings.current()
    return options.LinkingModelOptions(
        encoder=now.neighborhood_encoder,
        max_distance_px=now.max_distance,
        picture_px=now.appearance_dim,
        is_picture_fixed=now.crop_mode == "fixed",
        is_picture_normalized=now.caliban_norm,
        is_frame_normalized=now.normalize_tracking,
        surroundings_px=now.neighborhood_scale_size,
        max_pairs=now.tf_max_batch_size,
        tracks=options.LearnedOptions(
            birth=now.birth, death=now.death, division=now.division, track_length=now.track_length
        ),
    )


def frame_fields() -> dict[str, str]:
    """Return the fields for the segmentation of a movie's frames; none if the queue's own defaults apply."""
    now = settings.current()
    if not now.is_given("TRACKING_SEGMENT_MODEL"):
        return {}
    name, _, version = now.tracking_segment_model.partition(":")
    fields = {"model_name": name, "model_version": version, "cuts": str(now.cuts)}
    # Otherwise the model's card decides, because the default is for the contract's model.
    if now.is_given("TRACKING_POSTPROCESS_FUNCTION"):
        fields["postprocess_function"] = now.tracking_postprocess_function
    return fields


def redis_client(*, deadline_s: float | None = None) -> RedisClient:
    """Make a client of Redis. It waits for an unavailable Redis for `deadline_s` seconds; None for no limit."""
    now = settings.current()
    return RedisClient(now.redis_host, now.redis_port, now.redis_timeout, deadline_s=deadline_s)


def storage() -> Storage:
    """Open the bucket, without connecting yet."""
    return Storage(settings.current().storage_bucket)


def model_store(bucket: Storage | None) -> ModelStore:
    """Open the source of models and cards: the bucket, then the package."""
    folder = settings.current().model_cache
    return ModelStore(bucket, Path(folder) if folder else None)


def model_server(models: ModelStore) -> ModelServer:
    """Open the model server of the settings, without connecting yet."""
    from redis_consumer.serving import ConnectionOptions, open_model_server
    from redis_consumer.serving.transport.connection import parse_headers

    now = settings.current()
    return open_model_server(
        now.model_server,
        find_model=models.find,
        timeout_s=now.grpc_timeout,
        backoff_s=now.grpc_backoff,
        max_retries=now.max_retry,
        metadata_expire_s=now.metadata_expire_time,
        slots=now.concurrency,
        connection=ConnectionOptions(
            ca_path=Path(now.model_server_ca) if now.model_server_ca else None,
            headers=parse_headers(settings.revealed(now.model_server_headers) or ""),
            compression=now.grpc_compression,
        ),
    )


def model_choices() -> ModelChoices:
    """Models and functions by the kind of an image."""
    return ModelChoices(settings.MODEL_CHOICES, settings.POSTPROCESS_CHOICES)


def mesmer_choices(job: Job) -> ModelChoices:
    """Model and functions of a job of several stains, with its compartment (contract, section 5.4)."""
    now = settings.current()
    return ModelChoices(
        {0: str(job.model or now.mesmer_model)},
        {0: "mesmer"},
        preprocess=("percentile_threshold", "histogram_normalization"),
        options={"histogram_normalization": {"kernel_size": 128}},
        given={"mesmer": {"compartment": job.compartment or now.mesmer_compartment}},
    )


def spot_choices(job: Job) -> ModelChoices:
    """Model of a job of spots, and how its images are stretched (contract, section 5.4)."""
    now = settings.current()
    low, high = (0.01, 99.9) if now.polaris_clip else (0.0, 100.0)
    return ModelChoices(
        {0: str(job.model or now.polaris_model)},
        {0: ""},
        preprocess=("percentile_normalize",),
        options={"percentile_normalize": {"low": low, "high": high}},
    )


def polaris_scale() -> str:
    """Scale of the child jobs of a job of spots in cells."""
    return f"{settings.current().polaris_scale:g}"


def spot_threshold() -> float:
    """Probability above which a pixel is a spot."""
    return settings.current().polaris_threshold


def segmentation_options() -> SegmentationOptions:
    """Limits and choices for the segmentation of images."""
    now = settings.current()
    scale = options.ScaleOptions(now.auto_scale, now.min_scale, now.max_scale)
    return SegmentationOptions(
        model_choices(), image_limits(), max_job_bytes(), now.label_detect_enabled, scale, now.channels_required
    )


def postprocess_of_label(label: int | str) -> str:
    """The function that follows the model for a kind of image, in the form of 2020."""
    return model_choices().postprocess_of(int(label))


def name_and_version_of_label(label: int | str) -> list[str]:
    """Return the model for a kind of image as name and version, in the form of 2020."""
    name, _, version = str(model_choices().model_of(int(label))).partition(":")
    return [name, version]


def queue() -> str:
    """Return the queue of the settings: ``QUEUE``, or ``<QUEUE>-zip`` for archives (contract, section 1.1)."""
    now = settings.current()
    is_zip = now.consumer_type.lower() == "zip" and not now.queue.endswith("-zip")
    return f"{now.queue}-zip" if is_zip else now.queue


def parts(name: str | None = None) -> dict[str, Any]:
    """Return the arguments of a consumer's constructor from the settings.

    Args:
        name: queue to use instead of that of the settings.
    """
    return {"redis_client": redis_client(), "storage_client": storage(), "queue": name or queue()}
