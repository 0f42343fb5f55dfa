"""Fills polygons, as other programs do, to compare them with the pixels that they were traced from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Ring = Sequence[Sequence[float]] | Array


def fill(rings: Iterable[Ring], shape_yx: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return the pixels whose centre is inside of an odd number of rings, which may be open or closed."""
    centres_x, centres_y = np.arange(shape_yx[1]) + 0.5, np.arange(shape_yx[0]) + 0.5
    inside = np.zeros(shape_yx, np.bool_)
    for ring in rings:
        for (x, y), (next_x, next_y) in edges(ring):
            if y == next_y:
                continue
            rows = (centres_y > min(y, next_y)) & (centres_y < max(y, next_y))
            crossing = x + (centres_y[rows] - y) / (next_y - y) * (next_x - x)
            inside[rows] ^= centres_x > crossing[:, np.newaxis]
    return inside


def area(ring: Ring) -> float:
    """Return the signed area of a ring: positive if it goes from x to y."""
    return sum(x * next_y - next_x * y for (x, y), (next_x, next_y) in edges(ring)) / 2


def edges(ring: Ring) -> Iterator[tuple[tuple[float, ...], tuple[float, ...]]]:
    """Yield the ends of each edge of a ring, the last one back to the begin."""
    points = [tuple(map(float, point)) for point in ring]
    return zip(points, [*points[1:], points[0]], strict=True)
