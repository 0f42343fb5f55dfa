"""Segments whole cells and nuclei in images of several stains, as the kiosk's jobs of the type ``mesmer``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from redis_consumer.consumers import defaults
from redis_consumer.consumers.claimed_job import Stages
from redis_consumer.consumers.image import ImageFileConsumer
from redis_consumer.errors import InvalidImage, ModelNotFound
from redis_consumer.job import Job
from redis_consumer.processing.multiplex import whole_cells
from redis_consumer.segmentation.results import LABELS, Analysis
from redis_consumer.segmentation.segmentation import Segmentation
from redis_consumer.serving.base import Array
from redis_consumer.text import shown_name

#: Channels of the images: nuclei, then membranes or cytoplasm.
CHANNELS = 2


class MesmerConsumer(ImageFileConsumer):
    """Makes label images of whole cells, nuclei or both from a nuclear channel and a channel of membranes or cytoplasm.

    Contract, sections 5.1 and 5.4. ``channels`` names the nuclear channel first. The field ``compartment``, or
    ``MESMER_COMPARTMENT``, says what is segmented. The files are called ``<name>_feature_<c>.tif``. With ``both``,
    feature 0 is the whole cells and feature 1 the nuclei.

    With ``BUILT_IN_WHOLE_CELL``, if the model of the settings is neither served nor in the bucket, nuclei are found by
    ``NUCLEAR_MODEL`` and grown by `whole_cells`. The field ``warning`` says so.
    """

    def _check_job(self, job: Job) -> None:
        _ = job.compartment
        super()._check_job(_view(job))

    def _channels_taken(self, job: Job) -> int | None:
        return CHANNELS if self._is_classical() else super()._channels_taken(job)

    def analyze(self, image: Array, job: Job) -> Analysis:
        """Return the findings in an image: of the model, or of nuclei and a classical method, see the class.

        Args:
            image: (B, Y, X, 2) float32, nuclei and membranes or cytoplasm.
            job: the running job.
        """
        if not self._is_classical():
            return super().analyze(image, job)
        if image.shape[-1] != CHANNELS:
            raise InvalidImage(
                f"{shown_name(job.original_name)}: has {image.shape[-1]} channel(s), whole cells need {CHANNELS}; name "
                "the channel of nuclei and that of membranes or cytoplasm in field channels, e.g. 0,1",
                job_id=job.id,
            )
        segmentation = super()._segmentation()
        nuclear = segmentation.options.choices.model_of(0)
        self._warn(
            f"cells are grown by a classical watershed from nuclei of {nuclear}, because model "
            f"{defaults.mesmer_choices(job).model_of(0)} is not served (BUILT_IN_WHOLE_CELL)"
        )
        options = replace(segmentation.options, detects_label=False)
        nuclei = replace(segmentation, options=options).segment(image[..., :1], _nuclear_view(job))
        compartment = job.compartment or defaults.current().mesmer_compartment
        if compartment == "nuclear":
            return {LABELS: nuclei}
        self._note_function("post", "whole_cells", whole_cells, {})
        pairs = zip(nuclei[..., 0], image[..., 1], strict=True)
        cells = np.stack([whole_cells(labels, stain) for labels, stain in pairs])[..., np.newaxis]
        return {LABELS: np.concatenate([cells, nuclei], axis=-1) if compartment == "both" else cells}

    def _is_classical(self) -> bool:
        """Whether the running job names no model, and the one of the settings may be and must be replaced."""
        job = self.job or Job("")
        if not defaults.current().built_in_whole_cell or job.model is not None:
            return False
        try:
            self.model_server.metadata(defaults.mesmer_choices(job).model_of(0), on_retry=self._note_retry)
        except ModelNotFound:
            return True
        return False

    def _segment_file(self, job: Job, path: Path, folder: Path, stages: Stages) -> tuple[list[Path], dict[str, Any]]:
        files, found = super()._segment_file(_view(job), path, folder, stages)
        axes = str(self.redis.hget(job.id, "axes_read") or "").partition(" ")[0]
        is_first = "C" in axes and axes.index("C") < axes.index("Y")
        return files, {"dim_order": "CYX" if is_first else "YXC", **found}

    def _segmentation(self) -> Segmentation:
        """What segments the images of the running job, with the functions of its compartment."""
        segmentation = super()._segmentation()
        choices = defaults.mesmer_choices(self.job or Job(""))
        options = replace(segmentation.options, choices=choices, detects_label=False)
        # The classical method needs both channels of a whole image.
        steps = replace(segmentation.steps, sees_whole=segmentation.steps.sees_whole or self._is_classical())
        return replace(segmentation, options=options, steps=steps)


def _nuclear_view(job: Job) -> Job:
    """Return the job as that of the nuclei, whose channel is the only one."""
    none = dict.fromkeys(
        ("model_name", "model_version", "channels", "preprocess_function", "postprocess_function", "label"), ""
    )
    return job.with_fields(**none)


def _view(job: Job) -> Job:
    """Return the job with its model. Its roles and its label choose none.

    An order of axes without C is that of one channel, such as the order that Polaris gives to all of its child jobs.
    """
    order = {} if "C" in job.dimension_order else {"dimension_order": ""}
    choices = defaults.mesmer_choices(job)
    compartment = str(choices.given["mesmer"]["compartment"])
    return job.with_model(choices.model_of(0)).with_fields(label="", compartment=compartment, **order)
