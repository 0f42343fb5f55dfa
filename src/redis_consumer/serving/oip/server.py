"""Calls models on a server of the Open Inference Protocol v2: Triton, OpenVINO, MLServer, KServe."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from redis_consumer.errors import ModelMismatch, ModelServerUnavailable
from redis_consumer.job import ModelId
from redis_consumer.serving._pb.oip_pb2 import (
    ModelMetadataRequest,
    ModelMetadataResponse,
    ModelReadyRequest,
    ModelReadyResponse,
)
from redis_consumer.serving.base import Array, ModelSpec, OnRetry, TensorSpec
from redis_consumer.serving.oip.tensors import array_dtype, infer_reply, infer_request, version_text
from redis_consumer.serving.remote import RemoteServer, ServedModel
from redis_consumer.serving.transport.faults import Fault

_SERVICE = "/inference.GRPCInferenceService"
SERVER_READY = f"{_SERVICE}/ServerReady"
MODEL_READY = f"{_SERVICE}/ModelReady"
MODEL_METADATA = f"{_SERVICE}/ModelMetadata"
MODEL_INFER = f"{_SERVICE}/ModelInfer"

TensorMetadata = ModelMetadataResponse.TensorMetadata


class OpenInferenceServer(RemoteServer):
    """A `ModelServer` that speaks the Open Inference Protocol v2, see `redis_consumer.serving.remote.RemoteServer`."""

    kind = "Open Inference server"
    # What servers say while they load a model, under codes that blame the request.
    texts: ClassVar[Mapping[str, Fault]] = {
        "not ready": Fault(ModelServerUnavailable, "wait until the server has loaded the model", may_pass=True)
    }
    predict_method = MODEL_INFER
    check_method = SERVER_READY
    check_advice = "check that it runs, and MODEL_SERVER"

    def _fetch(self, model: ModelId, on_retry: OnRetry | None) -> ServedModel:
        names = {"name": model.name, "version": version_text(model)}
        request = ModelMetadataRequest(**names)
        answer = self._ask(MODEL_METADATA, request, ModelMetadataResponse, model, on_retry=on_retry)
        # Metadata are there before the model is: asked second, so that an unknown model isn't waited for.
        ready = self._ask(MODEL_READY, ModelReadyRequest(**names), ModelReadyResponse, model, on_retry=on_retry)
        if not ready.ready:
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
        types = {tensor.name: tensor.datatype for tensor in answer.inputs}
        return ServedModel(ModelSpec(_specs(answer.inputs), _specs(answer.outputs)), types)

    def _request(self, model: ModelId, arrays: Mapping[str, Array], types: Mapping[str, Any]) -> bytes:
        return infer_request(model, arrays, types)

    def _outputs(self, reply: bytes) -> dict[str, Array]:
        return infer_reply(reply)


def _specs(tensors: Iterable[TensorMetadata]) -> tuple[TensorSpec, ...]:
    return tuple(_spec(tensor) for tensor in sorted(tensors, key=lambda tensor: tensor.name))


def _spec(tensor: TensorMetadata) -> TensorSpec:
    # The protocol says [] for a scalar and for an unknown rank alike.
    shape = tuple(None if size < 0 else size for size in tensor.shape) or None
    return TensorSpec(tensor.name, array_dtype(tensor.datatype), shape)
