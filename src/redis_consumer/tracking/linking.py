"""Links the label images of a movie to tracks and divisions.

The method follows Jaqaman et al. 2008 (Nature Methods 5:695). A first assignment links the regions of each pair of
successive frames. A second assignment over the whole movie then closes gaps and finds divisions. It joins the end of a
track to a later beginning, or makes a beginning the second daughter of a parent. Only tables of the regions are kept in
memory, not the frames.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from redis_consumer.options import LinkOptions
from redis_consumer.tracking import costs
from redis_consumer.tracking.costs import Pairs, assign
from redis_consumer.tracking.joining import join_tracks
from redis_consumer.tracking.regions import Frame, Regions, measure
from redis_consumer.tracking.tracks import Links, Tracking

Labels = npt.NDArray[Any]
Indices = npt.NDArray[np.intp]

#: Number of nearest cells among which the two daughters of a cell that ends are searched.
_MOST_DAUGHTERS = 6


class Linker:
    """Takes the label images of a movie in their order and returns its tracks.

    Args:
        options: limits for the movement of cells.

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
        """Link the next frame to the previous one.

        Args:
            labels: (Y, X) integers, 0 is background.
            shift_px: rows and columns by which the scene has moved since the previous frame.

        Raises:
            ValueError: `labels` is not a label image, or has another size than earlier frames.
        """
        frame = measure(labels)
        if self._last is not None and frame.shape != self._last.shape:
            raise ValueError(f"labels: shape {frame.shape} differs from earlier frames, {self._last.shape}")
        self._offset_px = self._offset_px + shift_px
        # The movement of the stage is subtracted from the centroids, not from the pixels.
        regions = replace(frame.regions, centroids_px=frame.regions.centroids_px - self._offset_px)
        frame = replace(frame, regions=regions)
        if self._last is not None:
            self._link(self._last, frame, shift_px)
        nothing = np.full(len(regions), -1, np.intp), np.full(len(regions), costs.LINK_LIMIT)
        self._links.append(Links(regions, *nothing))
        self._last = frame

    def finish(self) -> Tracking:
        """Close gaps and find divisions. Number the tracks from 1 in the order in which they begin."""
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
    """Link the label images of a movie without drift, see `Linker`."""
    linker = Linker(options)
    for labels in frames:
        linker.add(labels)
    return linker.finish()


def _families(near: Pairs, links: Links, before: Regions, after: Regions) -> tuple[Indices, npt.NDArray[np.float64]]:
    """Return possible divisions with costs: triples of a parent, the cell that it links to and a cell that begins."""
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
    """Return the costs of divisions, minus the costs of the links that they replace. So a good link is kept."""
    instead = np.minimum(links.costs[family[:, 0]], costs.MOST_DOUBT)
    price: npt.NDArray[np.float64] = costs.division_costs(before, after, family, links.sigma_px) - instead
    return price


def _link_to_one_daughter(new: Pairs, links: Links, before: Regions, after: Regions) -> None:
    """Link a cell that ends to one of two new cells that can be its daughters. The other one is linked later."""
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
