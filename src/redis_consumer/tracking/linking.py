"""Which region is which cell? Label images of a movie, one by one, become tracks and divisions.

In the manner of Jaqaman et al. 2008 (Nature Methods 5:695): regions of each two frames are linked by one assignment;
then the ends of these tracks are joined to beginnings, over frames in which a cell was missed, or a beginning becomes
the sister of a cell that goes on, by a second assignment over the whole movie. Of the frames only the tables of their
regions are kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from redis_consumer.tracking import costs
from redis_consumer.tracking.assignment import Pairs, assign
from redis_consumer.tracking.joining import join_tracks
from redis_consumer.tracking.regions import Frame, Regions, measure
from redis_consumer.tracking.tracks import Links, Tracking

Labels = npt.NDArray[Any]
Indices = npt.NDArray[np.intp]

#: Of so many nearest cells, two are looked for that may be daughters of a cell that ends.
_MOST_DAUGHTERS = 6


@dataclass(frozen=True)
class LinkOptions:
    """How cells may move.

    Attributes:
        max_distance_px: between two frames, and over a gap, at most.
        max_gap: frames in a row in which a cell may be missed; 0 for none.
    """

    max_distance_px: float = 50.0
    max_gap: int = 2


class Linker:
    """Takes the label images of a movie in their order and gives its tracks.

    Args:
        options: how cells may move.

    >>> linker = Linker()
    >>> for column in (1, 2):
    ...     image = np.zeros((4, 8), int)
    ...     image[1:3, column : column + 3] = 7
    ...     linker.add(image)
    >>> [(track.label, track.frames) for track in linker.finish().tracks]
    [(1, (0, 1))]
    """

    def __init__(self, options: LinkOptions | None = None) -> None:
        self.options = options or LinkOptions()
        self._links: list[Links] = []
        self._last: Frame | None = None
        self._offset_px = np.zeros(2)

    def add(self, labels: Labels, shift_px: tuple[int, int] = (0, 0)) -> None:
        """Link the next frame to the one before.

        Args:
            labels: (Y, X) integers, 0 is background.
            shift_px: rows and columns by which the scene has moved since the frame before.

        Raises:
            ValueError: `labels` is no label image, or has another size than those before.
        """
        frame = measure(labels)
        if self._last is not None and frame.shape != self._last.shape:
            raise ValueError(f"labels of shape {frame.shape}: those before had {self._last.shape}")
        self._offset_px = self._offset_px + shift_px
        # Centroids as if the stage had never moved; pixels stay where they are.
        regions = replace(frame.regions, centroids_px=frame.regions.centroids_px - self._offset_px)
        frame = replace(frame, regions=regions)
        if self._last is not None:
            self._link(self._last, frame, shift_px)
        nothing = np.full(len(regions), -1, np.intp), np.full(len(regions), costs.LINK_LIMIT)
        self._links.append(Links(regions, *nothing))
        self._last = frame

    def finish(self) -> Tracking:
        """Close gaps, find divisions, and number the tracks from 1 in the order in which they begin."""
        return join_tracks(self._links, max_distance_px=self.options.max_distance_px, max_gap=self.options.max_gap)

    def _link(self, before: Frame, after: Frame, shift_px: tuple[int, int]) -> None:
        near = costs.candidates(before.regions, after.regions, self.options.max_distance_px)
        links = self._links[-1]
        links.sigma_px = sigma_px = costs.movement_px(near, before.regions)
        pairs = costs.link_pairs(near, before, after, sigma_px=sigma_px, shift_px=shift_px)
        taken = pairs.where(assign(pairs, (len(before.regions), len(after.regions)), costs.LINK_LIMIT))
        links.next[taken.rows] = taken.columns
        links.costs[taken.rows] = taken.costs
        links.families, links.family_costs = _families(near, links, before.regions, after.regions)


def link_movie(frames: Iterable[Labels], options: LinkOptions | None = None) -> Tracking:
    """Link the label images of a movie that didn't drift, see `Linker`."""
    linker = Linker(options)
    for labels in frames:
        linker.add(labels)
    return linker.finish()


def _families(near: Pairs, links: Links, before: Regions, after: Regions) -> tuple[Indices, npt.NDArray[np.float64]]:
    """Triples of a mother, the cell that she is linked to and a cell that begins, which may be sisters, with costs."""
    begins = np.ones(len(after), bool)
    begins[links.next[links.next >= 0]] = False
    new = near.where(begins[near.columns])
    _link_to_one_daughter(new, links, before, after)
    begins[links.next[links.next >= 0]] = False
    new = new.where(begins[new.columns] & (links.next[new.rows] >= 0))
    family = np.stack([new.rows, links.next[new.rows], new.columns], axis=-1)
    price = _family_costs(family, links, before, after)
    likely = price < costs.LATE_LIMIT
    return family[likely], price[likely]


def _family_costs(family: Indices, links: Links, before: Regions, after: Regions) -> npt.NDArray[np.float64]:
    """Cost of a division less that of the link which it replaces: one that is good by itself is no mother's."""
    instead = np.minimum(links.costs[family[:, 0]], costs.MOST_DOUBT)
    price: npt.NDArray[np.float64] = costs.division_costs(before, after, family, links.sigma_px) - instead
    return price


def _link_to_one_daughter(new: Pairs, links: Links, before: Regions, after: Regions) -> None:
    """Link a cell that ends to one of two new ones, where they look like its daughters; the other follows later."""
    ends = new.where(links.next[new.rows] < 0)
    taken: set[int] = set()
    for mother in np.unique(ends.rows):
        mine = ends.where(ends.rows == mother)
        nearest = mine.columns[np.argsort(mine.costs)[:_MOST_DAUGHTERS]]
        family = [(mother, *pair) for pair in combinations(nearest, 2) if taken.isdisjoint(pair)]
        if not family:
            continue
        price = _family_costs(np.array(family), links, before, after)
        if price.min() < costs.LATE_LIMIT:
            _, one, other = family[int(price.argmin())]
            links.next[mother] = one
            taken |= {one, other}
