"""Where are a model's files: in the bucket, or in this package?

Both have the layout that TensorFlow Serving reads, ``models/<name>/<version>/``. What the bucket lacks is looked for in
the package.
"""

from __future__ import annotations

import fcntl
import logging
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from redis_consumer.errors import ModelNotFound, ObjectNotFound
from redis_consumer.job import ModelId
from redis_consumer.models.card import Card, read_card
from redis_consumer.models.checksums import is_intact, write_sums

logger = logging.getLogger(__name__)

Value = TypeVar("Value")

PACKAGED = Path(__file__).parent
MODEL_FILE = "model.onnx"
CARD_FILE = "card.toml"
# Where the usual exporters put the weights of a model that is too large for one file.
_WEIGHTS_FILE = "model.onnx.data"


class Bucket(Protocol):
    """What a `ModelStore` asks of the bucket."""

    def exists(self, key: str) -> bool:
        """Whether there is an object of this key."""

    def download_file(self, key: str, path: Path) -> None:
        """Download an object to exactly this path, whose folder exists."""

    def list_folders(self, prefix: str) -> list[str]:
        """Names of the folders right below `prefix`."""


class ModelStore:
    """Finds model files and cards; safe to share by threads, and its cache by processes.

    A version's files never change, as TensorFlow Serving assumes too, so each is downloaded once, and used while its
    checksums are those of the download.

    Args:
        storage: the bucket; None for the packaged models only.
        cache_dir: folder for downloaded models, of this bucket alone; by default one that ends with this store.
        expire_s: for how many seconds it is believed which versions the bucket has and what their cards say.
    """

    def __init__(self, storage: Bucket | None = None, cache_dir: Path | None = None, *, expire_s: float = 30) -> None:
        self._storage = storage
        self._cache_dir = cache_dir
        self._remove_cache: Callable[[], object] | None = None
        self._expire_s = expire_s
        self._remembered: dict[Hashable, tuple[float, Any]] = {}
        self._announced: set[ModelId] = set()
        self._intact: set[ModelId] = set()
        self._lock = threading.RLock()

    def find(self, model: ModelId) -> Path:
        """Give the local path of a model's ``model.onnx``, downloading it if it is in the bucket.

        Args:
            model: which model; version 0 is the highest that the bucket has as ONNX, else the highest packaged one.

        Raises:
            ModelNotFound: there is no such model; the message lists what there is.
            StorageUnavailable: the bucket doesn't answer.
        """
        model = ModelId.of(model.name, model.label or model.version)
        if model.label:
            raise ModelNotFound(
                f"model {model}: only model servers know labels; give a version of the bucket, or 0 for the highest",
                model=str(model),
            )
        with self._lock:
            for version in self._candidates(model):
                path = self._downloaded(ModelId(model.name, version))
                if path is not None:
                    return path
            packaged = _packaged(model)
            if packaged is None:
                raise self._not_found(model)
            self._announce(packaged)
            return PACKAGED / packaged.name / str(packaged.version) / MODEL_FILE

    def card(self, model: ModelId) -> Card | None:
        """Give a model's card, None where it has none.

        The model itself may be of any kind. A version that the bucket has never gets the card of a packaged model of
        the same name.

        Args:
            model: which model; version 0 is the highest that the bucket has, else the highest packaged one.

        Raises:
            ModelMismatch: the card is wrong, in words.
            StorageUnavailable: the bucket doesn't answer.
        """
        model = ModelId.of(model.name, model.version)  # a label gets the card of the highest version
        with self._lock:
            return self._remember(("card", model), lambda: self._read_card(model))

    def close(self) -> None:
        """Delete downloaded models, unless they lie in a folder that was given."""
        with self._lock:
            self._remembered.clear()
            self._intact.clear()
            if self._remove_cache is not None:
                self._remove_cache()
                self._cache_dir = self._remove_cache = None

    def _read_card(self, model: ModelId) -> Card | None:
        versions = self._bucket_versions(model.name)
        version = model.version or max(versions, default=0)
        if version in versions:
            return self._bucket_card(ModelId(model.name, version))
        packaged = _packaged(model)
        path = packaged and PACKAGED / packaged.name / str(packaged.version) / CARD_FILE
        return read_card(path) if path and path.is_file() else None

    def _bucket_card(self, model: ModelId) -> Card | None:
        key = _key(model, CARD_FILE)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / CARD_FILE
            if not self._fetch(key, path):
                return None
            return read_card(path.read_text("utf-8", errors="replace"), name=key)

    def _candidates(self, model: ModelId) -> list[int]:
        if model.version:
            return [model.version]
        return sorted(self._bucket_versions(model.name), reverse=True)

    def _bucket_versions(self, name: str) -> frozenset[int]:
        storage = self._storage
        if storage is None:
            return frozenset()
        return self._remember(("versions", name), lambda: _versions(storage.list_folders(f"models/{name}")))

    def _downloaded(self, model: ModelId) -> Path | None:
        """Path of a model of the bucket in the cache, None where the bucket has no such ONNX model."""
        folder = self._cache() / model.name / str(model.version)
        path = folder / MODEL_FILE
        missing = ("missing", model)
        if model in self._intact and path.is_file():
            return path
        with _alone(self._cache()):
            if self._is_cached(model, folder):
                return path
            if self._remember(missing, lambda: not self._download(model, folder)):
                return None
        self._remembered.pop(missing, None)
        return path

    def _is_cached(self, model: ModelId, folder: Path) -> bool:
        """Whether the cache holds a model; a damaged one is dropped."""
        if is_intact(folder):
            self._intact.add(model)
            return True
        if folder.exists():
            logger.warning("model %s: its files in the cache are damaged, it is downloaded again", model)
            shutil.rmtree(folder, ignore_errors=True)
        return False

    def _download(self, model: ModelId, folder: Path) -> bool:
        with tempfile.TemporaryDirectory(prefix=".", dir=self._cache()) as parent:
            fresh = Path(parent) / "model"
            fresh.mkdir()
            if not self._fetch(_key(model, MODEL_FILE), fresh / MODEL_FILE):
                return False
            self._fetch(_key(model, _WEIGHTS_FILE), fresh / _WEIGHTS_FILE)
            write_sums(fresh)
            folder.parent.mkdir(exist_ok=True)
            fresh.rename(folder)
        self._intact.add(model)
        return True

    def _fetch(self, key: str, path: Path) -> bool:
        """Download an object if there is one."""
        if self._storage is None or not self._storage.exists(key):
            return False
        try:
            self._storage.download_file(key, path)
        except ObjectNotFound:
            return False
        return True

    def _cache(self) -> Path:
        if self._cache_dir is None:
            folder = tempfile.mkdtemp(prefix="redis-consumer-models-")
            self._remove_cache = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
            self._cache_dir = Path(folder)
        return self._cache_dir

    def _remember(self, key: Hashable, ask: Callable[[], Value]) -> Value:
        until_s, value = self._remembered.get(key, (0.0, None))
        if time.monotonic() >= until_s:
            value = ask()
            # Jobs may name any number of models.
            self._remembered = {key: known for key, known in self._remembered.items() if time.monotonic() < known[0]}
            self._remembered[key] = (time.monotonic() + self._expire_s, value)
        known: Value = value
        return known

    def _announce(self, model: ModelId) -> None:
        if model not in self._announced:
            self._announced.add(model)
            logger.info("model %s: not in the bucket, the packaged one is used", model)

    def _not_found(self, model: ModelId) -> ModelNotFound:
        packaged = {known.version for known in packaged_models() if known.name == model.name}
        versions = sorted(self._bucket_versions(model.name) | packaged)
        if versions:
            there = f"there are versions {', '.join(map(str, versions))}"
        else:
            names = set(self._storage.list_folders("models") if self._storage else [])
            names |= {known.name for known in packaged_models()}
            there = f"there are models {', '.join(sorted(names)) or 'none'}"
        return ModelNotFound(
            f"model {model}: no {_key(model, MODEL_FILE)} in the bucket or packaged; {there}", model=str(model)
        )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes and stores from changing a cache: each model is downloaded once, and dropped by one."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def packaged_models() -> list[ModelId]:
    """List the models that come with this package, by name and version."""
    found = [path.parent for path in PACKAGED.glob(f"*/*/{MODEL_FILE}") if path.parent.name.isdecimal()]
    return sorted(
        (ModelId(path.parent.name, int(path.name)) for path in found), key=lambda model: (model.name, model.version)
    )


def _packaged(model: ModelId) -> ModelId | None:
    """The packaged model of this name and version; the highest version for 0."""
    versions = {known.version for known in packaged_models() if known.name == model.name}
    version = model.version or max(versions, default=0)
    return ModelId(model.name, version) if version in versions else None


def _versions(folders: list[str]) -> frozenset[int]:
    return frozenset(int(name) for name in folders if name.isascii() and name.isdecimal() and int(name) > 0)


def _key(model: ModelId, file: str) -> str:
    return f"models/{model.name}/{model.version or '<version>'}/{file}"
