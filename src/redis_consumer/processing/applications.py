"""Applications of consumers of 2023: a model with the functions before and after it (contract, section 5.4).

The model can be any object with the interface of a Keras model, such as `redis_consumer.grpc_clients.GrpcModelWrapper`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from redis_consumer.errors import ModelMismatch
from redis_consumer.processing.labels import deep_watershed
from redis_consumer.processing.normalization import histogram_normalization
from redis_consumer.processing.resize import resize_image, resize_labels, scaled_sides
from redis_consumer.processing.tiled import run_tiled

Array = npt.NDArray[Any]

#: Neighbouring tiles share one part in this number of a tile.
_OVERLAP = 4


class Application:
    """Makes label images from images with a model.

    Args:
        model: has ``input_shape``, (batch, y, x, channels) with None for any size, and ``predict(tiles, batch_size)``.
        preprocessing_fn: called with the image at the model's pixel size; None for no function.
        postprocessing_fn: called with the list of the model's outputs; None to return the outputs unchanged.

    Attributes:
        model_mpp: side of a pixel that the model expects, in micrometres.
    """

    model_mpp: ClassVar[float] = 0.65

    def __init__(
        self,
        model: Any,
        preprocessing_fn: Callable[..., Array] | None = histogram_normalization,
        postprocessing_fn: Callable[..., Any] | None = deep_watershed,
    ) -> None:
        self.model = model
        self.preprocessing_fn = preprocessing_fn
        self.postprocessing_fn = postprocessing_fn
        if isinstance(model.input_shape, list):
            raise ModelMismatch(f"model: has {len(model.input_shape)} inputs; give a model with one input")
        self.model_image_shape = tuple(model.input_shape[1:])

    def predict(
        self,
        image: Array,
        batch_size: int = 4,
        image_mpp: float | None = None,
        preprocess_kwargs: Mapping[str, Any] | None = None,
        postprocess_kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Find cells.

        Args:
            image: (B, Y, X, C) of any real dtype.
            batch_size: tiles in one call of the model.
            image_mpp: side of a pixel of the image in micrometres; None for the pixel size of the model. The image is
                resized by ``image_mpp / model_mpp``.
            preprocess_kwargs: options for the function before the model.
            postprocess_kwargs: options for the function after the model.

        Returns:
            (B, Y, X, 1) label image of the size of `image`. Without a function after the model, the model's outputs.

        Raises:
            ModelMismatch: the image doesn't have the rank or number of channels of the model. Also a ValueError.
        """
        channels = self.model_image_shape[-1]
        if image.ndim != 4 or (channels is not None and image.shape[-1] != channels):
            raise ModelMismatch(f"image: has the shape {image.shape}, the model takes (batch, y, x, {channels})")
        factor = 1.0 if image_mpp is None else image_mpp / self.model_mpp
        prepared = resize_image(image, scaled_sides(image.shape[1:3], factor))
        if self.preprocessing_fn is not None:
            prepared = np.asarray(self.preprocessing_fn(prepared, **(preprocess_kwargs or {})))
        outputs = self._run(prepared, batch_size)
        if self.postprocessing_fn is None:
            return outputs[0] if len(outputs) == 1 else outputs
        found = self.postprocessing_fn(outputs, **(postprocess_kwargs or {}))
        return resize_labels(found, (image.shape[1], image.shape[2]))

    def _run(self, image: Array, batch_size: int) -> list[Array]:
        sizes = zip(self.model_image_shape[:2], image.shape[1:3], strict=True)
        tile = tuple(side if size is None else size for size, side in sizes)

        def predict(tiles: Array) -> list[Array]:
            outputs = self.model.predict(tiles, batch_size=batch_size)
            return [outputs] if isinstance(outputs, np.ndarray) else list(outputs)

        overlaps = tuple(side // _OVERLAP for side in tile)
        return run_tiled(image, predict, tile=tile, overlap_px=overlaps, batch_size=batch_size)


class NuclearSegmentation(Application):
    """Finds nuclei."""


class CytoplasmSegmentation(Application):
    """Finds whole cells, in images of a cytoplasm stain or in phase contrast."""
