"""Finds spots in images, as the kiosk's jobs of the type ``spot``."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from redis_consumer.consumers import defaults
from redis_consumer.consumers.claimed_job import Stages
from redis_consumer.consumers.image import ImageFileConsumer
from redis_consumer.consumers.options import ConsumerOptions, per_job
from redis_consumer.errors import InvalidJob, ModelMismatch, ModelNotFound
from redis_consumer.job import Job, JobStatus, ModelId
from redis_consumer.processing.render import mark_points
from redis_consumer.processing.spots import Points, points_of_blobs, points_of_maps
from redis_consumer.segmentation.frames import Frames, open_whole_frames
from redis_consumer.segmentation.predictor import kept_names
from redis_consumer.segmentation.segmentation import Segmentation
from redis_consumer.serving.base import Array
from redis_consumer.text import quoted, result_stem, shown_name

#: Outputs of a model of spots (contract, section 5.4).
_OUTPUTS = ("classification", "offset_regression")
#: Values of the field ``outputs``.
_TABLES = ("table", "csv", "all")


class SpotConsumer(ImageFileConsumer):
    """Finds the spots in each plane of an image, such as single molecules, with positions between the pixels.

    Contract, sections 5.1 and 5.4. For plane i the result has ``<name>_<i>.npy``, y and x of each spot in pixels, and
    ``<name>_<i>.tif``, a picture of the plane with a cross around each spot. Planes are the frames of an image and
    their channels. The field ``outputs`` adds a table, ``<name>_<i>.csv``. Images keep their size, whatever the scale.
    """

    class Options(ConsumerOptions):
        """Detection without a model."""

        spot_detector: Annotated[Literal["model", "log"], per_job] = Field(
            default="model",
            description="model: POLARIS_MODEL, or the job's model; log: a Laplacian of Gaussian, which needs no model",
        )
        spot_sigma_px: Annotated[float, per_job] = Field(
            default=1.5, gt=0, le=50, description="Standard deviation of a spot in pixels, for spot_detector log"
        )
        spot_min_snr: Annotated[float, per_job] = Field(
            default=4.0, ge=0, description="Least height of a spot in standard deviations of the noise, for log"
        )

    def _check_job(self, job: Job) -> None:
        _has_table(job)
        if self.options.spot_detector == "log":
            return
        model = self._model_of(job)
        try:
            self._output_places(model)
        except ModelNotFound as error:
            raise ModelNotFound(
                f"{shown_name(job.original_name)}: the model of spots, {model}, is not served; ask the operator to "
                "serve it or to set POLARIS_MODEL, or give the field spot_detector=log to find spots without a model",
                job_id=job.id,
                model=str(model),
            ) from error

    def _segment_file(self, job: Job, path: Path, folder: Path, stages: Stages) -> tuple[list[Path], dict[str, Any]]:
        """Find the spots of each plane."""
        stem = folder / "results" / result_stem(job.original_name)
        stem.parent.mkdir(parents=True, exist_ok=True)
        files: list[Path] = []
        count = 0
        with open_whole_frames(path, job, defaults.image_limits(), defaults.max_job_bytes()) as frames:
            planes = _planes(frames)
            stages.begin(JobStatus.PRE_PROCESSING, ended="download_time", dim_order="YXC", **frames.fields)
            for number, points in enumerate(self._points(planes, job)):
                plane = planes.read(number, number + 1)[0, ..., 0]
                files += _write_spots(plane, points, stem.with_name(f"{stem.name}_{number}"), has_table=_has_table(job))
                count += len(points)
            stages.begin(JobStatus.SAVING_RESULTS, ended="postprocess_time")
        return files, {"objects": count}

    def _points(self, planes: Frames, job: Job) -> Iterator[Points]:
        options = self.options
        if options.spot_detector == "log":
            with self._predicting():
                for number in range(planes.shape[0]):
                    self.report_progress(number, planes.shape[0])
                    plane = planes.read(number, number + 1)[0, ..., 0]
                    yield points_of_blobs(plane, options.spot_sigma_px, options.spot_min_snr)
            return
        segmentation, model = self._segmentation(), self._model_of(job)
        view = _view(job, model)
        places = self._output_places(model)
        threshold = defaults.spot_threshold()

        def points_in(outputs: list[Array]) -> list[Points]:
            classes, offsets = (outputs[place] for place in places)
            return [_points_of(each, offset, threshold, model) for each, offset in zip(classes, offsets, strict=True)]

        results = segmentation.results(planes, view, segmentation.plan(planes, view))
        # No group of outputs is bound to a name here, since the next one would be computed beside it.
        yield from itertools.chain.from_iterable(map(points_in, results))

    def _model_of(self, job: Job) -> ModelId:
        """The job's model, or that of the settings, or the packaged one in its place."""
        model = defaults.spot_choices(job).model_of(0)
        return self.models.or_packaged(model) if self._predictor.is_in_process and job.model is None else model

    def _output_places(self, model: ModelId) -> tuple[int, int]:
        """Return the places of probabilities and offsets among the outputs of a model, whatever their order is.

        Raises:
            ModelMismatch: the model has other outputs.
            ModelNotFound, ModelServerUnavailable: as `ModelServer.metadata`.
        """
        spec = self.model_server.metadata(model, on_retry=self._note_retry)
        names = kept_names(tensor.name for tensor in spec.outputs)
        if set(_OUTPUTS) <= set(names):
            return names.index(_OUTPUTS[0]), names.index(_OUTPUTS[1])
        if len(names) == len(_OUTPUTS):
            return 0, 1
        raise ModelMismatch(
            f"model {model}: has outputs {', '.join(names)}; spots need {' and '.join(_OUTPUTS)}: name another model",
            model=str(model),
        )

    def _segmentation(self) -> Segmentation:
        """What runs the model of spots."""
        segmentation = super()._segmentation()
        choices = defaults.spot_choices(self.job or Job(""))
        return replace(segmentation, options=replace(segmentation.options, choices=choices, detects_label=False))


