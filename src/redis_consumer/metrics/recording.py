"""Keeps the counts of a worker's processes in files, and serves them together.

prometheus-client keeps the counts in memory-mapped files. When a slot is killed, its counts stay, and the next slot
continues with them. Only `start` imports the library.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from pathlib import Path
from typing import Any, ClassVar

from redis_consumer.errors import MachineUnavailable
from redis_consumer.text import in_utf8

logger = logging.getLogger(__name__)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
#: Where prometheus-client looks for the folder, also for metrics of a plug-in's own.
FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
#: Space for several thousand counts. It is allocated at once, because a write into a hole of a file on a full disk
#: kills the process.
FILE_BYTES = 1 << 18
#: Values of labels that one metric distinguishes. Some come from jobs, such as names of models, without any limit.
MAX_CHILDREN = 100
OTHER = "other"
KINDS = ("counter", "histogram", "gauge_max")

#: Name under which this process counts; empty if metrics are off.
counts_as = ""
#: What `start` has found in the process, None before it: the library's way to keep values, and its folder.
_found: tuple[Any, str | None] | None = None
#: Whether a count was lost, which is said once.
_is_failing = False
#: Two children with the same values would count separately, and only one would be served.
_making = threading.Lock()
#: Those that have files open.
_in_use: list[Metric] = []


class Metric:
    """Base of all metrics.

    Args:
        name: as Prometheus has it.
        meaning: its description, for users.
        labels: names of its labels.
    """

    kind: ClassVar[str]

    def __init__(self, name: str, meaning: str, labels: tuple[str, ...] = ()) -> None:
        self.name = name
        self.meaning = meaning
        self.labels = labels
        self._children: dict[tuple[str, ...], Any] = {}
        self._parent: Any = None

    def _child(self, values: tuple[str, ...]) -> Any:
        child = self._children.get(values)
        return self._new_child(values) if child is None else child

    def _new_child(self, values: tuple[str, ...]) -> Any:
        with _making:
            if self._parent is None:
                self._parent = self._make()
                _in_use.append(self)
            if values not in self._children and len(self._children) >= MAX_CHILDREN:
                values = (OTHER,) * len(values)
            if values not in self._children:
                texts = [in_utf8(value) for value in values]
                self._children[values] = self._parent.labels(*texts) if texts else self._parent
            return self._children[values]

    def _make(self) -> Any:
        raise NotImplementedError

    def _count(self, values: tuple[str, ...], how: str, number: float) -> None:
        """Count by a method of the library; a file that can't be made costs the count, not the job."""
        global _is_failing
        if not counts_as:
            return
        try:
            getattr(self._child(values), how)(number)
        except OSError as error:
            if not _is_failing:
                logger.warning("Some metrics are not counted: %s", error)
            _is_failing = True

    def forget(self) -> None:
        """Begin again, in the files of the next `start`."""
        self._children.clear()
        self._parent = None


class Counter(Metric):
    """A number that only grows; its name ends in ``_total``."""

    kind = "counter"

    def add(self, *values: str, amount: float = 1.0) -> None:
        """Count, for these values of the labels."""
        self._count(values, "inc", amount)

    def _make(self) -> Any:
        import prometheus_client

        return prometheus_client.Counter(self.name, self.meaning, self.labels, registry=None)


class Gauge(Metric):
    """A number that is as it is; of several processes the largest one."""

    kind = "gauge"

    def set(self, *values: str, to: float) -> None:
        """Say how it is, for these values of the labels."""
        self._count(values, "set", to)

    def _make(self) -> Any:
        import prometheus_client

        return prometheus_client.Gauge(self.name, self.meaning, self.labels, registry=None, multiprocess_mode="max")


class Histogram(Metric):
    """How often something took how long.

    Args:
        name: as Prometheus has it.
        meaning: its description, for users.
        labels: names of its labels.
        buckets: upper bounds in seconds, ascending.
    """

    kind = "histogram"

    def __init__(self, name: str, meaning: str, labels: tuple[str, ...], *, buckets: tuple[float, ...]) -> None:
        super().__init__(name, meaning, labels)
        self.buckets = buckets

    def observe(self, *values: str, seconds: float) -> None:
        """Take in one duration, for these values of the labels."""
        self._count(values, "observe", seconds)

    def _make(self) -> Any:
        import prometheus_client

        return prometheus_client.Histogram(self.name, self.meaning, self.labels, registry=None, buckets=self.buckets)


def start(folder: Path, writer: str) -> None:
    """Count from now on, in files of this folder; where these can't be made, go on without.

    Call it again in a forked process, which counts nothing else: it must have a name of its own among those that live.

    Args:
        folder: of the worker, which `text` is given too.
        writer: name of this process, without ``_``; the process of this name before it is gone on from.
    """
    from prometheus_client import values

    global counts_as, _found
    try:
        for kind in KINDS:
            _take_room(folder / f"{kind}_{writer}.db")
    except OSError as error:
        counts_as = ""
        logger.warning("Counting no metrics: %s", error)
        return
    counts_as = writer
    if _found is None:
        _found = values.ValueClass, os.environ.get(FOLDER_VARIABLE)
        os.environ[FOLDER_VARIABLE] = os.fspath(folder)
        # The library's own way is to look for that variable when it is loaded, which may have been before.
        values.ValueClass = values.MultiProcessValue(lambda: counts_as or f"fork-{os.getpid()}")


def mend() -> bool:
    """Count in new files, from 0, where someone has removed those of this process; return whether that was so."""
    global counts_as
    folder = Path(os.environ.get(FOLDER_VARIABLE, ""))
    if not counts_as or (folder / f"{KINDS[0]}_{counts_as}.db").exists():
        return False
    name, _, number = counts_as.partition(".")
    fresh = f"{name}.{int(number or 0) + 1}"
    try:
        for kind in KINDS:
            _take_room(folder / f"{kind}_{fresh}.db")
    except OSError:
        return False
    # The library leaves its files for those of another name.
    counts_as = fresh
    return True


def stop() -> None:
    """Count no more; what `start` has set in the process is as it was."""
    from prometheus_client import values

    global counts_as, _found
    counts_as = ""
    for metric in _in_use:
        metric.forget()
    _in_use.clear()
    if _found is None:
        return
    values.close_all_multiprocess_files()
    (values.ValueClass, folder), _found = _found, None
    if folder is None:
        del os.environ[FOLDER_VARIABLE]
    else:
        os.environ[FOLDER_VARIABLE] = folder


def text(folder: Path) -> bytes:
    """All that was counted in the files of a folder, also by processes that are gone, as Prometheus reads it."""
    import prometheus_client
    from prometheus_client.multiprocess import MultiProcessCollector

    if not folder.is_dir():
        raise MachineUnavailable(f"metrics: their folder {folder} is gone; the worker makes it again")
    registry = prometheus_client.CollectorRegistry()
    MultiProcessCollector(registry, path=os.fspath(folder))
    return prometheus_client.generate_latest(registry)


def _take_room(path: Path) -> None:
    if path.exists():
        return
    # Not in its place before it is whole: someone may read all files at any moment.
    young = path.with_suffix(".young")
    with young.open("wb") as file:
        file.truncate(FILE_BYTES)
        with contextlib.suppress(AttributeError):  # where the system has no such call
            os.posix_fallocate(file.fileno(), 0, FILE_BYTES)
    young.replace(path)


def _leave_files() -> None:
    """Count nothing in a process that was forked: two that write into one file would spoil it."""
    global counts_as, _making
    counts_as = ""
    _making = threading.Lock()  # another thread may have held it


os.register_at_fork(after_in_child=_leave_files)
