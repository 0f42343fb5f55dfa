"""Computes the costs of links, gaps and divisions.

A cost is a negative log-likelihood up to a constant. So it is a sum of terms. Each term is half the square of a
difference in standard deviations. Sources of the terms:

* Distance, divided by the movement in this pair of frames: Jaqaman et al. 2008 (Nature Methods 5:695). They also treat
  gaps and divisions as separate assignments.
* Overlap of the regions, one minus intersection over union: Fukai and Kawaguchi 2023 (Bioinformatics 39:btac799), and
  earlier the overlap trackers that Ulman et al. 2017 (Nature Methods 14:1141) compare.
* Change of area and roundness, and daughters of similar area on opposite sides of their parent: Al-Kofahi et al. 2006
  (Cell Cycle 5:327).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from redis_consumer.errors import InvalidImage
from redis_consumer.tracking.regions import Frame, Regions, overlaps

Indices = npt.NDArray[np.intp]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Pairs:
    """Possible pairs and their costs.

    Attributes:
        rows: (n,) index of the first member of each pair.
        columns: (n,) index of the second member.
        costs: (n,) cost of each pair; can be negative.
    """

    rows: Indices
    columns: Indices
    costs: Floats

    def where(self, kept: npt.NDArray[np.bool_] | Indices) -> Pairs:
        """Return the pairs in a mask or at some indices."""
        return Pairs(self.rows[kept], self.columns[kept], self.costs[kept])


def assign(pairs: Pairs, shape: tuple[int, int], skip_cost: float) -> Indices:
    """Solve the linear assignment problem. Rows can be left out.

    Each row gets an extra column, which stands for "none" and costs `skip_cost`. So a perfect matching of the rows
    always exists. The sparse solver of Jonker and Volgenant (1987, Computing 38:325) finds the best one.

    Args:
        pairs: distinct pairs of row and column.
        shape: numbers of rows and columns.
        skip_cost: a pair with this cost or a higher one is never chosen.

    Returns:
        Indices of the chosen pairs, in the order of their rows.

    >>> assign(Pairs(np.array([0, 0, 1]), np.array([0, 1, 0]), np.array([1.0, 2.0, 1.0])), (2, 2), 9.0)
    array([1, 2])
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching

    height, width = shape
    fits = np.flatnonzero(pairs.costs < skip_cost)
    if not len(fits):
        return fits
    nobody = np.arange(height)
    costs: Any = np.concatenate([pairs.costs[fits], np.full(height, skip_cost)])
    rows, columns = np.concatenate([pairs.rows[fits], nobody]), np.concatenate([pairs.columns[fits], width + nobody])
    # A constant on all costs doesn't change the result. A cost of 0 would mean "no pair".
    graph = csr_array((costs - costs.min() + 1, (rows, columns)), shape=(height, width + height))
    numbers = csr_array((np.arange(len(rows)), (rows, columns)), shape=graph.shape)
    taken: Indices = numbers[min_weight_full_bipartite_matching(graph)]
    return np.asarray(fits[taken[taken < len(fits)]], np.intp)


#: Pairs of regions of two frames that are compared. 40,000 cells in a frame of 2048 x 2048 px have about 3 million.
MAX_PAIRS = 4_000_000
#: Two regions with a higher cost aren't linked: 4.9 standard deviations of distance, or 4.2 without any overlap.
LINK_LIMIT = 12.0
#: Cost of a track that begins. A gap or a division with a higher cost isn't used for it.
LATE_LIMIT = 5.0
#: Cost of a track that ends. It is subtracted from the cost of a closed gap.
END_COST = 4.0
#: Largest amount by which an unlikely link lowers the cost of a division that replaces it.
MOST_DOUBT = 4.0
#: Cost of two regions without overlap.
OVERLAP_WEIGHT = 3.0
#: Standard deviation of the logarithm of a cell's area from frame to frame.
AREA_SPREAD = 0.25
#: Standard deviation of a cell's roundness from frame to frame.
ROUNDNESS_SPREAD = 0.2
#: Largest cost of a change of shape. Shape alone can't exclude a link: cells round up in mitosis, and the border of the
#: image cuts them.
SHAPE_LIMIT = 4.0
#: Least standard deviation of movement, as a share of a cell's diameter. Smaller movements can't be distinguished from
#: noise.
LEAST_MOVEMENT = 0.2
#: Standard deviation of the logarithm of two ratios of areas: both daughters to the parent, and one daughter to the
#: other.
FAMILY_AREA_SPREAD = 0.3
SISTER_AREA_SPREAD = 0.35
#: Distance between daughters in diameters of the parent: mean and standard deviation.
SISTER_DISTANCE = (0.8, 0.35)
#: Cost of a new daughter that touches the border of the image, because cells also enter there.
BORDER_COST = 4.0
#: Cost of each missed frame.
GAP_COST = 1.0


