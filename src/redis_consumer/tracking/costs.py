"""How unlikely is it that two regions are one cell, or that two cells are daughters of a third?

A cost is a negative log-likelihood up to a constant, so terms add up: half the square of what was seen, in standard
deviations. Sources of the terms:

* distance, divided by the movement that this pair of frames shows: Jaqaman et al. 2008 (Nature Methods 5:695), who
  also take gaps and divisions as assignments of their own;
* overlap of the regions, one minus intersection over union: Fukai and Kawaguchi 2023 (Bioinformatics 39:btac799), and
  before them the trackers by overlap that Ulman et al. 2017 (Nature Methods 14:1141) compare;
* change of area and roundness: Al-Kofahi et al. 2006 (Cell Cycle 5:327), as are daughters of about equal area on both
  sides of their mother.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from redis_consumer.tracking.assignment import Pairs
from redis_consumer.tracking.regions import Frame, Regions, overlaps

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

#: Above it two regions aren't linked: 4.9 standard deviations of distance, or 4.2 and no overlap.
LINK_LIMIT = 12.0
#: What a cell that begins costs: a gap or a division that costs more isn't seen in it.
LATE_LIMIT = 5.0
#: What a cell that ends costs; it is saved where a gap is closed.
END_COST = 4.0
#: What is saved at most by calling an unlikely link a division.
MOST_DOUBT = 4.0
#: What no overlap at all costs.
OVERLAP_WEIGHT = 3.0
#: Standard deviation of the logarithm of a cell's area from frame to frame.
AREA_SPREAD = 0.25
#: Standard deviation of a cell's roundness from frame to frame.
ROUNDNESS_SPREAD = 0.2
#: Shape alone never says that two regions differ: cells round up in mitosis, and are cut off at the border.
SHAPE_LIMIT = 4.0
#: Movements below this share of a cell's diameter are never in doubt; less isn't told apart from noise.
LEAST_MOVEMENT = 0.2
#: Standard deviation of the logarithm of (areas of both daughters / area of the mother), and of one by the other.
FAMILY_AREA_SPREAD = 0.3
SISTER_AREA_SPREAD = 0.35
#: Distance between sisters in diameters of the mother: mean and standard deviation.
SISTER_DISTANCE = (0.8, 0.35)
#: What it costs that a new daughter touches the border of the image: cells come in there as well.
BORDER_COST = 4.0
#: What each missed frame costs.
GAP_COST = 1.0


def candidates(before: Regions, after: Regions, max_distance_px: float) -> Pairs:
    """Pairs of regions whose centroids are near; their cost is the distance in pixels."""
    from scipy.spatial import cKDTree

    if not (len(before) and len(after)):
        none = np.zeros(0, np.intp)
        return Pairs(none, none, np.zeros(0))
    near = cKDTree(before.centroids_px).sparse_distance_matrix(
        cKDTree(after.centroids_px), max_distance_px, output_type="ndarray"
    )
    return Pairs(near["i"].astype(np.intp), near["j"].astype(np.intp), near["v"])


def movement_px(pairs: Pairs, before: Regions) -> float:
    """Standard deviation of the cells' movement along an axis, by the pairs that are nearest to each other both ways.

    The median of a distance in the plane is 1.18 standard deviations, and no wrong pair in few moves it much.
    """
    size = float(np.sqrt(np.median(before.areas_px) * 4 / np.pi)) if len(before) else 1.0
    least = max(LEAST_MOVEMENT * size, 0.5)
    if not len(pairs.rows):
        return least
    mutual = _is_nearest(pairs.rows, pairs.costs) & _is_nearest(pairs.columns, pairs.costs)
    return max(float(np.median(pairs.costs[mutual])) / 1.18, least)


def link_pairs(pairs: Pairs, before: Frame, after: Frame, *, sigma_px: float, shift_px: tuple[int, int]) -> Pairs:
    """Cost of each pair to be one cell in two frames that follow each other.

    Args:
        pairs: as `candidates` gives them.
        before: the earlier frame.
        after: the later one.
        sigma_px: as `movement_px` gives it.
        shift_px: by which the scene has moved between them.
    """
    shared = _looked_up(pairs, overlaps(before, after, shift_px), len(after.regions))
    union = before.regions.areas_px[pairs.rows] + after.regions.areas_px[pairs.columns] - shared
    costs = (pairs.costs / sigma_px) ** 2 / 2 + OVERLAP_WEIGHT * (1 - shared / union)
    return Pairs(pairs.rows, pairs.columns, costs + _shape_costs(pairs, before.regions, after.regions))


def gap_pairs(pairs: Pairs, before: Regions, after: Regions, *, sigma_px: float, frames: int) -> Pairs:
    """Cost of each pair to be one cell that was missed in between.

    Args:
        pairs: as `candidates` gives them.
        before: the regions with which tracks end.
        after: the regions with which tracks begin.
        sigma_px: standard deviation of the movement in one frame.
        frames: from `before` to `after`, 2 or more.
    """
    costs = (pairs.costs / sigma_px) ** 2 / 2 / frames + GAP_COST * (frames - 1) - END_COST
    return Pairs(pairs.rows, pairs.columns, costs + _shape_costs(pairs, before, after))


def division_costs(mothers: Regions, daughters: Regions, family: npt.NDArray[np.intp], sigma_px: float) -> Floats:
    """Cost of each triple to be a mother and her two daughters.

    Args:
        mothers: regions of the earlier frame.
        daughters: regions of the later one.
        family: (n, 3) index of the mother, of the daughter that she is linked to and of the one that begins.
        sigma_px: as `movement_px` gives it.
    """
    mother, one, other = family.T
    area_one, area_other = daughters.areas_px[one], daughters.areas_px[other]
    both, whole = area_one + area_other, mothers.areas_px[mother]
    weight = (area_one / both)[:, np.newaxis]
    middle = weight * daughters.centroids_px[one] + (1 - weight) * daughters.centroids_px[other]
    away = np.hypot(*(middle - mothers.centroids_px[mother]).T) / sigma_px
    apart = np.hypot(*(daughters.centroids_px[one] - daughters.centroids_px[other]).T) / np.sqrt(whole * 4 / np.pi)
    terms = (
        away,
        np.log(both / whole) / FAMILY_AREA_SPREAD,
        np.log(area_one / area_other) / SISTER_AREA_SPREAD,
        np.maximum(apart - SISTER_DISTANCE[0], 0) / SISTER_DISTANCE[1],
    )
    price: Floats = np.sum(np.square(terms), axis=0) / 2 + BORDER_COST * daughters.at_border[other]
    return price


def swallow_costs(before_px: Floats, after_px: Floats) -> Floats:
    """Cost of each region to be a mother by how much it has just grown: two that touch may be seen as one for a while.

    Args:
        before_px: (n,) areas in the frame before.
        after_px: (n,) areas in the frame in which they would divide.
    """
    growth = np.maximum(np.log(after_px / before_px), 0) / AREA_SPREAD
    price: Floats = np.minimum(growth**2 / 2, SHAPE_LIMIT)
    return price


def _shape_costs(pairs: Pairs, before: Regions, after: Regions) -> Floats:
    area = np.log(before.areas_px[pairs.rows] / after.areas_px[pairs.columns]) / AREA_SPREAD
    roundness = (before.roundness[pairs.rows] - after.roundness[pairs.columns]) / ROUNDNESS_SPREAD
    shape: Floats = np.minimum((area**2 + roundness**2) / 2, SHAPE_LIMIT)
    return shape


def _looked_up(pairs: Pairs, shared: tuple[Indices, Indices, Floats], width: int) -> Floats:
    """Number of shared pixels for each pair, 0 where there are none."""
    keys, wanted = shared[0] * width + shared[1], pairs.rows * width + pairs.columns
    if not len(keys):
        return np.zeros(len(wanted))
    order = np.argsort(keys)
    keys, counts = keys[order], shared[2][order]
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, counts[place], 0.0)


def _is_nearest(groups: Indices, distances: Floats) -> npt.NDArray[np.bool_]:
    """Whether each entry has the least distance of its group."""
    least = np.full(int(groups.max()) + 1, np.inf)
    np.minimum.at(least, groups, distances)
    nearest: npt.NDArray[np.bool_] = distances == least[groups]
    return nearest
