"""Divides images for a model: into which tiles, how many in a call, how many calls at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from redis_consumer import machine
from redis_consumer.errors import ModelMismatch
from redis_consumer.job import ModelId
from redis_consumer.models.card import Card
from redis_consumer.models.card import Tile as CardTile
from redis_consumer.options import TilingOptions
from redis_consumer.processing.cuts import plan_cuts
from redis_consumer.processing.tiled import Planned, Predict, check_batch, fit_tile, plan_tiles
from redis_consumer.serving.base import Array, ModelSpec, TensorSpec, batch_size_for

#: Numbers that the layers of a network hold for one pixel at once, where no one has measured it.
LAYER_NUMBERS = 64


@dataclass(frozen=True)
class Tiling:
    """How one model takes images.

    Attributes:
        model: which one.
        sides: what its input says of (z,) y and x: pixels, None for any.
        channels: how many it takes, None for any number.
        has_channels: whether its arrays have an axis for them at all.
        card: what its card says, None if it says nothing.
        pixel_bytes: what it gives for one pixel, 0 if no one knows.
        items: tiles that each call must have, None for any number.
        options: sizes of tiles and calls.
    """

    model: ModelId
    sides: tuple[int | None, ...] = (None, None)
    channels: int | None = None
    has_channels: bool = True
    card: CardTile | None = None
    pixel_bytes: int = 0
    items: int | None = None
    options: TilingOptions = field(default_factory=TilingOptions)

    def planned(self, image: Array) -> Planned:
        """Plan the tiles and calls of an image.

        Sides that the model fixes are those of the tile; others are as the card says, or the image's own where it says
        nothing. A model of volumes gets the planes of one volume.

        Args:
            image: (B, Y, X, C); for a model of volumes (Z, Y, X, C) or (B, Z, Y, X, C).

        Raises:
            ModelMismatch: the model takes another number of axes or channels.
        """
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
            cuts: pieces per side.
            field: receptive field of the model in pixels.

        Raises:
            ModelMismatch: the array isn't images.
            InvalidJob: as `redis_consumer.processing.cuts.plan_cuts`.
        """
        check_batch(batch, 2)
        plan = plan_cuts(
            (batch.shape[1], batch.shape[2]),
            cuts,
            field,
            multiple_px=self.card.multiple_px if self.card else 1,
            max_tile_yx=self.options.max_tile_yx,
        )
        return Planned(batch, plan, self.batch_size(plan.tile, batch))

    def batch_size(self, tile: tuple[int, ...], image: Array) -> int:
        """Tiles in one call: the options' `max_batch` counts tiles of `min_model_px` (contract, section 4.4).

        Fewer where the call or its reply would have more than `max_call_bytes`. As many as the model wants where it
        fixes their number.
        """
        if self.items is not None:
            return self.items
        largest = self.options.max_batch
        shape = (-1, *tile, image.shape[-1])
        wanted = batch_size_for([shape], largest, self.options.min_model_px)
        bytes_each: int = math.prod(tile) * max(image.shape[-1] * image.itemsize, self.pixel_bytes)
        return max(1, min(wanted, largest, self.options.max_call_bytes // bytes_each))

    def call_shape(self) -> tuple[int, ...] | None:
        """Shape of the largest usual call; None if the size of the image decides."""
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

    def adapted(self, predict: Predict) -> Predict:
        """The same function for tiles with a last axis for channels, where the model's arrays have none."""
        if self.has_channels:
            return predict

        def on_planes(tiles: Array) -> list[Array]:
            return [output[..., np.newaxis] for output in predict(tiles[..., 0])]

        return on_planes

    def filled(self, predict: Predict) -> Predict:
        """The same function for calls of as many tiles as the model wants; the last one is repeated to fill a call."""
        if self.items is None:
            return predict

        def on_full(tiles: Array) -> list[Array]:
            missing = max((self.items or 0) - len(tiles), 0)
            full = np.concatenate([tiles, *[tiles[-1:]] * missing]) if missing else tiles
            return [output[: len(tiles)] for output in predict(full)]

        return on_full

    def _along(self, axis: int, side: int) -> tuple[int, int]:
        """Side of a tile and overlap along one axis of an image."""
        fixed = self.sides[axis]
        is_depth = axis < len(self.sides) - 2
        if self.card is None or is_depth:
            return (side, 0) if fixed is None else (fixed, fixed // 4)
        if fixed is None:
            (fixed,) = fit_tile((side,), (self.card.size_px,), self.card.multiple_px)
        return fixed, self.card.overlap_px

    def _example(self) -> str:
        """A value of the job's field ``channels`` with as many indices as the model takes."""
        return ",".join(map(str, range(self.channels or 1)))

    def check_named(self, count: int) -> None:
        """Refuse more channels than the model takes, by the number that a job's field names.

        Raises:
            ModelMismatch: there are more.
        """
        if self.channels is not None and count > self.channels:
            raise ModelMismatch(
                f"field channels names {count} channels, model {self.model} takes {self.channels}; "
                f"name as many, e.g. {self._example()}",
                model=str(self.model),
            )

    def check_channels(self, channels: int) -> None:
        """Raise `ModelMismatch` unless the model takes images of so many channels."""
        if self.channels is not None and self.channels != channels:
            raise ModelMismatch(
                f"image: has {channels} channel(s), model {self.model} takes {self.channels}; "
                f"name those to use in field channels, e.g. {self._example()}",
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
    outputs, grown = machine.grown_by(ask)
    least = batch.nbytes + sum(np.asarray(output).nbytes for output in outputs)
    shape = tiling.call_shape()
    return outputs, round(max(grown, least) * max(1.0, math.prod(shape) / batch.size if shape else 1.0))


def tiling_of(
    spec: ModelSpec, card: Card | None, model: ModelId, options: TilingOptions, *, input_name: str = "image"
) -> Tiling:
    """Return how images are tiled for a model.

    Args:
        spec: its inputs and outputs.
        card: its card, None if it has none.
        model: which model.
        options: sizes of tiles and calls.
        input_name: input for the image, if the model has several.

    Raises:
        ModelMismatch: the model takes no images.
    """
    image = only_input(spec, model, input_name)
    sides, has_channels, channels = _axes(image, model)
    items = image.shape[0] if image.shape else None
    tile = card.tile if card else None
    return Tiling(model, sides, channels, has_channels, tile, _pixel_bytes(spec), items, options)


def only_input(spec: ModelSpec, model: ModelId, name: str) -> TensorSpec:
    """The input that takes the image: the only one, or the one of this name.

    Raises:
        ModelMismatch: the model has several inputs, but none of that name.
    """
    if len(spec.inputs) == 1:
        return spec.inputs[0]
    for tensor in spec.inputs:
        if tensor.name == name:
            return tensor
    names = ", ".join(tensor.name for tensor in spec.inputs)
    raise ModelMismatch(
        f"model {model}: takes {len(spec.inputs)} inputs ({names}), none is called {name!r}; set TF_TENSOR_NAME",
        model=str(model),
    )


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
    """Bytes of one pixel of all outputs; the channels that no one knows count as one."""
    return sum(_channels(output.shape) * output.dtype.itemsize for output in spec.outputs)


def _channels(shape: Sequence[int | None] | None) -> int:
    return (shape[-1] if shape else None) or 1
