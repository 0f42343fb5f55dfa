"""Defines the settings of images and models: model server, models, limits, tracking and spots."""

from __future__ import annotations

from pydantic import BaseModel, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from redis_consumer.options import (
    MAX_SIDE_PX,
    ArchiveLimits,
    CallLimits,
    DetectionOptions,
    LearnedOptions,
    LinkingModelOptions,
    LinkOptions,
    ScaleOptions,
    TilingOptions,
)
from redis_consumer.settings.kinds import (
    CONFLICT,
    Compartment,
    Compression,
    Count,
    CropMode,
    Factor,
    Fraction,
    ModelName,
    ModelNames,
    Port,
    Seconds,
    Secret,
    ServerUrl,
    Size,
    Switch,
    TensorDtype,
    Text,
    Timeout,
)


class ServerSettings(BaseModel):
    """The model server."""

    tf_host: Text = Field(default="tf-serving", description="Host of TensorFlow Serving")
    tf_port: Port = Field(default=8500, description="gRPC port of TensorFlow Serving")
    model_server: ServerUrl = Field(
        default_factory=lambda data: f"tfs://{data.get('tf_host')}:{data.get('tf_port')}",
        description="Model server: tfs://host:port for TensorFlow Serving, oip://host:port for the Open Inference "
        "Protocol, several hosts separated by commas; tfss:// and oips:// for TLS; onnx:// runs models in the worker; "
        "empty: tfs://TF_HOST:TF_PORT",
    )
    warm_up: ModelNames = Field(
        default="", description="Models that each slot loads, or requests from the model server, before its first job"
    )
    model_server_ca: str = Field(
        default="",
        description="PEM file of the authorities that sign the model server's certificate; empty: well-known ones",
    )
    model_server_headers: Secret = Field(
        default=None, description="Headers of each call to the model server, name=value,name=value; empty for none"
    )
    tf_tensor_name: Text = Field(
        default="image", description="Name of the input for the image, for models with several inputs"
    )
    tf_tensor_dtype: TensorDtype = Field(
        default="DT_FLOAT", description="Former type of the input; not used, because it comes from the model's metadata"
    )
    tf_max_batch_size: Size = Field(
        default=TilingOptions.max_batch, description="Most tiles in one call to the model server"
    )
    tf_min_model_size: Size = Field(
        default=TilingOptions.min_model_px,
        description="Side in pixels of the tile to which TF_MAX_BATCH_SIZE applies; larger tiles need smaller batches",
    )
    max_call_bytes: Size = Field(
        default=TilingOptions.max_call_bytes,
        description="Most bytes of tiles in one call to the model server, or in its reply; one tile can be larger",
    )
    calls_in_flight: Size = Field(
        default=TilingOptions.calls_in_flight,
        description="Calls to the model server that run in parallel for one image; 1 for one after the other",
    )
    grpc_timeout: Timeout = Field(
        default=CallLimits.timeout_s,
        description="Longest time of one call to the model server, in seconds; longer for calls above 16 MiB",
    )
    grpc_compression: Compression = Field(
        default="none",
        description="Compression of requests: none, gzip or deflate; slower than none if the server is near",
    )
    grpc_backoff: Seconds = Field(
        default=CallLimits.backoff_s, description="Seconds before a failed call is retried; 0 for no pause"
    )
    max_retry: Count = Field(
        default=CallLimits.max_retries, description="Number of retries of a failed call; 0 for none"
    )
    dp_host: Text = Field(default="data-processing", description="Host of the former data-processing server; not used")
    dp_port: Port = Field(default=8080, description="Port of the former data-processing server; not used")


class ImageSettings(BaseModel):
    """Models by kind of image, and detection of scale and label."""

    nuclear_model: ModelName = Field(
        default="NuclearSegmentation:6", description="Model for nuclei (label 0), and for jobs without a label"
    )
    cytoplasm_model: ModelName = Field(default="CytoplasmSegmentation:5", description="Model for cytoplasm (label 1)")
    phase_model: ModelName = Field(default="PhaseCytoSegmentation:0", description="Model for phase contrast (label 2)")
    tissue_model: ModelName = Field(
        default="TissueNuclei:1", description="Model for nuclei in stained tissue (label 3)"
    )
    nuclear_postprocess: Text = Field(default="deep_watershed", description="Post-processing for NUCLEAR_MODEL")
    cytoplasm_postprocess: Text = Field(default="deep_watershed", description="Post-processing for CYTOPLASM_MODEL")
    phase_postprocess: Text = Field(default="deep_watershed", description="Post-processing for PHASE_MODEL")
    tissue_postprocess: Text = Field(default="deep_watershed", description="Post-processing for TISSUE_MODEL")
    cuts: Count = Field(default=0, description="Number of pieces per side of a frame in tracking; 0 for automatic")

    auto_scale: Switch = Field(
        default=ScaleOptions.is_automatic,
        description="Whether jobs without a scale get one from the size of pixels and the model's card, or by an "
        "estimate",
    )
    scale_detect_enabled: Switch = Field(
        default=DetectionOptions.is_enabled, description="Whether a model detects the scale of jobs that have none"
    )
    scale_detect_model: ModelName = Field(default="ScaleDetection:1", description="Model that detects the scale")
    scale_detect_sample: Size = Field(
        default=DetectionOptions.every, description="Every n-th piece of the image is used to detect the scale"
    )
    scale_reshape_size: Size = Field(
        default=DetectionOptions.side_px, description="Side in pixels of the pieces that are used to detect the scale"
    )
    label_detect_enabled: Switch = Field(
        default=DetectionOptions.is_enabled, description="Whether a model detects the label of jobs that have none"
    )
    label_detect_model: ModelName = Field(default="LabelDetection:1", description="Model that detects the label")
    label_detect_sample: Size = Field(
        default=DetectionOptions.every, description="Every n-th piece of the image is used to detect the label"
    )
    label_reshape_size: Size = Field(
        default=DetectionOptions.side_px, description="Side in pixels of the pieces that are used to detect the label"
    )
    channels_required: Switch = Field(
        default=False,
        description="Whether a job must name its channel in field channels, if the image has several and the model "
        "takes one; otherwise the first channel that does not show transmitted light is used",
    )
    max_scale: Factor = Field(default=ScaleOptions.high, description="Largest scale that a job can set")
    min_scale: Factor = Field(
        default_factory=lambda data: 1 / data.get("max_scale", ScaleOptions.high),
        validate_default=True,
        description="Smallest scale that a job can set; empty: 1 / MAX_SCALE",
    )

    @field_validator("min_scale", mode="after")
    @classmethod
    def _stay_below_the_largest(cls, scale: float, info: ValidationInfo) -> float:
        largest = info.data.get("max_scale", scale)
        if scale > largest:
            words = "{smallest} is above MAX_SCALE, which is {largest}; let MIN_SCALE be the smaller of both"
            raise PydanticCustomError(CONFLICT, words, {"smallest": f"{scale:g}", "largest": f"{largest:g}"})
        return scale


