"""Counts and measures nuclei with one model, and adds a table to the label image."""

from __future__ import annotations

import csv
import io
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from redis_consumer.consumers import Analysis, ConsumerOptions, ImageFileConsumer, per_job
from redis_consumer.job import Job
from redis_consumer.processing import measure_labels


class NuclearCounter(ImageFileConsumer):
    """Counts nuclei, and lists the position, size and brightness of each."""

    class Options(ConsumerOptions):
        """Set by variables of the operator. A job can also set a `per_job` option."""

        min_area: Annotated[int, per_job] = Field(
            default=30, ge=0, description="Pixels of the smallest nucleus that counts"
        )

    def analyze(self, image: NDArray[Any], job: Job) -> Analysis:
        """Find the nuclei, remove small ones, and measure the others in each frame."""
        labels = drop_small(self.segment(image, job), self.options.min_area)
        tables = [measure_labels(*frame) for frame in zip(labels[..., 0], image[..., 0], strict=True)]
        return {"labels": labels, "nuclei.csv": as_csv(tables), "mean_area": mean_of(tables, "area_px")}


def drop_small(labels: NDArray[Any], min_area: int) -> NDArray[Any]:
    """Replace labels of fewer pixels by background; (B, Y, X, 1) integers."""
    kept = np.zeros_like(labels)
    for frame, result in zip(labels, kept, strict=True):
        areas = np.bincount(frame.ravel())
        result[:] = np.where(areas[frame] < min_area, 0, frame)
    return kept


def as_csv(tables: list[dict[str, NDArray[Any]]]) -> bytes:
    """Write one line for each nucleus, with the number of its frame in front."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["frame", *tables[0]])
    for frame, table in enumerate(tables):
        writer.writerows([frame, *row] for row in zip(*(column.tolist() for column in table.values()), strict=True))
    return text.getvalue().encode()


def mean_of(tables: list[dict[str, NDArray[Any]]], name: str) -> float:
    """The mean of a column over all frames, 0 where nothing was found."""
    values = np.concatenate([table[name] for table in tables])
    return float(values.mean()) if len(values) else 0.0
