"""Which pairs are taken, so that the sum of their costs is least and each side is taken once at most?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.intp]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Pairs:
    """Pairs that may be taken, and what each costs.

    Attributes:
        rows: (n,) index of the first of each pair.
        columns: (n,) index of the second.
        costs: (n,) of each; may be negative.
    """

    rows: Indices
    columns: Indices
    costs: Floats

    def where(self, kept: npt.NDArray[np.bool_] | Indices) -> Pairs:
        """The pairs of a mask, or of some indices."""
        return Pairs(self.rows[kept], self.columns[kept], self.costs[kept])


def assign(pairs: Pairs, shape: tuple[int, int], skip_cost: float) -> Indices:
    """Solve the linear assignment problem with the choice to leave a row out.

    Each row gets a column of its own that stands for "none" and costs `skip_cost`, so that a perfect matching of
    the rows always exists, and the sparse solver of Jonker and Volgenant (1987, Computing 38:325) finds the best.

    Args:
        pairs: distinct pairs of row and column.
        shape: numbers of rows and columns.
        skip_cost: a pair that costs as much or more is never taken.

    Returns:
        Which of `pairs` are taken, in the order of their rows.

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
    # The same on all of them changes no order; but 0 would be taken for "no pair".
    graph = csr_array((costs - costs.min() + 1, (rows, columns)), shape=(height, width + height))
    numbers = csr_array((np.arange(len(rows)), (rows, columns)), shape=graph.shape)
    taken: Indices = numbers[min_weight_full_bipartite_matching(graph)]
    return np.asarray(fits[taken[taken < len(fits)]], np.intp)
