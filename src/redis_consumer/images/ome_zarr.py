"""Reads OME-Zarr images of versions 0.1 to 0.5, from a folder or a zip archive of one."""

from __future__ import annotations

import itertools
import json
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil, prod
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np

from redis_consumer.errors import InvalidImage
from redis_consumer.images.channels import Channel, channel_named
from redis_consumer.images.fields import choose
from redis_consumer.images.image import Source, square_um
from redis_consumer.images.planes import MAX_SEGMENT_BYTES, Planes, array_planes

#: Bytes of a file of metadata; real ones have a few thousand.
MAX_METADATA_BYTES = 4 << 20
#: Images of a plate; a job is made of each.
MAX_FIELDS = 10_000
#: Wells of a plate, each with a file of its own; the largest plates that are sold have 3,456.
MAX_WELLS = 3_456
#: Returns the table in a JSON file, empty if there is none.
ReadTable = Callable[[str], Mapping[str, Any]]
#: Files of metadata of a group, by the Zarr format that writes them.
_GROUP_FILES = (".zgroup", "zarr.json")
#: Axes of versions that don't name them.
_OLD_AXES = "TCZYX"
_MICROMETRES = {"angstrom": 1e-4, "nanometer": 1e-3, "micrometer": 1.0, "millimeter": 1e3, "centimeter": 1e4}
_SECONDS = {"millisecond": 1e-3, "second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86400.0}
#: Bytes of the directory of a zip archive, which is read into memory at ten times its size: half a million files.
MAX_DIRECTORY_BYTES = 24 << 20
#: Chunks that an array may have in any case; above that at most so many for each file, and one for so many bytes: an
#: entry of a shard's index has 16.
SMALL_CHUNKS = 1 << 14
MAX_CHUNKS_A_FILE = 200
_LEAST_CHUNK_BYTES = 16
#: First bytes of a chunk by Blosc: its header, with the number of decoded bytes at 4.
_BLOSC_HEADER_BYTES = 16
#: Last bytes of a zip archive in which its end is found: comment, end, and those of zip64.
_MAX_END_BYTES = (1 << 16) + 22 + 20 + 56


#: Codecs that TensorStore knows: those that compress, and others.
_COMPRESSORS = frozenset({"blosc", "bz2", "gzip", "zlib", "zstd"})
_CODECS = _COMPRESSORS | {"bytes", "crc32c", "sharding_indexed", "transpose"}


@dataclass(frozen=True)
class _Root:
    """The place of a group: a folder, or a folder in a zip archive."""

    path: Path
    inside: str | None

    def read(self, name: str) -> dict[str, Any]:
        """A JSON file below the root, empty if there is none."""
        text = self._bytes(name, MAX_METADATA_BYTES + 1)
        if text is not None and len(text) > MAX_METADATA_BYTES:
            raise InvalidImage(
                f"{self.path.name}: its {name} has more than the {MAX_METADATA_BYTES} bytes allowed; "
                "write it with less metadata"
            )
        table = {} if text is None else json.loads(text)
        if not isinstance(table, dict):
            raise ValueError(f"{name} holds no JSON object")
        return table

    def _bytes(self, name: str, limit: int) -> bytes | None:
        if self.inside is None:
            file = self.path / name
            if not file.is_file():
                return None
            with file.open("rb") as source:
                return source.read(limit)
        with zipfile.ZipFile(self.path) as archive:
            member = f"{self.inside}{name}"
            if member not in archive.NameToInfo:
                return None
            with archive.open(member) as source:
                return source.read(limit)

    def files(self, folder: str, head_bytes: int = 0) -> Iterator[tuple[int, int, bytes]]:
        """Every file below a folder of the root: its stored and its unpacked size, and its first bytes."""
        if self.inside is None:
            for path in (self.path / folder).rglob("*"):
                if path.is_file():
                    size = path.stat().st_size
                    yield size, size, _head(path.open("rb"), head_bytes)
            return
        with zipfile.ZipFile(self.path) as archive:
            for member in archive.infolist():
                if member.filename.startswith(f"{self.inside}{folder}/") and not member.is_dir():
                    head = _head(archive.open(member), head_bytes) if head_bytes else b""
                    yield member.compress_size, member.file_size, head

    def store(self, folder: str) -> dict[str, Any]:
        """Return TensorStore's name of a folder below the root."""
        file = {"driver": "file", "path": str(self.path)}
        if self.inside is None:
            return {**file, "path": f"{self.path}/{folder}/"}
        return {"driver": "zip", "base": file, "path": f"{self.inside}{folder}/"}


def _head(source: IO[bytes], count: int) -> bytes:
    with source:
        return source.read(count)


def is_ome_zarr(path: Path) -> bool:
    """Return whether a folder or a zip archive has a Zarr group at its root, or in the only folder at its root."""
    return _find_root(path) is not None


@contextmanager
def open_ome_zarr(path: Path, name: str, field: str = "") -> Iterator[Planes]:
    """Open the full resolution of the image in an OME-Zarr, to read it in windows.

    Args:
        path: the local folder or zip archive.
        name: the user's name for it, for messages.
        field: which of several images, see `image_fields`.

    Raises:
        SeveralImages: it has several images and none is named.
        InvalidImage: no image; a kind of pixels or chunks that can't be read (objects never are).
        Exception: whatever TensorStore raises for a damaged one.
    """
    root = _find_root(path)
    if root is None:
        raise InvalidImage(f"{name}: holds no Zarr group; upload the whole OME-Zarr")
    fields = image_fields(root.read)
    place = fields[choose(fields, field, name)] if fields else ""
    image = _image_of(root, f"{place}/" if place else "", name)
    folder, axes, sizes = _full_resolution(image, name)
    pixel_yx_um = (sizes["Y"], sizes["X"]) if {"Y", "X"} <= set(sizes) else None
    array, stored_bytes = _open_array(root, folder, name)
    dtype = np.dtype(array.dtype.numpy_dtype)
    if len(axes) != array.rank:
        raise InvalidImage(f"{name}: names {len(axes)} axes ({axes}), but its array has {array.rank}; export it again")
    source = Source(
        shape=tuple(array.shape),
        axes=axes,
        dtype=dtype,
        decode=lambda: np.asarray(array.read().result()),
        pixel_size_um=square_um(pixel_yx_um),
        pixel_yx_um=pixel_yx_um,
        spacing_um=sizes.get("Z"),
        interval_s=sizes.get("T"),
        stored_bytes=stored_bytes,
        channels=_channels(image[1]),
    )
    yield array_planes(source, lambda: _Reading(array))


class _Reading:
    """Gives parts of an array when sliced, so that it may be read like any other."""

    def __init__(self, array: Any) -> None:
        self._array = array

    def __getitem__(self, index: tuple[Any, ...]) -> Any:
        return self._array[index].read().result()


def _find_root(path: Path) -> _Root | None:
    if path.is_dir():
        inner = [path, *(entry for entry in path.iterdir() if entry.is_dir() and entry.name.endswith(".zarr"))]
        return next(
            (_Root(folder, None) for folder in inner if any((folder / f).is_file() for f in _GROUP_FILES)), None
        )
    names = _members(path)
    tops = {PurePosixPath(name).parts[0] for name in names if PurePosixPath(name).parts}
    places = ["", *(f"{top}/" for top in tops if len(tops) == 1)]
    return next((_Root(path, place) for place in places if any(place + file in names for file in _GROUP_FILES)), None)


def _members(path: Path) -> frozenset[str]:
    """Names in a zip archive; none if it isn't one, or is damaged."""
    try:
        if _directory_bytes(path) > MAX_DIRECTORY_BYTES:
            raise InvalidImage(
                f"{path.name}: the directory of its zip archive has more than the {MAX_DIRECTORY_BYTES} bytes allowed; "
                "write the OME-Zarr with larger chunks"
            )
        with zipfile.ZipFile(path) as archive:
            return frozenset(archive.namelist())
    except InvalidImage:
        raise
    except Exception:  # noqa: BLE001 - damaged ones raise BadZipFile, OSError, struct.error and more
        return frozenset()


def _directory_bytes(path: Path) -> int:
    """Bytes of the directory of a zip archive, as its end says."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _MAX_END_BYTES))
        tail = file.read()
    end, end64 = tail.rfind(b"PK\5\6"), tail.rfind(b"PK\6\6")
    sizes = [int.from_bytes(tail[end + 12 : end + 16], "little") if end >= 0 else 0]
    if end64 >= 0 and sizes[0] == 0xFFFFFFFF:
        sizes = [int.from_bytes(tail[end64 + 40 : end64 + 48], "little")]
    return min(sizes[0], size)


def image_fields(read: ReadTable) -> list[str]:
    """Return the folders of the images in an OME-Zarr that has several; none for one that is an image itself.

    Args:
        read: returns the table in a file below the root, empty if there is none.

    Raises:
        InvalidImage: there are too many.
    """
    attributes = _attributes(read, "")
    if "plate" in attributes:
        wells = [_checked_place(well["path"]) for well in attributes["plate"].get("wells", ())]
        if len(wells) > MAX_WELLS:
            raise InvalidImage(f"the OME-Zarr names {len(wells)} wells, allowed are {MAX_WELLS}; upload parts of it")
        return _limited(f"{well}/{each}" for well in wells for each in _images_of_well(read, f"{well}/"))
    if "well" in attributes:
        return _limited(_images_of_well(read, ""))
    if "multiscales" in attributes:
        return []
    # The layout of bioformats2raw: images in numbered folders, or in those that a separate group lists.
    listed = _attributes(read, "OME/").get("series", ())
    if listed:
        return _limited(map(_checked_place, listed))
    numbers = itertools.takewhile(lambda number: _attributes(read, f"{number}/"), itertools.count())
    return _limited(map(str, numbers))


def _images_of_well(read: ReadTable, folder: str) -> list[str]:
    return [_checked_place(image["path"]) for image in _attributes(read, folder).get("well", {}).get("images", ())]


def _checked_place(place: object) -> str:
    path = PurePosixPath(str(place))
    if path.is_absolute() or ".." in path.parts or "\\" in str(path):
        raise ValueError(f"{str(path)!r} lies outside of it")
    return str(path)


def _limited(fields: Iterable[str]) -> list[str]:
    found = list(itertools.islice(fields, MAX_FIELDS + 1))
    if len(found) > MAX_FIELDS:
        raise InvalidImage(
            f"the OME-Zarr holds more than {MAX_FIELDS} images; upload parts of it, or name one in field field_of_view"
        )
    return found


def _attributes(read: ReadTable, folder: str) -> Mapping[str, Any]:
    """The attributes of a group as OME names them, whichever version wrote them."""
    modern = read(f"{folder}zarr.json").get("attributes", {})
    return modern.get("ome", modern) if modern else read(f"{folder}.zattrs")


def _image_of(root: _Root, folder: str, name: str) -> tuple[str, Mapping[str, Any]]:
    """The folder of an image, and its metadata."""
    attributes = _attributes(root.read, folder)
    if "multiscales" not in attributes:
        raise InvalidImage(f"{name}: is a Zarr, but no image by OME; export it as OME-Zarr 0.4 or 0.5")
    return folder, attributes


def _full_resolution(image: tuple[str, Mapping[str, Any]], name: str) -> tuple[str, str, dict[str, float]]:
    """Folder of the largest array, its axes, and the size of a step on each axis in micrometres or seconds."""
    prefix, attributes = image
    multiscale = attributes["multiscales"][0]
    dataset = multiscale["datasets"][0]
    folder = PurePosixPath(str(dataset["path"]))
    if folder.is_absolute() or ".." in folder.parts or "\\" in str(folder):
        raise InvalidImage(f"{name}: its array {str(folder)!r} lies outside of it; export it again")
    axes = [axis if isinstance(axis, dict) else {"name": str(axis)} for axis in multiscale.get("axes") or _OLD_AXES]
    letters = "".join(str(axis["name"])[:1].upper() for axis in axes)
    return f"{prefix}{folder}", letters, _sizes(axes, dataset)


def _channels(attributes: Mapping[str, Any]) -> tuple[Channel, ...]:
    """The names of the channels by the metadata of a viewer; none if there are no such."""
    omero = attributes.get("omero")
    found = omero.get("channels") if isinstance(omero, dict) else None
    if not isinstance(found, list):
        return ()
    return tuple(channel_named(str(each.get("label", "")) if isinstance(each, dict) else "") for each in found)


def _sizes(axes: list[dict[str, Any]], dataset: Mapping[str, Any]) -> dict[str, float]:
    scales = [step["scale"] for step in dataset.get("coordinateTransformations", ()) if step.get("type") == "scale"]
    if len(scales) != 1 or len(scales[0]) != len(axes):
        return {}
    found: dict[str, float] = {}
    for axis, scale in zip(axes, scales[0], strict=True):
        letter = str(axis["name"])[:1].upper()
        units = _SECONDS if letter == "T" else _MICROMETRES
        if letter in "TZYX" and axis.get("unit") in units:
            found[letter] = float(scale) * units[axis["unit"]]
    return {letter: size for letter, size in found.items() if 0 < size < float("inf")}


def _open_array(root: _Root, folder: str, name: str) -> tuple[Any, int]:
    """The array in a folder, and how many bytes its files have."""
    try:
        import tensorstore
    except ImportError as error:
        raise InvalidImage(
            f"{name}: the worker has nothing to read OME-Zarr with; pip install kiosk-redis-consumer[zarr] there, "
            "or submit a TIFF"
        ) from error
    spec, codecs = _spec(root, folder, name)
    array = tensorstore.open(spec, read=True).result()
    sides: Any = array.chunk_layout.read_chunk.shape
    chunk_bytes = prod(sides) * array.dtype.numpy_dtype.itemsize
    if chunk_bytes > MAX_SEGMENT_BYTES:
        raise InvalidImage(
            f"{name}: its chunks take {chunk_bytes / 2**20:.0f} MiB, allowed are {MAX_SEGMENT_BYTES >> 20} MiB; "
            "write it with smaller chunks, e.g. of 1024 x 1024 px"
        )
    chunks = prod(ceil(side / chunk) for side, chunk in zip(array.shape, sides, strict=True))
    return array, _check_files(root, folder, chunks, chunk_bytes if "blosc" in codecs else None, name)


def _spec(root: _Root, folder: str, name: str) -> tuple[dict[str, Any], set[str]]:
    """TensorStore's description of an array, and the names of its codecs."""
    kvstore = root.store(folder)
    modern = root.read(f"{folder}/zarr.json")
    # TensorStore would read files of metadata whole, however long; `read` has a limit.
    table = modern or root.read(f"{folder}/.zarray")
    codecs = _codecs(table.get("codecs", ())) if modern else {str((table.get("compressor") or {}).get("id", ""))} - {""}
    filters = [] if modern else [str(each.get("id", "")) for each in table.get("filters") or ()]
    strange = sorted(codecs - _CODECS) + filters
    if strange:
        raise InvalidImage(
            f"{name}: is an OME-Zarr with codec {', '.join(strange)}, which can't be read; "
            f"write it with {', '.join(sorted(_COMPRESSORS))} or without compression"
        )
    if modern:
        return {"driver": "zarr3", "kvstore": kvstore, "open": True}, codecs
    # Old writers give a number as text, and no filters as an empty list.
    fill = table.get("fill_value")
    is_number = isinstance(fill, str) and fill not in ("NaN", "Infinity", "-Infinity")
    known = {**table, "filters": None, "fill_value": _number(str(fill)) if is_number else fill}
    return {"driver": "zarr", "kvstore": kvstore, "open": True, "assume_metadata": True, "metadata": known}, codecs


def _codecs(given: Any) -> set[str]:
    """Names of the codecs of an array, and of those within its shards."""
    names = set()
    for codec in given:
        names.add(str(codec["name"]))
        configuration = codec.get("configuration", {})
        for inner in ("codecs", "index_codecs"):
            names |= {str(each["name"]) for each in configuration.get(inner, ())}
    return names


def _number(text: str) -> float | int:
    return float(text) if any(letter in text for letter in ".eE") else int(text or 0)


def _check_files(root: _Root, folder: str, chunks: int, blosc_bytes: int | None, name: str) -> int:
    """Refuse chunks that are more than the files can hold or that unpack to too much; give the bytes of the files.

    Args:
        root: where the files lie.
        folder: of the array.
        chunks: how many the array has.
        blosc_bytes: size of a chunk that is compressed with Blosc. Other codecs get a limit for their output; Blosc
            decodes as much as its header says.
        name: the user's name for the OME-Zarr, for messages.
    """
    count = total = 0
    for stored, unpacked, head in root.files(folder, _BLOSC_HEADER_BYTES if blosc_bytes is not None else 0):
        count, total = count + 1, total + stored
        if unpacked > stored and unpacked > MAX_SEGMENT_BYTES:
            raise InvalidImage(
                f"{name}: a chunk within the zip archive unpacks to {unpacked >> 20} MiB, allowed are "
                f"{MAX_SEGMENT_BYTES >> 20} MiB; store the chunks in the archive, don't pack them"
            )
        if blosc_bytes is not None and head[:1] != b"{" and int.from_bytes(head[4:8], "little") > blosc_bytes:
            raise ValueError("a chunk is larger than its array says")
    most = max(SMALL_CHUNKS, MAX_CHUNKS_A_FILE * count, total // _LEAST_CHUNK_BYTES)
    if chunks > most:
        raise InvalidImage(
            f"{name}: has {chunks} chunks, but {count} files of {total} bytes for them, allowed are {most} chunks; "
            "write it with larger chunks, e.g. of 1024 x 1024 px"
        )
    return total
