"""Defines the choices and limits of a segmentation."""

from __future__ import annotations

from dataclasses import dataclass, field

from redis_consumer.models.card import ModelChoices
from redis_consumer.options import ImageLimits, ScaleOptions


@dataclass(frozen=True)
class SegmentationOptions:
    """Limits and choices for the segmentation of images.

    Attributes:
        choices: models and functions by the label of an image.
        limits: largest size of an image.
        max_job_bytes: largest memory that a job can take.
        detects_label: whether the label of an image is detected.
        scale: how the scale of a job is chosen.
        requires_channels: whether a job must name a channel if the image has several and the model takes one.
    """

    choices: ModelChoices
    limits: ImageLimits
    max_job_bytes: int
    detects_label: bool = False
    scale: ScaleOptions = field(default_factory=ScaleOptions)
    requires_channels: bool = False
