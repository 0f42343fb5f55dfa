"""Segments images: downloads one, runs a served model and its functions, and uploads the label image."""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from redis_consumer.archives import zip_files
from redis_consumer.consumers import defaults
from redis_consumer.consumers.claimed_job import Stages
from redis_consumer.consumers.fan_out import Child, common_fields, second_phase
from redis_consumer.consumers.gathering import gather_children
from redis_consumer.consumers.serving import TensorFlowServingConsumer, own_methods
from redis_consumer.errors import InvalidJob, ObjectNotFound
from redis_consumer.images.fields import SeveralImages, choose
from redis_consumer.images.ome_zarr import MAX_METADATA_BYTES, image_fields
from redis_consumer.job import Job, JobStatus, ModelId
from redis_consumer.processing import registry
from redis_consumer.processing.registry import Functions, is_built_in
from redis_consumer.provenance import record
from redis_consumer.queue.child_jobs import NEXT_PHASE
from redis_consumer.segmentation.cell_outputs import CellOutputs, wanted_outputs
from redis_consumer.segmentation.frames import Frames, open_frames
from redis_consumer.segmentation.large_image import segment_enlarged, segment_large
from redis_consumer.segmentation.plan import Steps
from redis_consumer.segmentation.predictor import as_batches, model_of
from redis_consumer.segmentation.results import LABELS, Analysis, arrays_of, write_analysis, write_groups
from redis_consumer.segmentation.segmentation import Segmentation
from redis_consumer.segmentation.z_planes import LinkedPlanes
from redis_consumer.serving.base import Array
from redis_consumer.text import shown_name

#: Modules that jobs import when they first need them.
_LIBRARIES = ("tifffile", "scipy.ndimage", "skimage.measure", "skimage.morphology", "skimage.segmentation")
#: Why planes of such an image can't be linked.
_IN_PARTS = "an image that is processed in parts has no whole planes"
#: Methods by which consumers of 2020 run a job's functions. Their replacements in plug-ins get images in this form.
_OLDER_METHODS = {"_get_processing_function", "preprocess", "postprocess", "process"}
_DETECTION_METHODS = {"detect_label", "detect_scale", "get_image_scale"}
#: Methods whose replacements expect an image as it is, not in parts.
_WHOLE_METHODS = {"analyze", "predict", *_OLDER_METHODS}
#: Methods whose replacements get all frames at once.
_ALL_FRAMES_METHODS = {"predict", "process_big_image", "run_functions", *_DETECTION_METHODS, *_OLDER_METHODS}


