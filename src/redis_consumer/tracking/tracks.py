"""What is known of a movie's regions while they are linked, and of its tracks in the end?"""

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
    """The regions of one frame and where they go.

    Attributes:
        regions: of the frame, n of them; centroids as if the stage had never moved.
        next: (n,) index of the region of the next frame that is the same cell, -1 where there is none.
        costs: (n,) of the link to it, `LINK_LIMIT` where there is none.
        sigma_px: standard deviation of the cells' movement along an axis to the next frame.
        families: (m, 3) triples that may be a division: a region of this frame, the region of the next frame that it
            is linked to, and one that has no link to this frame.
        family_costs: (m,) their costs.
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
        tracks: in rising order of their labels, which begin at 1 and have no gap.
        source_labels: for each frame the labels of its regions as they were given, rising.
        track_labels: for each frame the labels of the tracks that the regions belong to.
        regions: for each frame its regions as they were measured, centroids as if the stage had never moved.
    """

    tracks: tuple[Track, ...]
    source_labels: tuple[Array, ...]
    track_labels: tuple[npt.NDArray[np.uint32], ...]
    regions: tuple[Regions, ...]

    def relabel(self, frame: int, labels: Array) -> npt.NDArray[np.uint32]:
        """Give each region of a frame the label of its track.

        Args:
            frame: from 0.
            labels: (Y, X), the label image that was linked as this frame.
        """
        source, target = self.source_labels[frame], self.track_labels[frame]
        if not len(source):
            return np.zeros(labels.shape, np.uint32)
        result = np.zeros(labels.shape, np.uint32)
        inside = labels != 0
        result[inside] = target[np.searchsorted(source, labels[inside])]
        return result
