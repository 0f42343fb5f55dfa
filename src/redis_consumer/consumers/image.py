"""Segments images: downloads one, runs a served model and its functions, and uploads the label image."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from redis_consumer.consumers import defaults
from redis_consumer.consumers.analysis import LABELS, Analysis, write_analysis
from redis_consumer.consumers.input_image import load_input, role_of
from redis_consumer.consumers.large_image import run_large_image
from redis_consumer.consumers.predict import model_of, takes_version, with_batch
from redis_consumer.consumers.results import shown_name
from redis_consumer.consumers.serving import TensorFlowServingConsumer
from redis_consumer.consumers.stages import Plan, Stages
from redis_consumer.errors import InvalidJob, ModelMismatch
from redis_consumer.job import Job, JobStatus

if TYPE_CHECKING:
    from redis_consumer.job import ModelId
    from redis_consumer.serving.base import Array


#: Methods by which consumers of 2020 run a job's functions, and which their subclasses replace.
_OLDER_METHODS = ("_get_processing_function", "preprocess", "postprocess", "process")


class ImageFileConsumer(TensorFlowServingConsumer):
    """Makes a label image of each image, whatever its format.

    Contract, sections 5.1 and 5.2: everything that isn't a zip.
    """

    _stages: Stages | None = None

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
            image = load_input(path, job, takes_parts=self._takes_parts)
            found: dict[str, Any] = {}
            if image is None:
                with self._by_card():
                    files = run_large_image(self, job, stages, path, Path(folder))
            else:
                stages.begin(JobStatus.PRE_PROCESSING, ended="download_time")
                analysis = self.analyze(image, job)
                stages.begin(JobStatus.SAVING_RESULTS, ended="postprocess_time")
                files, found = write_analysis(analysis, Path(folder, "results"), job.original_name)
            name = self._next_zip_name()
            key, url = self._upload_zip(zip_files(files, Path(folder, "results"), name=name))
            stages.finish(output_file_name=key, output_url=url, progress=100, **found)
        return self.final_status

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
        plan = self._plan(job, image, None if model is None else model_of(model))
        outputs = self._predict(job, plan, self._prepare(job, plan, image))
        results = self._run_planned("post", plan.postprocess, outputs, plan.options)
        arrays: Sequence[Array] = [results] if isinstance(results, np.ndarray) else results
        return [self._restore(array, image.shape[1:3]) for array in arrays]

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
        return not self._has_own("analyze", "apply_model", "predict", *_OLDER_METHODS)

    def _has_own(self, *methods: str) -> bool:
        """Whether a plug-in has replaced one of these methods."""
        return any(
            name in self.__dict__ or getattr(type(self), name) is not getattr(ImageFileConsumer, name)
            for name in methods
        )

    def _check_channels(self, job: Job) -> None:
        """Refuse a job that names more channels than its model takes, before anything is downloaded or copied.

        Code of plug-ins may make fewer of them: an own `analyze`, client or function before the model.
        """
        from redis_consumer.processing.registry import BUILT_IN

        model = None if defaults.get("LABEL_DETECT_ENABLED") else job.model
        if job.channels is None or model is None or not self._takes_parts or self._has_own_client:
            return
        card = self.models.card(model)
        names = job.preprocess_functions or (card.preprocess if card is not None else ())
        if any(_own_function("pre", name) or name.strip().lower() not in BUILT_IN["pre"] for name in names):
            return
        try:
            self._tiling(model).check_named(sum(index is not None for index in job.channels))
        except ModelMismatch as error:
            raise ModelMismatch(f"{shown_name(job.original_name)}: {error}", job_id=job.id, model=str(model)) from error

    def _plan(self, job: Job, image: Array, other: ModelId | None = None) -> Plan:
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

    def _asked_for(self, job: Job, image: Array) -> tuple[ModelId, tuple[str, ...], tuple[str, ...]]:
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

    def _prepare(self, job: Job, plan: Plan, image: Array) -> Array:
        """Resize the image to the model's pixel size and run the functions that go before the model."""
        from redis_consumer.images.image import DEFAULT_MAX_BYTES
        from redis_consumer.processing.resize import resize_image

        scale = self.get_image_scale(job.scale, image, job.id)
        if plan.scale_ratio != 1:
            scale = self.get_image_scale(scale * plan.scale_ratio, image, job.id)
        height, width = (max(1, round(side * scale)) for side in image.shape[1:3])
        limits = int(defaults.get("MAX_IMAGE_HEIGHT")), int(defaults.get("MAX_IMAGE_WIDTH"))
        if height > limits[0] or width > limits[1]:
            raise InvalidJob(
                f"field scale: {scale:g} makes {shown_name(job.original_name)} {height} x {width} pixels, "
                f"more than {limits[0]} x {limits[1]} (MAX_IMAGE_HEIGHT, MAX_IMAGE_WIDTH); give a smaller scale",
                job_id=job.id,
            )
        held = image.shape[0] * height * width * image.shape[-1] * image.itemsize
        if scale > 1 and held > DEFAULT_MAX_BYTES:
            raise InvalidJob(
                f"field scale: {scale:g} makes {shown_name(job.original_name)} {held >> 20} MiB large, allowed are "
                f"{DEFAULT_MAX_BYTES >> 20} MiB; give a smaller scale, or submit fewer frames",
                job_id=job.id,
            )
        scaled = image if scale == 1 else resize_image(image, (height, width))
        prepared = self._run_planned("pre", plan.preprocess, scaled, plan.options)
        return np.asarray(prepared, dtype=np.float32)

    def _predict(self, job: Job, plan: Plan, image: Array) -> list[Array]:
        """Run the model; jobs that set ``cuts`` have the image cut as they say, unless the model's card says how."""
        card = self.models.card(plan.model)
        model = plan.model
        outputs: Array | list[Array]
        try:
            version = model.label or model.version
            if job.cuts == 0 or (card is not None and card.tile is not None):
                with self._by_card():
                    outputs = self.predict(image, *([model.name, version] if takes_version(self.predict) else [model]))
            else:
                with self._predicting():
                    outputs = self.process_big_image(job.cuts, image, job.field_size, model.name, version)
        except ModelMismatch as error:
            message = f"{shown_name(job.original_name)}: {str(error).removeprefix('image: ')}"
            raise ModelMismatch(message, job_id=job.id, model=str(model)) from error
        return outputs if isinstance(outputs, list) else [outputs]

    @staticmethod
    def _restore(result: Array, shape_yx: tuple[int, int]) -> Array:
        """Bring a result (B, y, x, C) back to the size of the image: labels by nearest neighbour, others linearly."""
        from redis_consumer.processing.resize import resize_image, resize_labels

        if result.ndim != 4 or result.shape[1:3] == shape_yx:
            return result
        return (resize_labels if result.dtype.kind in "iub" else resize_image)(result, shape_yx)

    # The functions by name, as plug-ins call them.

    def _run_planned(
        self, process_type: str, names: Sequence[str], data: Any, options: Mapping[str, Mapping[str, Any]]
    ) -> Any:
        """Run the functions of a job, by the methods of 2020 where a plug-in has replaced one of these."""
        if not self._has_own(*_OLDER_METHODS):
            return self.run_functions(process_type, names, data, options)
        method = self.preprocess if process_type == "pre" else self.postprocess
        results = method(data[0] if len(data) == 1 else data, names)
        return with_batch(results) if isinstance(results, np.ndarray) else [with_batch(each) for each in results]

    def run_functions(
        self, process_type: str, names: Iterable[str], data: Any, options: Mapping[str, Mapping[str, Any]]
    ) -> Any:
        """Run functions in order, each on what the one before gave.

        Args:
            process_type: ``pre`` or ``post``.
            names: of the functions.
            data: (B, Y, X, C), or the list of the model's outputs.
            options: keyword arguments by function name.
        """
        for name in names:
            data = self._run_function(process_type, name, data, options)
        return data

    def _run_function(
        self, process_type: str, name: str, data: Any, options: Mapping[str, Mapping[str, Any]] | None = None
    ) -> Any:
        from redis_consumer.processing import registry

        self.note_functions(process_type, [name], options or {})
        own = _own_function(process_type, name)
        return own(data) if own else registry.apply(process_type, [name], data, options or {})

    def note_functions(self, process_type: str, names: Iterable[str], options: Mapping[str, Mapping[str, Any]]) -> None:
        """Note for the record of the result that functions are run; arguments as for `run_functions`."""
        for name in filter(None, names):
            describe = partial(_describe_function, process_type, name, options.get(name.strip().lower(), {}))
            self.provenance.note_function(process_type, name, describe)

    def _get_processing_function(self, process_type: str, function_name: str) -> Callable[..., Any]:
        """Find a function by its name, in any case.

        Raises:
            InvalidJob: there is no such kind or function. Also a ValueError.
        """
        from redis_consumer.processing import registry

        kind = process_type.strip().lower()
        return _own_function(kind, function_name) or registry.get_function(kind, function_name)

    def process(self, image: Any, key: str, process_type: str) -> Any:
        """Run one function by its name (contract, section 5.2); an empty name leaves the image as it is.

        The seconds that it took are written to the running job.

        Args:
            image: (B, Y, X, C) or (Y, X, C); after the model also the list of its outputs.
            key: name of the function, in any case.
            process_type: ``pre`` or ``post``.

        Returns:
            What the function gives, without its leading axis where that has a size of 1.

        Raises:
            InvalidJob: there is no such kind or function. Also a ValueError.
        """
        if not key:
            return image
        started, kind = time.monotonic(), process_type.strip().lower()
        function = self._get_processing_function(kind, key)
        if _is_built_in(function, kind, key):
            batch = with_batch(image) if isinstance(image, np.ndarray) else [with_batch(each) for each in image]
            result = self._run_function(kind, key, batch)
        else:
            self.provenance.note_function(kind, key, partial(_describe_own, function))
            result = function(image)
        if self._redis_hash is not None:
            self.update_key(self._redis_hash, {f"{kind}process_time": f"{time.monotonic() - started:.6f}"})
        return result[0] if isinstance(result, np.ndarray) and result.ndim > 2 and len(result) == 1 else result

    def preprocess(self, image: Any, keys: Iterable[str], streaming: bool = False) -> Any:  # noqa: ARG002 - older name
        """Run the functions that go before the model by their names, each by `process`.

        Args:
            image: as for `process`.
            keys: of the functions, in order.
            streaming: not used; functions run in the worker.
        """
        for key in keys:
            image = self.process(image, key, "pre")
        return image

    def postprocess(self, image: Any, keys: Iterable[str], streaming: bool = False) -> Any:  # noqa: ARG002 - older name
        """Run the functions that go after the model by their names; arguments as for `preprocess`."""
        for key in keys:
            image = self.process(image, key, "post")
        return image


def _own_function(process_type: str, name: str) -> Callable[..., Any] | None:
    """The function that a script of the user's has put in by this name, in any case."""
    functions = defaults.get("PROCESSING_FUNCTIONS").get(process_type, {})
    wanted = name.strip().lower()
    found = functions.get(name) or next((functions[key] for key in functions if key.lower() == wanted), None)
    return None if found is None or _is_built_in(found, process_type, name) else found


def _is_built_in(function: Callable[..., Any], process_type: str, name: str) -> bool:
    from redis_consumer.processing import registry

    is_known = name.strip().lower() in registry.BUILT_IN.get(process_type, {})
    return is_known and function is registry.get_function(process_type, name)


def _describe_own(function: Callable[..., Any]) -> dict[str, Any]:
    from redis_consumer.consumers import conditions

    return {**conditions.origin(function), "options": {}}


def _describe_function(process_type: str, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    from redis_consumer.consumers import conditions
    from redis_consumer.processing import registry

    own = _own_function(process_type, name)
    if own is not None:
        return _describe_own(own)
    function = registry.get_function(process_type, name)
    origin = conditions.origin(function, registry.GROUPS[process_type])
    return {**origin, "options": conditions.options_of(function, given)}
