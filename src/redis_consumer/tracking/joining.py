"""Joins the links between successive frames to tracks: closes gaps and finds divisions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from redis_consumer.tracking import costs
from redis_consumer.tracking.costs import Pairs, assign
from redis_consumer.tracking.tracks import Links, Track, Tracking

Indices = npt.NDArray[np.intp]
Floats = npt.NDArray[np.float64]

#: A parent or daughter that is seen in fewer frames can be an error of segmentation, unless the movie begins or ends.
_SHORT_FRAMES = 3
#: Cost of each frame below this number.
_SHORT_COST = 2.0


def join_tracks(links: Sequence[Links], *, max_distance_px: float, max_gap: int) -> Tracking:
    """Close gaps and find divisions in one assignment. Number the tracks in the order in which they begin.

    Args:
        links: the links of each frame.
        max_distance_px: largest movement over a gap.
        max_gap: largest number of frames in which a cell can be missed.
    """
    chain = _Chain(links)
    gaps = _gaps(links, chain, max_distance_px, max_gap)
    divisions, sisters = _divisions(links, chain)
    pairs = Pairs(*(np.concatenate(both) for both in zip(gaps, divisions, strict=True)))
    rows, row_index = np.unique(pairs.rows, return_inverse=True)
    columns, column_index = np.unique(pairs.columns, return_inverse=True)
    taken = assign(Pairs(row_index, column_index, pairs.costs), (len(rows), len(columns)), costs.LATE_LIMIT)
    for row, column in zip(pairs.rows[taken], pairs.columns[taken], strict=True):
        if chain.next[row] < 0:
            chain.next[row] = column
        else:
            chain.divide(row, sisters[(int(row), int(column))], column)
    return chain.tracking(links)


class _Chain:
    """All regions of a movie with consecutive numbers, and the links between them.

    Attributes:
        starts: (frames + 1,) number of the first region of each frame.
        frame: (n,) frame of each region.
        next: (n,) number of the next region of the same cell, -1 for none.
        mother: (n,) number of the region that divided into this one, -1 for none.
    """

    def __init__(self, links: Sequence[Links]) -> None:
        counts = [len(each.regions) for each in links]
        self.starts: Indices = np.concatenate([[0], np.cumsum(counts)]).astype(np.intp)
        self.frame: Indices = np.repeat(np.arange(len(links)), counts)
        self.next: Indices = np.full(len(self.frame), -1, np.intp)
        self.mother: Indices = np.full(len(self.frame), -1, np.intp)
        for number, each in enumerate(links):
            goes_on = each.next >= 0
            self.next[self.starts[number] : self.starts[number + 1]][goes_on] = (
                each.next[goes_on] + self.starts[number + 1]
            )

    def begins(self) -> npt.NDArray[np.bool_]:
        """Return which regions begin a track."""
        result = np.ones(len(self.next), bool)
        result[self.next[self.next >= 0]] = False
        return result

    def lengths(self) -> tuple[Indices, Indices]:
        """Return for each region the number of regions of its track up to it and from it on, both with itself."""
        past, future = np.ones((2, len(self.next)), np.intp)
        for start, stop in zip(self.starts[:-1], self.starts[1:], strict=True):
            here = np.arange(start, stop)[self.next[start:stop] >= 0]
            past[self.next[here]] = past[here] + 1
        for start, stop in zip(self.starts[-2::-1], self.starts[:0:-1], strict=True):
            here = np.arange(start, stop)[self.next[start:stop] >= 0]
            future[here] = future[self.next[here]] + 1
        return past, future

    def swallowed(self, links: Sequence[Links]) -> Floats:
        """Return for each region the cost of being a parent, by its latest growth."""
        areas = np.concatenate([np.zeros(0), *(each.regions.areas_px for each in links)])
        result = np.zeros(len(areas))
        goes_on = np.flatnonzero(self.next >= 0)
        result[self.next[goes_on]] = costs.swallow_costs(areas[goes_on], areas[self.next[goes_on]])
        return result

    def divide(self, mother: int, *daughters: int) -> None:
        """End a track at a region and begin two tracks as its daughters."""
        self.next[mother] = -1
        self.mother[list(daughters)] = mother

    def tracking(self, links: Sequence[Links]) -> Tracking:
        """Number the tracks in the order in which they begin."""
        begins = np.flatnonzero(self.begins())
        owner = np.zeros(len(self.next), np.uint32)
        owner[begins] = np.arange(1, len(begins) + 1)
        for start, stop in zip(self.starts[:-1], self.starts[1:], strict=True):
            here = np.arange(start, stop)[self.next[start:stop] >= 0]
            owner[self.next[here]] = owner[here]
        order = np.argsort(owner, kind="stable")
        seen = np.split(self.frame[order], np.cumsum(np.bincount(owner)[1:])[:-1]) if len(begins) else []
        parents = [int(owner[self.mother[region]]) if self.mother[region] >= 0 else None for region in begins]
        daughters: dict[int | None, list[int]] = {}
        for label, parent in enumerate(parents, start=1):
            daughters.setdefault(parent, []).append(label)
        tracks = tuple(
            Track(label, tuple(frames.tolist()), parent, tuple(daughters.get(label, ())))
            for label, (frames, parent) in enumerate(zip(seen, parents, strict=True), start=1)
        )
        regions = tuple(each.regions for each in links)
        owners = tuple(np.split(owner, self.starts[1:-1]))
        return Tracking(tracks, tuple(each.labels for each in regions), owners, regions)


def _gaps(
    links: Sequence[Links], chain: _Chain, max_distance_px: float, max_gap: int
) -> tuple[Indices, Indices, Floats]:
    """Return pairs of the end of a track and the beginning of a later one, with costs."""
    begins, ends = chain.begins(), chain.next < 0
    found: list[Pairs] = [_no_pairs()]
    for early in range(len(links)):
        for late in range(early + 2, min(early + max_gap + 2, len(links))):
            from_here = np.flatnonzero(ends[chain.starts[early] : chain.starts[early + 1]])
            to_there = np.flatnonzero(begins[chain.starts[late] : chain.starts[late + 1]])
            before, after = links[early].regions.at(from_here), links[late].regions.at(to_there)
            near = costs.candidates(before, after, max_distance_px)
            sigma_px = links[early].sigma_px
            pairs = costs.gap_pairs(near, before, after, sigma_px=sigma_px, frames=late - early)
            rows, columns = from_here[pairs.rows], to_there[pairs.columns]
            found.append(Pairs(rows + chain.starts[early], columns + chain.starts[late], pairs.costs))
    return _joined(found)


def _divisions(
    links: Sequence[Links], chain: _Chain
) -> tuple[tuple[Indices, Indices, Floats], dict[tuple[int, int], int]]:
    """Return pairs of a parent and a new daughter with costs, and for each pair the other daughter."""
    past, future = chain.lengths()
    swallowed = chain.swallowed(links)
    found: list[Pairs] = [_no_pairs()]
    sisters: dict[tuple[int, int], int] = {}
    for number, each in enumerate(links[:-1]):
        here, there = chain.starts[number], chain.starts[number + 1]
        mother, sister, begin = each.families.T + np.array([[here], [there], [there]])
        left = len(links) - 1 - number
        short = _missing(past[mother], number + 1) + _missing(future[sister], left) + _missing(future[begin], left)
        found.append(Pairs(mother, begin, each.family_costs + _SHORT_COST * short + swallowed[mother]))
        sisters.update(zip(zip(mother.tolist(), begin.tolist(), strict=True), sister.tolist(), strict=True))
    return _joined(found), sisters


def _missing(length: Indices, possible: int) -> Indices:
    """Return by how many frames tracks are too short, if the movie has enough frames for longer ones."""
    return np.maximum(min(_SHORT_FRAMES, possible) - length, 0)


def _no_pairs() -> Pairs:
    none = np.zeros(0, np.intp)
    return Pairs(none, none, np.zeros(0))


def _joined(found: Sequence[Pairs]) -> tuple[Indices, Indices, Floats]:
    return (
        np.concatenate([pairs.rows for pairs in found]),
        np.concatenate([pairs.columns for pairs in found]),
        np.concatenate([pairs.costs for pairs in found]),
    )
