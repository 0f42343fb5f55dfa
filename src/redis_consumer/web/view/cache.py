"""Keeps views in a folder of limited size: each is made once, and those that were not looked at longest go first."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from redis_consumer.errors import ConsumerError, ObjectNotFound, OutOfResources, StorageUnavailable, describe
from redis_consumer.storage import Storage
from redis_consumer.web.view.decoders import DecoderLimits, decode
from redis_consumer.web.view.layout import FACTS, VIEW, ViewLayer

logger = logging.getLogger(__name__)

#: Views that are made at once: small ones, and large ones. A large one never delays a small one.
_SMALL_AT_ONCE, _LARGE_AT_ONCE = 2, 1
#: Above these sizes, a result and an image that must be downloaded count as large.
_SMALL_RESULT_BYTES, _SMALL_DOWNLOAD_BYTES = 16 << 20, 256 << 20
#: Folder of a downloaded object, while its view is made.
_FETCHED = "fetched"
#: Seconds after which a view that could not be made for want of a service or of room is tried again.
_RETRY_S = 30.0
#: Seconds for which it is remembered that a view can't be made.
_FORGET_S = 3600.0
#: Views whose sizes and facts are kept in memory.
_MOST_KNOWN = 1024
#: Seconds between two notes that a view is used.
_NOTE_S = 60.0
#: Bytes of the disk that are always left free.
_FREE_BYTES = 256 << 20


@dataclass(frozen=True)
class ViewSource:
    """What a view is made of. Its object in the bucket never changes.

    Attributes:
        call: ``make_image`` or ``make_result``, see `redis_consumer.web.view.making`.
        key: of the object.
        name: the user's name for the image.
        order: the job's field ``dimension_order``, for an image.
        field: the job's field ``field_of_view``, for an image.
        axes: of the frames of the image with their lengths, for a result.
    """

    call: str
    key: str
    name: str
    order: str = ""
    field: str = ""
    axes: tuple[tuple[str, int], ...] = ()

    @property
    def id(self) -> str:
        """Name of the view's folder, and the start of the ETags of its tiles."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class ViewState:
    """What there is of a view.

    Attributes:
        folder: of its files.
        facts: of an image; None until they are known.
        layers: by name; None until all are made.
        progress: percent.
        problem: why it can't be made; None if nothing is wrong.
        done: ends when the making ends; None if it isn't being made.
    """

    folder: Path
    facts: dict[str, Any] | None = None
    layers: dict[str, ViewLayer] | None = None
    progress: float = 0.0
    problem: ConsumerError | None = None
    done: Future[None] | None = None


@dataclass
class _Making:
    done: Future[None] = field(default_factory=Future)
    share: float = 0.0
    problem: ConsumerError | None = None
    ended_at: float = 0.0


class _Lane:
    """Makes calls in a few threads. These don't keep the process alive."""

    def __init__(self, threads: int) -> None:
        self._calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        for _ in range(threads):
            threading.Thread(target=self._run, name="views", daemon=True).start()

    def start(self, call: Callable[[], None]) -> None:
        self._calls.put(call)

    def _run(self) -> None:
        while True:
            self._calls.get()()


