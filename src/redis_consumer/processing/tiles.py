"""Where is an image cut into tiles, and which pixels of the output does each tile give?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any

import numpy as np
import numpy.typing as npt

from redis_consumer.errors import InvalidJob, ModelMismatch

Array = npt.NDArray[Any]
Region = tuple[slice, ...]
#: ``field_size`` of jobs that give none (contract, section 1.3): fits images of any size.
DEFAULT_FIELD_PX = 61


@dataclass(frozen=True)
class Span:
    """One axis of a tile.

    Attributes:
        source: in the image; what lies outside of it is reflected.
        target: pixels of the output that the tile gives, by itself or together with a neighbour.
        before: how many of the first of them the tile before it gives as well.
        after: how many of the last of them the tile after it gives as well.
    """

    source: slice
    target: slice
    before: int = 0
    after: int = 0

    @property
    def core(self) -> slice:
        """The target, divided with the neighbours instead of shared."""
        return slice(self.target.start + self.before // 2, self.target.stop - (self.after - self.after // 2))

    def within(self, part: slice) -> slice:
        """A part of the output as a part of the tile."""
        return slice(part.start - self.source.start, part.stop - self.source.start)


@dataclass(frozen=True)
class Tile:
    """One tile: a `Span` for each axis, (z,) y and x."""

    spans: tuple[Span, ...]

    def cut(self, image: Array) -> Array:
        """The tile's pixels of an image (…, C): a view, or a copy where it reaches over the image's border."""
        inside = [span.source.start >= 0 and span.source.stop <= side for span, side in self._with_sides(image)]
        tile = image[tuple(span.source if fits else slice(None) for span, fits in zip(self.spans, inside, strict=True))]
        for axis, (span, side) in enumerate(self._with_sides(image)):
            if not inside[axis]:
                tile = tile.take(_reflected(span.source, side), axis=axis)
        return tile

    def _with_sides(self, image: Array) -> Iterator[tuple[Span, int]]:
        return zip(self.spans, image.shape[:-1], strict=True)


@dataclass(frozen=True)
class TilePlan:
    """How an image is cut; the targets of the tiles cover it.

    Attributes:
        shape: sides of the image in pixels, (z,) y and x.
        tile: sides of every tile.
        axes: the spans along each axis, in order.
    """

    shape: tuple[int, ...]
    tile: tuple[int, ...]
    axes: tuple[tuple[Span, ...], ...]

    def __len__(self) -> int:
        return math.prod(len(spans) for spans in self.axes)

    def __iter__(self) -> Iterator[Tile]:
        """The tiles in the order of their places, the last axis running fastest."""
        return (Tile(spans) for spans in product(*self.axes))

    @property
    def is_whole(self) -> bool:
        """Whether the only tile is the image itself."""
        return all(spans[0].source == slice(0, side) for spans, side in zip(self.axes, self.shape, strict=True))


def fit_tile(shape: tuple[int, ...], max_tile: tuple[int, ...], multiple_px: int = 1) -> tuple[int, ...]:
    """Choose the tile for a model that takes any size: no larger than needed, sides divisible by `multiple_px`.

    >>> fit_tile((300, 2000), (512, 512), 16)
    (304, 512)
    """
    return tuple(_round_up(min(side, limit), multiple_px) for side, limit in zip(shape, max_tile, strict=True))


def plan_tiles(shape: tuple[int, ...], tile: tuple[int, ...], overlap_px: int | tuple[int, ...] = 0) -> TilePlan:
    """Lay tiles of one size over an image.

    Tiles are spread evenly, lie inside the image, and share at least `overlap_px` pixels with the next one. Of what
    two tiles share, both give the middle half, to be blended; the outer quarters come from the tile that has seen more
    around them. So nothing is given that lies nearer than a quarter of the overlap to an edge where the image goes on.
    An image smaller than the tile is reflected around.

    Args:
        shape: sides of the image, (z,) y and x, 1 or more.
        tile: sides of a tile, 1 or more.
        overlap_px: one number for all axes or one for each, 0 or more; smaller than the tile where a side takes
            several.

    Raises:
        ModelMismatch: the overlap leaves nothing of a tile.
    """
    overlaps = (overlap_px,) * len(shape) if isinstance(overlap_px, int) else overlap_px
    axes = tuple(_spread(*numbers) for numbers in zip(shape, tile, overlaps, strict=True))
    return TilePlan(shape, tile, axes)


def plan_cuts(
    shape_yx: tuple[int, int],
    cuts: int,
    field: int,
    *,
    multiple_px: int = 1,
    max_tile_yx: tuple[int, int] | None = None,
) -> TilePlan:
    """Cut each side into `cuts` pieces of one size, as jobs with ``cuts`` and ``field_size`` ask (section 5.2).

    Every piece is extended by (field - 1) // 2 pixels on each side, reflected at the image's border; what it gives is
    the piece alone, nothing is blended. Where a side isn't divisible, the last piece is moved back to end at the
    border, so that no strip stays empty.

    Args:
        shape_yx: rows and columns of the image, 1 or more.
        cuts: pieces a side, at most as many as the shorter side has pixels.
        field: receptive field of the model in pixels, at most 61 or twice the longer side and 1.
        multiple_px: sides of the pieces are rounded up to multiples of it, below and to the right.
        max_tile_yx: rows and columns that a piece may have at most, None for any number.

    Raises:
        InvalidJob: `cuts` or `field` is out of range, or they make too large pieces.
    """
    _check_cuts(shape_yx, cuts, field)
    border = (field - 1) // 2
    cores = [math.ceil(side / cuts) for side in shape_yx]
    height, width = (_round_up(core + 2 * border, multiple_px) for core in cores)
    if max_tile_yx is not None and (height > max_tile_yx[0] or width > max_tile_yx[1]):
        raise InvalidJob(
            f"fields cuts and field_size: {cuts} and {field} make pieces of {height} x {width} px, more than "
            f"{max_tile_yx[0]} x {max_tile_yx[1]} (MAX_IMAGE_HEIGHT, MAX_IMAGE_WIDTH); "
            "give more cuts or a smaller field_size"
        )
    tile = (height, width)
    axes = tuple(_pieces(side, core, border, length) for side, core, length in zip(shape_yx, cores, tile, strict=True))
    return TilePlan(shape_yx, tile, axes)


def _check_cuts(shape_yx: tuple[int, int], cuts: int, field: int) -> None:
    if cuts < 1 or field < 1:
        raise InvalidJob(
            f"fields cuts and field_size: {cuts} and {field} aren't both above 0; give whole numbers above 0"
        )
    if cuts > min(shape_yx):
        raise InvalidJob(
            f"field cuts: {cuts} is more than the {min(shape_yx)} px of the image's shorter side; give fewer cuts"
        )
    # Padding by more than the image's own sides would only show the model the same pixels again, at any cost.
    limit = max(2 * max(shape_yx) + 1, DEFAULT_FIELD_PX)
    if field > limit:
        raise InvalidJob(
            f"field field_size: {field} px is too much for an image of {shape_yx[0]} x {shape_yx[1]} px; "
            f"give at most {limit}"
        )


def _round_up(side: int, multiple: int) -> int:
    return -(-side // multiple) * multiple


def _reflected(source: slice, side: int) -> npt.NDArray[np.intp]:
    """Indices within a side of what lies at `source` when the image goes on as its own reflection."""
    period = max(2 * (side - 1), 1)
    index = np.arange(source.start, source.stop) % period
    return np.minimum(index, period - index) if side > 1 else index


def _spread(side: int, tile: int, overlap: int) -> tuple[Span, ...]:
    if side <= tile:
        start = -((tile - side) // 2)
        return (Span(slice(start, start + tile), slice(0, side)),)
    if not 0 <= overlap < tile:
        raise ModelMismatch(f"tiles: an overlap of {overlap} px doesn't fit into a tile of {tile} px; lower it")
    count = math.ceil((side - overlap) / (tile - overlap))
    starts = [index * (side - tile) // (count - 1) for index in range(count)]
    stride = min(following - start for start, following in pairwise(starts))
    seams = [_seam(following, start + tile, stride) for start, following in pairwise(starts)]
    edges = [slice(0, 0), *seams, slice(side, side)]
    return tuple(
        Span(
            slice(start, start + tile),
            slice(before.start, after.stop),
            before.stop - before.start,
            after.stop - after.start,
        )
        for start, (before, after) in zip(starts, pairwise(edges), strict=True)
    )


def _seam(start: int, stop: int, stride: int) -> slice:
    """The middle half of what two tiles share; less where a third one begins, so that no pixel has three."""
    shared = stop - start
    width = min(shared - 2 * (shared // 4), stride)
    first = start + (shared - width) // 2
    return slice(first, first + width)


def _pieces(side: int, core: int, border: int, tile: int) -> tuple[Span, ...]:
    starts = dict.fromkeys(min(start, side - core) for start in range(0, side, core))
    return tuple(Span(slice(start - border, start - border + tile), slice(start, start + core)) for start in starts)