class LimitSettings(BaseModel):
    """Limits of images and of archives."""

    max_image_height: Size = Field(default=MAX_SIDE_PX, description="Largest height of an image, in pixels")
    max_image_width: Size = Field(default=MAX_SIDE_PX, description="Largest width of an image, in pixels")
    max_image_frames: Size = Field(default=60, description="Most frames of a movie")

    max_job_mb: Count = Field(
        default=0,
        description="MB of memory that one job may need; 0: the container's memory, divided by slots and their threads",
    )

    max_archive_bytes: Size = Field(
        default=ArchiveLimits.max_bytes,
        description="Largest total size of an archive's unpacked images, in bytes",
    )
    max_archive_members: Size = Field(default=ArchiveLimits.max_members, description="Most files in an archive")


class TrackingSettings(BaseModel):
    """Tracking."""

    tracking_model: ModelName = Field(default="NuclearTrackingInf:6", description="Model that links cells")
    tracking_segment_model: ModelName = Field(default="panoptic:3", description="Model that segments tracking's frames")
    tracking_postprocess_function: Text = Field(
        default="retinanet", description="Post-processing of TRACKING_SEGMENT_MODEL"
    )
    drift_correct_enabled: Switch = Field(default=False, description="Whether tracking removes the stage's drift first")
    normalize_tracking: Switch = Field(
        default=LinkingModelOptions.is_frame_normalized, description="Whether tracking normalises each frame"
    )
    neighborhood_scale_size: Size = Field(
        default=LinkingModelOptions.surroundings_px, description="Pixels around a cell that the linking model uses"
    )
    max_distance: Factor = Field(
        default=LinkOptions.max_distance_px, description="Largest movement of a cell between two frames, in pixels"
    )
    track_length: Size = Field(
        default=LearnedOptions.track_length, description="Frames of a track that the linking model uses"
    )
    division: Fraction = Field(
        default=LearnedOptions.division, description="Probability above which a new cell is a daughter"
    )
    birth: Fraction = Field(default=LearnedOptions.birth, description="Cost of a track that begins")
    death: Fraction = Field(default=LearnedOptions.death, description="Cost of a track that ends")
    caliban_model: ModelName = Field(
        default_factory=lambda data: data.get("tracking_model"),
        description="Model that links cells in caliban jobs; empty: TRACKING_MODEL",
    )
    neighborhood_encoder: ModelName = Field(
        default=LinkingModelOptions.encoder, description="Model that encodes cells for linking"
    )
    appearance_dim: Size = Field(
        default=LinkingModelOptions.picture_px, description="Side in pixels of a cell's picture for the encoder"
    )
    crop_mode: CropMode = Field(default="resize", description="How a cell's picture is cut: resize or fixed")
    caliban_norm: Switch = Field(
        default=LinkingModelOptions.is_picture_normalized, description="Whether a cell's picture is normalised"
    )


class SpotSettings(BaseModel):
    """Multiplexed images and spots."""

    multiplex_model: ModelName = Field(default="MultiplexSegmentation:9", description="Older name of MESMER_MODEL")
    mesmer_model: ModelName = Field(
        default_factory=lambda data: data.get("multiplex_model"),
        description="Model for multiplexed images; empty: MULTIPLEX_MODEL",
    )
    mesmer_compartment: Compartment = Field(
        default="whole-cell", description="Compartment to segment: whole-cell, nuclear or both"
    )
    built_in_whole_cell: Switch = Field(
        default=False,
        description="Whether whole cells are found by nuclei and a classical method if MESMER_MODEL is neither served "
        "nor in the bucket",
    )
    polaris_model: ModelName = Field(default="SpotDetection:3", description="Model that detects spots")
    polaris_threshold: Fraction = Field(default=0.95, description="Probability above which a pixel is a spot")
    polaris_clip: Switch = Field(
        default=False, description="Whether the brightest and darkest pixels are clipped first"
    )
    polaris_scale: Factor = Field(default=0.38, description="Scale of the cell images that go with spots")
