"""Merges the results of many child jobs, one for each image, into one zip with a table of their outcomes."""

from __future__ import annotations

import csv
import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlencode

from redis_consumer.archives import ResultZip, check_result_zip
from redis_consumer.consumers.base import Consumer
from redis_consumer.consumers.fan_out import reason_of_child
from redis_consumer.errors import InvalidJob, PermanentError, describe
from redis_consumer.job import Job, JobStatus
from redis_consumer.storage.keys import zip_name
from redis_consumer.text import cell, cut, decimal, shown_name, whole
from redis_consumer.wanted import AT_ONCE, OrderedPool

SUMMARY = "summary.csv"
#: Columns of that table.
COLUMNS = ("image", "status", "reason", "objects", "seconds")
#: Fields of children that their parent lists, joined by commas (contract, section 1.3).
LISTED = (
    "download_time", "prediction_time", "postprocess_time", "upload_time", "total_time", "predict_retries",
)  # fmt: skip
#: Number of values that a parent lists of each such field, spread over its children.
MAX_LISTED = 1000
#: Largest size of a field with keys or reasons of children, in bytes.
MAX_FIELD_BYTES = 1 << 16
_MAX_REASON = 300
#: Field of the parent with the key of the list of skipped files.
SKIPPED_FIELD = "skipped_file_name"


def gather_children(consumer: Consumer, redis_hash: str) -> str:
    """Merge the results of the children of a job into one zip, and end the job.

    Args:
        consumer: whose job it is.
        redis_hash: the key of the job's hash.

    Returns:
        The status of the job.

    Raises:
        InvalidJob: no child has a result.
    """
    started = time.monotonic()
    job = consumer._job_of(redis_hash)
    consumer.update_key(redis_hash, {"status": JobStatus.SAVING_RESULTS.value})
    with tempfile.TemporaryDirectory(prefix="redis-consumer-") as name:
        folder = Path(name)
        result = folder / zip_name(job)
        with Summary(folder / SUMMARY, job.total_jobs) as summary, ResultZip(result) as archive:
            _merge(consumer, summary, archive, folder)
            _list_skipped(consumer, job, summary, folder)
            summary.close()
            archive.add_file(folder / SUMMARY, SUMMARY)
        key, url = consumer.provenance.upload(result)
    fields = {**summary.fields(), "output_file_name": key, "output_url": url, "progress": 100}
    fields["cleanup_time"] = f"{time.monotonic() - started:.6f}"
    if not summary.done:
        consumer.update_key(redis_hash, {**fields, **consumer.provenance.closing_fields(fields)})
        raise InvalidJob(
            f"{shown_name(job.original_name)}: none of its {summary.failed} images has a result; "
            f"the first one is {summary.first_reason or 'gone'}",
            job_id=job.id,
        )
    consumer.update_key(redis_hash, {**fields, "status": consumer.final_status})
    return consumer.final_status


def _merge(consumer: Consumer, summary: Summary, archive: ResultZip, folder: Path) -> None:
    """Add the result of each child. Some are downloaded in advance."""

    def fetch(numbered: tuple[int, Job]) -> tuple[Job, Path | str]:
        index, child = numbered
        return child, _fetch(consumer, child, folder / str(index))

    with OrderedPool(AT_ONCE) as pool:
        for child, found in pool.map(fetch, enumerate(consumer.child_jobs())):
            if isinstance(found, Path):
                archive.add_zip(found)
                found.unlink()
                summary.add_done(child)
            else:
                summary.add_failed(child, found, child.get("original_name") or child.id)
            consumer.check_wanted()


def _fetch(consumer: Consumer, child: Job, folder: Path) -> Path | str:
    """Download the result of a child; return the reason if there is none."""
    reason = reason_of_child(child)
    if reason:
        return reason
    try:
        path = Path(consumer.storage.download(child.get("output_file_name"), folder))
        check_result_zip(path, shown_name(child.get("original_name")))
    except PermanentError as error:
        consumer._running().check_fault(error)
        return describe(error)
    return path


