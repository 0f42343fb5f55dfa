"""Defines the choices and limits of a segmentation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from redis_consumer.errors import InvalidJob
from redis_consumer.job import ModelId
from redis_consumer.options import ImageLimits, ScaleOptions
from redis_consumer.processing.registry import FunctionOptions


@dataclass(frozen=True)
class ModelChoices:
    """Models and functions by the kind of an image (contract, section 7).

    Attributes:
        models: model of each label, ``name:version``.
        postprocess: function that follows the model of each label.
        preprocess: functions before a model that has no card.
        options: keyword arguments for functions by name, for a model that has no card.
        given: keyword arguments for functions by name that override those of a card.
    """

    models: Mapping[int, str]
    postprocess: Mapping[int, str]
    preprocess: tuple[str, ...] = ("histogram_normalization",)
    options: FunctionOptions = field(default_factory=dict)
    given: FunctionOptions = field(default_factory=dict)

    def model_of(self, label: int | None) -> ModelId:
        """Return the model for a label, and for nuclei if the label is None.

        Raises:
            InvalidJob: there is no such label.
        """
        return ModelId.parse(str(_choice(self.models, label or 0)))

    def postprocess_of(self, label: int) -> str:
        """Return the function that follows the model for a label.

        Raises:
            InvalidJob: there is no such label.
        """
        return str(_choice(self.postprocess, label))

    def functions_of(self, model: ModelId) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the functions before and after a model that has no card (contract, section 5.4).

        They are those of its label. A model of no label has none.
        """
        labels = [label for label, name in self.models.items() if ModelId.parse(str(name)) == model]
        if not labels:
            return (), ()
        return self.preprocess, tuple(filter(None, [self.postprocess_of(labels[0])]))


def _choice(choices: Mapping[int, str], label: int) -> str:
    if label not in choices:
        raise InvalidJob(f"field label: {label} is no kind of image; give one of {', '.join(map(str, choices))}")
    return choices[label]


@dataclass(frozen=True)
class SegmentationOptions:
    """Limits and choices for the segmentation of images.

    Attributes:
        choices: models and functions by the label of an image.
        limits: largest size of an image.
        max_job_bytes: largest memory that a job can take.
        detects_label: whether the label of an image is detected.
        scale: how the scale of a job is chosen.
    """

    choices: ModelChoices
    limits: ImageLimits
    max_job_bytes: int
    detects_label: bool = False
    scale: ScaleOptions = field(default_factory=ScaleOptions)
