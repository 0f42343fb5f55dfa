"""Calls models on a server of the Open Inference Protocol v2: Triton, OpenVINO, MLServer, KServe."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.message import DecodeError

from redis_consumer.errors import ModelMismatch, ModelServerUnavailable
from redis_consumer.job import ModelId
from redis_consumer.serving._pb import oip_pb2
from redis_consumer.serving.base import Array, ModelSpec, OnRetry, TensorSpec, check_inputs, check_outputs
from redis_consumer.serving.oip.tensors import array_dtype, infer_reply, infer_request, version_text
from redis_consumer.serving.remembered import Remembered
from redis_consumer.serving.transport.channel import CallLimits, Channel
from redis_consumer.serving.transport.connection import ConnectionOptions
from redis_consumer.serving.transport.faults import Fault

_SERVICE = "/inference.GRPCInferenceService"
SERVER_READY = f"{_SERVICE}/ServerReady"
MODEL_READY = f"{_SERVICE}/ModelReady"
MODEL_METADATA = f"{_SERVICE}/ModelMetadata"
MODEL_INFER = f"{_SERVICE}/ModelInfer"

_METADATA_TIMEOUT_S = 10.0

# What servers say while they load a model, under codes that blame the request.
_TEXTS = {"not ready": Fault(ModelServerUnavailable, "wait until the server has loaded the model", may_pass=True)}

TensorMetadata = oip_pb2.ModelMetadataResponse.TensorMetadata
Reply = TypeVar("Reply", oip_pb2.ModelMetadataResponse, oip_pb2.ModelReadyResponse)


@dataclass(frozen=True)
class _Known:
    """The metadata of a model; `names` are the protocol's names of the inputs' types."""

    spec: ModelSpec
    names: Mapping[str, str]


class OpenInferenceServer:
    """A `ModelServer` that speaks the Open Inference Protocol v2 over kept, lazily made gRPC connections.

    Args:
        targets: ``host:port`` of one or more servers that hold the same models.
        options: how to connect.
        limits: how long a call may take and how often it is tried.
        metadata_expire_s: for how many seconds a model's metadata are believed.
    """

    def __init__(
        self,
        targets: Sequence[str],
        *,
        options: ConnectionOptions | None = None,
        limits: CallLimits | None = None,
        metadata_expire_s: float = 30,
    ) -> None:
        self._limits = limits or CallLimits()
        self._channel = Channel(targets, "Open Inference server", options=options, limits=self._limits, texts=_TEXTS)
        self._known: Remembered[ModelId, _Known] = Remembered(metadata_expire_s)

    def metadata(self, model: ModelId, *, on_retry: OnRetry | None = None) -> ModelSpec:
        """Say which tensors a model takes and gives, see `ModelServer.metadata`.

        Raises:
            ModelNotFound: the server has no such model.
            ModelMismatch: the server's metadata name no tensors.
            ModelServerUnavailable: the server doesn't answer, or the model isn't ready, after bounded retries.
        """
        return self._current(model, on_retry).spec

    def predict(
        self,
        model: ModelId,
        inputs: Mapping[str, Array],
        *,
        timeout_s: float | None = None,
        on_retry: OnRetry | None = None,
    ) -> dict[str, Array]:
        """Run a model on one batch, see `ModelServer.predict`.

        Where the model's metadata are known by an earlier `metadata`, the inputs are checked against them before
        anything is sent, and cast. Otherwise they are sent unchanged and the server checks them.

        Args:
            model: which model; for version 0 the server chooses.
            inputs: an array for each input by name, axis 0 is the batch.
            timeout_s: seconds allowed for one try, None for the server's usual.
            on_retry: called before each repeated call.

        Raises:
            ModelNotFound: the server has no such model.
            ModelMismatch: the inputs don't fit the model, or the outputs aren't what its metadata say.
            ModelServerUnavailable: the server doesn't answer, after bounded retries.
        """
        known = self._current(model, on_retry) if model in self._known else None
        arrays = inputs if known is None else check_inputs(known.spec, inputs, model)
        request = infer_request(model, arrays, {} if known is None else known.names)
        reply = self._channel.call(MODEL_INFER, request, model=model, timeout_s=timeout_s, on_retry=on_retry)
        return check_outputs(None if known is None else known.spec, infer_reply(reply), model)

    def check(self) -> str:
        """Check once that each server answers as an Open Inference server, in a few seconds, and describe the result.

        Raises:
            ModelServerUnavailable: none does.
        """
        return self._channel.check(SERVER_READY, b"", alive={"OK"}, advice="check that it runs, and MODEL_SERVER")

    def close(self) -> None:
        """Close the connections and forget metadata; a later call opens new ones."""
        self._channel.close()
        self._known.clear()

    def _current(self, model: ModelId, on_retry: OnRetry | None) -> _Known:
        return self._known.get_or(model, lambda: self._asked(model, on_retry))

    def _asked(self, model: ModelId, on_retry: OnRetry | None) -> _Known:
        version = version_text(model)
        request = oip_pb2.ModelMetadataRequest(name=model.name, version=version)
        answer = self._ask(MODEL_METADATA, request.SerializeToString(), oip_pb2.ModelMetadataResponse, model, on_retry)
        # Metadata are there before the model is: asked second, so that an unknown model isn't waited for.
        ready = oip_pb2.ModelReadyRequest(name=model.name, version=version).SerializeToString()
        if not self._ask(MODEL_READY, ready, oip_pb2.ModelReadyResponse, model, on_retry).ready:
            raise ModelServerUnavailable(
                f"model {model} on {self._channel}: it isn't ready; wait until the server has loaded it",
                model=str(model),
            )
        if not answer.inputs or not answer.outputs:
            raise ModelMismatch(
                f"model {model} on {self._channel}: its metadata name no inputs or no outputs; "
                "declare them in the server's settings of the model",
                model=str(model),
            )
        names = {tensor.name: tensor.datatype for tensor in answer.inputs}
        return _Known(ModelSpec(_specs(answer.inputs), _specs(answer.outputs)), names)

    def _ask(self, method: str, request: bytes, reply: type[Reply], model: ModelId, on_retry: OnRetry | None) -> Reply:
        timeout_s = min(self._limits.timeout_s, _METADATA_TIMEOUT_S)
        answer = self._channel.call(method, request, model=model, timeout_s=timeout_s, on_retry=on_retry)
        try:
            return reply.FromString(answer)
        except DecodeError as error:
            raise ModelServerUnavailable(
                f"model {model} on {self._channel}: its reply can't be read: {error}; check what runs there",
                model=str(model),
            ) from error


def _specs(tensors: Iterable[TensorMetadata]) -> tuple[TensorSpec, ...]:
    return tuple(_spec(tensor) for tensor in sorted(tensors, key=lambda tensor: tensor.name))


def _spec(tensor: TensorMetadata) -> TensorSpec:
    # The protocol says [] for a scalar and for an unknown rank alike.
    shape = tuple(None if size < 0 else size for size in tensor.shape) or None
    return TensorSpec(tensor.name, array_dtype(tensor.datatype), shape)
