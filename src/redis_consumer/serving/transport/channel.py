"""Calls a model server over gRPC, with retries and several servers."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from redis_consumer import metrics
from redis_consumer.errors import ConsumerError, ModelNotFound, ModelServerUnavailable
from redis_consumer.job import ModelId
from redis_consumer.options import CallLimits
from redis_consumer.serving.base import OnRetry
from redis_consumer.serving.transport import faults
from redis_consumer.serving.transport.balance import Balance
from redis_consumer.serving.transport.connection import ConnectionOptions, new_channel

if TYPE_CHECKING:
    import grpc
    import tenacity

_MAX_RETRY_PAUSE_S = 60.0
_CHECK_TIMEOUT_S = 5.0


class Channel:
    """Connections to one or more equivalent model servers, made at the first call and kept; threads can share them.

    Every call must be safe to run twice.

    Args:
        targets: ``host:port`` of each server.
        kind: what kind of server it is, e.g. ``TensorFlow Serving``.
        options: how to connect.
        limits: how long and how often.
        texts: error texts of that kind of server, in lower case, and their meaning.
    """

    def __init__(
        self,
        targets: Sequence[str],
        kind: str,
        *,
        options: ConnectionOptions | None = None,
        limits: CallLimits | None = None,
        texts: Mapping[str, faults.Fault] | None = None,
    ) -> None:
        self.targets = tuple(targets)
        self.kind = kind
        self._options = options or ConnectionOptions()
        self._headers = tuple(self._options.headers.items())
        self._limits = limits or CallLimits()
        self._texts = texts or {}
        self._balance = Balance(self.targets)
        self._channels: dict[str, grpc.Channel] = {}
        self._lock = threading.Lock()

    def __str__(self) -> str:
        return f"{self.kind} at {', '.join(self.targets)}"

    def call(
        self,
        method: str,
        request: bytes,
        *,
        model: ModelId,
        timeout_s: float | None = None,
        on_retry: OnRetry | None = None,
    ) -> bytes:
        """Call a method, and repeat it after a temporary failure.

        Args:
            method: the method's path, e.g. ``/tensorflow.serving.PredictionService/Predict``.
            request: the message to send, serialized.
            model: which model it is about, for errors.
            timeout_s: seconds allowed for each try, None for what the limits say.
            on_retry: called before each repeated call: failed calls so far, and the gRPC code's name.

        Returns:
            The reply, serialized.

        Raises:
            ModelNotFound: the server has no such model.
            ModelMismatch: the server refuses the request.
            ModelServerUnavailable: no answer after all retries, or an answer that no retry would change.
            SettingsError: the server's certificate isn't trusted, or the authorities' file can't be read.
        """
        import grpc

        limit_s = self._limits.timeout_of(request) if timeout_s is None else timeout_s
        try:
            answer: bytes = self._retrying(on_retry)(self._call_once, method, request, limit_s, str(model))
            return answer
        except grpc.RpcError as error:
            raise self._translated(error, model) from error

    def probe(self, method: str, request: bytes, *, timeout_s: float) -> dict[str, str]:
        """Call a method once on each server; gives the gRPC code's name by server, ``OK`` for an answer."""
        calls = {
            target: self._method(target, method).future(request, timeout=timeout_s, metadata=self._headers)
            for target in self.targets
        }
        return {target: call.code().name for target, call in calls.items()}

    def check(self, method: str, request: bytes, *, alive: Collection[str], advice: str) -> str:
        """Call a method once on each server, within a few seconds, and describe which ones answer.

        Args:
            method: as for `call`.
            request: as for `call`.
            alive: names of the gRPC codes by which a server answers.
            advice: what to do where none does.

        Raises:
            ModelServerUnavailable: none answers.
        """
        codes = self.probe(method, request, timeout_s=_CHECK_TIMEOUT_S)
        silent = ", ".join(f"{target} ({code})" for target, code in codes.items() if code not in alive)
        answering = ", ".join(target for target, code in codes.items() if code in alive)
        if not answering:
            raise ModelServerUnavailable(f"model server: no {self.kind} answers at {silent}; {advice}")
        return f"{self.kind} answers at {answering}" + (f", but not at {silent}" if silent else "")

    def close(self) -> None:
        """Close the connections; a later call opens new ones."""
        with self._lock:
            channels, self._channels = self._channels, {}
        for channel in channels.values():
            channel.close()

    def _retrying(self, on_retry: OnRetry | None) -> tenacity.Retrying:
        import tenacity

        def tell(state: tenacity.RetryCallState) -> None:
            metrics.RETRIES.add("model_server")
            if on_retry is not None and state.outcome is not None:
                on_retry(state.attempt_number, faults.code(state.outcome.exception()))

        def pause_s(state: tenacity.RetryCallState) -> float:
            has_another = state.attempt_number < len(self.targets) and self._balance.has_rested()
            return 0.0 if has_another else backoff(state)

        backoff_s = self._limits.backoff_s
        backoff = tenacity.wait_exponential(backoff_s, _MAX_RETRY_PAUSE_S) + tenacity.wait_random(0, backoff_s)
        return tenacity.Retrying(
            stop=tenacity.stop_after_attempt(self._limits.max_retries + 1),
            wait=pause_s,
            retry=tenacity.retry_if_exception(lambda error: self._fault(error).may_pass),
            before_sleep=tell,
            reraise=True,
        )

    def _call_once(self, method: str, request: bytes, timeout_s: float, model: str) -> bytes:
        import grpc

        with self._balance.chosen() as target:
            started = time.monotonic()
            try:
                reply: bytes = self._method(target, method)(request, timeout=timeout_s, metadata=self._headers)
            except grpc.RpcError as error:
                self._count_failure(error, model)
                if self._fault(error).may_pass:
                    self._balance.failed(target)
                raise
            metrics.MODEL_SERVER_SECONDS.observe(model, seconds=time.monotonic() - started)
            self._balance.answered(target)
            return reply

    def _count_failure(self, error: grpc.RpcError, model: str) -> None:
        # Jobs may name models that don't exist; these must not create more and more metrics.
        is_known = self._fault(error).error is not ModelNotFound
        metrics.MODEL_SERVER_ERRORS.add(model if is_known else "unknown", faults.code(error))

    def _method(self, target: str, method: str) -> grpc.UnaryUnaryMultiCallable:
        with self._lock:
            if target not in self._channels:
                self._channels[target] = new_channel(target, self._options)
            channel = self._channels[target]
        # Without a serializer gRPC takes and gives bytes as they are.
        return channel.unary_unary(method)

    def _fault(self, error: BaseException) -> faults.Fault:
        return faults.fault(error, self._texts)

    def _translated(self, error: grpc.RpcError, model: ModelId) -> ConsumerError:
        fault = self._fault(error)
        message = f"model {model} on {self}: {faults.code(error)}: {faults.detail(error)}; {fault.advice}"
        return fault.error(message, model=str(model))
