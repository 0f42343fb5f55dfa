"""Sends a consumer's image through a model: in which tiles, how many in a call, how many calls at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from redis_consumer import resources
from redis_consumer.consumers import defaults
from redis_consumer.consumers.predict import only_input
from redis_consumer.errors import ModelMismatch
from redis_consumer.job import ModelId
from redis_consumer.ordered_pool import OrderedPool
from redis_consumer.serving.batches import batch_size_for

if TYPE_CHECKING:
    from redis_consumer.models import ModelStore
    from redis_consumer.models.card import Tile as CardTile
    from redis_consumer.processing.tiled import Planned, Predict
    from redis_consumer.serving.base import Array, ModelServer, ModelSpec, OnRetry, TensorSpec


#: Numbers that the layers of a network hold for one pixel at once, where nobody has measured it.
LAYER_NUMBERS = 64


@dataclass(frozen=True)
class Tiling:
    """How one model takes images.

    Attributes:
        model: which one.
        sides: what its input says of (z,) y and x: pixels, None for any.
        channels: how many it takes, None for any number.
        has_channels: whether its arrays have an axis for them at all.
        card: what its card says, None where it says nothing.
        pixel_bytes: what it gives for one pixel, 0 where nobody knows.
        items: tiles that each call must have, None for any number.
    """

    model: ModelId
    sides: tuple[int | None, ...] = (None, None)
    channels: int | None = None
    has_channels: bool = True
    card: CardTile | None = None
    pixel_bytes: int = 0
    items: int | None = None

    def planned(self, image: Array) -> Planned:
        """Plan the tiles and calls of an image.

        Sides that the model fixes are those of the tile; others are as the card says, or the image's own where it says
        nothing. A model of volumes gets the planes of one volume.

        Args:
            image: (B, Y, X, C); for a model of volumes (Z, Y, X, C) or (B, Z, Y, X, C).

        Raises:
            ModelMismatch: the model takes another number of axes or channels.
        """
        from redis_consumer.processing.tiled import Planned, check_batch
        from redis_consumer.processing.tiles import plan_tiles

        batch = image[np.newaxis] if image.ndim == len(self.sides) + 1 else image
        check_batch(batch, len(self.sides))
        self.check_channels(batch.shape[-1])
        axes = [self._along(axis, side) for axis, side in enumerate(batch.shape[1:-1])]
        tile, overlaps = tuple(tile for tile, _ in axes), tuple(overlap for _, overlap in axes)
        plan = plan_tiles(batch.shape[1:-1], tile, overlaps)
        return Planned(batch, plan, self.batch_size(tile, batch))

    def planned_cuts(self, batch: Array, cuts: int, field: int) -> Planned:
        """Plan the pieces of images (B, Y, X, C) that are cut as their job says, and the calls.

        Args:
            batch: the images.
            cuts: pieces a side.
            field: receptive field of the model in pixels.

        Raises:
            ModelMismatch: the array isn't images.
            InvalidJob: as `redis_consumer.processing.tiles.plan_cuts`.
        """
        from redis_consumer.processing.tiled import Planned, check_batch
        from redis_consumer.processing.tiles import plan_cuts

        check_batch(batch, 2)
        plan = plan_cuts(
            (batch.shape[1], batch.shape[2]),
            cuts,
            field,
            multiple_px=self.card.multiple_px if self.card else 1,
            max_tile_yx=(int(defaults.get("MAX_IMAGE_HEIGHT")), int(defaults.get("MAX_IMAGE_WIDTH"))),
        )
        return Planned(batch, plan, self.batch_size(plan.tile, batch))

    def batch_size(self, tile: tuple[int, ...], image: Array) -> int:
        """Tiles in one call: TF_MAX_BATCH_SIZE counts tiles of TF_MIN_MODEL_SIZE (contract, section 4.4).

        Fewer where the call or its reply would have more than MAX_CALL_BYTES. As many as the model wants where it fixes
        their number.
        """
        if self.items is not None:
            return self.items
        largest = int(defaults.get("TF_MAX_BATCH_SIZE"))
        shape = (-1, *tile, image.shape[-1])
        wanted = batch_size_for([shape], largest, int(defaults.get("TF_MIN_MODEL_SIZE")))
        bytes_each: int = math.prod(tile) * max(image.shape[-1] * image.itemsize, self.pixel_bytes)
        return max(1, min(wanted, largest, int(defaults.get("MAX_CALL_BYTES")) // bytes_each))

    def call_shape(self) -> tuple[int, ...] | None:
        """Shape of the largest usual call; None where the size of the image decides."""
        sizes = [
            side or (self.card.size_px if self.card and axis >= len(self.sides) - 2 else None)
            for axis, side in enumerate(self.sides)
        ]
        tile = tuple(size for size in sizes if size is not None)
        if len(tile) < len(sizes):
            return None
        item = (*tile, self.channels or 1)
        batch = self.batch_size(tile, np.broadcast_to(np.zeros((), np.float32), (1, *item)))
        return (batch, *item) if self.has_channels else (batch, *tile)

    def estimated_call_bytes(self, shape: tuple[int, int, int, int], *, is_in_process: bool) -> int:
        """Bytes that one call takes, by what the model's metadata say of its inputs and outputs.

        Args:
            shape: (B, Y, X, C) of the images.
            is_in_process: whether what lies between inputs and outputs is held here, too.
        """
        sides = shape[:-1][-len(self.sides) :]
        along = [self._along(axis, side) for axis, side in enumerate(sides)]
        tile = tuple(side for side, _ in along)
        item = (*tile, shape[-1])
        steps = (
            math.ceil(max(side - 2 * overlap, 1) / max(tile - 2 * overlap, 1))
            for side, (tile, overlap) in zip(sides, along, strict=True)
        )
        tiles = math.prod(shape[: -1 - len(sides)]) * math.prod(steps)
        batch = self.batch_size(tile, np.broadcast_to(np.zeros((), np.float32), (1, *item)))
        numbers = LAYER_NUMBERS if is_in_process else 0
        return (
            min(batch, self.items or tiles)
            * math.prod(tile)
            * (2 * (4 * shape[-1] + max(self.pixel_bytes, 4)) + 4 * numbers)
        )

    def run(
        self,
        images: Iterable[Planned],
        ask: Callable[[Array, OnRetry], list[Array]],
        *,
        on_retry: OnRetry,
        on_tiles: Callable[[int], None] | None = None,
    ) -> Iterator[list[Array]]:
        """Run the model over images with several calls under way.

        Args:
            images: taken in other threads than the caller's, one at a time.
            ask: makes one call, in other threads; its second argument is called before each retry.
            on_retry: called in the caller's thread.
            on_tiles: called in the caller's thread, see `redis_consumer.processing.tiled.run_each`.

        Yields:
            The outputs for each image.
        """
        from redis_consumer.processing.tiled import run_each

        with OrderedPool(int(defaults.get("CALLS_IN_FLIGHT")), is_detached=True) as pool:

            def tell(count: int, code: str) -> None:
                pool.tell(partial(on_retry, count, code))

            predict = self.adapted(lambda tiles: self._ask_full(tiles, lambda full: ask(full, tell)))
            yield from run_each(images, predict, map_batches=pool.map, on_tiles=on_tiles)

    def adapted(self, predict: Predict) -> Predict:
        """The same function for tiles with a last axis for channels, where the model's arrays have none."""
        if self.has_channels:
            return predict

        def on_planes(tiles: Array) -> list[Array]:
            return [output[..., np.newaxis] for output in predict(tiles[..., 0])]

        return on_planes

    def _ask_full(self, tiles: Array, predict: Predict) -> list[Array]:
        """Make a call of as many tiles as the model wants; the last one is repeated where they don't suffice."""
        missing = max((self.items or 0) - len(tiles), 0)
        full = np.concatenate([tiles, *[tiles[-1:]] * missing]) if missing else tiles
        return [output[: len(tiles)] for output in predict(full)]

    def _along(self, axis: int, side: int) -> tuple[int, int]:
        """Side of a tile and overlap along one axis of an image."""
        from redis_consumer.processing.tiles import fit_tile

        fixed = self.sides[axis]
        is_depth = axis < len(self.sides) - 2
        if self.card is None or is_depth:
            return (side, 0) if fixed is None else (fixed, fixed // 4)
        if fixed is None:
            (fixed,) = fit_tile((side,), (self.card.size_px,), self.card.multiple_px)
        return fixed, self.card.overlap_px

    def check_named(self, count: int) -> None:
        """Refuse more channels than the model takes, by the number that a job's field names.

        Raises:
            ModelMismatch: there are more.
        """
        if self.channels is not None and count > self.channels:
            raise ModelMismatch(
                f"field channels names {count} channels, model {self.model} takes {self.channels}; "
                "name as many, e.g. 0",
                model=str(self.model),
            )

    def check_channels(self, channels: int) -> None:
        """Raise `ModelMismatch` unless the model takes images of so many channels."""
        if self.channels is not None and self.channels != channels:
            raise ModelMismatch(
                f"image: has {channels} channel(s), model {self.model} takes {self.channels}; "
                "name those to use in field channels, e.g. 0",
                model=str(self.model),
            )


def measured_call(ask: Callable[[], list[Array]], tiling: Tiling, batch: Array) -> tuple[list[Array], int]:
    """Make a call of a model that runs in this process, and say what the largest usual one takes.

    Args:
        ask: makes the call.
        tiling: how the model takes images.
        batch: what is sent.

    Returns:
        The outputs; and bytes, never less than inputs and outputs take.
    """
    outputs, grown = resources.grown_by(ask)
    least = batch.nbytes + sum(np.asarray(output).nbytes for output in outputs)
    shape = tiling.call_shape()
    return outputs, round(max(grown, least) * max(1.0, math.prod(shape) / batch.size if shape else 1.0))


def tiling_of(server: ModelServer, models: ModelStore, model: ModelId, *, on_retry: OnRetry | None = None) -> Tiling:
    """Say how a model takes images, from what the model server and its card say.

    Args:
        server: where the model is served.
        models: where its card is.
        model: which model.
        on_retry: told before each further try of asking the server, as `ModelClient` has it.

    Raises:
        ModelMismatch: the model takes no images.
    """
    return tiling_by(server.metadata(model, on_retry=on_retry), models, model)


def tiling_by(spec: ModelSpec, models: ModelStore, model: ModelId) -> Tiling:
    """Say how a model of known inputs takes images, see `tiling_of`."""
    image = only_input(spec, model)
    card = models.card(model)
    sides, has_channels, channels = _axes(image, model)
    items = image.shape[0] if image.shape else None
    return Tiling(model, sides, channels, has_channels, card.tile if card else None, _pixel_bytes(spec), items)


def _axes(spec: TensorSpec, model: ModelId) -> tuple[tuple[int | None, ...], bool, int | None]:
    """Sides of the input, whether it has channels, and how many."""
    if spec.shape is None:
        return (None, None), True, None
    if len(spec.shape) == 3:
        return spec.shape[1:], False, 1
    if len(spec.shape) not in (4, 5):
        raise ModelMismatch(
            f"model {model}: takes {len(spec.shape)} axes, images have batch, (z,) y, x and channel; name another",
            model=str(model),
        )
    return spec.shape[1:-1], True, spec.shape[-1]


def _pixel_bytes(spec: ModelSpec) -> int:
    """Bytes of one pixel of all outputs; the channels that nobody knows count as one."""
    return sum(_channels(output.shape) * output.dtype.itemsize for output in spec.outputs)


def _channels(shape: Sequence[int | None] | None) -> int:
    return (shape[-1] if shape else None) or 1
