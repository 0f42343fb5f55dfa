"""Reads ``.trk`` and ``.trks`` files and writes ``.trk`` files.

Both are tar archives, gzipped or not, of ``raw.npy``, ``tracked.npy`` and a lineage (contract, section 5.7). Only the
two arrays are read. Their size is limited, and the limit is checked while they are unpacked.
"""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt

from redis_consumer.errors import InvalidImage, UnsafeArchive
from redis_consumer.tracking.tracks import Track, to_json

Array = npt.NDArray[Any]

SUFFIXES = (".trk", ".trks")
#: 60 frames of 2048 x 2048 px as float32, twice.
DEFAULT_MAX_BYTES = 2 << 30
ARRAYS = ("raw.npy", "tracked.npy")
#: Largest size of an extended header of the archive, and of the header of an array.
_MAX_HEADER_BYTES = 1 << 20
_READ_BYTES = 1 << 20
_EXTENDED = (
    tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE
)  # fmt: skip
_GZIP = b"\x1f\x8b"
#: The fastest level packs arrays of labels to a twentieth of their size. Other levels are hardly better.
_LEVEL = 1


@dataclass(frozen=True)
class TrackFile:
    """The content of a track file.

    Attributes:
        raw: the images, (T, Y, X, C) for ``.trk`` and (B, T, Y, X, C) for ``.trks``.
        labels: integers of the same shape with one channel; 0 is background.
    """

    raw: Array
    labels: Array

    def movies(self) -> Iterator[tuple[Array, Array]]:
        """Yield images (T, Y, X, C) and labels (T, Y, X) of each movie."""
        for raw, labels in zip(self.raw, self.labels, strict=True) if self.raw.ndim == 5 else [(self.raw, self.labels)]:
            yield raw, labels[..., 0]


def read_track_file(
    path: Path,
    *,
    name: str | None = None,
    max_bytes: int = DEFAULT_MAX_BYTES,
    check_memory: Callable[[int, tuple[int, ...]], None] | None = None,
) -> TrackFile:
    """Read images and labels of a ``.trk`` or ``.trks`` file. Nothing is written to disk, and no pickle is loaded.

    Args:
        path: the local file.
        name: the user's name for the file, for messages and for its suffix; None for the name of `path`.
        max_bytes: largest unpacked size.
        check_memory: called before each array is read, with the bytes that will be held and the array's shape; it may
            raise InvalidImage.

    Raises:
        InvalidImage: the file is not a track file, is damaged, lacks an array, or has arrays that don't fit together.
        UnsafeArchive: the file unpacks to more than `max_bytes`.
        OSError: the local file can't be opened.
    """
    name = name or path.name
    if not name.lower().endswith(SUFFIXES):
        raise InvalidImage(f"{name}: is not a track file; give it the suffix {' or '.join(SUFFIXES)}")
    arrays: dict[str, Array] = {}
    with path.open("rb") as file:
        try:
            for member, array in _arrays(file, name, max_bytes, check_memory):
                if member in arrays:
                    raise InvalidImage(f"{name}: contains {member} twice; write the file again")
                arrays[member] = array
        except (InvalidImage, UnsafeArchive, MemoryError):
            raise
        except Exception as error:  # tarfile, zlib and numpy raise many kinds of errors for a damaged file
            raise InvalidImage(f"{name}: isn't a readable track file; write it again and upload it whole") from error
    missing = [member for member in ARRAYS if member not in arrays]
    if missing:
        raise InvalidImage(f"{name}: has no {' and no '.join(missing)}; write it with raw images and labels")
    return _checked(TrackFile(arrays["raw.npy"], arrays["tracked.npy"]), name)


def load_track_file(filename: str | os.PathLike[str]) -> dict[str, Array]:
    """Read images and labels as the consumers of 2020 did (contract, section 5.7).

    Returns:
        A dictionary with the images ``X`` and the labels ``y``, see `TrackFile`.

    Raises:
        InvalidImage, UnsafeArchive, OSError: as `read_track_file`.
    """
    file = read_track_file(Path(filename))
    return {"X": file.raw, "y": file.labels}


def write_track_file(
    path: Path, raw: Iterable[Array], labels: Iterable[Array], tracks: Sequence[Track], *, shape: tuple[int, int, int]
) -> None:
    """Write a ``.trk`` file, frame by frame.

    Args:
        path: path of the gzipped file.
        raw: (Y, X) images, written as float32.
        labels: (Y, X) labels of the tracks, written as uint16 if they fit (contract).
        tracks: the tracks of all labels.
        shape: (T, Y, X) of the movie.

    Raises:
        OSError: the file can't be written.
    """
    highest = max((track.label for track in tracks), default=0)
    kind: np.dtype[Any] = np.dtype(np.uint16 if highest <= np.iinfo(np.uint16).max else np.uint32)
    parts: list[tuple[str, Iterable[Array], np.dtype[Any]]] = [
        ("raw.npy", raw, np.dtype(np.float32)),
        ("tracked.npy", labels, kind),
    ]
    with tarfile.open(path, "w:gz", compresslevel=_LEVEL) as archive:
        lineage = to_json(tracks).encode()
        _add(archive, "lineage.json", len(lineage), io.BytesIO(lineage))
        for member, frames, dtype in parts:
            head = io.BytesIO()
            header = {"descr": dtype.str, "fortran_order": False, "shape": (*shape, 1)}
            np.lib.format.write_array_header_1_0(head, header)
            content = _Frames(head.getvalue(), iter(frames), dtype)
            _add(archive, member, len(head.getvalue()) + prod(shape) * dtype.itemsize, content)


