"""Segments images: plans, prepares, predicts, post-processes and restores the size of the image."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from redis_consumer.errors import InvalidJob, ModelMismatch, ModelNotFound
from redis_consumer.images.axes import as_read
from redis_consumer.job import Job, ModelId
from redis_consumer.models.card import Card
from redis_consumer.processing import registry
from redis_consumer.processing.outlines import fill_holes
from redis_consumer.processing.quality import peak_maps
from redis_consumer.processing.registry import Functions, job_options
from redis_consumer.processing.resize import resize_image, resize_labels, scaled_sides
from redis_consumer.processing.whole_image import can_fit
from redis_consumer.segmentation.frames import GROUP_BYTES, Frames, frames_for, joined
from redis_consumer.segmentation.options import SegmentationOptions
from redis_consumer.segmentation.plan import Plan, Steps
from redis_consumer.segmentation.predictor import Predictor
from redis_consumer.segmentation.scale import SizeCheck, found_scale, given_scale
from redis_consumer.segmentation.size_estimate import estimated_diameter
from redis_consumer.segmentation.tiling import Tiling
from redis_consumer.serving.base import Array
from redis_consumer.text import shown_name

logger = logging.getLogger(__name__)
#: Labels of the settings' models, for messages.
KINDS = "0 nuclei, 1 cytoplasm, 2 phase contrast, 3 stained tissue"


@dataclass(frozen=True)
class Segmentation:
    """Segments the images of a job with a model and functions.

    Attributes:
        predictor: runs models.
        functions: the functions that jobs can name.
        options: limits and choices.
        steps: the methods of a consumer for the steps.
    """

    predictor: Predictor
    functions: Functions
    options: SegmentationOptions
    steps: Steps

    def segment(self, image: Array, job: Job, model: ModelId | None = None) -> Array:
        """Segment an image with the model and functions of the job, or of the settings and the model's card.

        Args:
            image: (B, Y, X, C) float32.
            job: the running job.
            model: another model, which is run with the functions of its own card.

        Returns:
            (B, Y, X, 1) integers; 0 is background.

        Raises:
            ModelMismatch: their output is not a label image.
            InvalidJob, ModelNotFound, ModelServerUnavailable: as `Predictor.predict`.
        """
        first, *_ = self.apply(image, job, model)
        if first.dtype.kind not in "iu" or first.ndim != 4 or first.shape[-1] != 1:
            where = "in postprocess_function" if model is None else f"as postprocess in the card of model {model}"
            raise ModelMismatch(
                f"{shown_name(job.original_name)}: model and functions make {first.dtype} of shape {first.shape}, "
                f"which is no label image; name a function that makes one {where}, e.g. deep_watershed",
                job_id=job.id,
            )
        return first

    def apply(self, image: Array, job: Job, model: ModelId | None = None) -> list[Array]:
        """Run model and functions like `segment`, with any output, (B, Y, X, C) each."""
        frames = Frames.of(image)
        return joined(self.results(frames, job, self.plan(frames, job, model)), len(image))

    def plan(self, frames: Frames, job: Job, other: ModelId | None = None) -> Plan:
        """Choose model, functions and scale, and divide the frames, unless a step needs several at once.

        Args:
            frames: frames of the image. Only frames for detection are read.
            job: the running job.
            other: a model instead of the job's. The job's functions don't apply to it.

        Raises:
            InvalidImage: the image needs more memory than a job is allowed.
            ModelMismatch: the model takes another number of channels.
            InvalidJob, ModelNotFound, ModelServerUnavailable: as `Predictor.predict`.
        """
        return self.divided(frames, job, self.choose(frames, job, other))

    def exceeds_limits(self, frames: Frames, plan: Plan) -> bool:
        """Return whether the image must be processed in parts, because it is too large at the scale of its plan.

        If a function needs the whole image, it is processed at once, as far as the memory of a job allows it.
        """
        limits, (height, width) = self.options.limits, scaled_sides(frames.shape[1:3], plan.scale)
        is_large = height > (limits.max_height or height) or width > (limits.max_width or width)
        return is_large and can_fit(plan.preprocess) and self.functions.are_ours(plan.preprocess, ())

    def divided(self, frames: Frames, job: Job, plan: Plan) -> Plan:
        """Divide the frames for a plan of `choose`, see `plan`."""
        scaled_yx = scaled_sides(frames.shape[1:3], plan.scale)
        groups: tuple[range, ...] = (range(frames.shape[0]),)
        if self.steps.takes_groups and self.functions.are_ours(plan.preprocess, plan.postprocess):
            tiling = None if self.predictor.ask_one and job.cuts else self.predictor.tiling(plan.model)
            if tiling is None or len(tiling.sides) == 2:
                with naming_image(job, plan.model, frames.axes_read):
                    groups = _groups(frames, scaled_yx, tiling, is_cut=job.cuts > 0)
        self._check_memory(frames, job, replace(plan, groups=groups), scaled_yx)
        return replace(plan, groups=groups)

    def choose(self, frames: Frames, job: Job, other: ModelId | None = None) -> Plan:
        """Choose model, functions and scale by the detected kind of image, or by job and card if detection is off.

        A model without a card that the settings name for a kind of image gets the functions of the contract's section
        5.4. Any other model gets none.

        Args:
            frames: frames for detection.
            job: the running job.
            other: as for `plan`.
        """
        own, preprocess, postprocess = self._asked_for(frames, job)
        is_other = other is not None and other != own
        plan = self._with_card(other, (), ()) if other and is_other else self._with_card(own, preprocess, postprocess)
        if not is_other:
            plan = self._with_job_options(plan, job)
        scale = self._scale(frames, job, own)
        ratio = self._scale_ratio(own, plan.model) if is_other else 1.0
        if ratio != 1:
            scale = self.steps.image_scale(scale * ratio, frames, job.id)
        return replace(plan, scale=scale)

    def _scale(self, frames: Frames, job: Job, model: ModelId) -> float:
        """Choose the scale of a job for its own model, and say where it comes from."""
        steps, options, card = self.steps, self.options.scale, self.predictor.models.card(model)
        known = job.with_fields(**steps.noted())
        chosen = given_scale(known, card, options)
        if chosen is None and card is not None and options.is_automatic and steps.finds_scale:
            estimate = partial(self._estimate, model, card)
            with naming_image(job, model):
                chosen = found_scale(frames, card, options, steps.detect_scale, estimate)
        if chosen is None:
            return steps.image_scale(None, frames, job.id)
        if known.get("scale_from") != chosen.source:
            steps.write(job.id, chosen.fields)
            if chosen.problem:
                steps.warn(chosen.problem)
        return steps.image_scale(chosen.scale, frames, job.id)

    def _estimate(self, model: ModelId, card: Card, frames: Frames) -> float | None:
        """Estimate the diameter of the objects in an image, with a model that the model server has."""
        if not self.steps.is_known or self.predictor.ask_one is not None:
            return None
        # Its functions are not noted for the record of the result.
        return estimated_diameter(frames, card, model, self.predictor, Functions(self.functions.own))

    def size_check(self, plan: Plan, confidences: list[list[Array]] | None = None) -> SizeCheck:
        """Return what compares the objects of a result with the size that the model is made for.

        Args:
            plan: how the result is made.
            confidences: gets the confidence of each object, see `SizeCheck`; None if it is not wanted.
        """
        card = self.predictor.models.card(plan.model)
        return SizeCheck(None if card is None else card.object_diameter_px, plan.scale, confidences)

    def peaks_of(self, plan: Plan, outputs: Sequence[Array]) -> Sequence[Array]:
        """Return the outputs with the peaks of objects, see `redis_consumer.processing.quality.peak_maps`."""
        is_known = self.functions.are_ours((), plan.postprocess)
        return peak_maps(plan.postprocess, plan.options, outputs) if is_known else ()

    def tell_sizes(self, job: Job, sizes: SizeCheck) -> None:
        """Write the quality of a result, and warn if it is poor or its objects are far from the model's size."""
        if sizes.fields:
            self.steps.write(job.id, sizes.fields)
        for warning in sizes.warnings:
            self.steps.warn(warning)

    def results(
        self, frames: Frames, job: Job, plan: Plan, confidences: list[list[Array]] | None = None
    ) -> Iterator[list[Array]]:
        """Run model and functions over an image, group by group.

        Args:
            frames: the image.
            job: the running job.
            plan: how it is segmented.
            confidences: as for `size_check`. The frames of a group are added before its results are yielded.

        Yields:
            The results of each group at the size of the image, (b, Y, X, C) each.
        """
        state, sizes = self.predictor.state, self.size_check(plan, confidences)
        try:
            for number, group in enumerate(plan.groups):
                state.part = (number, len(plan.groups))
                self.steps.begin_group(number, len(plan.groups))
                # Bound to no name, since the next group would be computed beside it.
                yield self._results_of(group, frames, job, plan, sizes)
        finally:
            state.part = (0, 1)

    def _results_of(self, group: range, frames: Frames, job: Job, plan: Plan, sizes: SizeCheck) -> list[Array]:
        """Run model and functions over a group of frames."""
        steps = self.steps
        image = frames.read(group.start, group.stop)
        for note in frames.notes:
            steps.warn(note)
        prepared = self._prepare(image, plan)
        is_large = image.nbytes > GROUP_BYTES // 2
        del image
        if is_large:
            # The memory of one step is returned before the next one needs as much.
            steps.rest()
        with naming_image(job, plan.model, frames.axes_read):
            outputs = self._outputs_of(prepared, job, plan)
        options = registry.options_of_objects(plan.postprocess, plan.options, (prepared.shape[1], prepared.shape[2]))
        del prepared
        if is_large:
            steps.rest()
        results = steps.run_functions("post", plan.postprocess, outputs, options)
        sizes.add(results, outputs, self.peaks_of(plan, outputs) if sizes.confidences is not None else ())
        del outputs
        if group == plan.groups[-1]:
            self.tell_sizes(job, sizes)
        arrays: Sequence[Array] = [results] if isinstance(results, np.ndarray) else results
        return [restore(array, frames.shape[1:3], plan.postprocess) for array in arrays]

    def _outputs_of(self, prepared: Array, job: Job, plan: Plan) -> list[Array]:
        """Run the model over prepared images."""
        model, steps = plan.model, self.steps
        if registry.finds_objects(plan.postprocess) and steps.is_known:
            with steps.predicting():
                replies = [self.predictor.ask(image[np.newaxis], model) for image in prepared]
            return [np.concatenate(arrays) for arrays in zip(*replies, strict=True)]
        if self._is_cut(job, model):
            with steps.predicting():
                version = model.label or model.version
                outputs = steps.predict_cut(job.cuts, prepared, job.field_size, model.name, version)
        else:
            with self.predictor.state.by_card():
                outputs = steps.predict(prepared, model)
        return outputs if isinstance(outputs, list) else [outputs]

    def channels_taken(self, job: Job) -> int | None:
        """Return how many channels the model of a job takes, before anything is downloaded; None if it isn't known.

        The kind of image, or a function that isn't ours, may change it.

        Raises:
            ModelMismatch: the job names more channels.
            InvalidJob: it names channels for several roles, but no model.
        """
        if self.predictor.ask_one is not None or not self.steps.is_known:
            return None
        choices = self.options.choices
        if self.options.detects_label and job.label is None:
            counts = {self._channels_of(model, job) for model in self._served(choices.models)}
            return counts.pop() if len(counts) == 1 else None
        own = None if self.options.detects_label else job.model
        return self._channels_of(own or choices.model_of(job.label if job.label is not None else _role_of(job)), job)

    def _served(self, labels: Iterable[int]) -> Iterator[ModelId]:
        """Models of labels, without those that aren't served."""
        for model in map(self.options.choices.model_of, labels):
            try:
                self.predictor.tiling(model)
            except ModelNotFound:
                continue
            yield model

    def _channels_of(self, model: ModelId, job: Job) -> int | None:
        card = self.predictor.models.card(model)
        names = job.preprocess_functions or (card.preprocess if card is not None else ())
        if not self.functions.are_ours(names, ()):
            return None
        with naming_image(job, model):
            tiling = self.predictor.tiling(model)
            tiling.check_named(sum(each is not None for each in job.channels or ()))
        return tiling.channels

    def _asked_for(self, frames: Frames, job: Job) -> tuple[ModelId, tuple[str, ...], tuple[str, ...]]:
        """The model of a job, and the functions that it names."""
        choices, model, postprocess = self.options.choices, job.model, job.postprocess_functions
        if self.options.detects_label:
            label = job.label
            if label is None:
                label = self._detected_label(frames, job)
            model = choices.model_of(label)
            postprocess = (choices.postprocess_of(label),)
        model = model or choices.model_of(job.label if job.label is not None else _role_of(job))
        return model, job.preprocess_functions, postprocess

    def _detected_label(self, frames: Frames, job: Job) -> int:
        """Detect the kind of an image, and write it to the job.

        Raises:
            InvalidJob: there is no model for it.
        """
        label = self.steps.detect_label(frames)
        if label not in self.options.choices.models:
            raise InvalidJob(
                f"{shown_name(job.original_name)}: looks like no kind of image that there is a model for (the detected "
                f"label is {label}); check the channel, or give field label ({KINDS})",
                job_id=job.id,
            )
        self.steps.write(job.id, {"label": label})
        return label

    def _with_card(self, model: ModelId, preprocess: tuple[str, ...], postprocess: tuple[str, ...]) -> Plan:
        """Complete what a job names by the model's card, or by the settings if it has none."""
        card = self.predictor.models.card(model)
        choices = self.options.choices
        own = choices.options if card is None else card.functions
        options = {**own, **{name: {**own.get(name, {}), **given} for name, given in choices.given.items()}}
        if card is not None:
            return Plan(model, preprocess or card.preprocess, postprocess or card.postprocess, options)
        pre, post = choices.functions_of(model)
        if not (pre or preprocess or postprocess):
            logger.warning(
                "Model %s has no card.toml and the job names no functions for it: its outputs are taken as they "
                "are; put a card into the bucket as models/%s/<version>/card.toml",
                model,
                model.name,
            )
        return Plan(model, preprocess or pre, postprocess or post, options)

    def _with_job_options(self, plan: Plan, job: Job) -> Plan:
        """Add the options of functions that a job sets."""
        card = self.predictor.models.card(plan.model)
        named = {"pre": plan.preprocess, "post": plan.postprocess}
        given = job_options(job.fields, self.functions, named, () if card is None else card.per_job)
        return replace(plan, options={**plan.options, **{
            name: {**plan.options.get(name, {}), **options} for name, options in given.items()
        }})  # fmt: skip

    def _scale_ratio(self, own: ModelId, other: ModelId) -> float:
        """The factor from the scale for one model to that for another; 1 unless both cards say a pixel size."""
        cards = map(self.predictor.models.card, (own, other))
        own_um, other_um = (card.pixel_size_um if card else None for card in cards)
        return own_um / other_um if own_um and other_um else 1.0

    def _is_cut(self, job: Job, model: ModelId) -> bool:
        """Whether an image is cut as its job says; else as the model's card does."""
        card = self.predictor.models.card(model)
        return job.cuts != 0 and (card is None or card.tile is None)

    def _check_memory(self, frames: Frames, job: Job, plan: Plan, scaled_yx: tuple[int, int]) -> None:
        """Refuse an image that needs more memory than a job is allowed, before its pixels are read."""
        pieces_yx = (side // max(job.cuts, 1) + (job.field_size if job.cuts else 0) for side in scaled_yx)
        height, width = map(min, pieces_yx, scaled_yx)
        shape = (len(plan.groups[0]), height, width, frames.shape[3])
        call = self.predictor.call_bytes_of(plan.model, shape, is_known=self.steps.is_known)
        pixels = max(frames.shape[1] * frames.shape[2], scaled_yx[0] * scaled_yx[1])
        held = 4 * len(plan.groups[0]) * pixels * frames.shape[3]
        frames.check_memory(held, call, self.options.max_job_bytes, plan.scale)

    def _prepare(self, image: Array, plan: Plan) -> Array:
        """Resize the image to the model's pixel size and run the functions that go before the model."""
        scaled = image if plan.scale == 1 else resize_image(image, scaled_sides(image.shape[1:3], plan.scale))
        prepared = self.steps.run_functions("pre", plan.preprocess, scaled, plan.options)
        return np.asarray(prepared, dtype=np.float32)


def restore(result: Array, shape_yx: tuple[int, int], postprocess: Sequence[str] = ()) -> Array:
    """Bring a result (B, y, x, C) back to the size of the image: labels by nearest neighbour, others linearly.

    A gap of a pixel can become a hole in a smaller image. So `fill_holes` among the functions is run again.
    """
    if result.ndim != 4 or result.shape[1:3] == shape_yx:
        return result
    resized: Array = (resize_labels if result.dtype.kind in "iub" else resize_image)(result, shape_yx)
    fills = result.dtype.kind in "iu" and "fill_holes" in map(str.lower, postprocess)
    return fill_holes(resized) if fills else resized


def _groups(frames: Frames, scaled_yx: tuple[int, int], tiling: Tiling | None, *, is_cut: bool) -> tuple[range, ...]:
    """Divide frames into groups that fit into memory, at their own size and the model's, and fill the model's calls."""
    height, width, channels = frames.shape[1:]
    largest = (height, width, channels)
    if scaled_yx[0] * scaled_yx[1] > height * width:
        largest = (*scaled_yx, channels)
    if tiling is not None:
        tiling.check_channels(channels)
    if tiling is None or is_cut:
        return tuple(frames.groups(frames_for(largest)))
    planned = tiling.planned(np.broadcast_to(np.zeros((), np.float32), (1, *scaled_yx, channels)))
    return tuple(frames.groups(frames_for(largest, planned)))


def _role_of(job: Job) -> int | None:
    """Kind of image by the role whose channel is given (contract, section 1.3): ``",0"`` is cytoplasm only.

    Raises:
        InvalidJob: several are given.
    """
    roles = [role for role, index in enumerate(job.channels or ()) if index is not None]
    if len(roles) > 1:
        raise InvalidJob(
            f"field channels: {job.get('channels')!r} fills several roles, but the job names no model; give the "
            "channel of one role, or a model_name that takes them all",
            job_id=job.id,
        )
    return roles[0] if roles else None


@contextmanager
def naming_image(job: Job, model: ModelId, axes_read: str = "") -> Iterator[None]:
    """Let a message that an image doesn't fit its model name the image, and how its axes were read."""
    try:
        yield
    except ModelMismatch as error:
        message = f"{shown_name(job.original_name)}: {str(error).removeprefix('image: ')} {as_read(axes_read)}".rstrip()
        raise ModelMismatch(message, job_id=job.id, model=str(model)) from error
