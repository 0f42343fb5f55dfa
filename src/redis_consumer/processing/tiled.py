"""Cuts images into tiles, runs a model on each tile, and blends the predictions where tiles overlap."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice, pairwise, product
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from redis_consumer.errors import ModelMismatch

Array = npt.NDArray[Any]
Weights = npt.NDArray[np.float64]
_Shape = tuple[int, int, int]  # length of a target, and lengths of its shared parts before and after
#: Takes tiles (N, *tile, C) and returns (N, *tile, K) for each output.
Predict = Callable[[Array], list[Array]]
#: Called with the number of finished tiles and the number of all tiles.
Progress = Callable[[int, int], None]
T = TypeVar("T")
R = TypeVar("R")


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
    return tuple(round_up(min(side, limit), multiple_px) for side, limit in zip(shape, max_tile, strict=True))


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


def round_up(side: int, multiple: int) -> int:
    """Return the smallest multiple that is not below a side."""
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


class MapBatches(Protocol):
    """Applies a function to items like `map`: lazily, with the results in the order of the items."""

    def __call__(self, function: Callable[[T], R], items: Iterable[T], /) -> Iterator[R]:
        """Return an iterator over the results."""


@dataclass(frozen=True)
class Planned:
    """Images to run a model on, and the plan for their tiles.

    Attributes:
        batch: images (B, *shape, C).
        plan: plan for an image of that shape.
        batch_size: number of tiles in one call, 1 or more.
    """

    batch: Array
    plan: TilePlan
    batch_size: int

    @property
    def tiles(self) -> int:
        """Number of tiles of all images."""
        return len(self.batch) * len(self.plan)


class _Canvas:
    """The outputs for one `Planned`, written tile by tile."""

    def __init__(self, planned: Planned) -> None:
        self.planned = planned
        self.outputs: list[Array] = []
        self._left = planned.tiles

    @property
    def is_full(self) -> bool:
        return not self._left

    def fill(self, places: list[tuple[int, Tile]], replies: list[Array]) -> None:
        plan, images = self.planned.plan, len(self.planned.batch)
        _check_replies(replies, (len(places), *plan.tile), self.outputs)
        self._left -= len(places)
        if plan.is_whole and len(places) == images:
            self.outputs = [reply.astype(_output_dtype(reply), copy=False) for reply in replies]
            return
        if not self.outputs:
            self.outputs = [np.empty((images, *plan.shape, reply.shape[-1]), _output_dtype(reply)) for reply in replies]
        for output, reply in zip(self.outputs, replies, strict=True):
            for (item, tile), prediction in zip(places, reply, strict=True):
                paste(output[item], tile, prediction)


@dataclass(frozen=True)
class _Call:
    """The tiles of one call."""

    canvas: _Canvas
    places: list[tuple[int, Tile]]

    def pack(self) -> Array:
        batch = self.canvas.planned.batch
        tiles = [tile.cut(batch[item]) for item, tile in self.places]
        return tiles[0][np.newaxis] if len(tiles) == 1 else np.stack(tiles)


def run_tiled(
    batch: Array,
    predict: Predict,
    *,
    tile: tuple[int, ...],
    overlap_px: int | tuple[int, ...] = 0,
    batch_size: int = 1,
    on_progress: Progress | None = None,
) -> list[Array]:
    """Run a model over images tile by tile.

    Args:
        batch: (B, Y, X, C), or (B, Z, Y, X, C) for a model of volumes.
        predict: takes (N, *tile, C) with N <= `batch_size` and returns (N, *tile, K) for each output.
        tile: sides of each tile. See `fit_tile` for models that take any size.
        overlap_px: smallest number of pixels that neighbouring tiles share, for all axes or for each axis.
        batch_size: number of tiles in one call.
        on_progress: called after each call.

    Returns:
        (B, Y, X, K) or (B, Z, Y, X, K) for each output, blended where tiles overlap. Floats have at least 32 bits.
        Other outputs have the dtype that `predict` returned.

    Raises:
        ModelMismatch: `predict` returned arrays of another shape, or the overlap isn't smaller than the tile.
    """
    check_batch(batch, len(tile))
    planned = Planned(batch, plan_tiles(batch.shape[1:-1], tile, overlap_px), batch_size)
    told = None if on_progress is None else lambda done: on_progress(done, planned.tiles)
    (outputs,) = run_each([planned], predict, on_tiles=told)
    return outputs


def run_each(
    images: Iterable[Planned],
    predict: Predict,
    *,
    map_batches: MapBatches = map,
    on_tiles: Callable[[int], None] | None = None,
) -> Iterator[list[Array]]:
    """Run a model over images one after the other, in one stream of calls.

    Args:
        images: the images, read when calls need them.
        predict: as for `run_tiled`.
        map_batches: makes the calls. `map` makes one call at a time, and another function can have several in flight.
            Outputs are always blended in the order of the tiles, so equal predictions give equal bytes.
        on_tiles: called after each call with the number of finished tiles of all images.

    Yields:
        The result of `run_tiled` for each of `images`.

    Raises:
        ModelMismatch: `predict` returned arrays of another shape.
    """

    def call(group: _Call) -> tuple[_Call, list[Array]]:
        return group, predict(group.pack())

    done = 0
    for group, replies in map_batches(call, _calls(images)):
        group.canvas.fill(group.places, replies)
        done += len(group.places)
        if on_tiles is not None:
            on_tiles(done)
        if group.canvas.is_full:
            yield group.canvas.outputs


def check_batch(batch: Array, sides: int) -> None:
    """Raise `ModelMismatch` unless an array is a batch of images with 2 or 3 sides that has pixels."""
    if batch.ndim != sides + 2 or not batch.size:
        axes = "(batch, z, y, x, channel)" if sides == 3 else "(batch, y, x, channel)"
        raise ModelMismatch(f"image: an array of shape {batch.shape} isn't {axes} with pixels in it")


def _calls(images: Iterable[Planned]) -> Iterator[_Call]:
    for planned in images:
        canvas = _Canvas(planned)
        places = ((item, tile) for item in range(len(planned.batch)) for tile in planned.plan)
        while group := list(islice(places, max(planned.batch_size, 1))):
            yield _Call(canvas, group)


def _output_dtype(reply: Array) -> np.dtype[Any]:
    # Blending in half precision would change a constant.
    return np.result_type(reply.dtype, np.float32) if reply.dtype.kind == "f" else reply.dtype


def _check_replies(replies: list[Array], wanted: tuple[int, ...], outputs: list[Array]) -> None:
    if not replies or (outputs and len(replies) != len(outputs)):
        raise ModelMismatch(f"model: gave {len(replies)} outputs; check that it is a model for images")
    for index, reply in enumerate(replies):
        if reply.ndim != len(wanted) + 1 or reply.shape[:-1] != wanted:
            raise ModelMismatch(
                f"model: output {index} has shape {reply.shape} for a batch of shape {wanted}; "
                "choose a model that gives one value or more for each pixel"
            )
        if outputs and reply.shape[-1] != outputs[index].shape[-1]:
            raise ModelMismatch(
                f"model: output {index} has {reply.shape[-1]} channels, and {outputs[index].shape[-1]} for an earlier "
                "tile; choose a model whose outputs don't change"
            )


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
