"""How are models run inside this process, without a server?"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from redis_consumer.errors import ConsumerError, ModelMismatch, ModelNotFound, SettingsError
from redis_consumer.job import ModelId
from redis_consumer.serving.base import Array, ModelSpec, OnRetry, TensorSpec, check_inputs
from redis_consumer.serving.cpus import usable_cpus
from redis_consumer.serving.onnx_file import check_file

# More than a worker's own models; jobs may name any, and each holds its weights in memory.
_MAX_SESSIONS = 8
_ONLY_ERRORS = 3
_MAX_DETAIL_CHARACTERS = 300

_DTYPES: dict[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(double)": np.dtype(np.float64),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(bool)": np.dtype(np.bool_),
    "tensor(string)": np.dtype(object),
    **{f"tensor({name})": np.dtype(name) for name in ("int8", "int16", "int32", "int64")},
    **{f"tensor({name})": np.dtype(name) for name in ("uint8", "uint16", "uint32", "uint64")},
}

# Names of onnxruntime's errors that say more than "the model doesn't run".
_ERRORS: dict[str, type[ConsumerError]] = {"NoSuchFile": ModelNotFound}


@dataclass(frozen=True)
class _Loaded:
    session: Any
    spec: ModelSpec


class OnnxServer:
    """A `ModelServer` that runs ONNX models by onnxruntime in this process; safe to share by threads.

    Args:
        find_model: gives the local path of a model's ``model.onnx``; raises `ModelNotFound` where there is none.
        threads: CPUs that one prediction uses, by default all that this process may.
    """

    def __init__(self, find_model: Callable[[ModelId], Path], *, threads: int | None = None) -> None:
        self._find_model = find_model
        self._threads = threads
        self._sessions: OrderedDict[Path, _Loaded] = OrderedDict()
        self._lock = threading.Lock()

    def metadata(
        self,
        model: ModelId,
        *,
        on_retry: OnRetry | None = None,  # noqa: ARG002 - nothing here is worth a second try
    ) -> ModelSpec:
        """Say which tensors a model takes and gives, see `ModelServer.metadata`.

        Raises:
            ModelNotFound: there is no such model.
            ModelMismatch: its file can't be run.
            SettingsError: onnxruntime isn't installed.
        """
        return self._loaded(model).spec

    def predict(
        self,
        model: ModelId,
        inputs: Mapping[str, Array],
        *,
        timeout_s: float | None = None,  # noqa: ARG002 - a run can't be cut short
        on_retry: OnRetry | None = None,  # noqa: ARG002 - nothing here is worth a second try
    ) -> dict[str, Array]:
        """Run a model on one batch, see `ModelServer.predict`; there is no timeout and no retry.

        Raises:
            ModelNotFound: there is no such model.
            ModelMismatch: its file can't be run, or not with these inputs.
            SettingsError: onnxruntime isn't installed.
        """
        loaded = self._loaded(model)
        arrays = check_inputs(loaded.spec, inputs, model)
        names = [tensor.name for tensor in loaded.spec.outputs]
        with _errors_in_words(model):
            outputs = loaded.session.run(names, arrays)
        return dict(zip(names, outputs, strict=True))

    def check(self) -> str:
        """Say which runtime is here and how many CPUs it uses.

        Raises:
            SettingsError: onnxruntime isn't installed.
        """
        runtime = _runtime()
        return f"onnxruntime {runtime.__version__} runs models in this process on {self._cpus()} CPUs"

    def close(self) -> None:
        """Give back the memory of all models; a later call loads its model again."""
        with self._lock:
            self._sessions.clear()

    def _loaded(self, model: ModelId) -> _Loaded:
        path = self._find_model(model).resolve()
        # Held while loading, so that two threads don't load the same model twice.
        with self._lock:
            if path not in self._sessions:
                self._sessions[path] = self._load(path, model)
            self._sessions.move_to_end(path)
            if len(self._sessions) > _MAX_SESSIONS:
                self._sessions.popitem(last=False)
            return self._sessions[path]

    def _load(self, path: Path, model: ModelId) -> _Loaded:
        runtime = _runtime()
        check_file(path)
        options = runtime.SessionOptions()
        options.log_severity_level = _ONLY_ERRORS
        options.intra_op_num_threads = self._cpus()
        options.inter_op_num_threads = 1
        # Threads that spin while they wait take the CPU from the other slots of a worker.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        with _errors_in_words(model):
            session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        inputs = _specs(session.get_inputs(), model)
        return _Loaded(session, ModelSpec(inputs=inputs, outputs=_specs(session.get_outputs(), model)))

    def _cpus(self) -> int:
        return self._threads or usable_cpus()


def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise SettingsError(
            "MODEL_SERVER onnx://: onnxruntime isn't installed; pip install kiosk-redis-consumer[onnx], "
            "or set MODEL_SERVER to a server such as tfs://host:8500"
        ) from error
    onnxruntime.disable_telemetry_events()
    return onnxruntime


def _specs(arguments: list[Any], model: ModelId) -> tuple[TensorSpec, ...]:
    return tuple(_spec(argument, model) for argument in sorted(arguments, key=lambda argument: str(argument.name)))


def _spec(argument: Any, model: ModelId) -> TensorSpec:
    dtype = _DTYPES.get(argument.type)
    if dtype is None:
        raise ModelMismatch(
            f"model {model}: {argument.name!r} is a {argument.type}, which isn't supported; "
            f"use one of {', '.join(_DTYPES)}",
            model=str(model),
        )
    # onnxruntime says [] for a scalar and for an unknown rank alike.
    sizes = tuple(_size(size) for size in argument.shape) if argument.shape else None
    return TensorSpec(argument.name, dtype, sizes)


def _size(size: object) -> int | None:
    """Give a fixed size; one that has a name or none may be any."""
    return size if isinstance(size, int) and size >= 0 else None


@contextmanager
def _errors_in_words(model: ModelId) -> Iterator[None]:
    """Turn errors of onnxruntime into ours; all others pass."""
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith("onnxruntime"):
            raise
        kind = _ERRORS.get(type(error).__name__, ModelMismatch)
        detail = " ".join(str(error).split())[:_MAX_DETAIL_CHARACTERS]
        message = f"model {model}: onnxruntime can't run it: {detail}; check the file and the inputs"
        raise kind(message, model=str(model)) from error