def candidates(before: Regions, after: Regions, max_distance_px: float) -> Pairs:
    """Return the pairs of regions whose centroids are near. Their cost is the distance in pixels.

    Raises:
        InvalidImage: there are more than `MAX_PAIRS`.
    """
    from scipy.spatial import cKDTree

    if not (len(before) and len(after)):
        none = np.zeros(0, np.intp)
        return Pairs(none, none, np.zeros(0))
    first, second = cKDTree(before.centroids_px), cKDTree(after.centroids_px)
    count = int(first.count_neighbors(second, max_distance_px))
    if count > MAX_PAIRS:
        raise InvalidImage(
            f"two successive frames hold {len(before)} and {len(after)} objects, of which {count} pairs are nearer "
            f"than {max_distance_px:g} px (MAX_DISTANCE), allowed are {MAX_PAIRS} pairs; "
            "check the segmentation, or ask for a smaller distance"
        )
    near = first.sparse_distance_matrix(second, max_distance_px, output_type="ndarray")
    return Pairs(near["i"].astype(np.intp), near["j"].astype(np.intp), near["v"])


def movement_px(pairs: Pairs, before: Regions) -> float:
    """Estimate the standard deviation of the cells' movement along an axis, from pairs of mutual nearest neighbours.

    The median of a distance in the plane is 1.18 standard deviations. A few wrong pairs hardly change the median.
    """
    size = float(np.sqrt(np.median(before.areas_px) * 4 / np.pi)) if len(before) else 1.0
    least = max(LEAST_MOVEMENT * size, 0.5)
    if not len(pairs.rows):
        return least
    mutual = _is_nearest(pairs.rows, pairs.costs) & _is_nearest(pairs.columns, pairs.costs)
    return max(float(np.median(pairs.costs[mutual])) / 1.18, least)


def link_pairs(pairs: Pairs, before: Frame, after: Frame, *, sigma_px: float, shift_px: tuple[int, int]) -> Pairs:
    """Return the cost of each pair, if it is one cell in two successive frames.

    Args:
        pairs: pairs from `candidates`.
        before: the earlier frame.
        after: the later frame.
        sigma_px: standard deviation from `movement_px`.
        shift_px: movement of the scene between the frames.
    """
    shared = _looked_up(pairs, overlaps(before, after, shift_px), len(after.regions))
    union = before.regions.areas_px[pairs.rows] + after.regions.areas_px[pairs.columns] - shared
    costs = (pairs.costs / sigma_px) ** 2 / 2 + OVERLAP_WEIGHT * (1 - shared / union)
    return Pairs(pairs.rows, pairs.columns, costs + _shape_costs(pairs, before.regions, after.regions))


def gap_pairs(pairs: Pairs, before: Regions, after: Regions, *, sigma_px: float, frames: int) -> Pairs:
    """Return the cost of each pair, if it is one cell that was missed in between.

    Args:
        pairs: pairs from `candidates`.
        before: the regions at which tracks end.
        after: the regions at which tracks begin.
        sigma_px: standard deviation of the movement in one frame.
        frames: number of frames from `before` to `after`, 2 or more.
    """
    costs = (pairs.costs / sigma_px) ** 2 / 2 / frames + GAP_COST * (frames - 1) - END_COST
    return Pairs(pairs.rows, pairs.columns, costs + _shape_costs(pairs, before, after))


def division_costs(mothers: Regions, daughters: Regions, family: npt.NDArray[np.intp], sigma_px: float) -> Floats:
    """Return the cost of each triple, if it is a parent and its two daughters.

    Args:
        mothers: regions of the earlier frame.
        daughters: regions of the later frame.
        family: (n, 3) indices of the parent, of the daughter that it is linked to and of the daughter that begins.
        sigma_px: standard deviation from `movement_px`.
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
    """Return the cost of each region, if it is a parent, by its latest growth.

    A region that has grown can be two cells that touch, which segmentation joined for some frames.

    Args:
        before_px: (n,) areas in the previous frame.
        after_px: (n,) areas in the last frame before the division.
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
    """Return the number of shared pixels of each pair, 0 for none."""
    keys, wanted = shared[0] * width + shared[1], pairs.rows * width + pairs.columns
    if not len(keys):
        return np.zeros(len(wanted))
    order = np.argsort(keys)
    keys, counts = keys[order], shared[2][order]
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, counts[place], 0.0)


def _is_nearest(groups: Indices, distances: Floats) -> npt.NDArray[np.bool_]:
    """Return whether each entry has the smallest distance in its group."""
    least = np.full(int(groups.max()) + 1, np.inf)
    np.minimum.at(least, groups, distances)
    nearest: npt.NDArray[np.bool_] = distances == least[groups]
    return nearest
