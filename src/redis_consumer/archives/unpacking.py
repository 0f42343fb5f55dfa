"""Unpacks all files of a zip archive safely."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from redis_consumer import wanted
from redis_consumer.errors import ConsumerError, UnsafeArchive

#: Largest unpacked size of an archive. Bytes are counted while they are written; sizes in its headers are ignored.
DEFAULT_MAX_BYTES = 10 << 30
_COPY_BYTES = 1 << 20


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
        max_bytes: largest unpacked size.

    Yields:
        Paths of the files that have an extension and are not below ``__MACOSX``, in the order of the archive.

    Raises:
        UnsafeArchive: the file is not a zip, is damaged or encrypted, unpacks to more than `max_bytes`, or has a member
            that leads out of `destination`, is a link or occurs twice. All names are checked before a file is written.
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
    """Yield the images of a zip archive or a folder. Any other file is yielded itself.

    Args:
        fname: archive, folder or file.
        destination: folder to unpack into; None for a temporary folder that is deleted with the generator.

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
    """Make a temporary folder and delete it afterwards. The working directory doesn't change."""
    with tempfile.TemporaryDirectory(prefix="redis-consumer-") as folder:
        yield folder


@contextlib.contextmanager
def cd(newdir: str | os.PathLike[str], cleanup: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Change the working directory, then change it back and call `cleanup`. This affects all threads of the process."""
    before = os.getcwd()
    os.chdir(os.path.expanduser(newdir))
    try:
        yield
    finally:
        os.chdir(before)
        cleanup()


@contextlib.contextmanager
def _opened(zip_path: str | os.PathLike[str], label: str) -> Iterator[zipfile.ZipFile]:
    try:
        archive = zipfile.ZipFile(zip_path)
    except FileNotFoundError:
        raise
    except Exception as error:  # a damaged archive raises BadZipFile, struct.error, OSError (negative offset) and more
        raise UnsafeArchive(
            f"{label}: isn't a readable zip archive; pack it again and upload the whole file"
        ) from error
    with archive:
        yield archive


def _safe_targets(members: list[zipfile.ZipInfo], destination: Path, label: str) -> list[Path]:
    targets: list[Path] = []
    for member in members:
        name = PurePosixPath(member.filename)
        parts = name.parts or ("..",)  # a member without a name is unsafe, too
        if name.is_absolute() or ".." in parts or "\\" in member.filename or ":" in parts[0]:
            raise UnsafeArchive(f"{label}: member {member.filename!r} leads out of its folder; pack plain files only")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise UnsafeArchive(f"{label}: member {member.filename!r} is a link; pack the file itself")
        if member.flag_bits & 1:
            raise UnsafeArchive(f"{label}: member {member.filename!r} is encrypted; pack without a password")
        targets.append(destination.joinpath(*name.parts))
    if len(set(targets)) < len(targets):
        raise UnsafeArchive(f"{label}: has two files with the same name; rename one of them")
    return targets


def _unpack(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, max_bytes: int, label: str) -> int:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(member) as source, target.open("wb") as sink:
            while chunk := source.read(_COPY_BYTES):
                wanted.check()
                if sink.tell() + len(chunk) > max_bytes:
                    raise UnsafeArchive(f"{label}: unpacks to more than is allowed; split it into several archives")
                sink.write(chunk)
            return sink.tell()
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise UnsafeArchive(
            f"{label}: member {member.filename!r} is both a file and a folder; rename one of them"
        ) from error
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise UnsafeArchive(f"{label}: member {member.filename[:40]!r}… has too long a name; shorten it") from error
        if error.errno != errno.EINVAL:
            raise
        raise _damaged(label, member) from error  # an offset before the start of the file
    except (ConsumerError, MemoryError):
        raise
    except Exception as error:  # zlib.error, BadZipFile, NotImplementedError (an unknown compression), EOFError
        raise _damaged(label, member) from error


def _damaged(label: str, member: zipfile.ZipInfo) -> UnsafeArchive:
    return UnsafeArchive(f"{label}: member {member.filename!r} is damaged; pack it again and upload the whole file")


def _is_image_name(path: Path) -> bool:
    return bool(path.suffix) and "__MACOSX" not in path.parts
