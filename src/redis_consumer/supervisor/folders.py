"""Where do the slots of a worker keep temporary files, and who removes those of the killed?"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path

from redis_consumer.errors import SettingsError

PREFIX = "redis-consumer-worker-"
LOCK = "lock"
#: Seconds for which a folder without a held lock may be one that is being made.
YOUNG_S = 60.0


class Folders:
    """A folder for each slot, below one for the worker.

    The worker's folder holds a lock for as long as the worker lives, so that another one on the same disk knows
    whose folders it may remove, even where it sees no process but its own.

    Attributes:
        shared: a folder for all slots.
        counts: a folder for what they and the supervisor count.

    Raises:
        SettingsError: the system gives no folder for temporary files.
    """

    def __init__(self) -> None:
        try:
            self._root = Path(tempfile.mkdtemp(prefix=PREFIX))
            self._lock = os.open(self._root / LOCK, os.O_CREAT | os.O_RDWR, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            self.shared = self._root / "shared"
            self.counts = self._root / "counts"
            for folder in (self.shared, self.counts):
                folder.mkdir()
        except OSError as error:
            raise SettingsError(
                f"temporary files: can't make a folder ({error}); mount some space at /tmp, or name one by TMPDIR"
            ) from error

    def make(self) -> Path:
        """Make a folder for a slot."""
        return Path(tempfile.mkdtemp(prefix="slot-", dir=self._root))

    @staticmethod
    def use(folder: Path) -> None:
        """Let this process, a slot, make its temporary files there."""
        tempfile.tempdir = os.fspath(folder)

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
        with contextlib.suppress(FileNotFoundError):  # its worker was killed while it made the folder or removed it
            lock = os.open(root / LOCK, os.O_RDWR)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            finally:
                os.close(lock)
        return True
    return False