def _view(job: Job, model: ModelId) -> Job:
    """Return the job with its model and without a scale. Its channels have no roles; they are planes."""
    none = dict.fromkeys(("label", "channels", "postprocess_function", "object_diameter_px"), "")
    return job.with_model(model).with_fields(**none, cuts="0", scale="1")


def _planes(frames: Frames) -> Frames:
    """Make a frame of each channel: those of the first frame, then those of the next."""
    count, height, width, channels = frames.shape

    def read(start: int, stop: int) -> Array:
        first = start // channels
        batch = frames.read(first, -(-stop // channels))
        planes = np.moveaxis(batch, -1, 1).reshape(-1, height, width, 1)
        return planes[start - first * channels : stop - first * channels]

    return replace(frames, shape=(count * channels, height, width, 1), read=read)


def _points_of(classes: Array, offsets: Array, threshold: float, model: ModelId) -> Points:
    try:
        return points_of_maps(classes, offsets, threshold)
    except ValueError as error:
        raise ModelMismatch(f"model {model}: {error}; name a model of spots", model=str(model)) from error


def _write_spots(plane: Array, points: Points, stem: Path, *, has_table: bool) -> list[Path]:
    from tifffile import imwrite

    files = [stem.with_name(f"{stem.name}{suffix}") for suffix in (".tif", ".npy", ".csv")]
    imwrite(files[0], mark_points(plane, points), photometric="rgb")
    np.save(files[1], points)
    if not has_table:
        return files[:2]
    with files[2].open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(("x", "y"))
        rows.writerows((round(x, 4), round(y, 4)) for y, x in points.tolist())
    return files


def _has_table(job: Job) -> bool:
    """Return whether the job asks for a table of spots.

    Raises:
        InvalidJob: it asks for something else.
    """
    names = [part.strip().lower() for part in job.get("outputs").split(",") if part.strip()]
    unknown = [name for name in names if name not in _TABLES]
    if unknown:
        raise InvalidJob(
            f"field outputs: {quoted(', '.join(unknown))} is unknown for spots; give {' or '.join(_TABLES)}",
            job_id=job.id,
        )
    return bool(names)
