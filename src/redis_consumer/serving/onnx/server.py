"""Runs models inside this process, without a server."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from redis_consumer import metrics
from redis_consumer.errors import ModelMismatch
from redis_consumer.job import ModelId
from redis_consumer.metrics import recording
from redis_consumer.serving.base import (
    FILE,
    Array,
    ModelIdentity,
    ModelSpec,
    OnRetry,
    TensorSpec,
    check_inputs,
    check_outputs,
)
from redis_consumer.serving.onnx.session import (
    CPU,
    arena_bytes_for,
    check_file,
    checksum,
    errors_in_words,
    limit_arena,
    load_runtime,
    new_session,
    run_options,
    shrink_arena,
    threads_for,
)

logger = logging.getLogger(__name__)

# More than a worker's own models; jobs may name any, and each holds its weights in memory.
_MAX_SESSIONS = 8

# A call of more is run part by part, if the model takes any number of items: on a CPU that is as fast, and four tiles
# of 512 x 512 pixels take 786 MB at once, but 196 MB one by one.
_RUN_BYTES = 2**20

# After a larger run its memory is given back: 2048 x 2048 pixels would keep 3 GB for a small U-Net. Not after
# each, because taking it again costs a run of 512 x 512 pixels a third more time.
_KEPT_INPUT_BYTES = 4 * 2**20

_DTYPES: dict[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(double)": np.dtype(np.float64),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(bool)": np.dtype(np.bool_),
    "tensor(string)": np.dtype(object),
    **{f"tensor({name})": np.dtype(name) for name in ("int8", "int16", "int32", "int64")},
    **{f"tensor({name})": np.dtype(name) for name in ("uint8", "uint16", "uint32", "uint64")},
}


@dataclass(frozen=True)
class _Loaded:
    session: Any
    spec: ModelSpec
    checksum: str
    takes_parts: bool = False

    def parts(self, arrays: dict[str, Array]) -> list[dict[str, Array]]:
        """Divide the items of a call so that a run has at most `_RUN_BYTES`, or one item."""
        if not self.takes_parts:
            return [arrays]
        ((name, array),) = arrays.items()
        step = max(1, _RUN_BYTES * len(array) // max(array.nbytes, 1))
        return [{name: array[start : start + step]} for start in range(0, max(len(array), 1), step)]


# For all servers of the process, so that the threads of a slot share the memory and the CPUs of a model even where each
# has a server and a copy of the file of its own: sessions by the file's checksum and the threads that they use.
_alive: WeakValueDictionary[tuple[str, int], _Loaded] = WeakValueDictionary()
_loading = threading.Lock()
_running = threading.Lock()


class OnnxServer:
    """A `ModelServer` that runs ONNX models by onnxruntime in this process; safe to share by threads.

    All servers of a process share what they load, and run one prediction at a time.

    Args:
        find_model: gives the local path of a model's ``model.onnx``; raises `ModelNotFound` where there is none.
        slots: processes of this worker that run models at the same time; each takes its part of CPUs and memory.
        threads: CPUs that one prediction uses, by default this slot's part of those that the worker may use.
        arena_bytes: memory that predictions of the whole process may take, by default most of this slot's part of the
            container's; the value of the first server of the process applies to all.
    """

    def __init__(
        self,
        find_model: Callable[[ModelId], Path],
        *,
        slots: int = 1,
        threads: int | None = None,
        arena_bytes: int | None = None,
    ) -> None:
        self._find_model = find_model
        self._slots = slots
        self._threads = threads
        self._arena_bytes = arena_bytes
        self._sessions: OrderedDict[Path, _Loaded] = OrderedDict()
        self._lock = threading.Lock()

    def metadata(
        self,
        model: ModelId,
        *,
        on_retry: OnRetry | None = None,  # noqa: ARG002 - nothing here is worth a second try
    ) -> ModelSpec:
        """Return which tensors a model takes and gives, see `ModelServer.metadata`.

        Raises:
            ModelNotFound: there is no such model.
            ModelMismatch: its file can't be run.
            SettingsError: onnxruntime isn't installed.
        """
        return self._loaded(model).spec

    def identity(self, model: ModelId) -> ModelIdentity:
        """Return which file a model is, see `redis_consumer.serving.identify`."""
        version = self._find_model(model).resolve().parent.name
        return ModelIdentity(int(version) if version.isdecimal() else None, self._loaded(model).checksum, FILE)

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
            ModelMismatch: its file can't be run, or not with these inputs, or gives no numbers.
            SettingsError: onnxruntime isn't installed.
        """
        loaded = self._loaded(model)
        arrays = check_inputs(loaded.spec, inputs, model)
        names = [tensor.name for tensor in loaded.spec.outputs]
        # Two runs at a time would need the CPUs and the memory twice.
        with _running, errors_in_words(model):
            started = time.monotonic()
            parts = [_run(loaded, names, part) for part in loaded.parts(arrays)]
        if recording.counts_as:
            metrics.MODEL_SERVER_SECONDS.observe(str(model), seconds=time.monotonic() - started)
        outputs = parts[0] if len(parts) == 1 else [np.concatenate(each) for each in zip(*parts, strict=True)]
        return check_outputs(None, dict(zip(names, outputs, strict=True)), model)

    def release(self) -> None:
        """Give back the memory of earlier runs that the next ones would use again."""
        with _running:
            shrink_arena()

    def check(self) -> str:
        """Return which runtime is here and how many CPUs it uses.

        Raises:
            SettingsError: onnxruntime isn't installed.
        """
        runtime = load_runtime()
        return f"onnxruntime {runtime.__version__} runs models in this process on {self._cpus()} CPUs"

    def close(self) -> None:
        """Give back the memory of all models; a later call loads its model again."""
        with self._lock:
            self._sessions.clear()

    def _loaded(self, model: ModelId) -> _Loaded:
        path = self._find_model(model).resolve()
        with self._lock:
            if path not in self._sessions:
                self._sessions[path] = self._load(path, model)
            self._sessions.move_to_end(path)
            if len(self._sessions) > _MAX_SESSIONS:
                self._sessions.popitem(last=False)
            return self._sessions[path]

    def _load(self, path: Path, model: ModelId) -> _Loaded:
        check_file(path)
        threads = self._cpus()
        digest = checksum(path)
        key = (digest, threads)
        with _loading:
            loaded = _alive.get(key)
            if loaded is None:
                limit_arena(self._arena_bytes or arena_bytes_for(self._slots))
                loaded = _alive[key] = _new(path, model, threads, digest)
        return loaded

    def _cpus(self) -> int:
        return self._threads or threads_for(self._slots)


