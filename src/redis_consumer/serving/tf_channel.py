"""How does a call reach TensorFlow Serving: connection, deadline, retries, and what its errors mean for a job?

The only user of gRPC in the package; it is imported with the first call. (contract, sections 4.1 and 4.2)
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, TypeVar

from redis_consumer.errors import ConsumerError, ModelMismatch, ModelNotFound, ModelServerUnavailable
from redis_consumer.job import ModelId
from redis_consumer.serving._pb.tfs_pb2 import (
    GetModelMetadataRequest,
    GetModelMetadataResponse,
    PredictRequest,
    PredictResponse,
)
from redis_consumer.serving.base import OnRetry

if TYPE_CHECKING:
    import grpc

Request = PredictRequest | GetModelMetadataRequest
Reply = TypeVar("Reply", PredictResponse, GetModelMetadataResponse)

_MAX_RECONNECT_BACKOFF_MS = 3000
_MAX_RETRY_PAUSE_S = 60.0
_MAX_DETAIL_CHARACTERS = 300

RETRIED = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"})

# What a code means for the job. The codes that aren't here say that the server or the way to it is broken.
_ERRORS: dict[str, type[ConsumerError]] = {
    "NOT_FOUND": ModelNotFound,
    "INVALID_ARGUMENT": ModelMismatch,
    "FAILED_PRECONDITION": ModelMismatch,
    "OUT_OF_RANGE": ModelMismatch,
}

# Texts say more than the code that came with them: which (lower-case) text, what it means.
_DETAILS: tuple[tuple[str, type[ConsumerError]], ...] = (
    ("servable not found", ModelNotFound),
    ("larger than max", ModelMismatch),
)

_ADVICE: dict[type[ConsumerError], str] = {
    ModelNotFound: "check model_name and model_version",
    ModelMismatch: "check the input's name, dtype, shape and size against the model's metadata",
    ModelServerUnavailable: "check that it runs, and the address",
}


class TFChannel:
    """A connection to TensorFlow Serving that is made at the first call and kept; safe to share by threads.

    Args:
        address: ``host:port``.
        backoff_s: pause before the first retry in seconds; it doubles with each further one, with jitter.
        max_retries: how often one call is repeated at most.
        max_message_bytes: largest request and reply, -1 for any size.
    """

    def __init__(
        self, address: str, *, backoff_s: float = 3, max_retries: int = 5, max_message_bytes: int = -1
    ) -> None:
        self.address = address
        self._backoff_s = backoff_s
        self._max_retries = max_retries
        self._max_message_bytes = max_message_bytes
        self._channel: grpc.Channel | None = None
        self._lock = threading.Lock()

    def call(
        self, path: str, request: Request, reply: type[Reply], *, timeout_s: float, on_retry: OnRetry | None = None
    ) -> Reply:
        """Call a method, and again where its failure may pass.

        Args:
            path: the method, e.g. ``/tensorflow.serving.PredictionService/Predict``.
            request: message to send; errors name the model of its ``model_spec``.
            reply: class of the message that comes back.
            timeout_s: seconds allowed for each try.
            on_retry: told before each repeated call: failed calls so far, and the gRPC code's name.

        Raises:
            ModelNotFound: the server has no such model.
            ModelMismatch: the server refuses the request.
            ModelServerUnavailable: no answer after all retries, or an answer that no retry would change.
        """
        import grpc
        import tenacity

        def tell(state: tenacity.RetryCallState) -> None:
            if on_retry is not None and state.outcome is not None:
                on_retry(state.attempt_number, _code(state.outcome.exception()))

        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(self._max_retries + 1),
            wait=tenacity.wait_exponential(self._backoff_s, _MAX_RETRY_PAUSE_S)
            + tenacity.wait_random(0, self._backoff_s),
            retry=tenacity.retry_if_exception(_may_pass),
            before_sleep=tell,
            reraise=True,
        )
        try:
            answer: Reply = retrying(self._call_once, path, request, reply, timeout_s)
            return answer
        except grpc.RpcError as error:
            raise self._translated(error, model_of(request)) from error

    def probe(self, path: str, request: Request, reply: type[Reply], *, timeout_s: float) -> str:
        """Call a method once and give the gRPC code's name, ``OK`` for an answer."""
        import grpc

        try:
            self._call_once(path, request, reply, timeout_s)
        except grpc.RpcError as error:
            return _code(error)
        return "OK"

    def open(self) -> grpc.Channel:
        """Give the channel, making it at the first use; nothing is sent by this."""
        with self._lock:
            if self._channel is None:
                self._channel = new_channel(self.address, max_message_bytes=self._max_message_bytes)
            return self._channel

    def close(self) -> None:
        """Close the connection; a later call opens a new one."""
        with self._lock:
            channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def _call_once(self, path: str, request: Request, reply: type[Reply], timeout_s: float) -> Reply:
        method = self.open().unary_unary(
            path, request_serializer=type(request).SerializeToString, response_deserializer=reply.FromString
        )
        answer: Reply = method(request, timeout=timeout_s)
        return answer

    def _translated(self, error: grpc.RpcError, model: ModelId) -> ConsumerError:
        code, detail = _code(error), _detail(error)
        kind = next((kind for text, kind in _DETAILS if text in detail.lower()), None) or _ERRORS.get(
            code, ModelServerUnavailable
        )
        message = f"model {model} on TensorFlow Serving at {self.address}: {code}: {detail}; {_ADVICE[kind]}"
        return kind(message, model=str(model))


def new_channel(address: str, *, max_message_bytes: int = -1) -> grpc.Channel:
    """Make an unencrypted channel; it connects at its first call.

    Args:
        address: ``host:port``.
        max_message_bytes: largest request and reply, -1 for any size.
    """
    import grpc

    options = [
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
        # Finds a dead peer while a call waits. Not on idle connections: servers cut off clients that ping those.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 0),
        # By default gRPC ends up trying to connect every 2 minutes only, and our retries would meet no connection.
        ("grpc.max_reconnect_backoff_ms", _MAX_RECONNECT_BACKOFF_MS),
    ]
    return grpc.insecure_channel(address, options=options)


def model_of(request: Request) -> ModelId:
    """Read which model a request is for."""
    return ModelId(request.model_spec.name, request.model_spec.version.value)


def _may_pass(error: BaseException) -> bool:
    return _code(error) in RETRIED and not any(text in _detail(error).lower() for text, _ in _DETAILS)


def _code(error: BaseException | None) -> str:
    code = getattr(error, "code", None)
    return code().name if callable(code) else "UNKNOWN"


def _detail(error: BaseException) -> str:
    details = getattr(error, "details", None)
    text = " ".join(str(details() if callable(details) else error).split())
    return text[:_MAX_DETAIL_CHARACTERS] or "no detail"
