"""Processes a movie. Other workers segment its frames. Then its cells are linked and the tracks are uploaded."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from redis_consumer.archives import iter_image_archive, zip_files
from redis_consumer.consumers import defaults
from redis_consumer.consumers.claimed_job import Stages
from redis_consumer.consumers.fan_out import Child, reason_of_child, second_phase
from redis_consumer.consumers.serving import TensorFlowServingConsumer
from redis_consumer.consumers.shared_scale import FIELDS, SharedScale
from redis_consumer.errors import InvalidImage, PermanentError
from redis_consumer.images import ImageLimits, read_image
from redis_consumer.images.image import square_um
from redis_consumer.images.scratch import FrameScratch
from redis_consumer.job import Job, JobStatus, ModelId
from redis_consumer.movies.linking import link_by_model
from redis_consumer.movies.movie import SUFFIXES, Movie, natural, open_movies
from redis_consumer.movies.track_results import FrameProgress, TrackResult, count_passes, movie_outputs, write_tracks
from redis_consumer.processing.drift import measure_shift
from redis_consumer.queue.child_jobs import NEXT_PHASE
from redis_consumer.segmentation.frames import Frames
from redis_consumer.serving.base import Array
from redis_consumer.text import result_stem, shown_name
from redis_consumer.tracking.linking import Linker
from redis_consumer.tracking.tracks import Tracking

if TYPE_CHECKING:
    FrameReader = Callable[[int], Array]

#: Pixels of the frames in one child job. Larger jobs have less overhead, but there must be enough jobs for all workers.
CHILD_PX = 4 << 20
#: Most frames of one child job.
CHILD_FRAMES = 16
#: Percentage of a job's progress that the child jobs account for.
CHILDREN_SHARE = 90
#: Number of passes over a frame: its labels are read, it is linked, gets the labels of the tracks, and is written.
_PASSES = 4


class TrackingConsumer(TensorFlowServingConsumer):
    """Follows the cells of a movie (TIFF, a zip of frames, or .trk with labels) and says which ones divide.

    Contract, sections 5.1 and 5.7. Frames are sent in stacks to ``SEGMENTATION_QUEUE``. The job occupies no worker
    until they are segmented. Cells are linked without a model, unless ``TRACKING_MODEL`` is set.
    """

    def is_valid_hash(self, redis_hash: str | None) -> bool:
        """Return whether the job's input can be a movie."""
        if redis_hash is None:
            return False
        return self._input_name(redis_hash).rstrip("/").endswith(SUFFIXES)

    def _consume(self, redis_hash: str) -> str:
        """Send the frames to be segmented. A movie that already has labels is linked at once."""
        job = self._job_of(redis_hash)
        if job.is_final:
            return job.status
        movie_outputs(job)  # before any work
        stages = Stages(job, self.update_key, self.final_status, self._claimed)
        stages.begin(JobStatus.STARTED, identity_started=self.name, progress=0)
        with self._movies(job) as (movies, folder):
            stages.begin(JobStatus.PREDICTING, ended="download_time", **movies[0].fields)
            if movies[0].labels is not None:
                return self._finish(job, stages, movies, folder)
            scale = self._scale_of(job, movies[0])
            children = self._children(job, movies[0], folder, scale)
            return self.fan_out(children, then="link", fields=scale, share=CHILDREN_SHARE)

    @second_phase
    def link(self, redis_hash: str) -> str:
        """Link the cells of the segmented frames, and upload the tracks."""
        job = self._job_of(redis_hash)
        stages = Stages(job, self.update_key, self.final_status, self._claimed)
        stages.begin(JobStatus.PREDICTING, progress=CHILDREN_SHARE)
        with self._movies(job) as (movies, folder):
            return self._finish(job, stages, movies, folder)

    @contextmanager
    def _movies(self, job: Job) -> Iterator[tuple[list[Movie], Path]]:
        with tempfile.TemporaryDirectory(prefix="redis-consumer-") as name:
            folder = Path(name)
            key = job.input_file_name.rstrip("/")
            if key.lower().endswith(".zarr"):
                path = Path(self.storage.download_folder(key, folder / "input"))
            else:
                path = self._download_file(job, key, folder / "input")
            with open_movies(job, path, folder, defaults.movie_limits()) as movies:
                yield movies, folder

    def _scale_of(self, job: Job, movie: Movie) -> dict[str, str]:
        """Choose one scale for all frames; return the fields for the job."""
        frames = Frames(
            (*movie.shape, 1),
            lambda start, stop: np.stack([movie.read(number) for number in range(start, stop)])[..., np.newaxis],
            shown_name(job.original_name),
            pixel_size_um=square_um(movie.calibration.pixel_yx_um),
            pixel_yx_um=movie.calibration.pixel_yx_um,
        )
        child = Job(job.id, _child_fields(job))
        return SharedScale(self, child, model_server=self.model_server, models=self.models).of_frames(frames)

    def _children(self, job: Job, movie: Movie, folder: Path, scale: Mapping[str, str]) -> Iterator[Child]:
        """Yield stacks of frames to segment. Each is written when it is needed."""
        from tifffile import imwrite

        stem = result_stem(job.original_name).name
        fields = {**_child_fields(job), **{name: scale[name] for name in FIELDS if name in scale}}
        for frames in stacks(movie.shape):
            path = folder / f"{stem}-tracking-frame-{frames.start}.tif"
            stack = np.stack([movie.read(number) for number in frames])
            imwrite(path, stack, photometric="minisblack", metadata={"axes": "TYX"})
            yield Child(defaults.current().segmentation_queue, path.name, path, fields=fields)

    def _segmentation(self, job: Job, movie: Movie, folder: Path, progress: FrameProgress) -> FrameReader:
        """Collect the label images of the workers in a file."""
        labels = FrameScratch(folder / "labels", movie.shape)
        children = self.child_jobs()
        for frames in stacks(movie.shape):
            child = next(children, Job(""))  # none if their record was deleted
            if child.status != JobStatus.DONE:
                raise PermanentError(
                    f"{shown_name(job.original_name)}: frames {frames.start} to {frames.stop - 1} could not be "
                    f"segmented: {reason_of_child(child)}",
                    job_id=job.id,
                )
            labels.append(self._labels_of(child, (len(frames), *movie.shape[1:])))
            progress.take(len(frames))
        return labels.read

    def _labels_of(self, child: Job, shape: tuple[int, ...]) -> Array:
        """Yield the label images in a child's result: one stack, or one file per frame from older workers."""
        limits = ImageLimits(max_height=None, max_width=None)
        with tempfile.TemporaryDirectory(prefix="redis-consumer-") as name:
            path = self.storage.download(child.get("output_file_name"), name)
            files = sorted(iter_image_archive(path, Path(name, "result")), key=natural)
            parts = [read_image(file, limits=limits).array for file in files if file.endswith("_feature_0.tif")]
        frames = [frame for part in parts for frame in (part if part.ndim > 2 else part[np.newaxis])]
        if [frame.shape for frame in frames] != [shape[1:]] * shape[0]:
            shapes = ", ".join(str(part.shape) for part in parts)
            raise PermanentError(
                f"segmentation of {shown_name(child.original_name)}: holds label images of shape {shapes or 'none'}, "
                f"wanted {shape}; check the workers of SEGMENTATION_QUEUE",
                job_id=child.id,
            )
        return np.stack(frames)

    def _finish(self, job: Job, stages: Stages, movies: Sequence[Movie], folder: Path) -> str:
        """Link each movie, and upload the tracks of all."""
        passes = _PASSES + count_passes(job)
        first = CHILDREN_SHARE if job.get(NEXT_PHASE) else 0
        progress = FrameProgress(self.report_progress, passes * sum(map(len, movies)), first=first)
        results = folder / "results"
        files: list[Path] = []
        tracks = 0
        for number, movie in enumerate(movies):
            place = results if len(movies) == 1 else results / f"movie_{number}"
            labels = movie.labels or self._segmentation(job, movie, folder, progress)
            result = self._track(job, movie, progress.reading(labels), folder / f"tracked_{number}", progress)
            files += write_tracks(result, place, job)
            tracks += len(result.tracking.tracks)
        stages.begin(JobStatus.SAVING_RESULTS, ended="prediction_time")
        key, url = self._upload_zip(zip_files(files, results, name=self._next_zip_name()))
        stages.finish(output_file_name=key, output_url=url, progress=100, objects=tracks)
        return self.final_status

    def _track(
        self, job: Job, movie: Movie, labels: FrameReader, scratch: Path, progress: FrameProgress
    ) -> TrackResult:
        """Link the cells of one movie."""
        model = defaults.linking_model(job)
        shifts = [(0, 0)] * len(movie)
        if model is None:
            shifts = list(self._shifts(movie))
            try:
                tracking = self._link(movie, labels, shifts)
            except InvalidImage as error:
                raise InvalidImage(f"{job.get('original_name') or job.get('input_file_name')}: {error}") from error
        else:
            names = {spec.name for spec in self.model_server.metadata(model, on_retry=self._note_retry).inputs}
            tracking = link_by_model(model, names, self._ask_model, movie, labels, defaults.linking_model_options())
        tracked = FrameScratch(scratch, movie.shape)
        for number in range(len(movie)):
            tracked.append(tracking.relabel(number, labels(number)))
        return TrackResult(movie, tracking, tracked, shifts, progress)

    def _link(self, movie: Movie, labels: FrameReader, shifts: Sequence[tuple[int, int]]) -> Tracking:
        linker = Linker(defaults.link_options())
        for number in range(len(movie)):
            linker.add(labels(number), shifts[number])
        return linker.finish()

    def _shifts(self, movie: Movie) -> Iterator[tuple[int, int]]:
        """Return for each frame how far the scene has moved since the frame before; 0 if drift correction is off."""
        if not defaults.current().drift_correct_enabled:
            yield from ((0, 0) for _ in range(len(movie)))
            return
        before = None
        for image in movie.images():
            self.check_wanted()
            yield (0, 0) if before is None else measure_shift(before, image)
            before = image

    def _ask_model(self, model: ModelId, inputs: Mapping[str, Array]) -> dict[str, Array]:
        self.check_wanted()
        self._note_model(model)
        return self.model_server.predict(model, inputs, on_retry=self._note_retry)


def stacks(shape: tuple[int, int, int]) -> Iterator[range]:
    """Yield the numbers of the frames of each child job.

    >>> list(stacks((5, 1024, 2048)))
    [range(0, 2), range(2, 4), range(4, 5)]
    """
    frames, height, width = shape
    size = min(max(CHILD_PX // (height * width), 1), CHILD_FRAMES)
    return (range(start, min(start + size, frames)) for start in range(0, frames, size))


def _child_fields(job: Job) -> dict[str, str]:
    """Return the fields for the segmentation of frames: those of the settings, or the queue's defaults."""
    fields = {name: job.get(name) for name in ("scale", "object_diameter_px", "label") if job.get(name)}
    return {**fields, "channels": "0,,", "dimension_order": "BXY", **defaults.frame_fields()}
