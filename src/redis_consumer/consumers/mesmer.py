"""Segments whole cells and nuclei in images of several stains, as the kiosk's jobs of the type ``mesmer``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from redis_consumer.consumers import defaults
from redis_consumer.consumers.claimed_job import Stages
from redis_consumer.consumers.image import ImageFileConsumer
from redis_consumer.job import Job
from redis_consumer.segmentation.segmentation import Segmentation


class MesmerConsumer(ImageFileConsumer):
    """Makes label images of whole cells, nuclei or both from a nuclear channel and a channel of membranes or cytoplasm.

    Contract, sections 5.1 and 5.4. ``channels`` names the nuclear channel first. The field ``compartment``, or
    ``MESMER_COMPARTMENT``, says what is segmented. The files are called ``<name>_feature_<c>.tif``. With ``both``,
    feature 0 is the whole cells and feature 1 the nuclei.
    """

    def _check_job(self, job: Job) -> None:
        _ = job.compartment
        super()._check_job(_view(job))

    def _segment_file(self, job: Job, path: Path, folder: Path, stages: Stages) -> tuple[list[Path], dict[str, Any]]:
        files, found = super()._segment_file(_view(job), path, folder, stages)
        axes = str(self.redis.hget(job.id, "axes_read") or "").partition(" ")[0]
        is_first = "C" in axes and axes.index("C") < axes.index("Y")
        return files, {"dim_order": "CYX" if is_first else "YXC", **found}

    def _segmentation(self) -> Segmentation:
        """What segments the images of the running job, with the functions of its compartment."""
        segmentation = super()._segmentation()
        choices = defaults.mesmer_choices(self.job or Job(""))
        return replace(segmentation, options=replace(segmentation.options, choices=choices, detects_label=False))


def _view(job: Job) -> Job:
    """Return the job with its model. Its roles and its label choose none.

    An order of axes without C is that of one channel, such as the order that Polaris gives to all of its child jobs.
    """
    order = {} if "C" in job.dimension_order else {"dimension_order": ""}
    return job.with_model(defaults.mesmer_choices(job).model_of(0)).with_fields(label="", **order)
