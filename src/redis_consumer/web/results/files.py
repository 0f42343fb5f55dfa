"""Keeps files of results that were made on request, in a folder of limited size."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redis_consumer.errors import ConsumerError
from redis_consumer.outputs import ENDINGS
from redis_consumer.storage import Storage
from redis_consumer.web.context import WebContext
from redis_consumer.web.problems import Problem, problem_of
from redis_consumer.web.view.decoders import DecoderLimits, decode

#: Bytes of all kept files together, above which the oldest are removed.
MOST_BYTES = 10 << 30
#: Bytes of an image that can only be read whole, and limits of a process.
_WHOLE_BYTES = 1 << 30
LIMITS = DecoderLimits(time_s=300.0)
#: Calls that run at once.
_AT_ONCE = threading.Semaphore(2)
_MODULE = "redis_consumer.web.results.making"
_locks: dict[str, threading.Lock] = {}
_locks_lock = threading.Lock()
RESULT = "result.zip"


def call(function: str, request: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Make a call of `redis_consumer.web.results.making` in a child process.

    Raises:
        Problem: 422: a file can't be read, or something is outside of it. 503: it takes too much memory or time.
    """
    with _AT_ONCE:
        try:
            return decode(f"{_MODULE}:{function}", {**request, "max_bytes": _WHOLE_BYTES}, LIMITS, name=name)
        except ConsumerError as error:
            raise problem_of(error) from error


def result_path(context: WebContext, fields: Mapping[str, str]) -> Path:
    """Return the local path of the zip of a result, which is downloaded once.

    Raises:
        Problem: 404: the job has no result, or it has expired.
        StorageUnavailable: the bucket doesn't respond.
    """
    key = fields.get("output_file_name", "")
    if fields.get("status") != "done" or not key:
        raise Problem(404, "The job has no result.", hint="GET the job: it says whether it runs, or why it failed.")
    path = _folder(context, key) / RESULT
    with _alone(str(path)):
        if not path.exists():
            if context.storage.size(key) is None:
                raise Problem(404, "The result has expired.", hint="Run the job again.")
            part = path.with_suffix(".part")
            context.storage.download_file(key, part)
            os.replace(part, path)
        os.utime(path.parent)
    return path


def made_path(context: WebContext, fields: Mapping[str, str], output: str) -> Path:
    """Return the local path of an output of a result: as the worker wrote it, else made now.

    Raises:
        Problem: as `result_path` and `call`.
    """
    archive = result_path(context, fields)
    ending = ENDINGS[output]
    path = archive.parent / f"made{ending}"
    with _alone(str(path)):
        if not path.exists() and not _extracted(archive, ending, path):
            _make(context, fields, archive, output, path)
    return path


def _extracted(archive: Path, ending: str, path: Path) -> bool:
    """Take the file out of the zip if it is there; return whether it is."""
    import zipfile

    with zipfile.ZipFile(archive) as source:
        names = [name for name in source.namelist() if name.endswith(ending)]
        if ending == ENDINGS["labels"]:
            names = [name for name in names if not name.endswith(ENDINGS["ome"])]
        if len(names) != 1:
            return False
        part = path.with_name(f".{path.name}")
        with source.open(names[0]) as member, part.open("wb") as file:
            shutil.copyfileobj(member, file)
    os.replace(part, path)
    return True


def extracted_path(context: WebContext, fields: Mapping[str, str], name: str) -> Path:
    """Return the local path of a file that only the worker writes, such as ``tracks.csv``.

    Raises:
        Problem: 404: the result has no such file. Else as `result_path`.
    """
    archive = result_path(context, fields)
    path = archive.parent / f"made_{name}"
    with _alone(str(path)):
        if not path.exists() and not _extracted(archive, name, path):
            raise Problem(404, f"The result has no {name}.", hint="Name csv in `outputs` and run the job again.")
    return path


def _make(context: WebContext, fields: Mapping[str, str], archive: Path, output: str, path: Path) -> None:
    name = fields.get("original_name") or "image"
    with work_folder(context) as folder:
        image = input_path(context.storage, fields, folder) if output in ("table", "parquet", "overlay") else None
        request = {**request_of(fields, archive, image, folder), "outputs": [output]}
        made = call("make_files", request, name)["files"].get(output)
        if made is None or not Path(made).exists():
            raise Problem(422, f"{name}: this file can't be made of the result.", hint="Download the zip.")
        os.replace(made, path)
    _limit_size(context)


def request_of(fields: Mapping[str, str], archive: Path, image: Path | None, folder: Path) -> dict[str, Any]:
    """Return the parts of a request that all calls have."""
    return {
        "zip": str(archive),
        "image": None if image is None else str(image),
        "name": fields.get("original_name") or "image",
        "order": fields.get("dimension_order", ""),
        "field": fields.get("field_of_view", ""),
        "folder": str(folder),
    }


def input_path(storage: Storage, fields: Mapping[str, str], folder: Path) -> Path:
    """Download the input of a job.

    Raises:
        Problem: 404: it was deleted.
    """
    key = fields.get("input_file_name", "").rstrip("/")
    is_folder = key.lower().endswith(".zarr")
    try:
        download = storage.download_folder if is_folder else storage.download
        return Path(download(key, folder / "input"))
    except ConsumerError as error:
        raise problem_of(error) from error


@contextmanager
def work_folder(context: WebContext) -> Iterator[Path]:
    """Make a folder for one call."""
    with tempfile.TemporaryDirectory(dir=context.folder, prefix="work-") as name:
        yield Path(name)


def _folder(context: WebContext, key: str) -> Path:
    folder = context.folder / "results" / hashlib.sha256(key.encode()).hexdigest()[:32]
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def _alone(name: str) -> Iterator[None]:
    with _locks_lock:
        lock = _locks.setdefault(name, threading.Lock())
    with lock:
        yield
    with _locks_lock:
        _locks.pop(name, None)


def _limit_size(context: WebContext) -> None:
    """Remove the files of the results that were not asked for longest."""
    folders = sorted((context.folder / "results").iterdir(), key=lambda folder: folder.stat().st_mtime, reverse=True)
    total = 0
    for folder in folders:
        total += sum(file.stat().st_size for file in folder.iterdir())
        if total > MOST_BYTES:
            shutil.rmtree(folder, ignore_errors=True)