def _add(archive: tarfile.TarFile, member: str, size: int, content: Any) -> None:
    entry = tarfile.TarInfo(member)
    entry.size = size
    archive.addfile(entry, content)


class _Frames:
    """A readable file whose content is a header and arrays, one after the other."""

    def __init__(self, head: bytes, frames: Iterator[Array], dtype: np.dtype[Any]) -> None:
        self.frames = frames
        self.dtype = dtype
        self.rest = memoryview(head)

    def read(self, size: int) -> bytes:
        """Read on, as a file does."""
        taken = bytearray()
        while len(taken) < size:
            if not self.rest:
                frame = next(self.frames, None)
                if frame is None:
                    break
                self.rest = memoryview(frame.astype(self.dtype).tobytes())
            part = self.rest[: size - len(taken)]
            taken += part
            self.rest = self.rest[len(part) :]
        return bytes(taken)


def _arrays(
    file: BinaryIO, name: str, max_bytes: int, check_memory: Callable[[int, tuple[int, ...]], None] | None
) -> Iterator[tuple[str, Array]]:
    """Yield the arrays of a tar archive with the last part of their names. Other members are skipped."""
    is_zipped = file.read(2) == _GZIP
    file.seek(0)
    held = 0

    def check(shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        nonlocal held
        # Numbers that are not unsigned are converted to labels of 4 bytes.
        held += prod(shape) * (dtype.itemsize if dtype.kind == "u" else dtype.itemsize + 4)
        if check_memory is not None:
            check_memory(held, shape)

    stream: Any = _Limited(cast("IO[bytes]", gzip.GzipFile(fileobj=file)) if is_zipped else file, name, max_bytes)
    with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Entry) as archive:
        for entry in archive:
            member = entry.name.rpartition("/")[2]
            if member in ARRAYS and entry.isreg() and not entry.issparse():
                yield member, _read_array(cast("IO[bytes]", archive.extractfile(entry)), entry.size, check)


def _read_array(content: IO[bytes], size: int, check: Callable[[tuple[int, ...], np.dtype[Any]], None]) -> Array:
    """Read an NPY file. Check its header against its size first, because memory is allocated by the header."""
    form, head = np.lib.format, cast("IO[bytes]", _Head(content))
    is_first = form.read_magic(head) == (1, 0)
    shape, is_fortran, dtype = (form.read_array_header_1_0 if is_first else form.read_array_header_2_0)(head)
    if dtype.hasobject or dtype.itemsize * prod(shape) > size:
        raise ValueError("a pickle, or cut off")
    check(shape, dtype)
    array = np.empty(prod(shape), dtype)
    left = memoryview(cast("Any", array.view(np.uint8)))
    # Read at once, the bytes would be held twice.
    while left:
        part = content.read(min(len(left), _READ_BYTES))
        if not part:
            raise ValueError("cut off")
        left[: len(part)] = part
        left = left[len(part) :]
    return array.reshape(shape, order="F" if is_fortran else "C")


class _Entry(tarfile.TarInfo):
    """Checks the length of an extended header before the library reads it."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in _EXTENDED and self.size > _MAX_HEADER_BYTES:
            raise tarfile.ReadError("an extended header that no ordinary tar has")
        entry: tarfile.TarInfo = super()._proc_member(archive)  # type: ignore[misc]
        return entry


class _Head:
    """A stream that refuses to read a long part at once."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def read(self, size: int) -> bytes:
        """Read on, as a file does."""
        if size > _MAX_HEADER_BYTES:
            raise ValueError("a header that no array has")
        return self._stream.read(size)


class _Limited:
    """A stream that raises an error after a number of bytes."""

    def __init__(self, stream: IO[bytes], name: str, max_bytes: int) -> None:
        self.stream = stream
        self.name = name
        self.left = max_bytes

    def read(self, size: int) -> bytes:
        """Read on, as a file does."""
        data = self.stream.read(size)
        self.left -= len(data)
        if self.left < 0:
            raise UnsafeArchive(f"{self.name}: unpacks to more than is allowed; split the movie into several files")
        return data


def _checked(file: TrackFile, name: str) -> TrackFile:
    raw, labels = file.raw, file.labels
    if raw.ndim not in (4, 5) or labels.shape != (*raw.shape[:-1], 1) or not raw.size:
        raise InvalidImage(
            f"{name}: the shapes of raw.npy, {raw.shape}, and tracked.npy, {labels.shape}, don't fit together; "
            "write both as (frames, y, x, channels), and the labels with one channel"
        )
    if raw.dtype.kind not in "buif" or labels.dtype.kind not in "buif":
        raise InvalidImage(
            f"{name}: {raw.dtype} and {labels.dtype} pixels aren't real numbers; write integers or floats"
        )
    if labels.dtype.kind not in "u":
        labels = _whole_numbers(labels, name)
    return TrackFile(raw, labels)


def _whole_numbers(labels: Array, name: str) -> Array:
    """Convert labels frame by frame."""
    result = np.empty(labels.shape, np.uint32)
    for place in np.ndindex(labels.shape[:-3]):
        frame = labels[place]
        whole = frame.astype(np.int64)
        if (whole != frame).any() or whole.min() < 0 or whole.max() > np.iinfo(np.uint32).max:
            raise InvalidImage(f"{name}: tracked.npy has values that are not labels; write whole numbers of 0 or more")
        result[place] = whole
    return result