def _list_skipped(consumer: Consumer, job: Job, summary: Summary, folder: Path) -> None:
    key = job.get(SKIPPED_FIELD)
    if not key:
        return
    with open(consumer.storage.download(key, folder), newline="", encoding="utf-8") as file:
        for name, reason in csv.reader(file):
            summary.add_skipped(name, reason)


class Summary:
    """Collects the children one by one. It keeps only values for fields of limited size.

    Args:
        path: of the table, a CSV file.
        total: number of children.
    """

    def __init__(self, path: str | os.PathLike[str], total: int) -> None:
        self.done = self.failed = 0
        self.objects: int | None = None
        self.first_reason = ""
        self._every = -(-total // MAX_LISTED) or 1
        self._lists: dict[str, list[str]] = {name: [] for name in LISTED}
        self._failures = _Bounded("&")
        self._keys = {"children:done": _Bounded(","), "children:failed": _Bounded(",")}
        self._file = open(path, "w", newline="", encoding="utf-8", errors="replace")  # noqa: SIM115 - closed by exit
        # Quotes prevent that a text starts another cell, if a spreadsheet separates cells by semicolons.
        self._table = csv.writer(self._file, quoting=csv.QUOTE_ALL)
        self._table.writerow(COLUMNS)

    def __enter__(self) -> Summary:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the table."""
        self._file.close()

    def add_done(self, child: Job) -> None:
        """Add a child that has a result."""
        if self.done % self._every == 0:
            for name in LISTED:
                text = child.get(name).strip()
                with suppress(ValueError):  # a child of another producer can have any text
                    decimal(text)
                    self._lists[name].append(text)
        with suppress(ValueError):
            self.objects = (self.objects or 0) + whole(child.get("objects"))
        self.done += 1
        self._keys["children:done"].add(child.id)
        self._add_row(child, "done", "")

    def add_failed(self, child: Job, reason: str, name: str) -> None:
        """Add a child that has no result.

        Args:
            child: which one.
            reason: why, on one line.
            name: the user's name for its input.
        """
        self.failed += 1
        self.first_reason = self.first_reason or cut(f"{name}: {reason}")
        self._keys["children:failed"].add(child.id)
        self._failures.add(urlencode({child.id: cut(reason, _MAX_REASON)}, errors="replace"))
        self._add_row(child, "failed", reason, name)

    def add_skipped(self, name: str, reason: str) -> None:
        """Add a file for which no child was made."""
        self._write(name, "skipped", reason, "", "")

    def _add_row(self, child: Job, status: str, reason: str, name: str = "") -> None:
        image = name or child.get("original_name") or child.id
        self._write(image, status, reason, child.get("objects"), child.get("total_time"))

    def _write(self, *texts: str) -> None:
        self._table.writerow(map(cell, texts))

    def fields(self) -> dict[str, Any]:
        """Return the fields for the parent: the lists, ``failures`` and ``children:…``, each of limited size."""
        failures = self._failures
        if failures.left_out:
            # Takes the place of a key, so that every reader of the pairs shows it.
            failures.parts.append(urlencode({"more": f"{failures.left_out} others, see summary.csv"}))
        keys = {name: "" if bounded.left_out else bounded.text for name, bounded in self._keys.items()}
        lists = {name: ",".join(texts) for name, texts in self._lists.items() if texts}
        objects = {} if self.objects is None else {"objects": self.objects}
        return {**lists, **keys, **objects, "failures": failures.text, "total_jobs": self.done + self.failed}


class _Bounded:
    """Texts that are joined up to a limited size."""

    def __init__(self, joint: str) -> None:
        self.parts: list[str] = []
        self.left_out = 0
        self._joint = joint
        self._room = MAX_FIELD_BYTES

    def add(self, part: str) -> None:
        if self.left_out or len(part) >= self._room:
            self.left_out += 1
        else:
            self._room -= len(part) + 1
            self.parts.append(part)

    @property
    def text(self) -> str:
        return self._joint.join(self.parts)