def _new(path: Path, model: ModelId, threads: int, digest: str) -> _Loaded:
    with errors_in_words(model):
        session = new_session(path, threads=threads)
    logger.info("model %s: onnxruntime runs it by %s on %d CPUs", model, _providers(session), threads)
    inputs = _specs(session.get_inputs(), model)
    spec = ModelSpec(inputs=inputs, outputs=_specs(session.get_outputs(), model))
    return _Loaded(session, spec, digest, _takes_parts(session))


def _run(loaded: _Loaded, names: list[str], arrays: dict[str, Array]) -> list[Array]:
    is_large = sum(array.nbytes for array in arrays.values()) > _KEPT_INPUT_BYTES
    outputs: list[Array] = loaded.session.run(names, arrays, run_options(is_shrinking=is_large))
    return outputs


def _takes_parts(session: Any) -> bool:
    """Whether a model says that it takes any number of items, gives as many, and runs on CPUs."""
    batches = [tensor.shape[0] if tensor.shape else None for tensor in (*session.get_inputs(), *session.get_outputs())]
    is_free = isinstance(batches[0], str) and len(set(batches)) == 1
    return is_free and len(session.get_inputs()) == 1 and session.get_providers() == [CPU]


def _providers(session: Any) -> str:
    return " and ".join(name.removesuffix("ExecutionProvider") for name in session.get_providers())


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
    """Return a fixed size; one that has a name or none may be any."""
    return size if isinstance(size, int) and size >= 0 else None
