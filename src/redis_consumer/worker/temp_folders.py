"""Makes a folder of temporary files for each slot, and removes those of killed workers."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import tempfile
import time
from pathlib import Path

from redis_consumer import machine
from redis_consumer.errors import SettingsError

logger = logging.getLogger(__name__)

PREFIX = "redis-consumer-worker-"
#: Seconds between two checks whether the folders exist and can be written.
TEND_S = 1.0
#: Seconds in which a folder without a lock can be one that another worker is making.
YOUNG_S = 60.0


class TempFolders:
    """A folder for each slot, below one for the worker.

    The worker's folder is locked as long as the worker lives. Other workers on the same disk, also those that see no
    other processes, and systemd-tmpfiles therefore leave it alone.

    Attributes:
        shared: a folder for all slots.
        counts: a folder for the counters of slots and supervisor.
        fault: why no temporary files can be made at the moment, empty if they can.

    Raises:
        SettingsError: the system gives no folder for temporary files.
    """

    def __init__(self) -> None:
        try:
            self._root = Path(tempfile.mkdtemp(prefix=PREFIX))
            self._lock = _locked(self._root)
            self.shared = self._root / "shared"
            self.counts = self._root / "counts"
            for folder in (self.shared, self.counts):
                folder.mkdir()
        except OSError as error:
            raise SettingsError(
                f"temporary files: can't make a folder ({error}); mount some space at /tmp, or name one by TMPDIR"
            ) from error
        self.fault = ""
        self._tend_at = 0.0

    def tend(self) -> None:
        """Make removed folders again, and note in `fault` whether files can be made. Once a second at most.

        Slots make their own folders again.
        """
        now = time.monotonic()
        if now < self._tend_at:
            return
        self._tend_at, before = now + TEND_S, self.fault
        try:
            self._mend()
            machine.probe(self._root)
            self.fault = ""
        except OSError as error:
            self.fault = f"temporary files: {error.strerror or error}"
        if self.fault and not before:
            logger.error("Taking no jobs in %s: %s; free some space, or raise the limit", self._root, self.fault)
        elif before and not self.fault:
            logger.warning("Temporary files can be made again")

    def _mend(self) -> None:
        if not self._is_there():
            machine.make_private(self._root)
            self._root.chmod(0o700)
            lock, self._lock = self._lock, _locked(self._root)
            os.close(lock)
            logger.warning("The folder %s of the worker's temporary files was removed; it is created again", self._root)
        for folder in (self.shared, self.counts):
            machine.make_private(folder)

    def _is_there(self) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return os.path.samestat(os.lstat(self._root), os.fstat(self._lock))
        return False

    def make(self) -> Path:
        """Make a folder for a slot."""
        return Path(tempfile.mkdtemp(prefix="slot-", dir=self._root))

    @staticmethod
    def remove(folder: Path) -> None:
        """Remove a slot's folder and all in it."""
        shutil.rmtree(folder, ignore_errors=True)

    def remove_stale(self) -> None:
        """Remove folders of workers that were killed."""
        for root in self._root.parent.glob(f"{PREFIX}*"):
            if root != self._root and _is_stale(root):
                shutil.rmtree(root, ignore_errors=True)

    def close(self) -> None:
        """Remove all folders of this worker."""
        shutil.rmtree(self._root, ignore_errors=True)
        os.close(self._lock)


def _is_stale(root: Path) -> bool:
    with contextlib.suppress(OSError):
        if time.time() - root.stat().st_mtime < YOUNG_S:
            return False
        lock = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(lock)
        return True
    return False


def _locked(root: Path) -> int:
    """Lock a folder; give its descriptor, which holds the lock."""
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    with contextlib.suppress(OSError):  # NFS can lock files only; then no one else gets a lock on it either
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return descriptor
