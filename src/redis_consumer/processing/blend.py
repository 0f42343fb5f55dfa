"""How do the predictions of tiles become one array, without a seam between them?"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from redis_consumer.processing.tiles import Span, Tile

Array = npt.NDArray[Any]
Weights = npt.NDArray[np.float64]
_Shape = tuple[int, int, int]  # length of a target, and how much of it is shared before and after


def paste(output: Array, tile: Tile, prediction: Array) -> None:
    """Write what a tile gives into the output, after all tiles that come before it in the order of its plan.

    Where two tiles give the same pixel, it is blended: the weight of one falls along sin² as that of the other rises,
    and on each pixel the weights of all tiles sum to one. Where they agree, the result is exactly what both say.
    Whole numbers and booleans aren't blended; each pixel is that of the nearer tile.

    Args:
        output: (*image, K); changed in place.
        tile: which one.
        prediction: (*tile, K).
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
    """Blend in place; what is equal stays as it is, so that rounding never makes a seam of its own."""
    np.copyto(held, held * keep + given * take, where=held != given, casting="same_kind")


@lru_cache(maxsize=32)
def _shares(shapes: tuple[_Shape, ...], dtype: str) -> tuple[Array, Array]:
    """How much of each pixel is kept and how much taken from a tile, for the seam at the beginning of its first axis.

    A tile is blended into what all earlier ones have made together. So its share is its weight, divided by the sum of
    its own and all earlier weights; both sums factor by axes, since earlier tiles are those with a smaller place on the
    first axis, or the same there and a smaller one on the next.

    Args:
        shapes: of the tile's axes from the one with the seam.
        dtype: of the output.

    Returns:
        Two arrays of the seam's shape and a last axis of 1, which sum to one.
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
