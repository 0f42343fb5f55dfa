"""Solves the assignment problem: chooses pairs with the smallest sum of costs, each row and column at most once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

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
