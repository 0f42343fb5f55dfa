"""How does an image pass through a model that takes only tiles of it?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from redis_consumer.errors import InvalidJob, ModelMismatch

Array = npt.NDArray[Any]
Predict = Callable[[Array], list[Array]]
#: Called with the number of tiles done and of all tiles.
Progress = Callable[[int, int], None]
Region = tuple[slice, slice]
#: ``field_size`` of jobs that give none (contract, section 1.3): fits images of any size.
DEFAULT_FIELD_PX = 61


@dataclass(frozen=True)
class Tile:
    """One tile: where it is cut and what of its prediction is kept. Slices are rows and columns.

    Attributes:
        source: in the padded image.
        inner: of the prediction for this tile.
        target: in the output, which has the size of the image before padding.
    """

    source: Region
    inner: Region
    target: Region


@dataclass(frozen=True)
class TilePlan:
    """How an image is cut; the targets of its tiles cover the image.

    Attributes:
        shape_yx: of the image.
        tile_yx: of every tile.
        padding: pixels to add by reflection before and after, for rows and for columns.
        tiles: row by row.
    """

    shape_yx: tuple[int, int]
    tile_yx: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]
    tiles: tuple[Tile, ...]

    def pad(self, batch: Array) -> Array:
        """Reflect the borders of (B, Y, X, C) as planned; the array itself where nothing is to be added."""
        if self.padding == ((0, 0), (0, 0)):
            return batch
        return np.pad(batch, ((0, 0), *self.padding, (0, 0)), mode="reflect")


@dataclass(frozen=True)
class _Span:
    """One axis of a tile: `Tile` with plain slices."""

    source: slice
    inner: slice
    target: slice


def fit_tile(shape_yx: tuple[int, int], max_tile_yx: tuple[int, int], multiple_px: int = 1) -> tuple[int, int]:
    """Choose the tile for a model that takes any size: no larger than needed, sides divisible by `multiple_px`.

    >>> fit_tile((300, 2000), (512, 512), 16)
    (304, 512)
    """
    height, width = (
        _round_up(min(side, limit), multiple_px) for side, limit in zip(shape_yx, max_tile_yx, strict=True)
    )
    return height, width


def plan_tiles(shape_yx: tuple[int, int], tile_yx: tuple[int, int], overlap_px: int = 0) -> TilePlan:
    """Lay tiles of one size over an image.

    Tiles are spread evenly, lie inside the image, and share at least `overlap_px` pixels with the next one; each
    gives the output up to the middle of what it shares. An image smaller than the tile is padded around.

    Args:
        shape_yx: rows and columns of the image, 1 or more.
        tile_yx: rows and columns of a tile, 1 or more.
        overlap_px: 0 or more; smaller than the tile where a side takes several.

    Raises:
        ModelMismatch: the overlap leaves nothing of a tile.
    """
    rows, columns = (_spread(side, tile, overlap_px) for side, tile in zip(shape_yx, tile_yx, strict=True))
    padding = tuple(
        ((tile - side) // 2, tile - side - (tile - side) // 2) if tile > side else (0, 0)
        for side, tile in zip(shape_yx, tile_yx, strict=True)
    )
    return TilePlan(shape_yx, tile_yx, (padding[0], padding[1]), _cross(rows, columns))


def plan_cuts(
    shape_yx: tuple[int, int],
    cuts: int,
    field: int,
    *,
    multiple_px: int = 1,
    max_tile_yx: tuple[int, int] | None = None,
) -> TilePlan:
    """Cut each side into `cuts` pieces of one size, as jobs with ``cuts`` and ``field_size`` ask (section 5.2).

    Every piece is extended by (field - 1) // 2 pixels on each side, reflected at the image's border. Where a side
    isn't divisible, the last piece is moved back to end at the border, so that no strip stays empty.

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
    rows, columns = (
        _cut(side, core, border, tile) for side, core, tile in zip(shape_yx, cores, (height, width), strict=True)
    )
    padding = ((border, height - cores[0] - border), (border, width - cores[1] - border))
    return TilePlan(shape_yx, (height, width), padding, _cross(rows, columns))


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


def run_tiled(
    batch: Array,
    predict: Predict,
    *,
    tile_yx: tuple[int, int],
    overlap_px: int = 0,
    batch_size: int = 1,
    on_progress: Progress | None = None,
) -> list[Array]:
    """Run a model over images tile by tile.

    Args:
        batch: (B, Y, X, C).
        predict: takes (N, ty, tx, C), N <= `batch_size`, gives (N, ty, tx, K) for each output.
        tile_yx: size of every tile; see `fit_tile` for models that take any size.
        overlap_px: pixels that neighbouring tiles share at least.
        batch_size: tiles in one call.
        on_progress: called after each call.

    Returns:
        (B, Y, X, K) for each output, in the dtype that `predict` gave first.

    Raises:
        ModelMismatch: `predict` gave arrays of another shape, or the overlap is no smaller than the tile.
    """
    plan = plan_tiles(_shape_yx(batch), tile_yx, overlap_px)
    return run_plan(batch, predict, plan, batch_size=batch_size, on_progress=on_progress)


