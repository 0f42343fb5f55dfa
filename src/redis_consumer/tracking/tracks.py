"""Holds the links between regions of a movie, and the finished tracks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from redis_consumer.tracking.lineage import Track
from redis_consumer.tracking.regions import Regions

Array = npt.NDArray[Any]
Indices = npt.NDArray[np.intp]
Floats = npt.NDArray[np.float64]


@dataclass
class Links:
    """The regions of one frame and their links to the next frame.

    Attributes:
        regions: the n regions of the frame. The movement of the stage is subtracted from their centroids.
        next: (n,) index of the same cell in the next frame, -1 for none.
        costs: (n,) cost of this link, `LINK_LIMIT` for none.
        sigma_px: standard deviation of the cells' movement along an axis to the next frame.
        families: (m, 3) triples that can be a division: a region of this frame, the region of the next frame that it
            is linked to, and a region of the next frame without a link to this frame.
        family_costs: (m,) costs of these triples.
    """

    regions: Regions
    next: Indices
    costs: Floats
    sigma_px: float = 1.0
    families: Indices = field(default_factory=lambda: np.zeros((0, 3), np.intp))
    family_costs: Floats = field(default_factory=lambda: np.zeros(0))


@dataclass(frozen=True)
class Tracking:
    """The tracks of a movie.

    Attributes:
        tracks: the tracks in rising order of their labels, which begin at 1 and have no gaps.
        source_labels: for each frame the labels of its regions in the input, rising.
        track_labels: for each frame the labels of the tracks of these regions.
        regions: for each frame its measured regions. The movement of the stage is subtracted from their centroids.
    """

    tracks: tuple[Track, ...]
    source_labels: tuple[Array, ...]
    track_labels: tuple[npt.NDArray[np.uint32], ...]
    regions: tuple[Regions, ...]

    def relabel(self, frame: int, labels: Array) -> npt.NDArray[np.uint32]:
        """Return the label image of a frame with the labels of its tracks.

        Args:
            frame: number of the frame, from 0.
            labels: (Y, X) label image that was linked as this frame.
        """
        source, target = self.source_labels[frame], self.track_labels[frame]
        if not len(source):
            return np.zeros(labels.shape, np.uint32)
        result = np.zeros(labels.shape, np.uint32)
        inside = labels != 0
        result[inside] = target[np.searchsorted(source, labels[inside])]
        return result
