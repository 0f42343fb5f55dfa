"""Reads what an ONNX file holds, and which other files it refers to.

An ONNX file can refer to another file that holds a tensor's values. A model is untrusted input, so a path that leads
out of the model's folder must not be followed. This module reads the file field by field, because the ``onnx`` package
is large and is needed for nothing else.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from redis_consumer.digest import file_digest
from redis_consumer.errors import ModelMismatch, ModelNotFound
from redis_consumer.serving.transport.protobuf import Buffer, fields

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
