"""Finds the images and archives to submit in files and folders, and the keys of their objects."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from pathlib import Path

from redis_consumer.errors import InvalidImage
from redis_consumer.text import file_digest, in_utf8

#: File name endings of archives. The web server knows only the first one.
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
#: File name endings with two parts, which workers use to recognise archives.
_DOUBLE_SUFFIXES = (".tar.gz", ".zarr.zip")
#: Endings of keys whose object is one image although it is an archive.
ONE_IMAGE = (".zarr", ".zarr.zip", ".ozx")
#: Files that make a folder a Zarr group, in formats 2 and 3.
_GROUP_FILES = (".zgroup", "zarr.json")
_ZIP = b"PK\3\4"
_SHOWN = 5


@dataclass(frozen=True)
class Found:
    """The inputs in files and folders.

    Attributes:
        paths: images and archives in order; a folder is an OME-Zarr.
        others: other files in folders, which are not submitted.
        folders: folders that are no OME-Zarr, whose images were not asked for.
        parts: other files of an OME-TIFF that is in `paths`, which are uploaded with it.
    """

    paths: list[Path]
    others: list[Path]
    folders: list[Path]
    parts: list[Path]


def find_inputs(paths: list[Path], *, is_recursive: bool) -> Found:
    """Find what to submit. Files that are named themselves are always submitted.

    Args:
        paths: files, OME-Zarr folders, or folders of images.
        is_recursive: whether to take the images and archives in folders of images, and in folders below them.

    Raises:
        OSError: a file or folder can't be read.
    """
    found = Found([], [], [], [])
    for path in paths:
        if not path.is_dir() or is_ome_zarr_input(path):
            found.paths.append(path)
        elif is_recursive:
            _look_into(path, found)
        else:
            found.folders.append(path)
    return _without_parts(found)


def _without_parts(found: Found) -> Found:
    """Let one file of an OME-TIFF stand for all of its files: the first one that has the metadata."""
    from redis_consumer.images.vendors.ome_files import has_only_pixels

    parts: set[Path] = set()
    for path in sorted(found.paths, key=lambda each: each.is_file() and has_only_pixels(each)):
        if path not in parts:
            parts |= set(others_of(path)) & set(found.paths) - {path}
    paths = [path for path in found.paths if path not in parts]
    return replace(found, paths=paths, parts=[path for path in found.paths if path in parts])


def others_of(path: Path) -> list[Path]:
    """Return the other files of an OME-TIFF of several files, or the one with its metadata; none for other inputs.

    Raises:
        OSError: it can't be read.
    """
    from redis_consumer.images.vendors.ome_files import other_files

    if not path.is_file():
        return []
    return [path.with_name(other) for other in other_files(path, path.name)]


def _look_into(folder: Path, found: Found) -> None:
    for path in sorted(folder.iterdir(), key=lambda each: _natural(each.name)):
        if path.name.startswith("."):
            continue
        if not path.is_dir():
            (found.paths if _is_input(path) else found.others).append(path)
        elif is_ome_zarr_input(path):
            found.paths.append(path)
        else:
            _look_into(path, found)


def _natural(name: str) -> list[tuple[int, str]]:
    """A sort key with which ``t2`` comes before ``t10``."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]+)", name) if part]


def _is_input(path: Path) -> bool:
    from redis_consumer.images.kinds import why_no_image

    return path.name.lower().endswith(ARCHIVES) or not why_no_image(path) or is_ome_zarr_input(path)


def is_ome_zarr_input(path: Path) -> bool:
    """Return whether a folder or file is an OME-Zarr.

    Raises:
        OSError: it can't be read.
    """
    if path.is_dir():
        return any((path / name).is_file() for name in _GROUP_FILES)
    if path.is_file():
        with path.open("rb") as file:
            if file.read(len(_ZIP)) != _ZIP:
                return False
    from redis_consumer.images.ome_zarr import is_ome_zarr

    try:
        return is_ome_zarr(path)
    except InvalidImage:  # a zip archive of very many files
        return path.name.lower().endswith(ONE_IMAGE)


def files_of(folder: Path) -> list[Path]:
    """Return the files in a folder and below, sorted."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def upload_key(path: Path) -> str:
    """Return the object key of a file or an OME-Zarr folder.

    It is made from a digest of the content, so that equal files are stored once. It has the same ending as the file's
    name, by which workers recognise archives. An OME-Zarr has the ending ``.zarr``, ``.zarr.zip`` or ``.ozx``. The
    files of an OME-TIFF have a folder of their own.

    Raises:
        InvalidImage: it is an OME-TIFF of which files are missing.
        OSError: it can't be read.
    """
    name = path.name.lower()
    if path.is_dir():
        digest = hashlib.md5(usedforsecurity=False)
        for file in files_of(path):
            digest.update(f"{file.relative_to(path).as_posix()}\0{file_digest(file, 'md5')}\n".encode(errors="replace"))
        return f"uploads/{digest.hexdigest()}.zarr"
    others = others_of(path)
    if others:
        missing = [other.name for other in others if not other.is_file()]
        if missing:
            raise InvalidImage(
                f"{path.name}: is one of the {len(others) + 1} files of an OME-TIFF, of which {len(missing)} are not "
                f"beside it ({', '.join(missing[:_SHOWN])}); put them there, or export it as one OME-TIFF file"
            )
        # Its metadata name the others, so they keep their names.
        digests = "".join(file_digest(each, "md5") for each in (path, *others))
        digest = hashlib.md5(digests.encode(), usedforsecurity=False)
        return f"uploads/{digest.hexdigest()}/{in_utf8(path.name)}"
    suffix = next((each for each in _DOUBLE_SUFFIXES if name.endswith(each)), path.suffix.lower())
    if suffix == ".zip" and is_ome_zarr_input(path):
        suffix = ".ozx"
    return f"uploads/{file_digest(path, 'md5')}{in_utf8(suffix)}"
