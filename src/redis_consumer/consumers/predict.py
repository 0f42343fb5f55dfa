"""How a consumer asks a model server: by which names, and what it keeps of the answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from redis_consumer.consumers import defaults
from redis_consumer.errors import InvalidImage, ModelMismatch
from redis_consumer.job import ModelId

if TYPE_CHECKING:
    from redis_consumer.serving.base import Array, ModelServer, ModelSpec, TensorSpec


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
        return only_input(self.server.metadata(self.model, on_retry=self.on_retry), self.model).name

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


def model_of(model: ModelId | str) -> ModelId:
    """The model that an author's code names.

    Raises:
        TypeError: it is something else.
        InvalidJob: as `ModelId.parse`.
    """
    if isinstance(model, str):
        return ModelId.parse(model)
    if not isinstance(model, ModelId):
        raise TypeError(f"model: {model!r} is a {type(model).__name__}; give a ModelId, or a text such as 'Nuclei:1'")
    return model


def stacked(items: Array | Sequence[Array]) -> Array:
    """Items of one size as one array, the items along its first axis.

    Raises:
        ValueError: they differ in size, or there are none.
    """
    if isinstance(items, np.ndarray):
        return items
    arrays = [np.asarray(item) for item in items]
    shapes = sorted({array.shape for array in arrays})
    if len(shapes) != 1:
        told = f"they have shapes {', '.join(map(str, shapes[:5]))}" if shapes else "there are none"
        raise ValueError(f"items: {told}; give at least one, and all in one size")
    return np.stack(arrays)


def only_input(spec: ModelSpec, model: ModelId) -> TensorSpec:
    """The input that takes the image: the only one, or the one that ``TF_TENSOR_NAME`` names.

    Raises:
        ModelMismatch: the model has several, none of that name.
    """
    if len(spec.inputs) == 1:
        return spec.inputs[0]
    wanted = str(defaults.get("TF_TENSOR_NAME"))
    for tensor in spec.inputs:
        if tensor.name == wanted:
            return tensor
    names = ", ".join(tensor.name for tensor in spec.inputs)
    raise ModelMismatch(
        f"model {model}: takes {len(spec.inputs)} inputs ({names}), none is called {wanted!r}; set TF_TENSOR_NAME",
        model=str(model),
    )


def keep_predictions(outputs: Mapping[str, Array]) -> list[Array]:
    """The outputs called ``prediction…`` in the order of their names; all where none is called so (section 4.3)."""
    names = sorted(outputs)
    return [outputs[name] for name in names if name.startswith("prediction")] or [outputs[name] for name in names]


def fit_input(image: Array, sizes: Sequence[int], model: str, channels: str | None) -> Array:
    """Bring an image into the axes order of a model, see `TensorFlowServingConsumer.validate_model_input`.

    Args:
        image: as many axes as the model's input; the smallest besides the first is taken for the channels.
        sizes: of the model's input, -1 for any.
        model: which model, for messages.
        channels: indices of the channels to use, joined by commas; all by default.

    Raises:
        ModelMismatch: rank or number of channels differ from the model's.
        InvalidImage: it is larger than ``MAX_IMAGE_HEIGHT`` x ``MAX_IMAGE_WIDTH``.
    """
    wanted = f"{model} takes {len(sizes)} axes ({','.join(map(str, sizes))})"
    if image.ndim != len(sizes):
        raise ModelMismatch(f"image: has {image.ndim} axes {image.shape}, {wanted}; send one of that rank")
    image = np.moveaxis(image, 1 + int(np.argmin(image.shape[1:])), -1)
    if channels:
        indices = [int(index) for index in channels.split(",") if index.strip()]
        if any(not 0 <= index < image.shape[-1] for index in indices):
            raise ModelMismatch(f"field channels: {channels!r} names more than the image's {image.shape[-1]}")
        image = image[..., indices]
    if sizes[-1] > 0 and image.shape[-1] != sizes[-1]:
        raise ModelMismatch(f"image: has {image.shape[-1]} channels, {wanted}; name those to use in field channels")
    height, width = image.shape[-3:-1]
    if height > int(defaults.get("MAX_IMAGE_HEIGHT")) or width > int(defaults.get("MAX_IMAGE_WIDTH")):
        raise InvalidImage(f"image: {height} x {width} pixels is more than MAX_IMAGE_HEIGHT and MAX_IMAGE_WIDTH allow")
    return image
