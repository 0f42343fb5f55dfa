"""Segments images: downloads one, runs a served model and its functions, and uploads the label image."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from redis_consumer.consumers import defaults
from redis_consumer.consumers.analysis import LABELS, Analysis, write_analysis
from redis_consumer.consumers.frames import GROUP_BYTES, Frames, joined
from redis_consumer.consumers.framewise import Work, groups_of, largest_bytes, write_groups
from redis_consumer.consumers.functions import OLDER_METHODS, FunctionConsumer, is_ours
from redis_consumer.consumers.input_image import open_input, role_of
from redis_consumer.consumers.large_image import run_large_image
from redis_consumer.consumers.predict import model_of, takes_version
from redis_consumer.consumers.results import shown_name
from redis_consumer.consumers.stages import Plan, Stages
from redis_consumer.errors import InvalidJob, ModelMismatch
from redis_consumer.job import Job, JobStatus

if TYPE_CHECKING:
    from redis_consumer.job import ModelId
    from redis_consumer.serving.base import Array


#: What jobs import when they first need it.
_LIBRARIES = ("tifffile", "scipy.ndimage", "skimage.measure", "skimage.morphology", "skimage.segmentation")
#: Methods whose replacements expect all frames at once.
_WHOLE_METHODS = (
    "detect_label",
    "detect_scale",
    "get_image_scale",
    "predict",
    "process_big_image",
    "run_functions",
    *OLDER_METHODS,
)


class ImageFileConsumer(FunctionConsumer):
    """Makes a label image of each image, whatever its format.

    Contract, sections 5.1 and 5.2: everything that isn't a zip.
    """

    _stages: Stages | None = None

    def _warm_up(self) -> None:
        """Load the models that the settings name, and the libraries that their jobs need."""
        super()._warm_up()
        for library in _LIBRARIES if self.call_bytes else ():
            import_module(library)

    def is_valid_hash(self, redis_hash: str | None) -> bool:
        """Say whether the job's input may be an image, or a zipped OME-Zarr; other archives go to the zip consumer."""
        if redis_hash is None:
            return False
        running = self.job is not None and self.job.id == redis_hash
        name = (
            self.job.get("input_file_name") if running and self.job else self.redis.hget(redis_hash, "input_file_name")
        )
        text = str(name or "").lower()
        return not text.endswith(".zip") or text.endswith(".zarr.zip")

    def _consume(self, redis_hash: str) -> str:
        """Run one job: download, pre-process, predict, post-process, save, zip, upload; each once, in this order."""
        job = self.job or Job(redis_hash, self.redis.hgetall(redis_hash))
        if job.is_final:
            return job.status
        from redis_consumer.archives import zip_files

        with self._staged(job) as stages, tempfile.TemporaryDirectory(prefix="redis-consumer-") as folder:
            stages.begin(JobStatus.STARTED, identity_started=self.name)
            self._check_channels(job)
            is_folder = job.input_file_name.rstrip("/").lower().endswith(".zarr")
            download = self.storage.download_folder if is_folder else self.storage.download
            path = Path(download(job.input_file_name, Path(folder, "input")))
            found: dict[str, Any] = {}
            with open_input(path, job, takes_parts=self._takes_parts) as frames:
                if frames is None:
                    with self._by_card():
                        files = run_large_image(self, job, stages, path, Path(folder))
                else:
                    files, found = self._analyzed(frames, job, stages, Path(folder, "results"))
            name = self._next_zip_name()
            key, url = self._upload_zip(zip_files(files, Path(folder, "results"), name=name))
            stages.finish(output_file_name=key, output_url=url, progress=100, **found)
        return self.final_status

    def _analyzed(self, frames: Frames, job: Job, stages: Stages, folder: Path) -> tuple[list[Path], dict[str, Any]]:
        """Analyze an image and write what was found; frames in groups, unless a plug-in wants to see them all."""
        if self._has_own("analyze", "apply_model", *_WHOLE_METHODS):
            # The class holds them, and what it makes of them.
            held = replace(frames, kept_bytes=frames.kept_bytes + 2 * frames.nbytes)
            held.check_memory(0, 0, defaults.max_job_bytes())
            image = frames.all()
            stages.begin(JobStatus.PRE_PROCESSING, ended="download_time")
            analysis = self.analyze(image, job)
        else:
            stages.begin(JobStatus.PRE_PROCESSING, ended="download_time")
            work = self._divided(frames, job)
            if len(work.groups) > 1:
                found = write_groups(self._results(frames, job, work), frames.shape[0], folder, job.original_name)
                stages.begin(JobStatus.SAVING_RESULTS, ended="postprocess_time")
                return found
            analysis = {LABELS: next(self._results(frames, job, work))}
        stages.begin(JobStatus.SAVING_RESULTS, ended="postprocess_time")
        return write_analysis(analysis, folder, job.original_name)

    @contextlib.contextmanager
    def _staged(self, job: Job) -> Iterator[Stages]:
        """Let the calls of a model within the block be stages of a job."""
        self._stages = Stages(self, job)
        try:
            yield self._stages
        finally:
            self._stages = None

    # The method that a plug-in overrides, and what it may call in it.

    def analyze(self, image: Array, job: Job) -> Analysis:
        """Say what is found in an image: here, what the job's model and functions make of it.

        Args:
            image: (B, Y, X, C) float32, as it is in the file, with the channels that the job names.
            job: the running job.

        Returns:
            By name what goes into the result, see `redis_consumer.consumers.analysis.write_analysis`. ``labels`` are
            the images that every client knows.
        """
        return {LABELS: self.apply_model(image, job)}

    def segment(self, image: Array, job: Job, model: ModelId | str | None = None) -> Array:
        """Find cells, by the model and the functions that a job names, else those of the settings and the model's card.

        Args:
            image: (B, Y, X, C) float32. It is resized by the job's scale, and the labels are brought back.
            job: the running job.
            model: another model, such as ``"Cells:1"``, that is run with the functions of its own card. The job's scale
                holds for the job's model; if both cards say a pixel size, it is converted to the one of this model.

        Returns:
            (B, Y, X, 1) integers; 0 is background, each cell of a frame has a number of its own.

        Raises:
            ModelMismatch: what they make is no label image.
            InvalidJob, ModelNotFound, ModelServerUnavailable: as `predict`.
        """
        first, *_ = self.apply_model(image, job) if model is None else self.apply_model(image, job, model)
        if first.dtype.kind not in "iu" or first.ndim != 4 or first.shape[-1] != 1:
            where = "in postprocess_function" if model is None else f"as postprocess in the card of model {model}"
            raise ModelMismatch(
                f"{shown_name(job.original_name)}: model and functions make {first.dtype} of shape {first.shape}, "
                f"which is no label image; name a function that makes one {where}, e.g. deep_watershed",
                job_id=job.id,
            )
        return first

    def apply_model(self, image: Array, job: Job, model: ModelId | str | None = None) -> list[Array]:
        """Run model and functions as `segment` does, whatever they make: (B, Y, X, C) each.

        Raises:
            InvalidJob, ModelNotFound, ModelMismatch, ModelServerUnavailable: as `predict`.
        """
        frames = Frames.of(image)
        work = self._divided(frames, job, None if model is None else model_of(model))
        return joined(self._results(frames, job, work), len(image))

    def _divided(self, frames: Frames, job: Job, other: ModelId | None = None) -> Work:
        """Choose model, functions and scale, and divide the frames, unless anything may look at several at once.

        Raises:
            ModelMismatch: the model takes another number of channels.
            InvalidJob, ModelNotFound, ModelServerUnavailable: as `predict`.
        """
        takes_groups = not self._has_own(*_WHOLE_METHODS)
        # What a plug-in replaces is given an array.
        look = frames if takes_groups else frames.all()
        plan = self._plan(job, look, other)
        scale = self.get_image_scale(job.scale, look, job.id)
        if plan.scale_ratio != 1:
            scale = self.get_image_scale(scale * plan.scale_ratio, look, job.id)
        scaled_yx = self._scaled_yx(job, frames.shape, scale)
        groups = [range(frames.shape[0])]
        if takes_groups and is_ours(plan.preprocess, plan.postprocess):
            tiling = None if self._has_own_client and job.cuts else self._tiling(plan.model)
            if tiling is None or len(tiling.sides) == 2:
                with _naming(job, plan.model):
                    groups = groups_of(frames, scaled_yx, tiling, is_cut=job.cuts > 0)
        pieces_yx = (side // max(job.cuts, 1) + (job.field_size if job.cuts else 0) for side in scaled_yx)
        height, width = map(min, pieces_yx, scaled_yx)
        call = self.call_bytes_of(plan.model, (len(groups[0]), height, width, frames.shape[3]))
        frames.check_memory(largest_bytes(frames, scaled_yx, groups), call, defaults.max_job_bytes())
        return Work(plan, scale, groups)

    def _results(self, frames: Frames, job: Job, work: Work) -> Iterator[list[Array]]:
        """Run model and functions over an image, group by group."""
        plan, groups = work.plan, work.groups
        for number, group in enumerate(groups):
            if self._claimed is not None:
                self._claimed.part = (number, len(groups))
            if self._stages is not None:
                self._stages.begin_group(number, len(groups))
            image = frames.read(group.start, group.stop)
            prepared = self._prepare(job, plan, image, work.scale)
            is_large = image.nbytes > GROUP_BYTES // 2
            del image
            if is_large:
                # What one stage has used is returned before the next one needs as much.
                self._rest()
            outputs = self._predict(job, plan, prepared)
            del prepared
            if is_large:
                self._rest()
            results = self._run_planned("post", plan.postprocess, outputs, plan.options)
            del outputs
            arrays: Sequence[Array] = [results] if isinstance(results, np.ndarray) else results
            yield [self._restore(array, frames.shape[1:3]) for array in arrays]
        if self._claimed is not None:
            self._claimed.part = (0, 1)

    def _predict_all(self, image: Array, model: ModelId) -> list[Array]:
        with self._predicting():
            return super()._predict_all(image, model)

    @contextlib.contextmanager
    def _predicting(self) -> Iterator[None]:
        """The job is predicting in the first such block, and post-processing after it."""
        stages = self._stages
        if stages is not None:
            stages.begin(JobStatus.PREDICTING, ended="preprocess_time")
        yield
        if stages is not None:
            stages.begin(JobStatus.POST_PROCESSING, ended="prediction_time", predict_retries=stages.retries)

    @property
    def _takes_parts(self) -> bool:
        """Whether an image may be done part by part: not where a plug-in wants to see it whole."""
        return not self._has_own("analyze", "apply_model", "predict", *OLDER_METHODS)

    def _check_channels(self, job: Job) -> None:
        """Refuse a job that names more channels than its model takes, before anything is downloaded or copied.

        Code of plug-ins may make fewer of them: an own `analyze`, client or function before the model.
        """
        model = None if defaults.get("LABEL_DETECT_ENABLED") else job.model
        if job.channels is None or model is None or not self._takes_parts or self._has_own_client:
            return
        card = self.models.card(model)
        names = job.preprocess_functions or (card.preprocess if card is not None else ())
        if is_ours(names, ()):
            with _naming(job, model):
                self._tiling(model).check_named(sum(index is not None for index in job.channels))

    def _plan(self, job: Job, image: Array | Frames, other: ModelId | None = None) -> Plan:
        """Choose model and functions: by the detected kind of image where that is on, else by job and card.

        A model without a card that the settings name for a kind of image gets the functions of the contract's
        section 5.4; any other one answers as it does.

        Args:
            job: the running job.
            image: as for `segment`.
            other: a model in place of the job's, whose functions don't hold for it.
        """
        own, preprocess, postprocess = self._asked_for(job, image)
        if other is not None and other != own:
            plan = self._with_card(other, (), ())
            return replace(plan, scale_ratio=self._scale_ratio(own, other))
        return self._with_card(own, preprocess, postprocess)

    def _asked_for(self, job: Job, image: Array | Frames) -> tuple[ModelId, tuple[str, ...], tuple[str, ...]]:
        """The model of a job, and the functions that it names."""
        model, postprocess = job.model, job.postprocess_functions
        if defaults.get("LABEL_DETECT_ENABLED"):
            label = job.label
            if label is None:
                label = self.detect_label(image)
                self.update_key(job.id, {"label": label})
            model = defaults.model_of_label(label)
            postprocess = (defaults.postprocess_of_label(label),)
        model = model or defaults.model_of_label(job.label if job.label is not None else role_of(job))
        return model, job.preprocess_functions, postprocess

    def _with_card(self, model: ModelId, preprocess: tuple[str, ...], postprocess: tuple[str, ...]) -> Plan:
        """Complete what a job names by the model's card, or by the settings if it has none."""
        card = self.models.card(model)
        if card is not None:
            pre, post, options = card.preprocess, card.postprocess, card.functions
        else:
            (pre, post), options = defaults.functions_of_model(model), {}
            if not (pre or preprocess or postprocess):
                self.logger.warning(
                    "Model %s has no card.toml and the job names no functions for it: its outputs are taken as they "
                    "are; put a card into the bucket as models/%s/<version>/card.toml",
                    model,
                    model.name,
                )
        return Plan(model, preprocess or pre, postprocess or post, options)

    def _scale_ratio(self, own: ModelId, other: ModelId) -> float:
        """The factor from the scale for one model to that for another; 1 unless both cards say a pixel size."""
        own_um, other_um = (card.pixel_size_um if (card := self.models.card(model)) else None for model in (own, other))
        return own_um / other_um if own_um and other_um else 1.0

    def _prepare(self, job: Job, plan: Plan, image: Array, scale: float) -> Array:
        """Resize the image to the model's pixel size and run the functions that go before the model."""
        from redis_consumer.options import ImageLimits
        from redis_consumer.processing.resize import resize_image

        height, width = self._scaled_yx(job, image.shape, scale)
        held = image.shape[0] * height * width * image.shape[-1] * image.itemsize
        if scale > 1 and held > ImageLimits.max_bytes:
            raise InvalidJob(
                f"field scale: {scale:g} makes {shown_name(job.original_name)} {held >> 20} MiB large, allowed are "
                f"{ImageLimits.max_bytes >> 20} MiB; give a smaller scale, or submit fewer frames",
                job_id=job.id,
            )
        scaled = image if scale == 1 else resize_image(image, (height, width))
        prepared = self._run_planned("pre", plan.preprocess, scaled, plan.options)
        return np.asarray(prepared, dtype=np.float32)

    @staticmethod
    def _scaled_yx(job: Job, shape: Sequence[int], scale: float) -> tuple[int, int]:
        """Sides of an image (B, Y, X, C) at the model's pixel size."""
        height, width = (max(1, round(side * scale)) for side in shape[1:3])
        limits = int(defaults.get("MAX_IMAGE_HEIGHT")), int(defaults.get("MAX_IMAGE_WIDTH"))
        if height > limits[0] or width > limits[1]:
            raise InvalidJob(
                f"field scale: {scale:g} makes {shown_name(job.original_name)} {height} x {width} pixels, "
                f"more than {limits[0]} x {limits[1]} (MAX_IMAGE_HEIGHT, MAX_IMAGE_WIDTH); give a smaller scale",
                job_id=job.id,
            )
        return height, width

    def _predict(self, job: Job, plan: Plan, image: Array) -> list[Array]:
        """Run the model; jobs that set ``cuts`` have the image cut as they say, unless the model's card says how."""
        card = self.models.card(plan.model)
        model = plan.model
        outputs: Array | list[Array]
        with _naming(job, model):
            version = model.label or model.version
            if job.cuts == 0 or (card is not None and card.tile is not None):
                with self._by_card():
                    outputs = self.predict(image, *([model.name, version] if takes_version(self.predict) else [model]))
            else:
                with self._predicting():
                    outputs = self.process_big_image(job.cuts, image, job.field_size, model.name, version)
        return outputs if isinstance(outputs, list) else [outputs]

    @staticmethod
    def _restore(result: Array, shape_yx: tuple[int, int]) -> Array:
        """Bring a result (B, y, x, C) back to the size of the image: labels by nearest neighbour, others linearly."""
        from redis_consumer.processing.resize import resize_image, resize_labels

        if result.ndim != 4 or result.shape[1:3] == shape_yx:
            return result
        return (resize_labels if result.dtype.kind in "iub" else resize_image)(result, shape_yx)


@contextlib.contextmanager
def _naming(job: Job, model: ModelId) -> Iterator[None]:
    """Let a message that an image doesn't fit its model name the image."""
    try:
        yield
    except ModelMismatch as error:
        message = f"{shown_name(job.original_name)}: {str(error).removeprefix('image: ')}"
        raise ModelMismatch(message, job_id=job.id, model=str(model)) from error
