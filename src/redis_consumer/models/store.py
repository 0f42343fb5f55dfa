"""Finds the files of a model in the bucket or in this package.

Both have the layout that TensorFlow Serving reads, ``models/<name>/<version>/``. The bucket is searched first.
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
from redis_consumer.text import file_digest

logger = logging.getLogger(__name__)

Value = TypeVar("Value")

PACKAGED = Path(__file__).parent
#: Names of the packaged models by the names in the defaults of the settings that they stand in for.
PACKAGED_FOR = {
    "NuclearSegmentation": "NuclearSegmentation",
    "PhaseCytoSegmentation": "PhaseSegmentation",
    "TissueNuclei": "TissueNuclei",
    "SpotDetection": "SpotDetection",
}
MODEL_FILE = "model.onnx"
CARD_FILE = "card.toml"
SUMS_FILE = "SHA256SUMS"
# Where the usual exporters put the weights of a model that is too large for one file.
_WEIGHTS_FILE = "model.onnx.data"


class Bucket(Protocol):
    """The methods of a bucket that a `ModelStore` uses."""

    def exists(self, key: str) -> bool:
        """Whether there is an object with this key."""

    def download_file(self, key: str, path: Path) -> None:
        """Download an object to exactly this path. Its folder must exist."""

    def list_folders(self, prefix: str) -> list[str]:
        """List the names of the folders directly below `prefix`."""


class ModelStore:
    """Finds model files and cards.

    Threads can share a store. Processes can share its cache. The files of a version never change; TensorFlow Serving
    assumes this, too. So each version is downloaded once and used as long as its checksums match.

    Args:
        storage: the bucket; None for the packaged models only.
        cache_dir: folder for the downloaded models of this bucket. By default, a temporary folder that is deleted with
            this store.
        expire_s: seconds for which the versions in the bucket and their cards are cached.
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
        """Return the local path of a model's ``model.onnx``. Download it if it is in the bucket.

        Args:
            model: the model. Version 0 is the highest ONNX version in the bucket, or else the highest packaged one.

        Raises:
            ModelNotFound: there is no such model; the message lists the available ones.
            StorageUnavailable: the bucket doesn't respond.
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
        """Return the card of a model, None if it has no card.

        The model can be of any kind. A version in the bucket never gets the card of a packaged model with the same
        name.

        Args:
            model: the model. Version 0 is the highest version in the bucket, or else the highest packaged one.

        Raises:
            ModelMismatch: the card is invalid; the message names file and key.
            StorageUnavailable: the bucket doesn't respond.
        """
        model = ModelId.of(model.name, model.version)  # a label gets the card of the highest version
        with self._lock:
            return self._remember(("card", model), lambda: self._read_card(model))

    def or_packaged(self, model: ModelId) -> ModelId:
        """Return a model of the settings, or the newest packaged one of `PACKAGED_FOR` if it is nowhere.

        Args:
            model: the model of the settings.

        Raises:
            StorageUnavailable: the bucket doesn't respond.
        """
        with self._lock:
            versions = self._bucket_versions(model.name)
            is_known = model.version in versions if model.version else bool(versions)
            newest = _packaged(ModelId(PACKAGED_FOR.get(model.name, "")))
            if model.label or is_known or newest is None or _packaged(model) is not None:
                return model
            if model not in self._announced:
                self._announced.add(model)
                logger.info("model %s of the settings: not in the bucket; the packaged %s is used", model, newest)
            return newest

    def close(self) -> None:
        """Delete downloaded models, except in a folder that the caller gave."""
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
        """Path in the cache of a model of the bucket, None if the bucket has no such ONNX model."""
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
        """Whether the cache has an intact model. A damaged one is deleted."""
        if is_intact(folder):
            self._intact.add(model)
            return True
        if folder.exists():
            logger.warning("model %s: the files in the cache are damaged; they are downloaded again", model)
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
        """Download an object if it exists; return whether it does."""
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
            # Jobs can name any number of models, so expired entries are removed.
            self._remembered = {key: known for key, known in self._remembered.items() if time.monotonic() < known[0]}
            self._remembered[key] = (time.monotonic() + self._expire_s, value)
        known: Value = value
        return known

    def _announce(self, model: ModelId) -> None:
        if model not in self._announced:
            self._announced.add(model)
            logger.info("model %s: not in the bucket; the packaged model is used", model)

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
    """Lock a cache against other processes and stores, so that each model is downloaded and deleted only once."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def packaged_models() -> list[ModelId]:
    """List the models of this package, ordered by name and version."""
    found = [path.parent for path in PACKAGED.glob(f"*/*/{MODEL_FILE}") if path.parent.name.isdecimal()]
    return sorted(
        (ModelId(path.parent.name, int(path.name)) for path in found), key=lambda model: (model.name, model.version)
    )


def _packaged(model: ModelId) -> ModelId | None:
    """The packaged model with this name and version, None if there is none. Version 0 is the highest version."""
    versions = {known.version for known in packaged_models() if known.name == model.name}
    version = model.version or max(versions, default=0)
    return ModelId(model.name, version) if version in versions else None


def _versions(folders: list[str]) -> frozenset[int]:
    return frozenset(int(name) for name in folders if name.isascii() and name.isdecimal() and int(name) > 0)


def _key(model: ModelId, file: str) -> str:
    return f"models/{model.name}/{model.version or '<version>'}/{file}"


def write_sums(folder: Path) -> None:
    """Write the SHA-256 of each file of a folder into a file there, in the format of the command ``sha256sum``."""
    lines = [f"{file_digest(path)}  {path.name}\n" for path in sorted(folder.iterdir())]
    (folder / SUMS_FILE).write_text("".join(lines))


def is_intact(folder: Path) -> bool:
    """Whether all files that `write_sums` listed exist unchanged; False for a folder without a list."""
    try:
        lines = (folder / SUMS_FILE).read_text().splitlines()
        noted = [line.partition("  ") for line in lines]
        return bool(noted) and all(file_digest(folder / name) == digest for digest, _, name in noted)
    except (OSError, UnicodeDecodeError):
        return False
