"""Checks an ONNX file and makes it ready to run: chooses the device, the threads and the memory.

An ONNX file can refer to another file that holds a tensor's values. A model is untrusted input, so a path that leads
out of the model's folder must not be followed. The file is read field by field, because the ``onnx`` package is large
and is needed for nothing else.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from redis_consumer.errors import ConsumerError, ModelMismatch, ModelNotFound, SettingsError
from redis_consumer.job import ModelId
from redis_consumer.machine import usable_bytes, usable_cpus
from redis_consumer.serving.transport.protobuf import Buffer, fields
from redis_consumer.text import file_digest

# For each message of onnx.proto that leads to a tensor: its fields by number, and the message in each.
MESSAGES: dict[str, dict[int, str]] = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: "TensorProto",
        6: "GraphProto",
        10: "TensorProto",
        11: "GraphProto",
        22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
    "TensorProto": {13: "StringStringEntryProto"},
}
_ENTRY = "StringStringEntryProto"
_MAX_DEPTH = 100
CPU = "CPUExecutionProvider"
_ONLY_ERRORS = 3
_FATAL = 4
_MAX_DETAIL_CHARACTERS = 300
# Of a slot's memory, what is left for the image, its predictions and all else.
_ARENA_SHARE = 0.75
_DOUBLING = 0
_DEFAULT = -1
# The bound of this process's memory, once there is one.
_bounds: list[int] = []
# The session whose runs shrink the arena, once there is one; and its model, b = Identity(a), of one float32.
_shrinkers: list[Any] = []
_IDENTITY = (
    b'\x08\x08\x12\x00:7\n\x10\n\x01a\x12\x01b"\x08Identity\x12\x01gZ\x0f\n\x01a\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01'
    b"b\x0f\n\x01b\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\r"
)
# Names of onnxruntime's errors that say more than "the model doesn't run".
_ERRORS: dict[str, type[ConsumerError]] = {"NoSuchFile": ModelNotFound}


def check_file(path: Path) -> None:
    """Refuse a file that can't be a model, or whose external data lie outside its folder.

    Raises:
        ModelNotFound: there is no such file.
        ModelMismatch: it isn't ONNX, or its external data are missing or outside the model's folder.
    """
    label = "/".join(path.parts[-3:])
    try:
        locations = external_locations(path)
    except FileNotFoundError as error:
        raise ModelNotFound(f"model file {label}: it doesn't exist; upload it") from error
    except ValueError as error:
        raise ModelMismatch(f"model file {label}: it isn't an ONNX model ({error}); export it again") from error
    for location in sorted(locations):
        problem = _problem(path.parent.resolve(), location)
        if problem:
            raise ModelMismatch(
                f"model file {label}: its external data {location!r} {problem}; export the model as one file"
            )


def external_locations(path: Path) -> set[str]:
    """Collect the paths of all external data that an ONNX file names, as they are written there.

    Raises:
        OSError: the file can't be read.
        ValueError: it isn't made of protobuf fields.
    """
    with path.open("rb") as file:
        if not path.stat().st_size:
            raise ValueError("the file is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return set(_locations(content, (0, len(content)), "ModelProto", 0))


def checksum(path: Path) -> str:
    """Return one SHA-256 of an ONNX file and its external data, as hexadecimal digits.

    For a model in one file it is the digest of the file, as ``sha256sum`` gives it. Otherwise it is the digest of all
    files' digests.

    Raises:
        OSError: a file can't be read.
        ValueError: it isn't made of protobuf fields.
    """
    parts = [path, *(path.parent / location for location in sorted(external_locations(path)))]
    digests = [file_digest(part) for part in parts]
    return digests[0] if len(digests) == 1 else hashlib.sha256(" ".join(digests).encode()).hexdigest()


def _problem(folder: Path, location: str) -> str | None:
    parts = PurePosixPath(location.replace("\\", "/"))
    try:
        target = (folder / location).resolve()
        # The runtime takes some locations that are no file for addresses in memory.
        is_file = target.is_file()
    except (OSError, ValueError):
        return "have no possible file name"
    if parts.is_absolute() or ".." in parts.parts or not target.is_relative_to(folder):
        return "lie outside the model's folder"
    return None if is_file else "are missing"


def _locations(content: Buffer, span: tuple[int, int], message: str, depth: int) -> Iterator[str]:
    if depth > _MAX_DEPTH:
        raise ValueError("its graphs are nested too deeply")
    if message == _ENTRY:
        entry = {
            number: bytes(content[value:end]) for number, _, value, end in fields(content, *span) if value is not None
        }
        if entry.get(1) == b"location":
            yield entry.get(2, b"").decode("utf-8", "surrogateescape")
        return
    for number, _, value, end in fields(content, *span):
        child = MESSAGES[message].get(number)
        if child is not None and value is not None:
            yield from _locations(content, (value, end), child, depth + 1)


def load_runtime() -> Any:
    """Import onnxruntime, which nothing else of the package imports, without its telemetry.

    Raises:
        SettingsError: it isn't installed.
    """
    # Again, since a script may have cleared the environment; after the import it is too late.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        import onnxruntime
    except ImportError as error:
        raise SettingsError(
            "MODEL_SERVER onnx://: onnxruntime isn't installed; pip install kiosk-redis-consumer[onnx], "
            "or set MODEL_SERVER to a server such as tfs://host:8500"
        ) from error
    return onnxruntime


def threads_for(slots: int) -> int:
    """CPUs that each of a worker's slots may use, so that all together use no more than there are; at least 1."""
    return max(1, usable_cpus() // slots)


def arena_bytes_for(slots: int) -> int:
    """Bytes that the predictions of each of a worker's slots may take."""
    return int(usable_bytes() / slots * _ARENA_SHARE)


def limit_arena(limit_bytes: int) -> None:
    """Bound the memory that all sessions of the process share; beyond it a run fails, instead of the process.

    The first bound holds: onnxruntime frees an allocator that is replaced, and sessions may still use it.
    """
    if _bounds:
        return
    _bounds.append(limit_bytes)
    runtime = load_runtime()
    arena = {
        "max_mem": limit_bytes,
        # The other strategy, kSameAsRequested, took a fifth more at the peak for images of different sizes.
        "arena_extend_strategy": _DOUBLING,
        "initial_chunk_size_bytes": _DEFAULT,
        "max_dead_bytes_per_chunk": _DEFAULT,
        "initial_growth_chunk_size_bytes": _DEFAULT,
    }
    kind = runtime.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    memory = runtime.OrtMemoryInfo("Cpu", kind, 0, runtime.OrtMemType.DEFAULT)
    runtime.create_and_register_allocator(memory, runtime.OrtArenaCfg(arena))


def providers_for(available: Collection[str], threads: int) -> list[tuple[str, dict[str, str]]]:
    """Choose what runs the models: a GPU, else Intel's own kernels, where the installed onnxruntime has them.

    >>> providers_for(["CPUExecutionProvider"], 2)
    [('CPUExecutionProvider', {})]

    Args:
        available: execution providers of the installed onnxruntime.
        threads: CPUs that one run may use.

    Returns:
        Names and options, best first; operations that one can't run go to the next.
    """
    wanted = {
        "CUDAExecutionProvider": {"arena_extend_strategy": "kSameAsRequested"},
        "OpenVINOExecutionProvider": {"device_type": "CPU", "num_of_threads": str(threads)},
        CPU: {},
    }
    return [(name, options) for name, options in wanted.items() if name in available]


def new_session(path: Path, *, threads: int) -> Any:
    """Load a model.

    Args:
        path: the ONNX file.
        threads: CPUs that one run may use.
    """
    runtime = load_runtime()
    options = runtime.SessionOptions()
    options.log_severity_level = _ONLY_ERRORS
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # A plan for each new shape of the inputs would hold its memory a second time.
    options.enable_mem_pattern = False
    # Threads that spin while they wait take the CPU from the other slots of a worker.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.use_env_allocators", "1")
    chosen = providers_for(runtime.get_available_providers(), threads)
    return runtime.InferenceSession(str(path), options, providers=chosen)


def run_options(*, is_shrinking: bool) -> Any:
    """Options of one run.

    Args:
        is_shrinking: whether all memory that the run took is given back after it.
    """
    options = load_runtime().RunOptions()
    # A run that fails says so by its error.
    options.log_severity_level = _FATAL
    if is_shrinking:
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


def shrink_arena() -> None:
    """Give back all memory of the sessions' arena that no array uses.

    onnxruntime does so only at the end of a run. So a model of one number is run, which shares the arena.
    """
    if not _bounds:
        return
    if not _shrinkers:
        options = load_runtime().SessionOptions()
        options.log_severity_level = _ONLY_ERRORS
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.use_env_allocators", "1")
        _shrinkers.append(load_runtime().InferenceSession(_IDENTITY, options, providers=[CPU]))
    _shrinkers[0].run(None, {"a": np.zeros(1, np.float32)}, run_options(is_shrinking=True))


@contextmanager
def errors_in_words(model: ModelId) -> Iterator[None]:
    """Turn errors of onnxruntime into ours; all others pass."""
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith("onnxruntime"):
            raise
        text = " ".join(str(error).split())
        kind, advice = _ERRORS.get(type(error).__name__, ModelMismatch), "check the file and the inputs"
        if "BFCArena" in text:
            advice = "use smaller tiles or batches, or give the worker more memory or fewer slots"
        message = f"model {model}: onnxruntime can't run it: {text[:_MAX_DETAIL_CHARACTERS]}; {advice}"
        raise kind(message, model=str(model)) from error
