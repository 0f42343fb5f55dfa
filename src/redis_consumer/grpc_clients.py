"""Asks model servers by the names of older consumers (contract, sections 4.4 and 6).

A doorway: `redis_consumer.serving` does the work. New code asks a `ModelServer`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from redis_consumer import settings
from redis_consumer.errors import ModelMismatch
from redis_consumer.job import ModelId
from redis_consumer.serving._pb.tfs_pb2 import PredictResponse
from redis_consumer.serving.base import Array, batch_size_for, predict_in_batches
from redis_consumer.serving.tfs.server import TFServingServer
from redis_consumer.serving.tfs.tensors import from_tensor, to_tensor
from redis_consumer.serving.transport.connection import new_channel

if TYPE_CHECKING:
    import grpc

__all__ = ["GrpcClient", "GrpcModelWrapper", "PredictClient", "grpc_response_to_dict", "make_tensor_proto"]


def make_tensor_proto(data: npt.ArrayLike, dtype: str | int) -> Any:
    """Make a tensor of an array, or of one value, whose shape is then [1].

    Where the process has loaded TensorFlow's own messages, it is one of these, so that it can be copied into an
    official request.

    Args:
        data: array or value.
        dtype: TensorFlow's name or number of the element type.

    Returns:
        A ``tensorflow.TensorProto``, else our own message of the same fields.
    """
    tensor = to_tensor(data if isinstance(data, np.ndarray) else np.atleast_1d(data), dtype)
    official = _official_class("tensorflow.TensorProto")
    return tensor if official is None else official.FromString(tensor.SerializeToString())


def _official_class(name: str) -> Any:
    """Class of a message that this process knows by a name, None if it knows none."""
    from google.protobuf import descriptor_pool, message_factory

    try:
        descriptor = descriptor_pool.Default().FindMessageTypeByName(name)
    except KeyError:
        return None
    return message_factory.GetMessageClass(descriptor)


def grpc_response_to_dict(grpc_response: PredictResponse) -> dict[str, Array]:
    """Read the outputs of a reply as arrays by name, each of the shape that the server declared."""
    return {name: from_tensor(tensor, name=name) for name, tensor in grpc_response.outputs.items()}


class GrpcClient:
    """The address of a gRPC server.

    Args:
        host: ``host:port``.
    """

    def __init__(self, host: str) -> None:
        self.host = host

    def insecure_channel(self) -> grpc.Channel:
        """Open a new unencrypted channel, which the caller closes."""
        return new_channel(self.host)


class PredictClient(GrpcClient):
    """One model on TensorFlow Serving; the connection is made at the first call and kept.

    Args:
        host: ``host:port``.
        model_name: folder name of the model.
        model_version: its version; 0 or below for the latest.
        backoff_s: pause before the first retry in seconds; ``GRPC_BACKOFF`` by default.
        max_retries: how often a call is repeated at most; ``MAX_RETRY`` by default.

    Raises:
        InvalidJob: the version is no whole number. Also a ValueError.
    """

    def __init__(
        self,
        host: str,
        model_name: str,
        model_version: int | str,
        *,
        backoff_s: float | None = None,
        max_retries: int | None = None,
    ) -> None:
        super().__init__(host)
        self.model_name = model_name
        self.model_version = model_version
        self._model = ModelId.numbered(model_name, model_version)
        self._server = TFServingServer(
            host,
            backoff_s=settings.current().grpc_backoff if backoff_s is None else backoff_s,
            max_retries=settings.current().max_retry if max_retries is None else max_retries,
        )

    def predict(self, request_data: Sequence[Mapping[str, Any]], request_timeout: float = 10) -> dict[str, Array]:
        """Run the model on one batch.

        Args:
            request_data: an entry for each input with ``in_tensor_name``, ``in_tensor_dtype`` and ``data``.
            request_timeout: seconds allowed for one try.

        Raises:
            ModelNotFound, ModelMismatch, ModelServerUnavailable: as `ModelServer.predict`.
        """
        arrays = {entry["in_tensor_name"]: np.atleast_1d(entry["data"]) for entry in request_data}
        types = {entry["in_tensor_name"]: entry["in_tensor_dtype"] for entry in request_data}
        return self._server.predict(self._model, arrays, types=types, timeout_s=request_timeout)

    def get_model_metadata(self, request_timeout: float = 10) -> dict[str, Any]:
        """Ask which tensors the model takes and gives, in protobuf's JSON form.

        Args:
            request_timeout: seconds allowed for one try.
        """
        return self._server.metadata_json(self._model, timeout_s=request_timeout)


class _Client(Protocol):
    """What is needed of a predict client."""

    def predict(
        self, request_data: Sequence[Mapping[str, Any]], request_timeout: float = 10, /
    ) -> Mapping[str, Array]: ...


class GrpcModelWrapper:
    """A served model with the looks of a Keras one.

    Args:
        client: the model on its server: a `PredictClient`, or what a consumer's ``_get_predict_client`` gives.
        model_metadata: for each input ``in_tensor_name``, ``in_tensor_dtype`` and ``in_tensor_shape``
            (``"-1,256,256,1"``, -1 for a free size).
        batch_size: items a call; by default what `get_batch_size` says.
        max_batch_size: items a call for tiles of `min_model_size`; ``TF_MAX_BATCH_SIZE`` by default.
        min_model_size: side of those tiles in pixels; ``TF_MIN_MODEL_SIZE`` by default.
        request_timeout: seconds allowed for one try of a call; ``GRPC_TIMEOUT`` by default.
    """

    def __init__(
        self,
        client: _Client,
        model_metadata: Sequence[Mapping[str, str]],
        batch_size: int | None = None,
        *,
        max_batch_size: int | None = None,
        min_model_size: int | None = None,
        request_timeout: float | None = None,
    ) -> None:
        self._client = client
        self.model_metadata = list(model_metadata)
        self.output_names: list[str] = []
        self._shapes = [tuple(map(int, entry["in_tensor_shape"].split(","))) for entry in self.model_metadata]
        self._request_timeout = float(request_timeout or settings.current().grpc_timeout)
        largest = int(max_batch_size or settings.current().tf_max_batch_size)
        side = int(min_model_size or settings.current().tf_min_model_size)
        self._batch_size = batch_size or batch_size_for(self._shapes, largest, side)

    @property
    def input_shape(self) -> tuple[int | None, ...] | list[tuple[int | None, ...]]:
        """Shape of the input with None for free sizes; a list of shapes where there are several inputs."""
        shapes = [tuple(None if size < 0 else size for size in shape) for shape in self._shapes]
        return shapes[0] if len(shapes) == 1 else shapes

    def get_batch_size(self) -> int:
        """How many items one call carries."""
        return self._batch_size

    def send_grpc(self, img: Array | Sequence[Array] | Mapping[str, Array]) -> list[Array]:
        """Run the model on one batch; gives its outputs in the order of their names."""
        arrays = self._by_name(img)
        outputs = self._client.predict(
            [{**entry, "data": arrays[entry["in_tensor_name"]]} for entry in self.model_metadata], self._request_timeout
        )
        self.output_names = sorted(outputs)
        return [outputs[name] for name in self.output_names]

    def predict(
        self, tiles: Array | Sequence[Array] | Mapping[str, Array], batch_size: int | None = None
    ) -> Array | list[Array]:
        """Run the model on any number of items, batch by batch.

        Args:
            tiles: an array, or one for each input in the metadata's order or by name; axis 0 counts the items.
            batch_size: items a call, where it isn't the usual number.

        Returns:
            The output; a list in the order of their names where there are several.

        Raises:
            ModelMismatch: there are more or fewer arrays than inputs. Also a ValueError.
        """
        outputs = predict_in_batches(self.send_grpc, self._by_name(tiles), batch_size or self._batch_size)
        return outputs[0] if len(outputs) == 1 else outputs

    def _by_name(self, arrays: Array | Sequence[Array] | Mapping[str, Array]) -> dict[str, Array]:
        names = [entry["in_tensor_name"] for entry in self.model_metadata]
        if isinstance(arrays, Mapping):
            given = dict(arrays)
        else:
            listed = [arrays] if isinstance(arrays, np.ndarray) else list(arrays)
            given = dict(zip(names, listed, strict=True)) if len(names) == len(listed) else {}
        if set(given) != set(names):
            wanted = ", ".join(map(repr, names))
            raise ModelMismatch(f"model: takes {wanted}; give one array for each")
        return given
