"""Checks that this process can write temporary files and open files."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from redis_consumer.errors import MachineUnavailable, OutOfResources

#: Errors that no job causes: limits of open files and processes, a disk that fails or is read-only.
FAULTS = frozenset({errno.EMFILE, errno.ENFILE, errno.EIO, errno.EROFS, errno.ESTALE, errno.EAGAIN, errno.ENODEV})
#: Errors of a disk that is full, or that limits the size of files.
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
#: Message of numpy for a full disk. It has no error number.
_SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")
#: Number of files that a process must be able to open in addition, because a job needs several at once.
SPARE_FILES = 16
PROBE_BYTES = 4096
#: Seconds for which `look` uses the result of the last check.
FRESH_S = 1.0


class _Folder:
    """The folder of this process's temporary files. It is created again if it is removed."""

    def __init__(self) -> None:
        self.path: Path | None = None
        self.made = 0
        self.checked_at = float("-inf")
        self.lock = threading.Lock()

    def make(self) -> None:
        """Create the folder, and the worker's folder around it, if they are missing."""
        if self.path is None or os.path.isdir(self.path):
            return
        with self.lock:
            make_private(self.path.parent)
            self.made += make_private(self.path)


_folder = _Folder()


def use(folder: Path) -> None:
    """Set the folder of this process's temporary files. It is created again if it is removed."""
    tempfile.tempdir = os.fspath(folder)
    _folder.path = folder


def losses() -> int:
    """Return how often the folder of temporary files was created again. Each time, files of running jobs were lost."""
    return _folder.made


def look() -> None:
    """Check like `check`, but at most once a second, so that it can be called for each job.

    Raises:
        MachineUnavailable: as `check`.
    """
    if time.monotonic() - _folder.checked_at > FRESH_S:
        check()
        return
    with _in_words():
        _folder.make()


def check(*, losses_before: int | None = None) -> None:
    """Check whether this process can write temporary files and open files.

    Args:
        losses_before: `losses` at the start of the running job.

    Raises:
        MachineUnavailable: it cannot, or temporary files were lost since then.
    """
    with _in_words():
        _folder.make()
        probe(tempfile.gettempdir())
    _folder.checked_at = time.monotonic()
    if losses_before not in (None, _folder.made):
        raise MachineUnavailable("temporary files: they were removed while the job ran; the job runs again")


def fault_of(error: BaseException, *, losses_before: int | None = None) -> MachineUnavailable | None:
    """Return `MachineUnavailable` if this worker's machine caused an error; None if the job or a bug did.

    A library often raises an unrelated error for a file that could not be opened. So the machine is checked after every
    error. A disk that is full only because of this job is not the machine's fault.

    Args:
        error: what was raised, with its causes.
        losses_before: `losses` at the start of the job.
    """
    try:
        check(losses_before=losses_before)
    except MachineUnavailable as fault:
        return fault
    found = next((each for each in _chain(error) if _is_fault(each)), None)
    return None if found is None else MachineUnavailable(f"this worker's machine: {_words(found)}; raise its limit")


def shortage_of(error: BaseException, name: str) -> OutOfResources | None:
    """Return `OutOfResources` if an error means that the job needs more memory or disk than there is; else None.

    Call it after `fault_of`, because a job does not cause a disk on which nothing can be written.

    Args:
        error: what was raised, with its causes.
        name: the user's name of the job's input, for the message.
    """
    for each in _chain(error):
        if isinstance(each, OutOfResources):
            return OutOfResources(str(each))
        number = each.errno if isinstance(each, OSError) else None
        if isinstance(each, MemoryError) or number == errno.ENOMEM:
            return OutOfResources(
                f"{name}: needs more memory than this worker has; give the worker more memory or fewer slots, "
                "or submit a smaller image"
            )
        if number in NO_ROOM or (isinstance(each, OSError) and _SHORT_WRITE.search(str(each))):
            return OutOfResources(
                f"{name}: needs more disk than this worker has for temporary files; "
                "give TMPDIR a larger disk, or submit a smaller file"
            )
    return None


def probe(folder: str | os.PathLike[str]) -> None:
    """Create a folder with a small file, and open some more files.

    Raises:
        OSError: one of these steps fails.
    """
    place = os.path.join(folder, f".probe-{uuid.uuid4().hex}")
    opened: list[int] = []
    os.mkdir(place, 0o700)
    try:
        path = os.path.join(place, "file")
        opened.append(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        try:
            if os.write(opened[0], bytes(PROBE_BYTES)) < PROBE_BYTES:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        finally:
            os.unlink(path)
        opened += (os.dup(opened[0]) for _ in range(SPARE_FILES - 1))
    finally:
        for descriptor in opened:
            os.close(descriptor)
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(place)


def make_private(folder: Path) -> bool:
    """Create a folder that only this user can enter, and return whether it was created.

    Raises:
        PermissionError: the folder belongs to another user, or is a link.
        OSError: it cannot be created.
    """
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        found = os.lstat(folder)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, "another process has put something there", os.fspath(folder)) from None
        return False
    return True


@contextlib.contextmanager
def _in_words() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MachineUnavailable(f"temporary files: {_words(error)}; free some space, or raise the limit") from error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        yield error
        error = error.__cause__ or error.__context__


def _is_fault(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno in FAULTS
    return isinstance(error, RuntimeError) and "can't start new thread" in str(error)


def _words(error: BaseException) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
