"""Blends the predictions of overlapping tiles into one array."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from redis_consumer.processing.tiles import Span, Tile

Array = npt.NDArray[Any]
Weights = npt.NDArray[np.float64]
_Shape = tuple[int, int, int]  # length of a target, and lengths of its shared parts before and after


def paste(output: Array, tile: Tile, prediction: Array) -> None:
    """Write the prediction of a tile into the output. Call it for the tiles in the order of their plan.

    A pixel that two tiles predict is blended. The weights follow sin² and sum to one at each pixel. Equal predictions
    stay exactly equal. Integers and booleans aren't blended. Each such pixel is taken from the nearer tile.

    Args:
        output: (*image, K), changed in place.
        tile: the tile.
        prediction: (*tile, K) prediction for the tile.
    """
    is_blended = output.dtype.kind in "fc"
    targets = [span.target if is_blended else span.core for span in tile.spans]
    given = prediction[tuple(span.within(target) for span, target in zip(tile.spans, targets, strict=True))]
    held = output[tuple(targets)]
    fresh: tuple[slice, ...] = ()
    for axis, span in enumerate(tile.spans if is_blended else ()):
        if span.before:
            seam = (*fresh, slice(0, span.before))
            keep, take = _shares(tuple(_shape(later) for later in tile.spans[axis:]), output.dtype.char)
            _mix(held[seam], given[seam], keep, take)
        fresh = (*fresh, slice(span.before, None))
    held[fresh] = given[fresh]


def _mix(held: Array, given: Array, keep: Array, take: Array) -> None:
    """Blend in place. Equal values don't change, so that rounding never makes a visible seam."""
    np.copyto(held, held * keep + given * take, where=held != given, casting="same_kind")


@lru_cache(maxsize=32)
def _shares(shapes: tuple[_Shape, ...], dtype: str) -> tuple[Array, Array]:
    """Return the shares of the old and the new value in the seam at the beginning of a tile's first axis.

    A tile is blended into the result of all earlier tiles. So its share is its weight, divided by the sum of its own
    and all earlier weights. Both sums can be computed axis by axis. An earlier tile has a smaller position on the first
    axis, or the same position there and a smaller one on the next axis.

    Args:
        shapes: shapes of the tile's axes, beginning with the axis of the seam.
        dtype: dtype of the output.

    Returns:
        Two arrays that sum to one, with the shape of the seam and a last axis of 1.
    """
    own: Weights = np.ones((), np.float64)
    reached: Weights = np.ones((), np.float64)
    for length, before, after in reversed(shapes):
        weight = np.ones((length, *(1,) * own.ndim))
        rise = np.sin(np.pi / 2 * (np.arange(before) + 0.5) / max(before, 1)) ** 2
        fall = np.cos(np.pi / 2 * (np.arange(after) + 0.5) / max(after, 1)) ** 2
        weight[:before] = rise.reshape(-1, *(1,) * own.ndim)
        weight[length - after :] = fall.reshape(-1, *(1,) * own.ndim)
        earlier = np.zeros_like(weight)
        earlier[:before] = 1 - weight[:before]
        reached = earlier + weight * reached
        own = weight * own
    seam = slice(0, shapes[0][1])
    take = (own[seam] / reached[seam])[..., np.newaxis]
    real = np.zeros(0, dtype).real.dtype
    return (1 - take).astype(real), take.astype(real)


def _shape(span: Span) -> _Shape:
    return span.target.stop - span.target.start, span.before, span.after
