"""Writes the provenance record of a result, a small object beside its zip.

It describes the software, libraries, settings and functions that made the result.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import logging
import platform
import sys
import time
import zipfile
from collections.abc import Callable, Collection, Hashable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, cast

import redis_consumer
from redis_consumer.errors import ConsumerError
from redis_consumer.job import Job, found_earlier, given_by_producer
from redis_consumer.queue import timestamp
from redis_consumer.storage import transfer
from redis_consumer.storage.keys import output_key, record_key
from redis_consumer.text import MAX_TEXT, cut, file_digest, mask_secrets

DISTRIBUTION = "kiosk-redis-consumer"
#: Distributions whose version can change a pixel, because they read, compute or write it.
LIBRARIES = (
    "numpy", "scipy", "scikit-image", "tifffile", "imagecodecs", "pillow", "tensorstore", "onnxruntime", "grpcio",
    "protobuf",
)  # fmt: skip
#: Settings that can change a pixel. Everyone who can read a result can read its record, so it has no addresses and
#: secrets. It also has no limits that protect a machine, because the record of another user must not change the limits
#: of a rerun.
SETTINGS = (
    "TF_TENSOR_NAME", "TF_MAX_BATCH_SIZE", "TF_MIN_MODEL_SIZE", "MAX_CALL_BYTES",
    "NUCLEAR_MODEL", "CYTOPLASM_MODEL", "PHASE_MODEL", "TISSUE_MODEL",
    "NUCLEAR_POSTPROCESS", "CYTOPLASM_POSTPROCESS", "PHASE_POSTPROCESS", "TISSUE_POSTPROCESS",
    "AUTO_SCALE", "SCALE_DETECT_ENABLED", "SCALE_DETECT_MODEL", "SCALE_DETECT_SAMPLE", "SCALE_RESHAPE_SIZE",
    "LABEL_DETECT_ENABLED", "LABEL_DETECT_MODEL", "LABEL_DETECT_SAMPLE", "LABEL_RESHAPE_SIZE",
    "MAX_SCALE", "MIN_SCALE", "MAX_IMAGE_HEIGHT", "MAX_IMAGE_WIDTH", "MAX_IMAGE_FRAMES", "CUTS",
    "TRACKING_MODEL", "TRACKING_SEGMENT_MODEL", "TRACKING_POSTPROCESS_FUNCTION", "DRIFT_CORRECT_ENABLED",
    "NORMALIZE_TRACKING", "NEIGHBORHOOD_SCALE_SIZE", "MAX_DISTANCE", "TRACK_LENGTH", "DIVISION", "BIRTH", "DEATH",
    "CALIBAN_MODEL", "NEIGHBORHOOD_ENCODER", "APPEARANCE_DIM", "CROP_MODE", "CALIBAN_NORM",
    "MESMER_MODEL", "MESMER_COMPARTMENT", "BUILT_IN_WHOLE_CELL",
    "POLARIS_MODEL", "POLARIS_THRESHOLD", "POLARIS_CLIP", "POLARIS_SCALE",
)  # fmt: skip

#: Settings that also have an effect by being set.
DECIDE_BY_BEING_GIVEN = frozenset({"TRACKING_MODEL", "CALIBAN_MODEL", "TRACKING_SEGMENT_MODEL"})
logger = logging.getLogger(__name__)
#: Version of the record's format. It changes if readers of the older format would misunderstand it.
FORMAT = 1
#: Field of a job with the key of its record.
FIELD = "provenance_file_name"
#: Field of a divided job with digest, bytes and key of its input, because the second phase doesn't download the input
#: again.
INPUT_FIELD = "input_digest"
#: Number of children that a record lists. If there are more, it has their number.
MOST_CHILDREN = 10_000
#: Number of files of a result that a record lists. If there are more, it has their number. With the longest names, this
#: takes 60 MB.
MOST_FILES = 20_000
_RESULT_FIELD = "output_file_name"
#: Fields that a run detects and writes to its job.
_DETECTED = ("scale", "scale_from", "estimated_diameter_px", "label")
_GROUP = "redis_consumer.consumers"


@cache
def software() -> dict[str, Any]:
    """Return the versions of this package, of Python and of the libraries, and the commit if it is known."""
    return {
        "name": DISTRIBUTION,
        "version": redis_consumer.__version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "platform": f"{sys.platform} {platform.machine()}",
        "libraries": {name: version for name in LIBRARIES if (version := _version(name))},
    }


@cache
def origin(thing: Hashable, group: str = "") -> dict[str, Any]:
    """Describe the origin of a class or function.

    Args:
        thing: a class or a function.
        group: group of entry points that can contain it.

    Returns:
        ``origin``, its import path; ``distribution`` and ``version`` if they are known; otherwise ``source_sha256``,
        the digest of its file; None if it has none.
    """
    # Some callables of C have no module or no name.
    module = getattr(thing, "__module__", None) or type(thing).__module__
    path = f"{module}:{getattr(thing, '__qualname__', type(thing).__qualname__)}"
    if path.startswith("redis_consumer."):
        return {"origin": path, "distribution": DISTRIBUTION, "version": redis_consumer.__version__}
    point = _entry_point(thing, path, group) if group else None
    if point is not None and point.dist is not None:
        return {"origin": path, "distribution": point.dist.name, "version": point.dist.version}
    return {"origin": path, "distribution": None, "version": None, "source_sha256": _source_digest(thing)}


def _entry_point(thing: Hashable, path: str, group: str) -> metadata.EntryPoint | None:
    """Return the entry point of a thing. It can name the thing by a shorter path than that of its module."""
    points = metadata.entry_points(group=group)
    package = str(thing.__module__).partition(".")[0]
    exact = [point for point in points if point.value.replace(" ", "") == path]
    own = [point for point in points if point.module.partition(".")[0] == package]
    return next(iter(exact), None) or next((point for point in own if _gives(point, thing)), None)


def _gives(point: metadata.EntryPoint, thing: Hashable) -> bool:
    # A thing that is in use can't be in a module that isn't imported.
    found: object = sys.modules.get(point.module)
    for name in point.attr.split("."):
        found = getattr(found, name, None)
    return found is thing


def options_of(function: Any, given: Mapping[str, object]) -> dict[str, Any]:
    """Return all options of a function with their values, or their defaults."""
    try:
        parameters = list(inspect.signature(function).parameters.values())[1:]
    except (TypeError, ValueError):
        return plain(given)
    found = {each.name: each.default for each in parameters if each.default is not inspect.Parameter.empty}
    return plain({**found, **given})


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values in types of JSON; other types as texts."""
    loaded: dict[str, Any] = json.loads(json.dumps(dict(values), default=str))
    return loaded


