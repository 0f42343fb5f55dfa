"""Calls models on a remote server: keeps connections and metadata, repeats calls, checks inputs and outputs."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from google.protobuf.message import DecodeError, Message

from redis_consumer.errors import ModelServerUnavailable
from redis_consumer.job import ModelId
from redis_consumer.options import METADATA_EXPIRE_S, CallLimits
from redis_consumer.serving.base import (
    METADATA,
    Array,
    ModelIdentity,
    ModelSpec,
    OnRetry,
    check_inputs,
    check_outputs,
    spec_digest,
)
from redis_consumer.serving.transport.channel import Channel
from redis_consumer.serving.transport.connection import ConnectionOptions
from redis_consumer.serving.transport.faults import Fault

_METADATA_TIMEOUT_S = 10.0

Reply = TypeVar("Reply", bound=Message)
Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


@dataclass(frozen=True)
class ServedModel:
    """What a server says of a model.

    Attributes:
        spec: which tensors it takes and gives.
        types: the protocol's name or number of each input's type.
        version: the version that answers, 0 if the server doesn't say.
    """

    spec: ModelSpec
    types: Mapping[str, Any]
    version: int = 0


class RemoteServer(ABC):
    """A `ModelServer` over kept, lazily made gRPC connections. A subclass gives the messages of its protocol.

    Args:
        address: ``host:port``; several of them, divided by commas, are equivalent servers that share the calls.
        timeout_s: seconds allowed for one try of a prediction; in proportion more for requests above 16 MiB.
        backoff_s: pause before the first retry in seconds; it doubles with each further one, with jitter.
        max_retries: how often a call is repeated at most.
        metadata_expire_s: for how many seconds a model's metadata are believed.
        connection: how to connect.
    """

    #: What kind of server it is, for messages.
    kind: ClassVar[str]
    #: Error texts of that kind of server, in lower case, and their meaning.
    texts: ClassVar[Mapping[str, Fault]] = {}
    predict_method: ClassVar[str]
    #: Method, request and codes by which a server shows that it responds; and what to do where none does.
    check_method: ClassVar[str]
    check_request: ClassVar[bytes] = b""
    check_codes: ClassVar[Collection[str]] = ("OK",)
    check_advice: ClassVar[str]

    def __init__(
        self,
        address: str,
        *,
        timeout_s: float = CallLimits.timeout_s,
        backoff_s: float = CallLimits.backoff_s,
        max_retries: int = CallLimits.max_retries,
        metadata_expire_s: float = METADATA_EXPIRE_S,
        connection: ConnectionOptions | None = None,
    ) -> None:
        self.address = address
        self._limits = CallLimits(timeout_s=timeout_s, backoff_s=backoff_s, max_retries=max_retries)
        self._channel = Channel(
            address.split(","), self.kind, options=connection, limits=self._limits, texts=self.texts
        )
        self._models: TtlCache[ModelId, ServedModel] = TtlCache(metadata_expire_s)

    def metadata(self, model: ModelId, *, on_retry: OnRetry | None = None) -> ModelSpec:
        """Return which tensors a model takes and gives, see `ModelServer.metadata`.

        Raises:
            ModelNotFound: the server has no such model.
            ModelMismatch: the server's metadata don't say what predictions need.
            ModelServerUnavailable: the server doesn't answer, or the model isn't ready, after bounded retries.
        """
        return self._model(model, on_retry).spec

    def identity(self, model: ModelId) -> ModelIdentity:
        """Return which version answers, see `redis_consumer.serving.identify`."""
        found = self._model(model, None)
        return ModelIdentity(found.version or model.version or None, spec_digest(found.spec), METADATA)

    def predict(
        self,
        model: ModelId,
        inputs: Mapping[str, Array],
        *,
        types: Mapping[str, object] | None = None,
        timeout_s: float | None = None,
        on_retry: OnRetry | None = None,
    ) -> dict[str, Array]:
        """Run a model on one batch, see `ModelServer.predict`.

        Where the model's metadata are known by an earlier `metadata`, the inputs are checked against them before
        anything is sent, and cast. Otherwise they are sent unchanged and the server checks them.

        Args:
            model: which model; for version 0 the server chooses: TensorFlow Serving the latest that it has.
            inputs: an array for each input by name, axis 0 is the batch.
            types: the protocol's name or number of an input's type, where it isn't the model's or the array's own.
            timeout_s: seconds allowed for one try, None for the server's usual.
            on_retry: called before each repeated call.

        Raises:
            ModelNotFound: the server has no such model.
            ModelMismatch: the inputs don't fit the model, or the outputs aren't what its metadata say.
            ModelServerUnavailable: the server doesn't answer, after bounded retries.
        """
        known = self._model(model, on_retry) if model in self._models else None
        arrays = dict(inputs) if known is None else check_inputs(known.spec, inputs, model)
        request = self._request(model, arrays, types or ({} if known is None else known.types))
        reply = self._channel.call(self.predict_method, request, model=model, timeout_s=timeout_s, on_retry=on_retry)
        return check_outputs(None if known is None else known.spec, self._outputs(reply), model)

    def check(self) -> str:
        """Check once that each server answers as one of this kind, in a few seconds, and describe the result.

        Raises:
            ModelServerUnavailable: none does.
        """
        return self._channel.check(
            self.check_method, self.check_request, alive=self.check_codes, advice=self.check_advice
        )

    def close(self) -> None:
        """Close the connections and forget metadata; a later call opens new ones."""
        self._channel.close()
        self._models.clear()

    @abstractmethod
    def _fetch(self, model: ModelId, on_retry: OnRetry | None) -> ServedModel:
        """Ask the server what a model takes and gives."""

    @abstractmethod
    def _request(self, model: ModelId, arrays: Mapping[str, Array], types: Mapping[str, Any]) -> bytes:
        """Write the request of a prediction."""

    @abstractmethod
    def _outputs(self, reply: bytes) -> dict[str, Array]:
        """Read the reply to a prediction."""

    def _model(self, model: ModelId, on_retry: OnRetry | None) -> ServedModel:
        return self._models.get_or(model, lambda: self._fetch(model, on_retry))

    def _ask(
        self,
        method: str,
        request: Message,
        kind: type[Reply],
        model: ModelId,
        *,
        timeout_s: float | None = None,
        on_retry: OnRetry | None = None,
    ) -> Reply:
        """Make a call about a model that isn't a prediction."""
        answer = self._channel.call(
            method,
            request.SerializeToString(),
            model=model,
            timeout_s=min(self._limits.timeout_s, _METADATA_TIMEOUT_S) if timeout_s is None else timeout_s,
            on_retry=on_retry,
        )
        try:
            return kind.FromString(answer)
        except DecodeError as error:
            raise ModelServerUnavailable(
                f"model {model} on {self._channel}: its metadata can't be read: {error}; check what runs there",
                model=str(model),
            ) from error


class TtlCache(Generic[Key, Value]):
    """A cache whose values expire after some seconds; threads can share it.

    Args:
        expire_s: for how many seconds a value is valid; 0 keeps none.
        clock: monotonic seconds.
    """

    def __init__(self, expire_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._expire_s = expire_s
        self._clock = clock
        self._values: dict[Key, tuple[Value, float]] = {}
        self._lock = threading.Lock()

    def get_or(self, key: Key, ask: Callable[[], Value]) -> Value:
        """Return the valid value; where there is none, ask and store the answer."""
        with self._lock:
            value, until_s = self._values.get(key, (None, 0.0))
        if value is not None and self._clock() < until_s:
            return value
        answer = ask()
        with self._lock:
            self._values[key] = (answer, self._clock() + self._expire_s)
        return answer

    def __contains__(self, key: Key) -> bool:
        """Whether a value was ever stored, even if it has expired."""
        with self._lock:
            return key in self._values

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._values.clear()
