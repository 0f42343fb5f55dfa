"""How a consumer asks a model server: which names, which tiles, how many at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from redis_consumer.consumers import defaults
from redis_consumer.errors import ModelMismatch
from redis_consumer.job import ModelId

if TYPE_CHECKING:
    from redis_consumer.models import ModelStore
    from redis_consumer.serving.base import Array, ModelServer, OnRetry, TensorSpec


class ModelClient:
    """One model on a model server, called as the older ``PredictClient`` is.

    Args:
        server: where it is served.
        model: name and version.
        on_retry: called before each further try of a failed call, with their count and the failure's code.
    """

    def __init__(
        self, server: ModelServer, model: ModelId, *, on_retry: Callable[[int, str], None] | None = None
    ) -> None:
        self.server = server
        self.model = model
        self.on_retry = on_retry

    def predict(
        self, request_data: Sequence[Mapping[str, Any]], request_timeout: float | None = None
    ) -> dict[str, Array]:
        """Run the model on one batch.

        Args:
            request_data: an entry for each input, with ``in_tensor_name`` (None for the model's only input) and
                ``data``; the dtype is the model's own.
            request_timeout: seconds that the call may take.

        Returns:
            An array for each output by name.
        """
        inputs = {entry.get("in_tensor_name") or self._only_input(): entry["data"] for entry in request_data}
        return self.server.predict(self.model, inputs, timeout_s=request_timeout, on_retry=self.on_retry)

    def _only_input(self) -> str:
        return only_input(self.server, self.model, on_retry=self.on_retry).name

    def describe_inputs(self) -> list[dict[str, str]]:
        """Name, dtype and shape of each input as texts (contract, section 4.4)."""
        from redis_consumer.serving.tensors import wire_type

        return [
            {
                "in_tensor_name": spec.name,
                "in_tensor_dtype": wire_type(spec.dtype).name,
                "in_tensor_shape": ",".join(str(-1 if size is None else size) for size in spec.shape or ()),
            }
            for spec in self.server.metadata(self.model, on_retry=self.on_retry).inputs
        ]


def only_input(server: ModelServer, model: ModelId, *, on_retry: OnRetry | None = None) -> TensorSpec:
    """The input that takes the image: the only one, or the one that ``TF_TENSOR_NAME`` names.

    Raises:
        ModelMismatch: the model has several, none of that name.
    """
    inputs = server.metadata(model, on_retry=on_retry).inputs
    if len(inputs) == 1:
        return inputs[0]
    wanted = str(defaults.get("TF_TENSOR_NAME"))
    for spec in inputs:
        if spec.name == wanted:
            return spec
    names = ", ".join(spec.name for spec in inputs)
    raise ModelMismatch(
        f"model {model}: takes {len(inputs)} inputs ({names}), none is called {wanted!r}; set TF_TENSOR_NAME",
        model=str(model),
    )


def keep_predictions(outputs: Mapping[str, Array]) -> list[Array]:
    """The outputs called ``prediction…`` in the order of their names; all where none is called so (section 4.3)."""
    names = sorted(outputs)
    return [outputs[name] for name in names if name.startswith("prediction")] or [outputs[name] for name in names]


@dataclass(frozen=True)
class Tiling:
    """How an image goes through a model.

    Attributes:
        tile_yx: sides of a tile in pixels.
        overlap_px: pixels that neighbouring tiles share.
        batch_size: tiles in one call.
    """

    tile_yx: tuple[int, int]
    overlap_px: int
    batch_size: int

    def run(
        self,
        image: Array,
        predict: Callable[[Array], list[Array]],
    ) -> list[Array]:
        """Predict an image (B, Y, X, C) tile by tile; see `redis_consumer.processing.tiles.run_tiled`."""
        from redis_consumer.processing.tiles import run_tiled

        return run_tiled(
            image,
            predict,
            tile_yx=self.tile_yx,
            overlap_px=self.overlap_px,
            batch_size=self.batch_size,
        )


def plan_tiling(
    server: ModelServer,
    models: ModelStore,
    model: ModelId,
    shape: Sequence[int],
    *,
    on_retry: OnRetry | None = None,
) -> Tiling:
    """Plan the tiles of an image from what the model server and the card say of a model.

    Models with a fixed size get tiles of it; others those of their card, or the whole image where they have none.

    Args:
        server: where the model is served.
        models: where its card is.
        model: which model.
        shape: of the image, (B, Y, X, C).
        on_retry: told before each further try of asking the server, as `ModelClient` has it.

    Raises:
        ModelMismatch: the model takes no images, or another number of channels.
    """
    from redis_consumer.processing.tiles import fit_tile

    spec = only_input(server, model, on_retry=on_retry)
    fixed_yx = _fixed_sides(spec, model, shape[-1])
    card = models.card(model)
    tile = card.tile if card else None
    if fixed_yx is not None:
        tile_yx, overlap_px = fixed_yx, tile.overlap_px if tile else min(fixed_yx) // 4
    elif tile is not None:
        # An image thinner than the overlap is padded, so that its long side still overlaps.
        height, width = (max(side, tile.overlap_px + 1) for side in shape[1:3])
        tile_yx = fit_tile((height, width), (tile.size_px, tile.size_px), tile.multiple_px)
        overlap_px = tile.overlap_px
    else:
        tile_yx, overlap_px = (shape[1], shape[2]), 0
    return Tiling(tile_yx, overlap_px, batch_size(tile_yx, shape[-1]))


def batch_size(tile_yx: tuple[int, int], channels: int) -> int:
    """Tiles in one call: TF_MAX_BATCH_SIZE counts tiles of TF_MIN_MODEL_SIZE (contract, section 4.4)."""
    unit_px = int(defaults.get("TF_MIN_MODEL_SIZE"))
    units = max(1.0, tile_yx[0] / unit_px * tile_yx[1] / unit_px * channels)
    return max(1, int(int(defaults.get("TF_MAX_BATCH_SIZE")) // units))


def _fixed_sides(spec: TensorSpec, model: ModelId, channels: int) -> tuple[int, int] | None:
    """The sides that the model's input must have, None where it takes any."""
    if spec.shape is None:
        return None
    if len(spec.shape) != 4:
        raise ModelMismatch(
            f"model {model}: takes {len(spec.shape)} axes, images have batch, y, x and channel; name another",
            model=str(model),
        )
    _, height, width, wanted = spec.shape
    if wanted is not None and wanted != channels:
        raise ModelMismatch(
            f"image: has {channels} channel(s), model {model} takes {wanted}; "
            "name those to use in field channels, e.g. 0",
            model=str(model),
        )
    return None if height is None or width is None else (height, width)
