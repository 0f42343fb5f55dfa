"""How does what a test is given become objects of the bucket that jobs are about?"""

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
from redis_consumer.storage.keys import check_key
from redis_consumer.testing.arguments import check_image

if TYPE_CHECKING:
    from redis_consumer.images.image import Array

Input = Union[str, Path, bytes, "Array"]
"""A path of a file, or of an OME-Zarr (a folder that ends in ``.zarr``); an array; or the bytes of a file."""

#: Names of inputs that come without one.
_ARRAY, _BYTES = "image.npy", "input.bin"
#: By which consumers tell an image from an archive, such as ``.zarr.zip``.
_ENDING = re.compile(r"(?:\.[A-Za-z0-9]{1,8}){1,2}\Z")


@dataclass(frozen=True)
class Uploaded:
    """An input as it is in the bucket.

    Attributes:
        name: by which the scientist knows it.
        key: object key of it; of an OME-Zarr, its folder's.
        objects: bytes of each object by key.
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
    """All inputs right in a folder by name; hidden files are none.

    Raises:
        FileNotFoundError: there are none.
    """
    paths = sorted(path for path in Path(folder).iterdir() if not path.name.startswith("."))
    if not paths:
        raise FileNotFoundError(f"{folder}: holds no files; give a folder with images")
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
        image: which one.
        name: for it, in place of its own.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if isinstance(image, (str, Path)) and Path(image).is_dir():
        key = _key(name or Path(image).name)
        files = [file for file in sorted(Path(image).rglob("*")) if file.is_file()]
        objects = {f"{key}/{file.relative_to(image).as_posix()}": file.read_bytes() for file in files}
        return Uploaded(name or Path(image).name, key, objects)
    own, content = _file(image)
    key = _key(name or own)
    return Uploaded(name or own, key, {key: content})


def _key(name: str) -> str:
    """Where an input lies: under its name, or its name's digest where the bucket takes no such key, as producers do."""
    try:
        return check_key(f"uploads/{name}")
    except InvalidJob:
        digest = hashlib.sha256(name.encode(errors="replace")).hexdigest()
        return f"uploads/{digest}{''.join(_ENDING.findall(name)[:1])}"


def _file(image: Input) -> tuple[str, bytes]:
    """Name and bytes of an input that is one file."""
    if isinstance(image, (str, Path)):
        return Path(image).name, Path(image).read_bytes()
    if isinstance(image, bytes):
        return _BYTES, image
    buffer = io.BytesIO()
    np.save(buffer, image, allow_pickle=False)
    return _ARRAY, buffer.getvalue()