def run_plan(
    batch: Array, predict: Predict, plan: TilePlan, *, batch_size: int, on_progress: Progress | None = None
) -> list[Array]:
    """Run a model over images cut as planned; arguments and result as `run_tiled`.

    Raises:
        ModelMismatch: `predict` gave arrays of another shape.
    """
    padded = plan.pad(batch)
    places = ((item, tile) for item in range(len(batch)) for tile in plan.tiles)
    total, done = len(batch) * len(plan.tiles), 0
    outputs: list[Array] = []
    for group in _grouped(places, max(batch_size, 1)):
        tiles = [padded[item][tile.source] for item, tile in group]
        replies = predict(tiles[0][np.newaxis] if len(tiles) == 1 else np.stack(tiles))
        _check_replies(replies, len(tiles), plan.tile_yx, outputs)
        if not outputs:
            outputs = [np.empty((len(batch), *plan.shape_yx, reply.shape[-1]), reply.dtype) for reply in replies]
        _paste(outputs, replies, group)
        done += len(group)
        if on_progress is not None:
            on_progress(done, total)
    return outputs


def _grouped(places: Iterator[tuple[int, Tile]], size: int) -> Iterator[list[tuple[int, Tile]]]:
    while group := list(islice(places, size)):
        yield group


def _paste(outputs: list[Array], replies: list[Array], group: list[tuple[int, Tile]]) -> None:
    for output, reply in zip(outputs, replies, strict=True):
        for (item, tile), prediction in zip(group, reply, strict=True):
            output[item][tile.target] = prediction[tile.inner]


def _check_replies(replies: list[Array], count: int, tile_yx: tuple[int, int], outputs: list[Array]) -> None:
    if not replies or (outputs and len(replies) != len(outputs)):
        raise ModelMismatch(f"model: gave {len(replies)} outputs; check that it is a model for images")
    for index, reply in enumerate(replies):
        wanted = (count, *tile_yx)
        if reply.ndim != 4 or reply.shape[:3] != wanted:
            raise ModelMismatch(
                f"model: output {index} has shape {reply.shape} for a batch of shape {wanted}; "
                "choose a model that gives one value or more for each pixel"
            )
        if outputs and reply.shape[-1] != outputs[index].shape[-1]:
            raise ModelMismatch(
                f"model: output {index} has {reply.shape[-1]} channels, and {outputs[index].shape[-1]} for an earlier "
                "tile; choose a model whose outputs don't change"
            )


def _shape_yx(batch: Array) -> tuple[int, int]:
    if batch.ndim != 4 or 0 in batch.shape:
        raise ModelMismatch(f"image: an array of shape {batch.shape} isn't (batch, y, x, channel) with pixels in it")
    return batch.shape[1], batch.shape[2]


def _round_up(side: int, multiple: int) -> int:
    return -(-side // multiple) * multiple


def _spread(side: int, tile: int, overlap: int) -> list[_Span]:
    if side <= tile:
        before = (tile - side) // 2
        return [_Span(slice(0, tile), slice(before, before + side), slice(0, side))]
    if not 0 <= overlap < tile:
        raise ModelMismatch(f"tiles: an overlap of {overlap} px doesn't fit into a tile of {tile} px; lower it")
    count = math.ceil((side - overlap) / (tile - overlap))
    starts = [index * (side - tile) // (count - 1) for index in range(count)]
    middles = [(start + tile + following) // 2 for start, following in pairwise(starts)]
    return [
        _Span(slice(start, start + tile), slice(begin - start, end - start), slice(begin, end))
        for start, begin, end in zip(starts, [0, *middles], [*middles, side], strict=True)
    ]


def _cut(side: int, core: int, border: int, tile: int) -> list[_Span]:
    starts = dict.fromkeys(min(start, side - core) for start in range(0, side, core))
    inner = slice(border, border + core)
    return [_Span(slice(start, start + tile), inner, slice(start, start + core)) for start in starts]


def _cross(rows: list[_Span], columns: list[_Span]) -> tuple[Tile, ...]:
    return tuple(
        Tile((row.source, column.source), (row.inner, column.inner), (row.target, column.target))
        for row in rows
        for column in columns
    )
