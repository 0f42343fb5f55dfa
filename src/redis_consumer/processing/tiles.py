"""Plans how to cut an image into tiles, and which pixels of the output come from each tile."""

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
#: ``field_size`` of jobs without this field (contract, section 1.3). It fits images of any size.
DEFAULT_FIELD_PX = 61


@dataclass(frozen=True)
class Span:
    """One axis of a tile.

    Attributes:
        source: pixels of the image. Pixels outside the image are reflected.
        target: pixels of the output that come from this tile, alone or together with a neighbour.
        before: number of the first target pixels that also come from the previous tile.
        after: number of the last target pixels that also come from the next tile.
    """

    source: slice
    target: slice
    before: int = 0
    after: int = 0

    @property
    def core(self) -> slice:
        """The target, with each shared part divided between the two neighbours."""
        return slice(self.target.start + self.before // 2, self.target.stop - (self.after - self.after // 2))

    def within(self, part: slice) -> slice:
        """Return a part of the output as a slice of the tile."""
        return slice(part.start - self.source.start, part.stop - self.source.start)


@dataclass(frozen=True)
class Tile:
    """One tile: a `Span` for each axis, (z,) y and x."""

    spans: tuple[Span, ...]

    def cut(self, image: Array) -> Array:
        """Return the tile's pixels of an image (…, C): a view, or a copy if the tile extends beyond the image."""
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
    """Tiles of an image. Their targets cover the whole image.

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
        """Yield the tiles in the order of their positions. The last axis changes fastest."""
        return (Tile(spans) for spans in product(*self.axes))

    @property
    def is_whole(self) -> bool:
        """Whether the only tile is the image itself."""
        return all(spans[0].source == slice(0, side) for spans, side in zip(self.axes, self.shape, strict=True))


def fit_tile(shape: tuple[int, ...], max_tile: tuple[int, ...], multiple_px: int = 1) -> tuple[int, ...]:
    """Choose the smallest sufficient tile for a model that takes any size, with sides divisible by `multiple_px`.

    >>> fit_tile((300, 2000), (512, 512), 16)
    (304, 512)
    """
    return tuple(_round_up(min(side, limit), multiple_px) for side, limit in zip(shape, max_tile, strict=True))


def plan_tiles(shape: tuple[int, ...], tile: tuple[int, ...], overlap_px: int | tuple[int, ...] = 0) -> TilePlan:
    """Plan tiles of one size over an image.

    Tiles are spread evenly inside the image. Neighbouring tiles share at least `overlap_px` pixels. The middle half of
    a shared part comes from both tiles and is blended. Each outer quarter comes from the tile whose edge is farther
    away. So no result comes from pixels that are nearer to an inner edge of a tile than a quarter of the overlap. An
    image that is smaller than the tile is extended by reflection.

    Args:
        shape: sides of the image, (z,) y and x, 1 or more.
        tile: sides of a tile, 1 or more.
        overlap_px: overlap for all axes or for each axis, 0 or more. It must be smaller than the tile if a side needs
            several tiles.

    Raises:
        ModelMismatch: the overlap isn't smaller than the tile.
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
    """Cut each side into `cuts` pieces of one size, for jobs with ``cuts`` and ``field_size`` (section 5.2).

    Each piece is extended by (field - 1) // 2 pixels on each side, by reflection at the border of the image. The result
    of the extension isn't used, and nothing is blended. If a side isn't divisible, the last piece is moved back to end
    at the border, so that no strip stays empty.

    Args:
        shape_yx: rows and columns of the image, 1 or more.
        cuts: number of pieces per side, at most the number of pixels of the shorter side.
        field: receptive field of the model in pixels, at most 61 or 1 + twice the longer side.
        multiple_px: sides of the pieces are rounded up to multiples of this number, below and to the right.
        max_tile_yx: largest number of rows and columns of a piece, None for any number.

    Raises:
        InvalidJob: `cuts` or `field` is out of range, or the pieces are too large.
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
    # Padding by more than the sides of the image only repeats the same pixels, and can take unlimited memory.
    limit = max(2 * max(shape_yx) + 1, DEFAULT_FIELD_PX)
    if field > limit:
        raise InvalidJob(
            f"field field_size: {field} px is too much for an image of {shape_yx[0]} x {shape_yx[1]} px; "
            f"give at most {limit}"
        )


def _round_up(side: int, multiple: int) -> int:
    return -(-side // multiple) * multiple


def _reflected(source: slice, side: int) -> npt.NDArray[np.intp]:
    """Return the indices for `source` within a side, if the image is extended by reflection."""
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
    """Return the middle half of the part that two tiles share. It is shorter if a third tile begins in that part."""
    shared = stop - start
    width = min(shared - 2 * (shared // 4), stride)
    first = start + (shared - width) // 2
    return slice(first, first + width)


def _pieces(side: int, core: int, border: int, tile: int) -> tuple[Span, ...]:
    starts = dict.fromkeys(min(start, side - core) for start in range(0, side, core))
    return tuple(Span(slice(start - border, start - border + tile), slice(start, start + core)) for start in starts)
