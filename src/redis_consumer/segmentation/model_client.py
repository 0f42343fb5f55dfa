"""Calls a model server in the forms of older consumers, and reads the models and items that authors pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from redis_consumer.job import ModelId
from redis_consumer.segmentation.model_input import inputs_of_metadata, metadata_of_inputs
from redis_consumer.segmentation.tiling import only_input
from redis_consumer.serving.base import Array, ModelServer, OnRetry


class ModelClient:
    """One model on a model server, with the methods of the older ``PredictClient``.

    Args:
        server: the model server.
        model: name and version.
        on_retry: called before each retry of a failed call, with the number of retries and the code of the failure.
        input_name: input for the image, if the model has several.
    """

    def __init__(
        self, server: ModelServer, model: ModelId, *, on_retry: OnRetry | None = None, input_name: str = "image"
    ) -> None:
        self.server = server
        self.model = model
        self.model_name = model.name
        self.model_version = model.label or model.version
        self.on_retry = on_retry
        self._input_name = input_name

    def predict(
        self, request_data: Sequence[Mapping[str, Any]], request_timeout: float | None = None
    ) -> dict[str, Array]:
        """Run the model on one batch.

        Args:
            request_data: an entry for each input, with ``in_tensor_name`` (None for the model's only input) and
                ``data``; the dtype is that of the model.
            request_timeout: timeout of the call in seconds.

        Returns:
            An array for each output, by name.
        """
        inputs = {entry.get("in_tensor_name") or self._only_input(): entry["data"] for entry in request_data}
        return self.server.predict(self.model, inputs, timeout_s=request_timeout, on_retry=self.on_retry)

    def _only_input(self) -> str:
        return only_input(self.server.metadata(self.model, on_retry=self.on_retry), self.model, self._input_name).name

    def get_model_metadata(self, request_timeout: float | None = None) -> dict[str, Any]:  # noqa: ARG002 - older name
        """Return the input tensors of the model, as TensorFlow Serving's metadata in protobuf's JSON form."""
        return metadata_of_inputs(self.model_name, self.model_version, self.describe_inputs())

    def describe_inputs(self) -> list[dict[str, str]]:
        """Return name, dtype and shape of each input as texts (contract, section 4.4)."""
        from redis_consumer.serving.tfs.tensors import wire_type  # late: loads protobuf, for older consumers only

        return [
            {
                "in_tensor_name": spec.name,
                "in_tensor_dtype": wire_type(spec.dtype).name,
                "in_tensor_shape": ",".join(str(-1 if size is None else size) for size in spec.shape or ()),
            }
            for spec in self.server.metadata(self.model, on_retry=self.on_retry).inputs
        ]


def request_of(client: Any, batch: Array, name: str, dtype: str) -> list[dict[str, Any]]:
    """Return the argument of `ModelClient.predict` for one batch of images (contract, section 4.3).

    Args:
        client: `ModelClient`, which asks the model server for name and type of the input, or a plug-in's own client.
        batch: the images.
        name: name of the input, for a plug-in's own client.
        dtype: dtype of the input, for a plug-in's own client.
    """
    if isinstance(client, ModelClient):
        return [{"in_tensor_name": None, "in_tensor_dtype": None, "data": batch}]
    return [{"in_tensor_name": name, "in_tensor_dtype": dtype, "data": batch}]


def described_inputs(client: Any, usual: Callable[[], ModelClient]) -> list[dict[str, str]]:
    """Return name, dtype and shape of each input of a model, from the client of a plug-in if it has them.

    Args:
        client: has ``get_model_metadata``, as ``PredictClient`` of 2023 has it, or `ModelClient.describe_inputs`.
        usual: returns the client to ask if it has neither.
    """
    if hasattr(client, "get_model_metadata"):
        found = client.get_model_metadata()
        return found if isinstance(found, list) else inputs_of_metadata(found)
    found = client.describe_inputs() if hasattr(client, "describe_inputs") else usual().describe_inputs()
    return list(found)
