"""How do files go into a zip archive and come safely out of one?"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
import tempfile
import time
import uuid
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from redis_consumer.errors import InvalidJob, PermanentError, UnsafeArchive

#: Level 1 packs label images 10 times as fast as zlib's default, and hardly larger.
FAST_LEVEL = 1
#: What doesn't become so many times smaller is stored: to pack probabilities (1.2 times) takes longer than a network of
#: 1 Gbit/s takes to carry them. Label images become 7 times smaller at least.
LEAST_GAIN = 2
#: Bytes that an archive may unpack to, counted while they are written, whatever its headers say.
DEFAULT_MAX_BYTES = 10 << 30
_COPY_BYTES = 1 << 20
#: What is packed to see how much smaller a file becomes: parts that are spread over it.
_SAMPLES = 4
_SAMPLE_BYTES = 1 << 12


def zip_files(
    files: Iterable[str | os.PathLike[str]],
    dest: str | os.PathLike[str] | None = None,
    prefix: str | None = None,
    *,
    name: str | None = None,
) -> str:
    """Pack files into a new archive ``[<prefix>_]<md5>.zip`` (contract, section 3).

    Args:
        files: local paths; one listed twice is packed once.
        dest: folder of the archive; its members are named relative to it. None for the folder that all
            files have in common.
        prefix: put before the digest.
        name: exact file name of the archive, in place of prefix and digest.

    Returns:
        Path of the archive: deflate at a fast level, files that hardly become smaller stored; zip64 where needed.

    Raises:
        PermanentError: there are no files to pack.
        InvalidJob: `prefix` or `name` is no plain file name.
        ValueError: a file lies outside `dest`.
        OSError: a file can't be read, or the archive can't be written.
    """
    paths = list(dict.fromkeys(os.path.abspath(file) for file in files))
    if not paths:
        raise PermanentError("result: there are no files to pack; the worker's log says why none was written")
    folder = os.path.abspath(dest) if dest is not None else os.path.commonpath([os.path.dirname(p) for p in paths])
    target = os.path.join(folder, _plain_name(name or _unique_name(prefix)))
    try:
        _pack(paths, folder, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.remove(target)
        raise
    return target


def iter_image_archive(
    zip_path: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    max_bytes: int = DEFAULT_MAX_BYTES,
) -> Iterator[str]:
    """Unpack an archive, then yield its images (contract, section 6.1).

    Args:
        zip_path: the archive.
        destination: folder to unpack into.
        max_bytes: what it may unpack to.

    Yields:
        Paths of the files that have an extension and don't lie below ``__MACOSX``, in the archive's order.

    Raises:
        UnsafeArchive: not a zip, damaged, encrypted, larger than `max_bytes`, or with a member that leads out of
            `destination`, is a link, or comes twice. Nothing is written before all names are checked.
        OSError: the files can't be written.
    """
    label = os.path.basename(os.fspath(zip_path))
    with _opened(zip_path, label) as archive:
        members = [member for member in archive.infolist() if not member.filename.endswith("/")]
        targets = _safe_targets(members, Path(destination), label)
        left = max_bytes
        for member, target in zip(members, targets, strict=True):
            left -= _unpack(archive, member, target, left, label)
    yield from (str(target) for target in targets if _is_image_name(target.relative_to(destination)))


def get_image_files_from_dir(
    fname: str | os.PathLike[str], destination: str | os.PathLike[str] | None = None
) -> Iterator[str]:
    """Yield the images that a file stands for: those in it if it is a zip archive, those below it if it is a
    folder, else itself.

    Args:
        fname: archive, folder or file.
        destination: folder to unpack into; None for a temporary one that lives as long as the generator.

    Raises:
        UnsafeArchive: as `iter_image_archive`.
    """
    path = Path(fname)
    if path.is_dir():
        yield from (str(file) for file in sorted(path.rglob("*")) if file.is_file() and _is_image_name(file))
    elif not zipfile.is_zipfile(path):
        yield os.fspath(fname)
    elif destination is not None:
        yield from iter_image_archive(path, destination)
    else:
        with get_tempdir() as folder:
            yield from iter_image_archive(path, folder)


@contextlib.contextmanager
def get_tempdir() -> Iterator[str]:
    """Make a folder for one job and delete it afterwards. The working directory stays as it is."""
    with tempfile.TemporaryDirectory(prefix="redis-consumer-") as folder:
        yield folder


@contextlib.contextmanager
def cd(newdir: str | os.PathLike[str], cleanup: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Work in another directory, then go back and call `cleanup`. It is the process that moves: all threads do."""
    before = os.getcwd()
    os.chdir(os.path.expanduser(newdir))
    try:
        yield
    finally:
        os.chdir(before)
        cleanup()


