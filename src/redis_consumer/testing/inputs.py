"""Turns the inputs of tests into objects of the bucket."""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Union

import numpy as np

from redis_consumer.errors import InvalidJob
from redis_consumer.images.vendors.ome_files import other_files
from redis_consumer.storage.keys import check_key
from redis_consumer.testing.arguments import check_image

if TYPE_CHECKING:
    from redis_consumer.images.image import Array

Input = Union[str, Path, bytes, "Array"]
"""The path of a file or of an OME-Zarr (a folder that ends in ``.zarr``), an array, or the bytes of a file."""

#: Names of inputs that have no name.
_ARRAY, _BYTES = "image.npy", "input.bin"
#: The ending, such as ``.zarr.zip``, by which consumers distinguish images from archives.
_ENDING = re.compile(r"(?:\.[A-Za-z0-9]{1,8}){1,2}\Z")


@dataclass(frozen=True)
class Uploaded:
    """An input in the bucket.

    Attributes:
        name: file name of the input.
        key: its object key; for an OME-Zarr, the key of its folder.
        objects: bytes of each object, by key.
    """

    name: str
    key: str
    objects: dict[str, bytes]


def is_plain_folder(image: Input) -> bool:
    """Whether it is a folder of inputs rather than one input.

    Raises:
        TypeError, ValueError: as `check_image`.
    """
    check_image(image)
    return isinstance(image, (str, Path)) and Path(image).is_dir() and Path(image).suffix.lower() != ".zarr"


def files_in(folder: str | Path) -> list[Path]:
    """List the inputs directly in a folder, sorted by name. Hidden files are left out.

    Raises:
        FileNotFoundError: there are none.
    """
    paths = sorted(path for path in Path(folder).iterdir() if not path.name.startswith("."))
    if not paths:
        raise FileNotFoundError(f"{folder}: contains no files; give a folder with images")
    return paths


def packed(folder: str | Path) -> bytes:
    """Pack a folder into a zip archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder))
    return buffer.getvalue()


def uploaded(image: Input, name: str = "") -> Uploaded:
    """Read an input.

    Args:
        image: the input.
        name: name that replaces its own.

    Raises:
        FileNotFoundError: there is no such file.
    """
    path = Path(image) if isinstance(image, (str, Path)) else None
    if path is not None and path.is_dir():
        name = name or path.name
        key = _key(name)
        files = [file for file in sorted(path.rglob("*")) if file.is_file()]
        return Uploaded(name, key, {f"{key}/{file.relative_to(path).as_posix()}": file.read_bytes() for file in files})
    own, content = _file(image)
    name = name or own
    key = _key(name)
    # An OME-TIFF may have its planes in several files.
    others = [] if path is None else [path.with_name(other) for other in other_files(path, path.name)]
    objects = {f"{key.rpartition('/')[0]}/{other.name}": other.read_bytes() for other in others if other.is_file()}
    return Uploaded(name, key, {key: content, **objects})


def _key(name: str) -> str:
    """Return the object key of an input: its name, or a digest if the name is not valid as a key, as producers do."""
    try:
        return check_key(f"uploads/{name}")
    except InvalidJob:
        digest = hashlib.sha256(name.encode(errors="replace")).hexdigest()
        return f"uploads/{digest}{''.join(_ENDING.findall(name)[:1])}"


def _file(image: Input) -> tuple[str, bytes]:
    """Return the name and the bytes of an input that is one file."""
    if isinstance(image, (str, Path)):
        return Path(image).name, Path(image).read_bytes()
    if isinstance(image, bytes):
        return _BYTES, image
    buffer = io.BytesIO()
    np.save(buffer, image, allow_pickle=False)
    return _ARRAY, buffer.getvalue()
