"""Shows what a slot does at the moment, in memory that it shares with its supervisor."""

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

#: Bytes of a job's key that are shown; memory pages that are never written cost nothing.
MAX_KEY_BYTES = 60_000
#: Whether the slot takes jobs, and the name of the class that runs them.
_READY = struct.Struct("<Q256p")
_SEQUENCE = struct.Struct("<Q")
#: Why a thread takes no jobs for now.
_PAUSE = struct.Struct("<256p")
#: Start and last progress by the monotonic clock, attempt, bytes of the key.
_RECORD = struct.Struct("<ddQQ")
_HALF_BYTES = _RECORD.size + MAX_KEY_BYTES
_CELL_BYTES = _SEQUENCE.size + 2 * _HALF_BYTES + _PAUSE.size


@dataclass(frozen=True)
class Run:
    """A job that runs in a thread of a slot, since when, and when it last made progress; by the monotonic clock."""

    job: Job
    started: float
    progressed: float


class SharedStatus:
    """The running job of each thread of a slot, written there and read by the supervisor, also after a crash.

    Each thread has a cell with two records. It writes the one that isn't valid, then makes it valid by one write of
    the number of records so far: whenever it dies, the other one can still be read.

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
        """Whether the slot is made, and so takes jobs unless all of its threads pause."""
        return bool(_READY.unpack_from(self._memory)[0])

    @property
    def pause(self) -> str:
        """Why the slot takes no jobs for now, empty where at least one of its threads takes some."""
        reasons = [self._reason(thread) for thread in range(self._threads)]
        return reasons[0] if all(reasons) else ""

    @property
    def consumer(self) -> str:
        """Name of the class that runs the slot's jobs, empty as long as it takes none."""
        return str(_READY.unpack_from(self._memory)[1].decode("utf-8", "ignore"))

    def set_ready(self, consumer: str) -> None:
        """Say that the slot is made, and by which class it runs jobs."""
        _READY.pack_into(self._memory, 0, 1, consumer.encode())

    def note(self, thread: int, job: Job | None) -> None:
        """Note which job a thread runs, None for none; noted again with the same one, it made progress."""
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
        """Say why a thread takes no jobs for now; empty once it takes them again."""
        _PAUSE.pack_into(
            self._memory, self._cell(thread) + _CELL_BYTES - _PAUSE.size, reason.encode("utf-8", "replace")
        )

    def _reason(self, thread: int) -> str:
        (text,) = _PAUSE.unpack_from(self._memory, self._cell(thread) + _CELL_BYTES - _PAUSE.size)
        return str(text.decode("utf-8", "ignore"))

    def runs(self) -> dict[int, Run]:
        """Give the running jobs by the number of their thread."""
        found = {thread: self._run(thread) for thread in range(self._threads)}
        return {thread: run for thread, run in found.items() if run is not None}

    def has_run(self) -> bool:
        """Whether the slot ever ran a job."""
        return any(_SEQUENCE.unpack_from(self._memory, self._cell(thread))[0] for thread in range(self._threads))

    def close(self) -> None:
        """Give back the memory."""
        self._memory.close()

    def _run(self, thread: int) -> Run | None:
        cell = self._cell(thread)
        while True:
            (number,) = _SEQUENCE.unpack_from(self._memory, cell)
            run = self._record(cell, number)
            # Unchanged, nobody has written to the record meanwhile.
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
    """A thread's side of the line to its supervisor.

    Args:
        status: where to report what the thread does.
        start: ends when the slot may claim.
        folder: that all slots of the worker share, for what each would else make for itself.
        queue_index: number of the queue that the slot serves, among those of the worker.
        thread: number of the thread within the slot.
    """

    def __init__(self, status: SharedStatus, start: int, folder: Path, queue_index: int = 0, thread: int = 0) -> None:
        self.folder = folder
        self.queue_index = queue_index
        self._board = status
        self._start = start
        self._thread = thread

    def of_thread(self, thread: int) -> SupervisorPipe:
        """The same line for another thread."""
        return SupervisorPipe(self._board, self._start, self.folder, self.queue_index, thread)

    def wait_for_start(self, consumer: str) -> None:
        """Report the name of the class that runs the jobs, and wait until the worker is registered."""
        self._board.set_ready(consumer)
        os.read(self._start, 1)

    def report(self, job: Job | None) -> None:
        """Report which job runs, None for none; the same one again means that it made progress."""
        self._board.note(self._thread, job)

    def pause(self, reason: str) -> None:
        """Report why the thread takes no jobs for now, empty once it takes them again."""
        self._board.set_pause(self._thread, reason)


def state_of(statuses: Sequence[SharedStatus], fault: str) -> dict[str, Any]:
    """Describe the slots for probes.

    Args:
        statuses: one for each slot.
        fault: why the machine lets nobody work, empty where it does.

    Returns:
        ``slots`` that take jobs, jobs that are ``running``, and what the others, or all of them, are ``waiting`` for.
    """
    pauses = [status.pause for status in statuses if status.is_ready]
    return {
        "slots": pauses.count(""),
        "running": sum(len(status.runs()) for status in statuses),
        "waiting": fault or next(filter(None, pauses), ""),
    }