def _unique_name(prefix: str | None) -> str:
    # The clock alone isn't enough: two pods can ask it in the same moment.
    digest = hashlib.md5(f"{time.time_ns()}{uuid.uuid4()}".encode(), usedforsecurity=False).hexdigest()
    return f"{prefix}_{digest}.zip" if prefix else f"{digest}.zip"


def _plain_name(name: str) -> str:
    if name in {"", ".", ".."} or any(character in name for character in "/\\\0"):
        raise InvalidJob(f"archive name {name!r} is no plain file name; leave out folders")
    return name


def _pack(paths: list[str], folder: str, target: str) -> None:
    with zipfile.ZipFile(
        target, "w", zipfile.ZIP_DEFLATED, compresslevel=FAST_LEVEL, strict_timestamps=False
    ) as archive:
        for path in paths:
            member = os.path.relpath(path, folder)
            if member.split(os.sep)[0] == os.pardir:
                raise ValueError(f"{path} lies outside {folder}; pack only files below it")
            with open(path, "rb") as file:
                if _is_worth_packing(file):
                    archive.write(path, member)
                else:
                    _store(archive, file, member)


def _is_worth_packing(file: BinaryIO) -> bool:
    """Whether packing makes a file much smaller, judged by parts that are spread over it."""
    size = os.path.getsize(file.name)
    if size <= _SAMPLES * _SAMPLE_BYTES:
        return True
    sample = b""
    for part in range(_SAMPLES):
        file.seek(size * part // _SAMPLES)
        sample += file.read(_SAMPLE_BYTES)
    return len(zlib.compress(sample, FAST_LEVEL)) * LEAST_GAIN <= len(sample)


def _store(archive: zipfile.ZipFile, file: BinaryIO, member: str) -> None:
    # The library's own copies are of 8 KiB, which take twice as long.
    entry = zipfile.ZipInfo.from_file(file.name, member, strict_timestamps=False)
    file.seek(0)
    with archive.open(entry, "w") as sink:
        shutil.copyfileobj(file, sink, _COPY_BYTES)


@contextlib.contextmanager
def _opened(zip_path: str | os.PathLike[str], label: str) -> Iterator[zipfile.ZipFile]:
    try:
        archive = zipfile.ZipFile(zip_path)
    except FileNotFoundError:
        raise
    except Exception as error:  # damaged ones raise BadZipFile, struct.error, OSError (a negative offset) and more
        raise UnsafeArchive(
            f"{label}: isn't a readable zip archive; pack it again and upload the whole file"
        ) from error
    with archive:
        yield archive


def _safe_targets(members: list[zipfile.ZipInfo], destination: Path, label: str) -> list[Path]:
    targets: list[Path] = []
    for member in members:
        name = PurePosixPath(member.filename)
        parts = name.parts or ("..",)  # a member without a name is as unsafe
        if name.is_absolute() or ".." in parts or "\\" in member.filename or ":" in parts[0]:
            raise UnsafeArchive(f"{label}: member {member.filename!r} leads out of its folder; pack plain files only")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise UnsafeArchive(f"{label}: member {member.filename!r} is a link; pack the file itself")
        if member.flag_bits & 1:
            raise UnsafeArchive(f"{label}: member {member.filename!r} is encrypted; pack without a password")
        targets.append(destination.joinpath(*name.parts))
    if len(set(targets)) < len(targets):
        raise UnsafeArchive(f"{label}: holds two files of one name; rename one of them")
    return targets


def _unpack(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, max_bytes: int, label: str) -> int:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(member) as source, target.open("wb") as sink:
            while chunk := source.read(_COPY_BYTES):
                if sink.tell() + len(chunk) > max_bytes:
                    raise UnsafeArchive(f"{label}: unpacks to more than is allowed; split it into several archives")
                sink.write(chunk)
            return sink.tell()
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise UnsafeArchive(f"{label}: member {member.filename!r} is in the way of another; rename one") from error
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise UnsafeArchive(f"{label}: member {member.filename[:40]!r}… has too long a name; shorten it") from error
        if error.errno != errno.EINVAL:
            raise
        raise _damaged(label, member) from error  # an offset before the start of the file
    except UnsafeArchive:
        raise
    except Exception as error:  # zlib.error, BadZipFile, NotImplementedError (an odd compression), EOFError
        raise _damaged(label, member) from error


def _damaged(label: str, member: zipfile.ZipInfo) -> UnsafeArchive:
    return UnsafeArchive(f"{label}: member {member.filename!r} is damaged; pack it again and upload the whole file")


def _is_image_name(path: Path) -> bool:
    return bool(path.suffix) and "__MACOSX" not in path.parts
