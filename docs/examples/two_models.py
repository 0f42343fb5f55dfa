"""Finds nuclei and whole cells in one image, with one model for each."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray
from pydantic import Field

from redis_consumer.consumers import Analysis, ConsumerOptions, ImageFileConsumer
from redis_consumer.job import Job


class NucleiAndCells(ImageFileConsumer):
    """Finds nuclei in the first channel and cells in the second one."""

    class Options(ConsumerOptions):
        """Set by the operator's variables."""

        cell_model: str = Field(default="Cells:1", description="Model that finds whole cells")

    def analyze(self, image: NDArray[Any], job: Job) -> Analysis:
        """Segment each channel by its model, with the functions and the pixel size of that model's card."""
        nuclei = self.segment(image[..., :1], job)
        cells = self.segment(image[..., 1:2], job, model=self.options.cell_model)
        return {"labels": cells, "nuclei": nuclei, "nuclei_count": int(nuclei.max())}
