"""Keeps views in a folder of limited size: each is made once, and those that were not looked at longest go first."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from redis_consumer.errors import ConsumerError, OutOfResources, StorageUnavailable
from redis_consumer.storage import Storage
from redis_consumer.web.view.decoders import DecoderLimits, decode
from redis_consumer.web.view.layout import FACTS, VIEW, Layer

logger = logging.getLogger(__name__)

#: Views that are made at once: small ones, and large ones. A large one never delays a small one.
_SMALL_AT_ONCE, _LARGE_AT_ONCE, _FETCHED_AT_ONCE = 2, 1, 4
#: A result zip above this size counts as large.
_SMALL_BYTES = 16 << 20
#: Seconds after which a view that could not be made for want of a service or of room is tried again.
_RETRY_S = 30.0
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
    """

    folder: Path
    facts: dict[str, Any] | None = None
    layers: dict[str, Layer] | None = None
    progress: float = 0.0
    problem: ConsumerError | None = None


@dataclass
class _Making:
    task: asyncio.Task[None] | None = None
    share: float = 0.0
    problem: ConsumerError | None = None
    ended_at: float = 0.0


@dataclass
class ViewCache:
    """Views in a folder.

    Attributes:
        folder: of all views; made if it is missing.
        storage: the bucket with images and results.
        max_bytes: size of all views together, above which the oldest are removed.
        limits: of the processes that make views.
    """

    folder: Path
    storage: Storage
    max_bytes: int = 20 << 30
    limits: DecoderLimits = field(default_factory=DecoderLimits)
    _makings: dict[str, _Making] = field(default_factory=dict)
    _noted: dict[str, float] = field(default_factory=dict)
    _layers: dict[str, dict[str, Layer]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._small = asyncio.Semaphore(_SMALL_AT_ONCE)
        self._large = asyncio.Semaphore(_LARGE_AT_ONCE)
        self._fetched = asyncio.Semaphore(_FETCHED_AT_ONCE)

    async def look(self, source: ViewSource, *, wait_s: float = 0.0) -> ViewState:
        """Return what there is of a view. If it is not being made yet, start that.

        Args:
            source: which one.
            wait_s: seconds to wait for its end.
        """
        state = self.state_of(source)
        if state.layers is None and state.problem is None:
            making = self._makings.setdefault(source.id, _Making())
            if making.task is None:
                making.task = asyncio.create_task(self._make(source, making))
            if wait_s > 0:
                await asyncio.wait({making.task}, timeout=wait_s)
            state = self.state_of(source)
        return state

    def state_of(self, source: ViewSource) -> ViewState:
        """Return what there is of a view, without making it."""
        folder = self.folder / source.id
        making = self._makings.get(source.id)
        if making is not None and making.problem is not None:
            if isinstance(making.problem, (OutOfResources, StorageUnavailable)) and making.ended_at + _RETRY_S < _now():
                del self._makings[source.id]
            else:
                return ViewState(folder, _read_json(folder / FACTS), problem=making.problem)
        facts = _read_json(folder / FACTS) if source.call == "make_image" else None
        layers = self._layers_of(source.id, folder)
        if layers is not None:
            self._note(source.id, folder)
            return ViewState(folder, facts, layers, 100.0)
        return ViewState(folder, facts, progress=99.0 * making.share if making else 0.0)

    def find(self, view_id: str) -> ViewState | None:
        """Return a complete view by its id; None if it isn't there."""
        folder = self.folder / view_id
        layers = self._layers_of(view_id, folder)
        if layers is None:
            return None
        self._note(view_id, folder)
        return ViewState(folder, None, layers, 100.0)

    async def close(self) -> None:
        """End what is being made."""
        tasks = [making.task for making in self._makings.values() if making.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _layers_of(self, view_id: str, folder: Path) -> dict[str, Layer] | None:
        known = self._layers.get(view_id)
        if known is not None and (folder / VIEW).exists():
            return known
        table = _read_json(folder / VIEW)
        if table is None:
            self._layers.pop(view_id, None)
            return None
        layers = {layer.name: layer for layer in map(Layer.of, table["layers"])}
        self._layers[view_id] = layers
        return layers

    def _note(self, view_id: str, folder: Path) -> None:
        if self._noted.get(view_id, 0.0) + _NOTE_S < _now():
            self._noted[view_id] = _now()
            with suppress(OSError):
                os.utime(folder / VIEW)

    async def _make(self, source: ViewSource, making: _Making) -> None:
        folder = self.folder / source.id
        fetched: Path | None = None
        try:
            folder.mkdir(exist_ok=True)
            async with self._fetched:
                path, fetched = await asyncio.to_thread(self._fetch, source, folder)
            is_large = source.call == "make_result" and path.stat().st_size > _SMALL_BYTES
            async with self._large if is_large else self._small:
                is_complete = await self._decode(source, path, making, is_whole=False)
            if not is_complete:
                async with self._large:
                    await self._decode(source, path, making, is_whole=True)
            del self._makings[source.id]
        except ConsumerError as error:
            making.problem = error
        except OSError as error:
            making.problem = OutOfResources(f"{source.name}: can't be prepared ({error.strerror}); free some disk")
        finally:
            making.task, making.ended_at = None, _now()
            if fetched is not None:
                await asyncio.to_thread(_remove, fetched)
            await asyncio.to_thread(self.prune)

    def _fetch(self, source: ViewSource, folder: Path) -> tuple[Path, Path | None]:
        """Return the path of the object; and again if it was downloaded, so that it is removed afterwards."""
        path = self.storage.local_object(source.key)
        if path is not None and path.exists():
            return path, None
        place = folder / "fetched"
        _remove(place)
        place.mkdir()
        if source.key.endswith(".zarr"):
            return Path(self.storage.download_folder(source.key, place)), place
        self._check_room(self.storage.size(source.key) or 0, source.name)
        self.storage.download_file(source.key, place / "object")
        return place / "object", place

    def _check_room(self, size: int, name: str) -> None:
        free = shutil.disk_usage(self.folder).free
        if size + _FREE_BYTES > free:
            raise OutOfResources(
                f"{name}: {size} bytes don't fit on the server's disk, which has {free} left; free some space"
            )

    async def _decode(self, source: ViewSource, path: Path, making: _Making, *, is_whole: bool) -> bool:
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

        answer = await asyncio.to_thread(decode, source.call, request, self.limits, name=source.name, tick=tick)
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
            self._layers.pop(folder.name, None)
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
