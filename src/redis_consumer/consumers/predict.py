"""Sends a consumer's calls to its model server, and chooses the outputs that are kept."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from redis_consumer.consumers import defaults
from redis_consumer.consumers.model_input import inputs_of_metadata, metadata_of_inputs
from redis_consumer.errors import ModelMismatch
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
        self.model_name = model.name
        self.model_version = model.label or model.version
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

    def get_model_metadata(self, request_timeout: float | None = None) -> dict[str, Any]:  # noqa: ARG002 - older name
        """Say which tensors the model takes, as TensorFlow Serving's metadata in protobuf's JSON form."""
        return metadata_of_inputs(self.model_name, self.model_version, self.describe_inputs())

    def describe_inputs(self) -> list[dict[str, str]]:
        """Name, dtype and shape of each input as texts (contract, section 4.4)."""
        from redis_consumer.serving.tfs.tensors import wire_type

        return [
            {
                "in_tensor_name": spec.name,
                "in_tensor_dtype": wire_type(spec.dtype).name,
                "in_tensor_shape": ",".join(str(-1 if size is None else size) for size in spec.shape or ()),
            }
            for spec in self.server.metadata(self.model, on_retry=self.on_retry).inputs
        ]


def request_of(client: Any, model_name: str, batch: Array) -> list[dict[str, Any]]:
    """What `ModelClient.predict` gets for one batch of images (contract, section 4.3).

    A plug-in's own client gets the input's name and type from the settings; ours asks the model server for them.
    """
    if isinstance(client, ModelClient):
        return [{"in_tensor_name": None, "in_tensor_dtype": None, "data": batch}]
    dtype = "DT_HALF" if "f16" in model_name else defaults.get("TF_TENSOR_DTYPE")
    return [{"in_tensor_name": defaults.get("TF_TENSOR_NAME"), "in_tensor_dtype": dtype, "data": batch}]


def described_inputs(client: Any, usual: Callable[[], ModelClient]) -> list[dict[str, str]]:
    """Name, dtype and shape of each input of a model, asked of a plug-in's own client where that can tell.

    Args:
        client: has ``get_model_metadata``, as ``PredictClient`` of 2023 has it, or `ModelClient.describe_inputs`.
        usual: gives the client that is asked where it has neither.
    """
    if hasattr(client, "get_model_metadata"):
        found = client.get_model_metadata()
        return found if isinstance(found, list) else inputs_of_metadata(found)
    found = client.describe_inputs() if hasattr(client, "describe_inputs") else usual().describe_inputs()
    return list(found)


def takes_version(method: Callable[..., Any]) -> bool:
    """Whether a plug-in's own ``predict`` takes a model's name and version one by one, as those of 2020 do."""
    try:
        inspect.signature(method).bind(None, None)
    except TypeError:
        return True
    return False


def with_batch(image: npt.ArrayLike) -> Array:
    """An image (Y, X, C) with a leading batch axis of 1; what has one stays as it is."""
    array = np.asarray(image)
    return array[np.newaxis] if array.ndim == 3 else array


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
