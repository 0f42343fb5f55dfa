"""How does what a test is given become objects of the bucket that jobs are about?"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Union

import numpy as np

if TYPE_CHECKING:
    from redis_consumer.images.image import Array

Input = Union[str, Path, bytes, "Array"]
"""A path of a file, or of an OME-Zarr (a folder that ends in ``.zarr``); an array; or the bytes of a file."""

#: Names of inputs that come without one.
_ARRAY, _BYTES = "image.npy", "input.bin"


@dataclass(frozen=True)
class Uploaded:
    """An input in the bucket.

    Attributes:
        name: by which the scientist knows it.
        objects: what belongs to it: bytes by the rest of the key, empty for a single object.
    """

    name: str
    objects: dict[str, bytes]

    @property
    def key(self) -> str:
        """Object key of a single object, or of the folder."""
        return f"uploads/{self.name}"

    def write(self, write: Callable[[str, bytes], None]) -> None:
        """Write all objects by a function that takes key and bytes."""
        for rest, content in self.objects.items():
            write(f"{self.key}/{rest}" if rest else self.key, content)


def is_plain_folder(image: Input) -> bool:
    """Whether it is a folder of inputs rather than one input."""
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


def packed(folder: str | Path) -> Path | bytes:
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
    if isinstance(image, bytes):
        return Uploaded(name or _BYTES, {"": image})
    if isinstance(image, np.ndarray):
        buffer = io.BytesIO()
        np.save(buffer, image, allow_pickle=False)
        return Uploaded(name or _ARRAY, {"": buffer.getvalue()})
    path = Path(image)
    if path.is_dir():
        files = (file for file in sorted(path.rglob("*")) if file.is_file())
        return Uploaded(name or path.name, {file.relative_to(path).as_posix(): file.read_bytes() for file in files})
    return Uploaded(name or path.name, {"": path.read_bytes()})
