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
    from redis_consumer.serving.base import Array, ModelServer, TensorSpec

#: Sides of a tile for models that take any size and have no card: one that fits every limit of an image.
WHOLE_IMAGE = 1 << 20


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
        return only_input(self.server, self.model).name

    def describe_inputs(self) -> list[dict[str, str]]:
        """Name, dtype and shape of each input as texts (contract, section 4.4)."""
        from redis_consumer.serving.tensors import dtype_name

        return [
            {
                "in_tensor_name": spec.name,
                "in_tensor_dtype": dtype_name(spec.dtype),
                "in_tensor_shape": ",".join(str(-1 if size is None else size) for size in spec.shape or ()),
            }
            for spec in self.server.metadata(self.model).inputs
        ]


def only_input(server: ModelServer, model: ModelId) -> TensorSpec:
    """The input that takes the image: the only one, or the one that ``TF_TENSOR_NAME`` names.

    Raises:
        ModelMismatch: the model has several, none of that name.
    """
    inputs = server.metadata(model).inputs
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
class TilePlan:
    """How an image goes through a model.

    Attributes:
        tile_yx: sides of a tile in pixels.
        overlap_px: pixels that neighbouring tiles share.
        multiple_px: the model takes sides that are multiples of this.
        batch_size: tiles in one call.
    """

    tile_yx: tuple[int, int]
    overlap_px: int
    multiple_px: int
    batch_size: int

    def run(
        self,
        image: Array,
        predict: Callable[[Array], list[Array]],
        *,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> list[Array]:
        """Predict an image (B, Y, X, C) tile by tile; see `redis_consumer.processing.tiles.run_tiled`."""
        from redis_consumer.processing.tiles import run_tiled

        return run_tiled(
            image,
            predict,
            tile_yx=self.tile_yx,
            overlap_px=self.overlap_px,
            multiple_px=self.multiple_px,
            batch_size=self.batch_size,
            on_progress=on_progress,
        )


class Predictor:
    """Plans tiles from what the model server and the card say of a model.

    Args:
        server: where models are served.
        models: where their cards are.
    """

    def __init__(self, server: ModelServer, models: ModelStore) -> None:
        self.server = server
        self.models = models

    def plan(self, model: ModelId, shape: Sequence[int]) -> TilePlan:
        """Plan the tiles of an image of this shape, (B, Y, X, C).

        Raises:
            ModelMismatch: the model takes no images, or another number of channels.
        """
        spec = only_input(self.server, model)
        fixed_yx = self._check(spec, model, shape)
        card = self.models.card(model)
        tile = card.tile if card else None
        if fixed_yx is not None:
            tile_yx = fixed_yx
            overlap_px = tile.overlap_px if tile else min(fixed_yx) // 4
            multiple_px = 1
        elif tile is not None:
            tile_yx, overlap_px, multiple_px = (tile.size_px, tile.size_px), tile.overlap_px, tile.multiple_px
        else:
            tile_yx, overlap_px, multiple_px = (WHOLE_IMAGE, WHOLE_IMAGE), 0, 1
        return TilePlan(tile_yx, overlap_px, multiple_px, self._batch_size(tile_yx, shape))

    def _check(self, spec: TensorSpec, model: ModelId, shape: Sequence[int]) -> tuple[int, int] | None:
        """The fixed sides of the model's input, None where it takes any."""
        if spec.shape is None:
            return None
        if len(spec.shape) != 4:
            raise ModelMismatch(
                f"model {model}: takes {len(spec.shape)} axes, images have batch, y, x and channel; name another",
                model=str(model),
            )
        _, height, width, channels = spec.shape
        if channels is not None and channels != shape[-1]:
            raise ModelMismatch(
                f"image: has {shape[-1]} channel(s), model {model} takes {channels}; "
                "name those to use in field channels, e.g. 0",
                model=str(model),
            )
        return None if height is None or width is None else (height, width)

    def _batch_size(self, tile_yx: tuple[int, int], shape: Sequence[int]) -> int:
        """Tiles in one call: TF_MAX_BATCH_SIZE counts tiles of TF_MIN_MODEL_SIZE (contract, section 4.4)."""
        unit_px = int(defaults.get("TF_MIN_MODEL_SIZE"))
        sides = [min(side, tile) for side, tile in zip(shape[1:3], tile_yx, strict=True)]
        units = max(1.0, sides[0] / unit_px * sides[1] / unit_px * shape[-1])
        return max(1, int(int(defaults.get("TF_MAX_BATCH_SIZE")) // units))
