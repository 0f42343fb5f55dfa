"""Chooses the scale of a job: from its fields, the size of pixels, a detection model or an estimate."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from redis_consumer.errors import InvalidJob, ModelNotFound
from redis_consumer.job import Job
from redis_consumer.models.card import Card
from redis_consumer.options import ScaleOptions
from redis_consumer.processing.measure import label_channels, object_areas
from redis_consumer.processing.quality import confidence_by_label, object_confidence, odd_objects
from redis_consumer.segmentation.frames import Frames
from redis_consumer.serving.base import Array

#: Values of the field ``scale_from``.
FROM_JOB, FROM_DIAMETER, FROM_PIXELS = "job", "object_diameter_px", "pixel_size"
FROM_DETECTION, FROM_ESTIMATE, FROM_DEFAULT = "detection", "estimate", "default"
#: Objects are far from the card's size if they are larger or smaller by this factor.
FAR = 2.0
#: Fewer objects say nothing about their usual size.
LEAST_OBJECTS = 3
#: A smaller share of objects that aren't odd is a poor result.
LEAST_QUALITY = 0.9


@dataclass(frozen=True)
class ScaleChoice:
    """The scale of a job, and where it comes from.

    Attributes:
        scale: factor by which the image is resized for the model.
        source: value of the job's field ``scale_from``.
        problem: why a better source was not used; empty if there is none.
        diameter_px: diameter of the objects in the image if it was estimated.
    """

    scale: float
    source: str
    problem: str = ""
    diameter_px: float | None = None

    @property
    def fields(self) -> dict[str, str]:
        """Fields to write to the job."""
        if self.source == FROM_JOB:
            return {"scale_from": self.source}
        written = {"scale": f"{self.scale:.6g}", "scale_from": self.source}
        if self.diameter_px is not None:
            written["estimated_diameter_px"] = f"{self.diameter_px:.3g}"
        return written


def given_scale(job: Job, card: Card | None, options: ScaleOptions) -> ScaleChoice | None:
    """Return the scale that a producer, a parent job or an earlier attempt gave; None if there is none.

    Args:
        job: the running job.
        card: card of the job's model.
        options: the range of scales.

    Raises:
        InvalidJob: a field can't be read, both fields are given, the model's card has no diameter of objects, or the
            scale is out of range.
    """
    scale, diameter_px, source = job.scale, job.object_diameter_px, job.get("scale_from")
    if scale is not None:
        if diameter_px is not None and not source:
            raise InvalidJob(
                "fields scale and object_diameter_px are both given, and each of them sets the scale; give one of them",
                job_id=job.id,
            )
        return ScaleChoice(scale, source or FROM_JOB)
    if diameter_px is None:
        return None
    if card is None or card.object_diameter_px is None:
        raise InvalidJob(
            f"field object_diameter_px: {diameter_px:g} can't be used, because the card of the model has no "
            "object_diameter_px; give field scale instead",
            job_id=job.id,
        )
    scale = card.object_diameter_px / diameter_px
    if not options.allows(scale):
        raise InvalidJob(
            f"field object_diameter_px: {diameter_px:g} makes a scale of {scale:g}, which is out of range; allowed are "
            f"{options.low:g} to {options.high:g} (MIN_SCALE, MAX_SCALE)",
            job_id=job.id,
        )
    return ScaleChoice(scale, FROM_DIAMETER)


def scale_of_pixels(frames: Frames, card: Card, options: ScaleOptions) -> ScaleChoice | str:
    """Return the scale that follows from the size of pixels, or the reason why there is none; empty if it is unknown.

    Args:
        frames: the image.
        card: card of the model.
        options: the range of scales.
    """
    if card.pixel_size_um is None or frames.pixel_yx_um is None:
        return ""
    if frames.pixel_size_um is None:
        height, width = frames.pixel_yx_um
        return (
            f"the scale does not follow from the size of pixels, because they are not square ({height:g} x {width:g} "
            "um)"
        )
    scale = frames.pixel_size_um / card.pixel_size_um
    if not options.allows(scale):
        return (
            f"the scale does not follow from the size of pixels, because {frames.pixel_size_um:g} um makes "
            f"{scale:.3g}, allowed are {options.low:g} to {options.high:g} (MIN_SCALE, MAX_SCALE)"
        )
    return ScaleChoice(scale, FROM_PIXELS)


def found_scale(
    frames: Frames,
    card: Card,
    options: ScaleOptions,
    detect: Callable[[Frames], float | None],
    estimate: Callable[[Frames], float | None],
) -> ScaleChoice:
    """Find the scale of an image whose job gives none, for a model with a card.

    Args:
        frames: the image.
        card: card of the model.
        options: the range of scales.
        detect: asks the detection model; None if it isn't used.
        estimate: estimates the diameter of objects in pixels; None if there are none. It is used where the detection
            model isn't served, too.

    Raises:
        ModelNotFound: the detection model isn't served, and nothing can be estimated.
    """
    by_pixels = scale_of_pixels(frames, card, options)
    if isinstance(by_pixels, ScaleChoice):
        return by_pixels
    try:
        detected = detect(frames)
    except ModelNotFound:
        if card.object_diameter_px is None:
            raise
        detected = None
    if detected is not None:
        return ScaleChoice(detected, FROM_DETECTION, by_pixels)
    diameter_px = estimate(frames) if card.object_diameter_px else None
    if not (diameter_px and card.object_diameter_px):
        return ScaleChoice(1.0, FROM_DEFAULT, by_pixels)
    scale = card.object_diameter_px / diameter_px
    if options.allows(scale):
        return ScaleChoice(scale, FROM_ESTIMATE, by_pixels, diameter_px)
    problem = (
        f"objects of about {diameter_px:.3g} px make a scale of {scale:.3g}, allowed are {options.low:g} to "
        f"{options.high:g} (MIN_SCALE, MAX_SCALE); it is not used"
    )
    return ScaleChoice(1.0, FROM_DEFAULT, "; ".join(filter(None, (by_pixels, problem))), diameter_px)


@dataclass
class SizeCheck:
    """Compares the objects of a result with those that the model is made for.

    Attributes:
        wanted_px: diameter that the model's card names; None for no check.
        scale: factor by which the image was resized.
        confidences: gets a list for each frame: for each of its label images the confidence of the objects, see
            `redis_consumer.processing.quality.confidence_by_label`. None if they are not wanted.
    """

    wanted_px: float | None
    scale: float
    confidences: list[list[Array]] | None = None
    _areas: list[Array] = field(default_factory=list)
    _odd: list[Array] = field(default_factory=list)

    def add(self, results: Array | Sequence[Array], outputs: Sequence[Array] = (), peaks: Sequence[Array] = ()) -> None:
        """Measure the objects of results (B, y, x, C) at the model's scale. Only the first plane of labels is judged.

        Args:
            results: the results.
            outputs: the model's outputs, from which the confidence of objects follows.
            peaks: one of them for each label image, see `redis_consumer.processing.quality.peak_maps`.
        """
        arrays = [results] if isinstance(results, np.ndarray) else results
        self._judge(arrays, outputs)
        if self.confidences is not None:
            pairs = [
                (plane, peak[..., 0])
                for plane, peak in zip(label_channels(arrays), peaks, strict=False)
                if peak.ndim == 4 and peak.shape[:3] == plane.shape
            ]
            frames = len(arrays[0]) if arrays else 0
            self.confidences += [
                [confidence_by_label(plane[frame], peak[frame]) for plane, peak in pairs] for frame in range(frames)
            ]

    def _judge(self, results: Sequence[Array], outputs: Sequence[Array]) -> None:
        first = results[0] if results else None
        if self.wanted_px is None or first is None or first.dtype.kind not in "iu" or first.ndim != 4:
            return
        self._areas += [object_areas(frame[..., 0]) for frame in first]
        if first.min(initial=0) >= 0 and len(outputs) and _is_of_pixels(outputs[0], first):
            pairs = zip(first[..., 0], outputs[0], strict=True)
            self._odd += [
                odd_objects(labels, object_confidence(labels, output), self.wanted_px) for labels, output in pairs
            ]

    @property
    def fields(self) -> dict[str, str]:
        """The field ``quality`` of the job: the share of objects that aren't odd; none if no object was judged."""
        quality = self._quality()
        return {} if quality is None else {"quality": f"{quality:.2f}"}

    @property
    def warnings(self) -> list[str]:
        """What is wrong with the objects."""
        quality = self._quality()
        is_poor = quality is not None and quality < LEAST_QUALITY
        poor = (
            f"the quality of this result is poor: {1 - (quality or 0):.0%} of the objects are odd in size or shape, or "
            "of low confidence; look at the outlines, and check channel, scale and model"
        )
        return [each for each in (self.warning, poor if is_poor else "") if each]

    def _quality(self) -> float | None:
        odd = np.concatenate([np.zeros(0, np.bool_), *self._odd])
        return 1 - float(odd.mean()) if odd.size else None

    @property
    def warning(self) -> str:
        """What is wrong with the size of objects; empty if nothing is."""
        areas = np.concatenate(self._areas) if self._areas else np.zeros(0)
        if self.wanted_px is None or len(areas) < LEAST_OBJECTS:
            return ""
        seen_px = 2 * math.sqrt(float(np.median(areas)) / math.pi)
        if self.wanted_px / FAR <= seen_px <= self.wanted_px * FAR:
            return ""
        return (
            f"objects are about {seen_px / self.scale:.3g} px wide in the image and {seen_px:.3g} px at scale "
            f"{self.scale:.3g}, but the model is made for about {self.wanted_px:g} px; check the result, and give the "
            "true diameter in pixels as object_diameter_px"
        )


def _is_of_pixels(output: Array, labels: Array) -> bool:
    """Return whether an output of a model has a value for each pixel of label images (B, y, x, C)."""
    return output.ndim == 4 and output.shape[:3] == labels.shape[:3]