class ViewCache:
    """Views in a folder. Its methods can be called in any thread.

    Args:
        folder: of all views; made if it is missing.
        storage: the bucket with images and results.
        max_bytes: size of all views together, above which the oldest are removed.
        limits: of the processes that make views.
    """

    def __init__(
        self, folder: Path, storage: Storage, *, max_bytes: int = 20 << 30, limits: DecoderLimits | None = None
    ) -> None:
        self.folder = folder
        self.storage = storage
        self.max_bytes = max_bytes
        self.limits = limits or DecoderLimits()
        self._lock = threading.Lock()
        self._makings: dict[str, _Making] = {}
        self._noted: dict[str, float] = {}
        self._known: dict[str, ViewState] = {}
        self._small, self._large = _Lane(_SMALL_AT_ONCE), _Lane(_LARGE_AT_ONCE)
        folder.mkdir(parents=True, exist_ok=True)

    def look(self, source: ViewSource, local: Path | None = None) -> ViewState:
        """Return what there is of a view. If it is not being made yet, start that.

        Args:
            source: which one.
            local: a local file with the bytes of its object, which the caller keeps until `ViewState.done`; None for
                the bucket.
        """
        state = self.state_of(source)
        if state.layers is None and state.problem is None and state.done is None:
            lane = self._lane_of(source, local)
            with self._lock:
                making = self._makings.get(source.id)
                if making is None:
                    making = self._makings[source.id] = _Making()
                    lane.start(partial(self._make, source, making, local))
            return replace(state, done=making.done)
        return state

    def state_of(self, source: ViewSource) -> ViewState:
        """Return what there is of a view, without making it."""
        folder, making = self.folder / source.id, self._makings.get(source.id)
        if making is not None:
            facts = _read_json(folder / FACTS)
            if making.problem is None:
                return ViewState(folder, facts, None, 99.0 * making.share, None, making.done)
            is_passing = isinstance(making.problem, (OutOfResources, StorageUnavailable))
            if not is_passing or making.ended_at + _RETRY_S > _now():
                return ViewState(folder, facts, problem=making.problem)
            self._makings.pop(source.id, None)
        return self._complete(source.id, folder) or ViewState(folder, _read_json(folder / FACTS))

    def _complete(self, view_id: str, folder: Path) -> ViewState | None:
        """Return a view if all of it is there. What its files say is kept in memory."""
        known = self._known.get(view_id)
        if known is None or not (folder / VIEW).exists():
            self._known.pop(view_id, None)
            table = _read_json(folder / VIEW)
            if table is None:
                return None
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            layers = {layer.name: layer for layer in map(ViewLayer.of, table["layers"])}
            known = self._known[view_id] = ViewState(folder, _read_json(folder / FACTS), layers, 100.0)
        self._note(view_id, folder)
        return known

    def _note(self, view_id: str, folder: Path) -> None:
        if self._noted.get(view_id, 0.0) + _NOTE_S < _now():
            self._noted[view_id] = _now()
            with suppress(OSError):
                os.utime(folder / VIEW)

    def _lane_of(self, source: ViewSource, local: Path | None) -> _Lane:
        path = local or self.storage.local_object(source.key)
        is_there = path is not None and path.exists()
        if path is not None and is_there:
            size = path.stat().st_size
        else:
            size = 0 if source.key.endswith(".zarr") else self.storage.size(source.key) or 0
        if source.call == "make_result":
            return self._small if size <= _SMALL_RESULT_BYTES else self._large
        return self._small if is_there or size <= _SMALL_DOWNLOAD_BYTES else self._large

    def _make(self, source: ViewSource, making: _Making, local: Path | None, *, is_whole: bool = False) -> None:
        folder = self.folder / source.id
        try:
            folder.mkdir(exist_ok=True)
            path = local or self._fetch(source, folder)
            if not self._decode(source, path, making, is_whole=is_whole):
                self._large.start(partial(self._make, source, making, path, is_whole=True))
                return
        except ConsumerError as error:
            making.problem = error
        except OSError as error:
            making.problem = OutOfResources(f"{source.name}: can't be prepared ({error.strerror}); free some disk")
        except Exception as error:  # a thread that ends here would make no further views
            making.problem = ConsumerError(f"{source.name}: can't be prepared ({describe(error)})")
            logger.exception("%s can't be prepared", source.name)
        _remove(folder / _FETCHED)
        making.ended_at = _now()
        if making.problem is None:
            self._makings.pop(source.id, None)
        with suppress(OSError):
            self.prune()
        for view_id, other in list(self._makings.items()):
            if other.problem is not None and other.ended_at + _FORGET_S < _now():
                self._makings.pop(view_id, None)
        making.done.set_result(None)

    def _fetch(self, source: ViewSource, folder: Path) -> Path:
        """Return the path of the object, which is downloaded if the bucket is no folder."""
        path = self.storage.local_object(source.key)
        if path is not None:
            if not path.exists():
                raise ObjectNotFound(f"{source.name}: is no longer in the bucket; upload it again", key=source.key)
            return path
        place = folder / _FETCHED
        _remove(place)
        place.mkdir()
        if source.key.endswith(".zarr"):
            return Path(self.storage.download_folder(source.key, place))
        self._check_room(self.storage.size(source.key) or 0, source.name)
        self.storage.download_file(source.key, place / "object")
        return place / "object"

    def _check_room(self, size: int, name: str) -> None:
        free = shutil.disk_usage(self.folder).free
        if size + _FREE_BYTES > free:
            raise OutOfResources(
                f"{name}: {size} bytes don't fit on the server's disk, which has {free} left; free some space"
            )

    def _decode(self, source: ViewSource, path: Path, making: _Making, *, is_whole: bool) -> bool:
        request = {
            "path": str(path),
            "folder": str(self.folder / source.id),
            "name": source.name,
            "order": source.order,
            "field": source.field,
            "axes": source.axes,
            "is_whole": is_whole,
            "max_bytes": self.limits.memory_bytes // 3,
        }

        def tick(share: float) -> None:
            making.share = share

        answer = decode(source.call, request, self.limits, name=source.name, tick=tick)
        return bool(answer["is_complete"])

    def prune(self) -> None:
        """Remove the views that were not looked at longest, until all together are within `max_bytes`."""
        views = []
        for folder in self.folder.iterdir():
            if folder.name not in self._makings:
                with suppress(OSError):
                    views.append((_used_at(folder), _size(folder), folder))
        total = sum(size for _, size, _ in views)
        for _, size, folder in sorted(views):
            if total <= self.max_bytes:
                return
            _remove(folder)
            self._known.pop(folder.name, None)
            total -= size


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        table: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return table


def _used_at(folder: Path) -> float:
    view = folder / VIEW
    return (view if view.exists() else folder).stat().st_mtime


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*"))


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)


_now: Callable[[], float] = time.monotonic
