"""Shows the supervisor what a slot does, in memory that both share."""

from __future__ import annotations

import mmap
import os
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis_consumer.job import Job

#: Bytes of a job's key that are shown. Memory pages that are never written take no memory.
MAX_KEY_BYTES = 60_000
#: Whether the slot can claim jobs, and the name of the class that runs them.
_READY = struct.Struct("<Q256p")
_SEQUENCE = struct.Struct("<Q")
#: Why a thread claims no jobs at the moment.
_PAUSE = struct.Struct("<256p")
#: Start and last progress by the monotonic clock, attempt, bytes of the key.
_RECORD = struct.Struct("<ddQQ")
_HALF_BYTES = _RECORD.size + MAX_KEY_BYTES
_CELL_BYTES = _SEQUENCE.size + 2 * _HALF_BYTES + _PAUSE.size


@dataclass(frozen=True)
class Run:
    """A job that runs in a thread of a slot, its start and its last progress, by the monotonic clock."""

    job: Job
    started: float
    progressed: float


class SharedStatus:
    """The running job of each thread of a slot. The slot writes it; the supervisor reads it, also after a crash.

    Each thread has a cell with two records. It writes the one that isn't valid, and then makes it valid by one write
    of the number of records so far. If the process dies in between, the other record can still be read.

    Args:
        threads: of the slot.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._noted: dict[int, tuple[str, int, float]] = {}
        # Anonymous memory is shared with processes that are forked later.
        self._memory = mmap.mmap(-1, _READY.size + threads * _CELL_BYTES)

    @property
    def is_ready(self) -> bool:
        """Whether the slot has started, so that it claims jobs unless all of its threads pause."""
        return bool(_READY.unpack_from(self._memory)[0])

    @property
    def pause(self) -> str:
        """Why the slot claims no jobs at the moment; empty if at least one of its threads does."""
        reasons = [self._reason(thread) for thread in range(self._threads)]
        return reasons[0] if all(reasons) else ""

    @property
    def consumer(self) -> str:
        """Name of the class that runs the slot's jobs; empty before the slot has started."""
        return str(_READY.unpack_from(self._memory)[1].decode("utf-8", "ignore"))

    def set_ready(self, consumer: str) -> None:
        """Note that the slot has started, and the name of the class that runs its jobs."""
        _READY.pack_into(self._memory, 0, 1, consumer.encode())

    def note(self, thread: int, job: Job | None) -> None:
        """Note which job a thread runs, None for none. The same job again means that it made progress."""
        cell = self._cell(thread)
        (number,) = _SEQUENCE.unpack_from(self._memory, cell)
        at = self._half(cell, number + 1)
        if job is None:
            self._noted.pop(thread, None)
            _RECORD.pack_into(self._memory, at, 0.0, 0.0, 0, 0)
        else:
            now = time.monotonic()
            *noted, started = self._noted.get(thread, ("", 0, now))
            if noted != [job.id, job.attempt]:
                started = now
            self._noted[thread] = job.id, job.attempt, started
            key = job.id.encode("utf-8", "surrogateescape")[:MAX_KEY_BYTES]
            _RECORD.pack_into(self._memory, at, started, now, job.attempt, len(key))
            self._memory[at + _RECORD.size : at + _RECORD.size + len(key)] = key
        # In one write: `pack_into` would put zeros there first.
        self._memory[cell : cell + _SEQUENCE.size] = _SEQUENCE.pack(number + 1)

    def set_pause(self, thread: int, reason: str) -> None:
        """Note why a thread claims no jobs at the moment; empty if it claims jobs again."""
        _PAUSE.pack_into(
            self._memory, self._cell(thread) + _CELL_BYTES - _PAUSE.size, reason.encode("utf-8", "replace")
        )

    def _reason(self, thread: int) -> str:
        (text,) = _PAUSE.unpack_from(self._memory, self._cell(thread) + _CELL_BYTES - _PAUSE.size)
        return str(text.decode("utf-8", "ignore"))

    def runs(self) -> dict[int, Run]:
        """Return the running jobs by the number of their thread."""
        found = {thread: self._run(thread) for thread in range(self._threads)}
        return {thread: run for thread, run in found.items() if run is not None}

    def has_run(self) -> bool:
        """Return whether the slot ever ran a job."""
        return any(_SEQUENCE.unpack_from(self._memory, self._cell(thread))[0] for thread in range(self._threads))

    def close(self) -> None:
        """Release the memory."""
        self._memory.close()

    def _run(self, thread: int) -> Run | None:
        cell = self._cell(thread)
        while True:
            (number,) = _SEQUENCE.unpack_from(self._memory, cell)
            run = self._record(cell, number)
            # If the number hasn't changed, the record wasn't written meanwhile.
            if _SEQUENCE.unpack_from(self._memory, cell)[0] == number:
                return run

    def _record(self, cell: int, number: int) -> Run | None:
        at = self._half(cell, number)
        started, progressed, attempt, size = _RECORD.unpack_from(self._memory, at)
        if size == 0:
            return None
        key = self._memory[at + _RECORD.size : at + _RECORD.size + size]
        return Run(Job(key.decode("utf-8", "surrogateescape"), attempt=attempt), started, progressed)

    @staticmethod
    def _cell(thread: int) -> int:
        return _READY.size + thread * _CELL_BYTES

    @staticmethod
    def _half(cell: int, number: int) -> int:
        return cell + _SEQUENCE.size + (number % 2) * _HALF_BYTES


class SupervisorPipe:
    """What a thread of a slot uses to report to the supervisor, and to wait for its start.

    Args:
        status: where to report what the thread does.
        start: a pipe whose other end is closed when the slot may claim.
        folder: shared by all slots of the worker, for files that each would otherwise make for itself.
        queue_index: index of the slot's queue among the queues of the worker.
        thread: number of the thread within the slot.
    """

    def __init__(self, status: SharedStatus, start: int, folder: Path, queue_index: int = 0, thread: int = 0) -> None:
        self.folder = folder
        self.queue_index = queue_index
        self._board = status
        self._start = start
        self._thread = thread

    def of_thread(self, thread: int) -> SupervisorPipe:
        """Return a pipe for another thread of the same slot."""
        return SupervisorPipe(self._board, self._start, self.folder, self.queue_index, thread)

    def wait_for_start(self, consumer: str) -> None:
        """Report the name of the class that runs the jobs, and wait until the worker is registered."""
        self._board.set_ready(consumer)
        os.read(self._start, 1)

    def report(self, job: Job | None) -> None:
        """Report which job runs, None for none. The same job again means that it made progress."""
        self._board.note(self._thread, job)

    def pause(self, reason: str) -> None:
        """Report why the thread claims no jobs at the moment; empty if it claims jobs again."""
        self._board.set_pause(self._thread, reason)


def state_of(statuses: Sequence[SharedStatus], fault: str) -> dict[str, Any]:
    """Describe the slots for health probes.

    Args:
        statuses: one for each slot.
        fault: why no slot can work on this machine, empty if they can.

    Returns:
        ``slots`` that claim jobs, jobs that are ``running``, and the reason for which the other slots are ``waiting``.
    """
    pauses = [status.pause for status in statuses if status.is_ready]
    return {
        "slots": pauses.count(""),
        "running": sum(len(status.runs()) for status in statuses),
        "waiting": fault or next(filter(None, pauses), ""),
    }