class ImageFileConsumer(TensorFlowServingConsumer):
    """Makes a label image of each image, whatever its format.

    Contract, sections 5.1 and 5.2: everything that isn't a zip.

    Attributes:
        needs_whole_image: whether `analyze` must see images whole, so that one which is larger than memory fails. A
            class with an `analyze`, or with a method that a consumer of 2020 replaces, always sees them whole.
    """

    needs_whole_image: ClassVar[bool] = False

    _stages: Stages | None = None

    def _warm_up(self) -> None:
        """Load the models that the settings name, and the libraries that their jobs need."""
        super()._warm_up()
        for library in _LIBRARIES if self._predictor_state.call_bytes else ():
            import_module(library)

    def is_valid_hash(self, redis_hash: str | None) -> bool:
        """Return whether the job's input can be an image or a zipped OME-Zarr. Other archives need the zip consumer."""
        if redis_hash is None:
            return False
        text = self._input_name(redis_hash)
        return not text.endswith(".zip") or text.endswith(".zarr.zip")

    def _consume(self, redis_hash: str) -> str:
        """Run one job: download, pre-process, predict, post-process, save, zip and upload, in this order."""
        job = self._job_of(redis_hash)
        if job.is_final:
            return job.status
        if job.get(NEXT_PHASE):
            return self.gather(redis_hash)
        try:
            with self._staged(job) as stages, tempfile.TemporaryDirectory(prefix="redis-consumer-") as name:
                folder = Path(name)
                stages.begin(JobStatus.STARTED, identity_started=self.name)
                self._check_job(job)
                path = self._download(job, folder / "input")
                files, found = self._segment_file(job, path, folder, stages)
                key, url = self._upload_zip(zip_files(files, folder / "results", name=self._next_zip_name()))
                stages.finish(output_file_name=key, output_url=url, progress=100, **found)
        except SeveralImages as several:
            return self.fan_out(self._fields_of_view(job, several.fields), then="gather")
        return self.final_status

    def _fields_of_view(self, job: Job, fields: Iterable[str]) -> Iterator[Child]:
        """Yield a child for each image of a file that holds several."""
        common = {**common_fields(job), "input_file_name": job.input_file_name, "url": job.get("url")}
        for field in fields:
            yield Child(self.queue, f"{job.original_name}/{field}", fields={**common, "field_of_view": field})

    @second_phase
    def gather(self, redis_hash: str) -> str:
        """Merge the results of the images of one file into one zip, with a table of their outcomes."""
        return gather_children(self, redis_hash)

    def _check_job(self, job: Job) -> None:
        """Refuse a job that can't succeed, before anything is downloaded."""
        wanted_outputs(job)
        self._channels_taken(job)

    def _channels_taken(self, job: Job) -> int | None:
        """Return how many channels the model of a job takes; None if a method of the class may change it."""
        return None if own_methods(self) & _WHOLE_METHODS else self._segmentation().channels_taken(job)

    def _download(self, job: Job, folder: Path) -> Path:
        key = job.input_file_name.rstrip("/")
        if not key.lower().endswith(".zarr"):
            return self._download_file(job, job.input_file_name, folder)
        if job.field_of_view:
            return Path(self.storage.download_folder(f"{key}/{job.field_of_view}", folder))
        fields = image_fields(partial(self._read_table, key))
        place = f"/{fields[choose(fields, '', shown_name(job.original_name))]}" if fields else ""
        return Path(self.storage.download_folder(f"{key}{place}", folder))

    def _read_table(self, folder: str, name: str) -> dict[str, Any]:
        """Read a file of metadata of an OME-Zarr in the bucket, empty if there is none."""
        try:
            data = self.storage.read_bytes(f"{folder}/{name}", max_bytes=MAX_METADATA_BYTES)
            table = json.loads(data)
        except (ObjectNotFound, ValueError):
            return {}
        return table if isinstance(table, dict) else {}

    def _segment_file(self, job: Job, path: Path, folder: Path, stages: Stages) -> tuple[list[Path], dict[str, Any]]:
        """Segment the image of a job and write the result.

        Args:
            job: names channels, model and functions.
            path: the downloaded image.
            folder: the files are written below ``folder / "results"``.
            stages: of the job.

        Returns:
            The files, and fields for the job.
        """
        segmentation = self._segmentation()
        options, sees_whole = segmentation.options, segmentation.steps.sees_whole
        outputs = CellOutputs(job, path, folder, options)
        with open_frames(
            path,
            job,
            options.limits,
            takes_parts=not sees_whole,
            takes=self._channels_taken(job),
            is_required=options.requires_channels,
            max_job_bytes=options.max_job_bytes,
        ) as frames:
            if frames is None:
                _refuse_links(job, _IN_PARTS)
                return segment_large(segmentation, job, stages.begin, path, outputs)
            self._note(job.id, frames.fields)
            if sees_whole or not segmentation.steps.takes_groups:
                _refuse_links(job, "this consumer sees the image whole")
                analysis = self._analyzed(frames, job, segmentation, stages)
                return self._write(analysis, frames, job, stages, outputs)
            stages.begin(JobStatus.PRE_PROCESSING, ended="download_time")
            plan = segmentation.choose(frames, job)
            if segmentation.exceeds_limits(frames, plan):
                _refuse_links(job, _IN_PARTS)
                return segment_enlarged(segmentation, job, stages.begin, frames, plan, outputs)
            plan = segmentation.divided(frames, job, plan)
            results = segmentation.results(frames, job, plan, outputs.confidences)
            stacks = LinkedPlanes(frames.calibration, outputs.confidences)
            if job.z == "link":
                results = stacks.linked(results)
            if len(plan.groups) == 1:
                files, found = self._write({LABELS: next(results)}, frames, job, stages, outputs)
            else:
                files, found = write_groups(results, frames, outputs.results, job.original_name, outputs.keep)
                stages.begin(JobStatus.SAVING_RESULTS, ended="postprocess_time")
                files += outputs.write(frames)
            return files, {**found, "objects": stacks.objects} if job.z == "link" and "objects" in found else found

    def _analyzed(self, frames: Frames, job: Job, segmentation: Segmentation, stages: Stages) -> Analysis:
        """Let `analyze` see all frames of an image."""
        # The class holds them, and what it makes of them.
        held = replace(frames, kept_bytes=frames.kept_bytes + 2 * frames.nbytes)
        held.check_memory(0, 0, segmentation.options.max_job_bytes)
        image = frames.all()
        stages.begin(JobStatus.PRE_PROCESSING, ended="download_time")
        return self.analyze(image, job)

    def _write(
        self, analysis: Analysis, frames: Frames, job: Job, stages: Stages, outputs: CellOutputs
    ) -> tuple[list[Path], dict[str, Any]]:
        stages.begin(JobStatus.SAVING_RESULTS, ended="postprocess_time")
        files, found = write_analysis(analysis, outputs.results, job.original_name, frames.calibration)
        return files + outputs.write(frames, arrays_of(LABELS, analysis.get(LABELS, []))), found

    @contextlib.contextmanager
    def _staged(self, job: Job) -> Iterator[Stages]:
        """Treat the calls of a model within the block as stages of a job."""
        self._stages = Stages(job, self.update_key, self.final_status, self._claimed)
        try:
            yield self._stages
        finally:
            self._stages = None

    # The method that a plug-in overrides, and what it may call in it.

    def analyze(self, image: Array, job: Job) -> Analysis:
        """Return the findings in an image: here, the output of the job's model and functions.

        Args:
            image: (B, Y, X, C) float32 with the values of the file and the channels that the job names.
            job: the running job.

        Returns:
            The findings by name, see `redis_consumer.segmentation.results.write_analysis`. ``labels`` are
            the images that every client knows.
        """
        return {LABELS: self._segmentation().apply(image, job)}

    def segment(self, image: Array, job: Job, model: ModelId | str | None = None) -> Array:
        """Segment an image with the model and functions of the job, or of the settings and the model's card.

        Args:
            image: (B, Y, X, C) float32. It is resized by the job's scale. The labels have the original size.
            job: the running job.
            model: another model, such as ``"Cells:1"``, that is run with the functions of its own card. The job's scale
                holds for the job's model; if both cards say a pixel size, it is converted to the one of this model.

        Returns:
            (B, Y, X, 1) integers; 0 is background, and each cell of a frame has its own number.

        Raises:
            ModelMismatch: their output is not a label image.
            InvalidJob, ModelNotFound, ModelServerUnavailable: as `predict`.
        """
        return self._segmentation().segment(image, job, None if model is None else model_of(model))

    def run_functions(
        self, process_type: str, names: Iterable[str], data: Any, options: Mapping[str, Mapping[str, Any]]
    ) -> Any:
        """Run functions in order, each on the output of the one before.

        Args:
            process_type: ``pre`` or ``post``.
            names: of the functions.
            data: (B, Y, X, C), or the list of the model's outputs.
            options: keyword arguments by function name.
        """
        return self._functions.run(process_type, names, data, options)

    def _get_processing_function(self, process_type: str, function_name: str) -> Callable[..., Any]:
        """Find a function by its name, in any case.

        Raises:
            InvalidJob: there is no such kind or function. Also a ValueError.
        """
        return self._functions.find(process_type.strip().lower(), function_name)

    def process(self, image: Any, key: str, process_type: str) -> Any:
        """Run one function by its name (contract, section 5.2). An empty name returns the image unchanged.

        The seconds that it took are written to the running job.

        Args:
            image: (B, Y, X, C) or (Y, X, C); after the model also the list of its outputs.
            key: name of the function, in any case.
            process_type: ``pre`` or ``post``.

        Returns:
            The output of the function, without its first axis if that has a size of 1.

        Raises:
            InvalidJob: there is no such kind or function. Also a ValueError.
        """
        if not key:
            return image
        started, kind = time.monotonic(), process_type.strip().lower()
        function = self._get_processing_function(kind, key)
        if is_built_in(function, kind, key):
            result = self._functions.run(kind, [key], as_batches(image), {})
        else:
            self._note_function(kind, key, function, {})
            result = function(image)
        if self._redis_hash is not None:
            self.update_key(self._redis_hash, {f"{kind}process_time": f"{time.monotonic() - started:.6f}"})
        return result[0] if isinstance(result, np.ndarray) and result.ndim > 2 and len(result) == 1 else result

    def preprocess(self, image: Any, keys: Iterable[str], streaming: bool = False) -> Any:  # noqa: ARG002 - older name
        """Run the functions before the model by their names, each with `process`.

        Args:
            image: as for `process`.
            keys: of the functions, in order.
            streaming: not used; functions run in the worker.
        """
        for key in keys:
            image = self.process(image, key, "pre")
        return image

    def postprocess(self, image: Any, keys: Iterable[str], streaming: bool = False) -> Any:  # noqa: ARG002 - older name
        """Run the functions after the model by their names; arguments as for `preprocess`."""
        for key in keys:
            image = self.process(image, key, "post")
        return image

    @property
    def _functions(self) -> Functions:
        return Functions(defaults.processing_functions(), self._note_function)

    def _segmentation(self) -> Segmentation:
        """What segments the images of the running job, by the settings of this moment and the methods of a plug-in."""
        own = own_methods(self)
        detects = bool(own & _DETECTION_METHODS)
        steps = Steps(
            predict=self._predict_by_name if _takes_version(self.predict) else self.predict,
            predict_cut=self.process_big_image,
            run_functions=self._run_older if own & _OLDER_METHODS else self.run_functions,
            image_scale=_with_arrays(self.get_image_scale) if detects else self.get_image_scale,
            detect_scale=self._detected_scale,
            detect_label=_with_arrays(self.detect_label) if detects else self.detect_label,
            write=self._note,
            noted=lambda: {} if self._claimed is None else self._claimed.noted,
            warn=self._warn,
            finds_scale=not own & {"detect_scale", "get_image_scale"},
            rest=self._rest,
            begin_group=self._begin_group,
            predicting=self._predicting,
            takes_groups=not own & _ALL_FRAMES_METHODS,
            sees_whole=self.needs_whole_image or bool(own & _WHOLE_METHODS),
            is_known=not own & {"predict", "process_big_image"},
        )
        options = defaults.segmentation_options()
        if self._predictor.is_in_process:
            options = replace(options, choices=replace(options.choices, or_packaged=self.models.or_packaged))
        return Segmentation(self._predictor, self._functions, options, steps)

    def _predict_by_name(self, image: Array, model: ModelId) -> Any:
        """Run a model by a plug-in's own `predict` that takes name and version one by one, as those of 2020 do."""
        return self.predict(image, model.name, model.label or model.version)

    def _run_older(
        self,
        process_type: str,
        names: Sequence[str],
        data: Any,
        options: Mapping[str, Mapping[str, Any]],  # noqa: ARG002
    ) -> Any:
        """Run functions by the methods of 2020, of which a plug-in has replaced one."""
        method = self.preprocess if process_type == "pre" else self.postprocess
        return as_batches(method(data[0] if len(data) == 1 else data, names))

    def _note(self, redis_hash: str, fields: Mapping[str, Any]) -> None:
        """Write what was found out about an image, with the next stage of the job if it has stages."""
        if self._claimed is not None:
            self._claimed.noted |= {name: str(value) for name, value in fields.items()}
        if self._stages is None:
            self.update_key(redis_hash, fields)
        else:
            self._stages.note(fields)

    def _warn(self, problem: str) -> None:
        """Add to the job's field ``warning``."""
        if self._claimed is None or problem in self._claimed.warnings:
            return
        self.logger.warning("Job %s: %s", self._claimed.job.id, problem)
        self._claimed.warnings.append(problem)
        self._note(self._claimed.job.id, {"warning": "; ".join(self._claimed.warnings)})

    def _begin_group(self, number: int, groups: int) -> None:
        if self._stages is not None:
            self._stages.begin_group(number, groups)

    @contextlib.contextmanager
    def _predicting(self) -> Iterator[None]:
        """The job is predicting in the first such block, and post-processing after it."""
        stages = self._stages
        if stages is not None:
            stages.begin(JobStatus.PREDICTING, ended="preprocess_time")
        yield
        if stages is not None:
            stages.begin(JobStatus.POST_PROCESSING, ended="prediction_time")

    def _note_function(self, kind: str, name: str, own: Callable[..., Any] | None, options: Mapping[str, Any]) -> None:
        self.provenance.note_function(kind, name, partial(_describe_function, kind, name, own, options))


def _refuse_links(job: Job, why: str) -> None:
    if job.z == "link":
        raise InvalidJob(f"field z: link can't be used, because {why}; give each, max or mean", job_id=job.id)


def _takes_version(method: Callable[..., Any]) -> bool:
    """Return whether a plug-in's ``predict`` takes name and version of a model separately, like those of 2020."""
    try:
        signature(method).bind(None, None)
    except TypeError:
        return True
    return False


def _with_arrays(method: Callable[..., Any]) -> Callable[..., Any]:
    """A plug-in's method that gets an image as an array in place of frames."""
    return lambda *given: method(*(each.all() if isinstance(each, Frames) else each for each in given))


def _describe_function(
    kind: str, name: str, own: Callable[..., Any] | None, given: Mapping[str, Any]
) -> dict[str, Any]:
    """Say where a function comes from and which options it has; `own` is one of a user's script."""
    if own is not None:
        return {**record.origin(own), "options": {}}
    function = registry.get_function(kind, name)
    return {
        **record.origin(function, registry.GROUPS[kind]),
        "options": record.options_of(function, given),
    }
