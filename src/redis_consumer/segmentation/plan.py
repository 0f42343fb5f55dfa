"""Defines what a segmentation does with an image: the plan, and the methods of a consumer for its steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from redis_consumer.job import ModelId
from redis_consumer.processing.registry import FunctionOptions
from redis_consumer.segmentation.frames import Frames
from redis_consumer.serving.base import Array


@dataclass(frozen=True)
class Plan:
    """Model and functions for an image, from the job's fields or the model's card.

    Attributes:
        model: the model to run.
        preprocess: names of the functions to run before it.
        postprocess: names of the functions to run after it.
        options: keyword arguments for each function by its name.
        scale: factor by which the image is resized for the model.
        groups: groups of frames, which are processed one after the other.
    """

    model: ModelId
    preprocess: tuple[str, ...]
    postprocess: tuple[str, ...]
    options: FunctionOptions = field(default_factory=dict)
    scale: float = 1.0
    groups: tuple[range, ...] = ()


@dataclass(frozen=True)
class Steps:
    """The methods of a consumer for the steps. Plug-ins can replace them.

    Attributes:
        predict: runs a model over images; returns its outputs, or the only one.
        predict_cut: the same in pieces; takes pieces per side, images, receptive field, and name and version of a
            model.
        run_functions: as `Functions.run`.
        image_scale: takes a job's field, frames and the job's id, and returns the scale.
        detect_scale: returns the scale by the detection model; None if it isn't used.
        detect_label: returns the kind of an image.
        write: notes fields of a job, which are written with the next ones.
        noted: returns the fields that were noted in this run.
        warn: adds to the job's field ``warning``.
        rest: returns memory to the system between two steps.
        begin_group: called with the number of each group of frames, from 0, and the number of groups.
        predicting: a context that is entered while `predict_cut` runs.
        finds_scale: whether the scale of a job without one is found here, and not by a plug-in's own method.
        takes_groups: whether all of these methods can get the frames in groups.
        sees_whole: whether the consumer gets an image whole, and not in parts.
        is_known: whether the model server has the models that these methods call.
    """

    predict: Callable[[Array, ModelId], Array | list[Array]]
    predict_cut: Callable[[int, Array, int, str, int | str], Array | list[Array]]
    run_functions: Callable[[str, Sequence[str], Any, FunctionOptions], Any]
    image_scale: Callable[[float | str | None, Frames, str], float]
    detect_scale: Callable[[Frames], float | None]
    detect_label: Callable[[Frames], int]
    write: Callable[[str, Mapping[str, Any]], None]
    noted: Callable[[], Mapping[str, str]]
    warn: Callable[[str], None]
    rest: Callable[[], None]
    begin_group: Callable[[int, int], None]
    predicting: Callable[[], AbstractContextManager[None]]
    finds_scale: bool = True
    takes_groups: bool = True
    sees_whole: bool = False
    is_known: bool = True
