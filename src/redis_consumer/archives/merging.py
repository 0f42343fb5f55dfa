"""Merges many result zips into one zip."""

from __future__ import annotations

import os
import shutil
import stat
import unicodedata
import zipfile
from pathlib import Path, PurePosixPath
from types import TracebackType

from redis_consumer import wanted
from redis_consumer.archives.limits import safe_name
from redis_consumer.archives.packing import FAST_LEVEL
from redis_consumer.errors import ConsumerError, UnsafeArchive

_COPY_BYTES = 1 << 20
#: Members above this size are written as zip64, because their packed size can need it.
_LARGE = 1 << 30


def check_result_zip(path: str | os.PathLike[str], label: str) -> None:
    """Read a whole result zip, to find damage before its files are used.

    Args:
        path: the zip.
        label: name of the image in messages.

    Raises:
        UnsafeArchive: the file is not a zip, or has a damaged or unsafe member.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                safe_name(member.filename, label)
                if stat.S_ISLNK(member.external_attr >> 16):
                    raise UnsafeArchive(f"{label}: its result contains a link; submit the image again")
                with archive.open(member) as source:
                    while source.read(_COPY_BYTES):
                        wanted.check()
    except (ConsumerError, MemoryError):
        raise
    except Exception as error:  # BadZipFile, zlib.error, EOFError, struct.error and more
        raise UnsafeArchive(f"{label}: its result zip is damaged; submit the image again") from error


class ResultZip:
    """A new zip on disk, to which the members of other zips are added one by one.

    Args:
        path: the new zip.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._archive = zipfile.ZipFile(path, "w", compresslevel=FAST_LEVEL, strict_timestamps=False)
        self._names: set[str] = set()

    def __enter__(self) -> ResultZip:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._archive.close()

    def add_zip(self, path: str | os.PathLike[str]) -> None:
        """Add all files of a zip that `check_result_zip` has accepted, with their compression method.

        If a name exists already, in upper or lower case, the file gets a number: ``HeLa_feature_0-2.tif``.
        """
        with zipfile.ZipFile(path) as other:
            for member in other.infolist():
                if member.is_dir():
                    continue
                is_stored = member.compress_type == zipfile.ZIP_STORED
                self._archive.compression = zipfile.ZIP_STORED if is_stored else zipfile.ZIP_DEFLATED
                name, is_large = self._free_name(safe_name(member.filename, member.filename)), member.file_size > _LARGE
                with other.open(member) as source, self._archive.open(name, "w", force_zip64=is_large) as sink:
                    shutil.copyfileobj(source, sink, _COPY_BYTES)
                self._archive.getinfo(name).date_time = member.date_time

    def add_file(self, path: Path, name: str) -> None:
        """Add a file."""
        self._archive.write(path, self._free_name(name), zipfile.ZIP_DEFLATED)

    def _free_name(self, name: str) -> str:
        path, number = PurePosixPath(name), 1
        while _folded(name) in self._names:
            number += 1
            name = str(path.with_name(f"{path.stem}-{number}{path.suffix}"))
        self._names.add(_folded(name))
        return name


def _folded(name: str) -> str:
    """Return a key that is equal for names that are the same file on Windows or macOS."""
    return unicodedata.normalize("NFC", name).casefold()