def _source_digest(thing: Any) -> str | None:
    try:
        return file_digest(inspect.getfile(thing))
    except (TypeError, OSError):
        return None


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Return the commit that pip recorded for an installation from a repository (PEP 610)."""
    try:
        text = metadata.distribution(DISTRIBUTION).read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return None
    commit = json.loads(text or "{}").get("vcs_info", {}).get("commit_id")
    return str(commit) if commit else None


@dataclass(frozen=True)
class RunSetup:
    """Options and settings of a run.

    Attributes:
        options: values of the consumer's options, without secrets.
        secrets: names of the options whose values are secret.
        settings: values of the settings in `SETTINGS`, and under ``given`` the names that were given.
        model_server: scheme of the model server's URL: its protocol, not its address.
    """

    options: Mapping[str, str]
    secrets: Collection[str]
    settings: Mapping[str, Any]
    model_server: str


class Provenance:
    """Collects notes during one run of a job, and writes its record.

    Several threads can add notes. One is made for each job, so it must be cheap.

    Args:
        consumer: whose class and queue are noted.
        job: the claimed job; without one, nothing is noted.
        setup: gives the options and settings of the run, when the record is written.

    Attributes:
        transfers: the downloads and uploads of the run.
    """

    def __init__(self, consumer: Any, job: Job | None, setup: Callable[[], RunSetup]) -> None:
        self._consumer = consumer
        self._job = job
        self._setup = setup
        self._started_s = time.time()
        self._since = time.monotonic()
        self.transfers = transfer.Transfers()
        self._models: dict[str, Callable[[], dict[str, Any]]] = {}
        self._functions: dict[tuple[str, str], Callable[[], dict[str, Any]]] = {}
        self._detected: dict[str, str] = {}
        self._children: list[dict[str, str]] = []
        self._children_left_out = 0
        self._outputs: list[dict[str, Any]] = []
        self._files_left_out = 0
        self._result = ""
        self._key = ""

    def note_model(self, name: str, describe: Callable[[], dict[str, Any]]) -> None:
        """Note that a model was called. `describe` is called once, when the record is written."""
        self._models.setdefault(name, describe)

    def note_function(self, kind: str, name: str, describe: Callable[[], dict[str, Any]]) -> None:
        """Note that a function of the kind ``pre`` or ``post`` was run; `describe` as for models."""
        self._functions.setdefault((kind, name), describe)

    def note_fields(self, fields: Mapping[str, Any]) -> None:
        """Note fields that a run writes to its job, if it detected them."""
        found = {name: str(fields[name]) for name in _DETECTED if name in fields}
        if "scale" not in found:
            found.pop("scale_from", None)  # the producer gave the scale
        self._detected |= found
        self._result = str(fields.get(_RESULT_FIELD) or self._result)

    def noted_child(self, child: Job) -> Job:
        """Note a child whose result is part of this one, and return the child."""
        self.transfers.not_wanted.add(child.get(_RESULT_FIELD))
        if len(self._children) == MOST_CHILDREN:
            self._children_left_out += 1
        else:
            self._children.append({"job": child.id, "status": child.status, "record": cut(child.get(FIELD))})
        return child

    def input_fields(self) -> dict[str, str]:
        """Return the fields about its input that a divided job keeps for its second phase."""
        downloads = self.transfers.downloads
        return {INPUT_FIELD: f"{downloads[0].sha256} {downloads[0].size} {downloads[0].key}"} if downloads else {}

    def upload(self, path: str | Path) -> tuple[str, str]:
        """Upload a zip of the running job and the record in parallel; return key and URL of the zip.

        Raises:
            StorageUnavailable, FileNotFoundError: as `Storage.upload`.
        """
        storage = self._consumer.storage
        if self._job is None or not hasattr(storage, "write_bytes"):
            key, url = storage.upload(str(path))
            return str(key), str(url)
        with ThreadPoolExecutor(1, thread_name_prefix="upload") as pool:
            uploading = pool.submit(storage.upload, str(path))
            output, left_out = _described(Path(path))
            self._outputs.append(output)
            self._files_left_out += left_out
            self._write(self._job)
            key, url = uploading.result()
        return str(key), str(url)

    def closing_fields(self, fields: Mapping[str, Any]) -> dict[str, str]:
        """Return the field that names the record, to be written together with a job's end; empty if there is none.

        For a consumer that uploads its result itself, this uploads the record.

        Args:
            fields: the last fields of the job.
        """
        if self._job is None:
            return {}
        result = str(fields.get(_RESULT_FIELD) or self._result)
        if not self._key and result and hasattr(self._consumer.storage, "write_bytes"):
            self._outputs = [_moved(each) for each in self.transfers.uploads] or [{"key": result}]
            self._write(self._job)
        return {FIELD: self._key} if self._key else {}

    def _write(self, job: Job) -> None:
        try:
            text = json.dumps(self._record(job), indent=1, ensure_ascii=False)
        except ConsumerError:
            raise
        except Exception:
            # An error in a description by a plug-in must not fail the job.
            logger.exception("Job %s gets no provenance record", job.id)
            self._job = None
            return
        key = record_key(job)
        self._consumer.storage.write_bytes(key, text.encode("utf-8", "replace"))
        self._key = key

    def _record(self, job: Job) -> dict[str, Any]:
        setup = self._setup()
        functions = [{"kind": kind, "name": name, **tell()} for (kind, name), tell in self._functions.items()]
        return {
            "format": FORMAT,
            "job": self._fields_of(job, setup.secrets),
            "options": _masked(setup.options),
            "consumer": origin(cast(Hashable, type(self._consumer)), _GROUP),
            "software": software(),
            "settings": setup.settings,
            "model_server": setup.model_server,
            "models": [{"model": name, **tell()} for name, tell in self._models.items()],
            "functions": functions,
            "detected": {**found_earlier(job), **self._detected},
            "inputs": self._inputs(job),
            "outputs": self._outputs,
            "children": self._children,
            "left_out": {
                "children": self._children_left_out,
                "objects": self.transfers.left_out,
                "files": self._files_left_out,
            },
            "started": datetime.fromtimestamp(self._started_s, timezone.utc).isoformat(),
            "finished": timestamp(),
            "seconds": round(time.monotonic() - self._since, 6),
        }

    def _fields_of(self, job: Job, secrets: Collection[str]) -> dict[str, Any]:
        """A job and its fields, without fields of its progress, secrets, and links: they may hold a signature."""
        shown = {name: text for name, text in given_by_producer(job).items() if name not in secrets}
        fields = {**shown, "original_name": job.get("original_name")}
        fields = _masked(fields)
        key = None
        with contextlib.suppress(ConsumerError, AttributeError):
            key = self._consumer.storage.key_of(job.get("input_file_name").rstrip("/"))
        return {"id": job.id, "attempt": job.attempt, "queue": self._consumer.queue, "input": key, "fields": fields}

    def _inputs(self, job: Job) -> list[dict[str, Any]]:
        """Return the downloads, except results of children; the job's own input is first."""
        own = self.transfers.downloads
        before = job.get(INPUT_FIELD).split(" ", 2)
        if len(before) == 3 and before[2] not in {each.key for each in own}:
            own = [transfer.Moved(before[2], int(before[1]), before[0]), *own]
        return [_moved(each) for each in own]


def _masked(texts: Mapping[str, str]) -> dict[str, str]:
    """Return the texts, shortened and without signatures and passwords of links."""
    return {cut(name): cut(mask_secrets(text), MAX_TEXT) for name, text in texts.items()}


def _moved(moved: transfer.Moved) -> dict[str, Any]:
    return {"key": moved.key, "bytes": moved.size, "sha256": moved.sha256}


def _described(path: Path) -> tuple[dict[str, Any], int]:
    """Describe a zip and its files, and the number of files that aren't listed. Checksums are those of the zip's
    directory.
    """
    entries: list[zipfile.ZipInfo] = []
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    files = [
        {"name": entry.filename, "bytes": entry.file_size, "crc32": f"{entry.CRC:08x}"}
        for entry in entries[:MOST_FILES]
    ]
    output = {"key": output_key(path), "bytes": path.stat().st_size, "sha256": file_digest(path), "files": files}
    return output, len(entries) - len(files)
