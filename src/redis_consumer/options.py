"""Defines the options of the parts of a worker.

Their defaults are those of the settings of the same meaning. The parts can be used without any settings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class _PerJob:
    def __repr__(self) -> str:
        return "per_job"


#: Marks an option that a job may set: ``min_size: Annotated[int, per_job] = 10``.
per_job = _PerJob()

#: Largest height and width of an image.
MAX_SIDE_PX = 2048
#: Seconds for which the metadata of a model are cached.
METADATA_EXPIRE_S = 30
#: Links to results: ``public`` or ``signed``, and seconds for which a signed one works.
RESULT_URLS: Final = "public"
SIGNED_URL_EXPIRE_S = 86400
#: Longest pause between two attempts to reach the bucket, in seconds.
STORAGE_MAX_BACKOFF_S = 60.0

# What `CallLimits.timeout_s` is meant for: a batch of 16 tiles of 512 x 512 float32 pixels.
_TIMEOUT_BYTES = 16 * 2**20


@dataclass(frozen=True)
class QueueOptions:
    """Times and limits of the jobs of a queue.

    Attributes:
        lease_s: seconds for which a claim or a renewal holds.
        max_attempts: runs of a job before it becomes a dead letter.
        replicas: number of replicas that must confirm a result (``WAIT``); 0 for none.
        child_expire_s: seconds for which the hashes of children last after the end of their parent.
        result_ttl_s: seconds for which the hashes of other jobs last after their end; 0 for ever.
    """

    lease_s: float = 10.0
    max_attempts: int = 5
    replicas: int = 0
    child_expire_s: int = 3600
    result_ttl_s: int = 0


@dataclass(frozen=True)
class WorkerLimits:
    """Limits of a worker's slots and their jobs.

    Attributes:
        grace_period_s: seconds for running jobs after a signal.
        job_timeout_s: seconds for one run of a job.
        stall_timeout_s: seconds without progress, 0 for no limit.
        max_rss_mb: memory above which a slot is replaced after its job, 0 for no limit.
        renew_s: seconds between two renewals.
        sweep_s: seconds between two sweeps.
    """

    grace_period_s: float = 25.0
    job_timeout_s: float = 3600.0
    stall_timeout_s: float = 0.0
    max_rss_mb: int = 0
    renew_s: float = 3.0
    sweep_s: float = 5.0


@dataclass(frozen=True)
class CallLimits:
    """How long a call may take and how often it is tried.

    Attributes:
        timeout_s: seconds allowed for one try; in proportion more for requests above 16 MiB.
        backoff_s: pause before the first retry in seconds; it doubles with each further one, with jitter. There is none
            where another server is left to ask.
        max_retries: how often a call is repeated at most.
    """

    timeout_s: float = 30.0
    backoff_s: float = 3.0
    max_retries: int = 5

    def timeout_of(self, request: bytes) -> float:
        """Seconds allowed for one try of a request."""
        return self.timeout_s * max(1.0, len(request) / _TIMEOUT_BYTES)


@dataclass(frozen=True)
class ImageLimits:
    """Largest size of an image. It is checked against the header, before any pixel is decoded.

    Attributes:
        max_height: rows; None for any number.
        max_width: columns; None for any number.
        max_bytes: bytes of all decoded pixels, in the dtype of the file. 60 frames of 2048 x 2048 float32 pixels take
            0.94 GiB.
        max_frames: planes besides channels (times, depths, pages); None for any number.
    """

    max_height: int | None = MAX_SIDE_PX
    max_width: int | None = MAX_SIDE_PX
    max_bytes: int = 1 << 30
    max_frames: int | None = None


@dataclass(frozen=True)
class ArchiveLimits:
    """Limits for the content of an archive.

    Attributes:
        max_bytes: largest size of its unpacked images, counted while they are written.
        max_members: largest number of files, images or not.
        max_ratio: largest ratio of the unpacked size to the size of the archive, for more than 256 MiB.
    """

    max_bytes: int = 10 << 30
    max_members: int = 100_000
    max_ratio: int = 200


@dataclass(frozen=True)
class MovieLimits:
    """Limits for the file of a movie.

    Attributes:
        frames: largest size and number of its frames.
        archive: limits of a zip of frames.
        max_job_bytes: largest memory that a job can take.
    """

    frames: ImageLimits
    archive: ArchiveLimits
    max_job_bytes: int


@dataclass(frozen=True)
class TilingOptions:
    """Sizes of tiles and of the calls that carry them to the model server.

    Attributes:
        max_tile_yx: largest height and width of a tile, in pixels.
        max_batch: most tiles in one call.
        min_model_px: side in pixels of the tile to which `max_batch` applies; calls with larger tiles carry fewer.
        max_call_bytes: most bytes of tiles in one call, or in its reply; one tile can be larger.
        calls_in_flight: calls that run in parallel for one image.
        input_name: input of a model that takes the image, if it has several.
    """

    max_tile_yx: tuple[int, int] = (MAX_SIDE_PX, MAX_SIDE_PX)
    max_batch: int = 64
    min_model_px: int = 128
    max_call_bytes: int = 16 << 20
    calls_in_flight: int = 4
    input_name: str = "image"


@dataclass(frozen=True)
class ScaleOptions:
    """How the scale of a job is chosen.

    Attributes:
        is_automatic: whether a job without a scale gets one from the size of pixels or an estimate.
        low: smallest scale.
        high: largest scale.
    """

    is_automatic: bool = True
    low: float = 0.1
    high: float = 10.0

    def allows(self, scale: float) -> bool:
        """Return whether a scale is in range."""
        return self.low <= scale <= self.high


@dataclass(frozen=True)
class DetectionOptions:
    """A model that detects the scale or the label of an image.

    Attributes:
        model: which model, ``name:version``.
        is_enabled: whether it is asked for jobs that have none.
        every: every n-th piece of the image is used.
        side_px: side of the pieces in pixels.
    """

    model: str
    is_enabled: bool = False
    every: int = 3
    side_px: int = 216


@dataclass(frozen=True)
class LinkOptions:
    """Limits for the movement of cells.

    Attributes:
        max_distance_px: largest movement between two frames and over a gap.
        max_gap: largest number of successive frames in which a cell can be missed; 0 for none.
    """

    max_distance_px: float = 50.0
    max_gap: int = 2


@dataclass(frozen=True)
class LearnedOptions:
    """Options for linking by probabilities.

    Attributes:
        birth: cost of a track that begins.
        death: cost of a track that ends.
        division: probability above which a new cell is a daughter.
        track_length: number of last places of a track that the model gets.
    """

    birth: float = 0.99
    death: float = 0.99
    division: float = 0.9
    track_length: int = 8


@dataclass(frozen=True)
class LinkingModelOptions:
    """Inputs of the model that links cells.

    Attributes:
        encoder: model that encodes cells for it, ``name:version``.
        max_distance_px: largest movement of a cell between two frames.
        picture_px: side of a cell's picture.
        is_picture_fixed: whether the picture is cut at that size, and not resized to it.
        is_picture_normalized: whether a cell's picture is normalised.
        is_frame_normalized: whether each frame is normalised.
        surroundings_px: pixels around a cell that it gets.
        max_pairs: most pairs of cells in one call.
        tracks: how tracks follow from its answers.
    """

    encoder: str = "NuclearTrackingNE:6"
    max_distance_px: float = LinkOptions.max_distance_px
    picture_px: int = 32
    is_picture_fixed: bool = False
    is_picture_normalized: bool = True
    is_frame_normalized: bool = True
    surroundings_px: int = 30
    max_pairs: int = TilingOptions.max_batch
    tracks: LearnedOptions = LearnedOptions()
