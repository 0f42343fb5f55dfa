"""Checks what the machine gives this process: temporary files, open files, CPUs and memory."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import math
import os
import re
import resource
import shutil
import stat
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from redis_consumer.errors import (
    ConsumerError,
    InvalidJob,
    MachineUnavailable,
    OutOfResources,
    SettingsError,
    StorageUnavailable,
)

#: Errors that no job causes: limits of open files and processes, a disk that fails or is read-only.
FAULTS = frozenset({errno.EMFILE, errno.ENFILE, errno.EIO, errno.EROFS, errno.ESTALE, errno.EAGAIN, errno.ENODEV})
#: Errors of a disk that is full, or that limits the size of files.
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# Errors of the disk that a job causes, because its key can't be a file name here.
_BAD_NAME = frozenset({errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EINVAL, errno.EILSEQ})
_NOT_ALLOWED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
#: Message of numpy for a full disk. It has no error number.
_SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")
#: Number of files that a process must be able to open in addition, because a job needs several at once.
SPARE_FILES = 16
PROBE_BYTES = 4096
#: Seconds for which `look` uses the result of the last check.
FRESH_S = 1.0
T = TypeVar("T")
_GROUPS = Path("/sys/fs/cgroup")
_GROUP_TABLE = Path("/proc/self/cgroup")
_MEMORY_FILES = ("memory.max", "memory.limit_in_bytes")


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


@contextlib.contextmanager
def local_disk(path: str | os.PathLike[str], *, is_ours: bool = False) -> Iterator[None]:
    """Convert errors of the local disk inside the block to the package's errors, with the cause chained.

    Args:
        path: the file that is written.
        is_ours: whether the package or the settings chose the name, and not the job.

    Raises:
        InvalidJob: the job's key can't be a path here.
        SettingsError: the folder may not be written.
        OutOfResources: it is a temporary file, and the disk is full.
        StorageUnavailable: the disk is full or fails.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, ConsumerError):
            raise
        what, reason = os.fspath(path), error.strerror or type(error).__name__
        if error.errno in _NOT_ALLOWED or (is_ours and error.errno in _BAD_NAME):
            raise SettingsError(
                f"download folder {what}: can't be written ({reason}); name another folder, or allow it"
            ) from error
        if error.errno in _BAD_NAME:
            raise InvalidJob(
                f"object {os.path.basename(what)}: can't be a local file ({reason}); rename the object"
            ) from error
        if error.errno in NO_ROOM and is_temporary(what):
            raise OutOfResources(
                f"object {os.path.basename(what)}: there is no room for it on the disk of temporary files ({reason}); "
                "give TMPDIR a larger disk, or submit a smaller file"
            ) from error
        raise StorageUnavailable(
            f"local file {os.path.basename(what)}: can't be written ({reason}); free some space"
        ) from error


def check_room(path: str | os.PathLike[str], size: int, what: str) -> None:
    """Refuse a temporary file that doesn't fit on its disk, before the first byte is written.

    Args:
        path: the file that will be written.
        size: its bytes.
        what: description of the file, for messages.

    Raises:
        InvalidJob: it is larger than the whole disk.
        OutOfResources: it is larger than the free space.
    """
    folder = os.path.dirname(os.fspath(path))
    if not is_temporary(path):
        return
    with local_disk(path):
        disk = shutil.disk_usage(folder)
    if 0 < disk.total < size:
        raise InvalidJob(
            f"{what}: {size} bytes are more than the worker's whole disk of temporary files has ({disk.total}); "
            "give TMPDIR a larger disk, or split the file"
        )
    if disk.total > 0 and disk.free < size:
        raise OutOfResources(
            f"{what}: {size} bytes are more than is free on the disk of temporary files ({disk.free}); "
            "free some space, or give TMPDIR a larger disk"
        )


def is_temporary(path: str | os.PathLike[str]) -> bool:
    """Return whether a file is in the folder of temporary files of jobs. Cached models can be elsewhere."""
    return Path(path).is_relative_to(tempfile.gettempdir())


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


def usable_cpus(groups: Iterable[Path] | None = None) -> int:
    """Count the whole CPUs that affinity and the container's quota leave to this process, at least 1.

    A library that counts the machine's CPUs instead starts too many threads in a container, and each waits for the
    others.

    Args:
        groups: folders of the control groups whose quota counts; by default those of this process.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cpus = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    quotas = (_quota(group) for group in (control_groups("cpu") if groups is None else groups))
    return max(1, int(min([cpus, *quotas])))


def usable_bytes(groups: Iterable[Path] | None = None) -> int:
    """Bytes that the container's limit leaves to this process, by default all that the machine has.

    Args:
        groups: folders of the control groups whose limit counts; by default those of this process.
    """
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found = control_groups("memory") if groups is None else groups
    return min([machine, *(limit for group in found for limit in _limits(group))])


def control_groups(controller: str, *, root: Path = _GROUPS, table: Path = _GROUP_TABLE) -> list[Path]:
    """List the folders that can hold limits of this process (cgroup v1 and v2): its own group and all enclosing ones.

    Args:
        controller: ``cpu`` or ``memory``.
        root: where the kernel shows the groups; a container often sees its own group there.
        table: where the kernel says which groups this process is in.
    """
    found = {root: None, root / controller: None}
    for line in _lines(table):
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        # Only the older version has a tree for each controller.
        base = root / controller if controllers else root
        # The name of a group outside of the container's view contains "..".
        group = base / path.replace("..", "").lstrip("/")
        found |= dict.fromkeys(folder for folder in (group, *group.parents) if folder.is_relative_to(base))
    return [folder for folder in found if folder.is_dir()]


def resident_bytes() -> int:
    """Bytes of memory that this process holds now; where the system doesn't say (no ``/proc``), at most so far."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return peak_bytes()
    return pages * os.sysconf("SC_PAGE_SIZE")


def peak_bytes() -> int:
    """Bytes of memory that this process has held at most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def grown_by(call: Callable[[], T]) -> tuple[T, int]:
    """Make a call; give its result and by how many bytes the memory of this process has grown in it.

    Memory that was free within the process before isn't seen, so it may be less than what the call took.
    """
    held, peak = resident_bytes(), peak_bytes()
    result = call()
    reached = peak_bytes()
    return result, max(resident_bytes(), reached if reached > peak else 0) - held


def return_freed() -> None:
    """Return to the system what this process has freed (glibc keeps much of it for later)."""
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


def _quota(group: Path) -> float:
    """CPUs' worth of time that a group gets, infinite where nothing limits it."""
    try:
        if (group / "cpu.max").is_file():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota = (group / "cpu.cfs_quota_us").read_text()
            period = (group / "cpu.cfs_period_us").read_text()
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    except (OSError, ValueError, ZeroDivisionError):
        # No limit here, or "max", which is no number.
        return math.inf


def _limits(group: Path) -> list[int]:
    texts = [(group / name).read_text().strip() for name in _MEMORY_FILES if (group / name).is_file()]
    # "max" is no number.
    return [int(text) for text in texts if text.isdecimal()]


def _lines(table: Path) -> list[str]:
    try:
        return [line for line in table.read_text().splitlines() if line.count(":") >= 2]
    except OSError:
        return []
