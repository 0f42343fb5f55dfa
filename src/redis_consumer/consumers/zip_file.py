"""Processes an archive of images: one child job for each, and one zip of all their results."""

from __future__ import annotations

import csv
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlencode

from redis_consumer.archives import Member, ResultZip, check_result_zip, iter_members, pack_folder
from redis_consumer.consumers import defaults
from redis_consumer.consumers.base import Consumer
from redis_consumer.consumers.fan_out import Child, common_fields, reason_of_child, second_phase
from redis_consumer.consumers.reasons import describe
from redis_consumer.errors import InvalidJob, PermanentError
from redis_consumer.images.kinds import why_no_image
from redis_consumer.images.ome_zarr import is_ome_zarr
from redis_consumer.job import Job, JobStatus, OrphanedResult, unreadable_archive
from redis_consumer.queue.child_jobs import NEXT_PHASE
from redis_consumer.storage.keys import discard_zips, zip_name
from redis_consumer.text import cell, cut, decimal, shown_name, whole
from redis_consumer.wanted import AT_ONCE, OrderedPool

#: File name endings of archives for this consumer.
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
#: File name endings of images. Files with other names get a child if their content is an image.
IMAGES = (
    ".tif", ".tiff", ".png", ".jpg", ".jpeg", ".jp2", ".j2k", ".bmp", ".gif", ".pbm", ".pgm", ".ppm", ".pnm", ".npy",
    ".zarr.zip", ".ozx",
)  # fmt: skip
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
_SKIPPED = "skipped.csv"
#: Field of the parent with the key of the list of skipped files.
_SKIPPED_FIELD = "skipped_file_name"


class ZipFileConsumer(Consumer):
    """Makes a job of each image of an archive (zip, tar or tar.gz), and one zip of all results.

    Contract, section 5.6.

    Args:
        redis_client: as for `Consumer`.
        storage_client: as for `Consumer`.
        queue: queue of the images. The archives are in ``<queue>-zip``, which can be given instead.
        final_status: as for `Consumer`.
        kwargs: passed on to `Consumer`.

    Attributes:
        child_queue: queue of the images.
    """

    def __init__(
        self, redis_client: Any, storage_client: Any, queue: str, final_status: str = "done", **kwargs: Any
    ) -> None:
        self.child_queue = str(queue).lower().removesuffix("-zip")
        super().__init__(redis_client, storage_client, f"{self.child_queue}-zip", final_status, **kwargs)

    def is_valid_hash(self, redis_hash: str | None) -> bool:
        """Return whether the job's input is an archive, by its name."""
        if redis_hash is None:
            return False
        name = self._input_name(redis_hash)
        return name.endswith(ARCHIVES) or bool(unreadable_archive(name))

    def why_skipped(self, name: str) -> str:
        """Return why a file of an archive gets no child, by its name; empty if its content decides."""
        lower = name.lower()
        is_archive = lower.endswith(ARCHIVES) and not lower.endswith(IMAGES)
        return "is an archive within the archive; submit it by itself" if is_archive else ""

    def _consume(self, redis_hash: str) -> str:
        """Unpack an archive, image by image, into children."""
        job = self._job_of(redis_hash)
        if job.is_final:
            return job.status
        if job.get(NEXT_PHASE):
            return self.gather(redis_hash)
        if job.status == JobStatus.WAITING and job.get("children").strip(","):
            return self._running().adopt("gather")
        problem = unreadable_archive(shown_name(job.original_name)) or unreadable_archive(job.input_file_name)
        if problem:
            raise InvalidJob(problem, job_id=job.id)
        started = {"status": JobStatus.STARTED.value, "identity_started": self.name, "progress": 0}
        self.update_key(redis_hash, started)
        with tempfile.TemporaryDirectory(prefix="redis-consumer-") as folder:
            path = Path(self.storage.download(job.input_file_name, Path(folder, "archive")))
            fields: dict[str, str] = {}
            return self.fan_out(self._children(job, path, Path(folder), fields), then="gather", fields=fields)

    def _children(self, job: Job, path: Path, folder: Path, fields: dict[str, str]) -> Iterator[Child]:
        """Yield a child for each image. Write the key of the list of skipped files to `fields`."""
        common = common_fields(job)
        if job.input_file_name.lower().endswith(".zarr.zip"):
            where = {"input_file_name": job.input_file_name, "url": job.get("url")}
            yield Child(self.child_queue, job.original_name, fields={**common, **where})
            return
        if is_ome_zarr(path):
            yield Child(self.child_queue, job.original_name, path.rename(path.with_suffix(".ozx")), common)
            return
        limits = defaults.archive_limits()
        images, skipped, label = 0, folder / _SKIPPED, shown_name(job.original_name)
        (folder / "images").mkdir()
        with skipped.open("w", newline="", encoding="utf-8", errors="replace") as file:
            rows = csv.writer(file)
            for member in iter_members(
                path,
                folder / "images",
                label=label,
                why_skipped=self.why_skipped,
                limits=limits,
                whole_folder=_zarr_folder,
            ):
                self.check_wanted()
                reason = member.reason or _why_no_image(member)
                if reason or member.path is None:
                    rows.writerow((member.name, reason))
                    if member.path is not None:
                        member.path.unlink()
                    continue
                images += 1
                image = pack_folder(member.path) if member.path.is_dir() else member.path
                yield Child(self.child_queue, member.name, image, common)
        if not images:
            raise InvalidJob(f"{label}: holds no images; pack files such as {', '.join(IMAGES[:3])}", job_id=job.id)
        if skipped.stat().st_size:
            fields[_SKIPPED_FIELD], _ = self.storage.upload(str(skipped), zip_name(job).removesuffix(".zip"))

    @second_phase
    def gather(self, redis_hash: str) -> str:
        """Merge the results of the children into one zip, with a table of their outcomes."""
        started = time.monotonic()
        job = self._job_of(redis_hash)
        self.update_key(redis_hash, {"status": JobStatus.SAVING_RESULTS.value})
        with tempfile.TemporaryDirectory(prefix="redis-consumer-") as name:
            folder = Path(name)
            result = folder / zip_name(job)
            with Summary(folder / SUMMARY, job.total_jobs) as summary, ResultZip(result) as archive:
                self._merge(summary, archive, folder)
                self._list_skipped(job, summary, folder)
                summary.close()
                archive.add_file(folder / SUMMARY, SUMMARY)
            key, url = self.provenance.upload(result)
        fields = {**summary.fields(), "output_file_name": key, "output_url": url, "progress": 100}
        fields["cleanup_time"] = f"{time.monotonic() - started:.6f}"
        if not summary.done:
            self.update_key(redis_hash, {**fields, **self.provenance.closing_fields(fields)})
            raise InvalidJob(
                f"{shown_name(job.original_name)}: none of its {summary.failed} images has a result; "
                f"the first one is {summary.first_reason or 'gone'}",
                job_id=job.id,
            )
        self.update_key(redis_hash, {**fields, "status": self.final_status})
        return self.final_status

    def _merge(self, summary: Summary, archive: ResultZip, folder: Path) -> None:
        """Add the result of each child. Some are downloaded in advance."""

        def fetch(numbered: tuple[int, Job]) -> tuple[Job, Path | str]:
            index, child = numbered
            return child, self._fetch(child, folder / str(index))

        with OrderedPool(AT_ONCE) as pool:
            for child, found in pool.map(fetch, enumerate(self.child_jobs())):
                if isinstance(found, Path):
                    archive.add_zip(found)
                    found.unlink()
                    summary.add_done(child)
                else:
                    summary.add_failed(child, found, child.get("original_name") or child.id)
                self.check_wanted()

    def _fetch(self, child: Job, folder: Path) -> Path | str:
        """Download the result of a child; return the reason if there is none."""
        reason = reason_of_child(child)
        if reason:
            return reason
        try:
            path = Path(self.storage.download(child.get("output_file_name"), folder))
            check_result_zip(path, shown_name(child.get("original_name")))
        except PermanentError as error:
            self._running().check_fault(error)
            return describe(error)
        return path

    def _list_skipped(self, job: Job, summary: Summary, folder: Path) -> None:
        key = job.get(_SKIPPED_FIELD)
        if not key:
            return
        with open(self.storage.download(key, folder), newline="", encoding="utf-8") as file:
            for name, reason in csv.reader(file):
                summary.add_skipped(name, reason)

    def discard(self, orphan: OrphanedResult) -> None:
        """Remove the zip that one run has uploaded, but never the visible one."""
        discard_zips(self.storage, orphan)


def _zarr_folder(name: str) -> str:
    """Return the outermost folder of an archive that is an OME-Zarr with this member; empty for no such folder."""
    parts = name.split("/")[:-1]
    ends = (number for number, part in enumerate(parts, 1) if part.lower().endswith(".zarr"))
    return "/".join(parts[: next(ends, 0)])


def _why_no_image(member: Member) -> str:
    """Return why a file that isn't named as an image gets no child, by its content."""
    if member.path is None or member.path.is_dir() or member.name.lower().endswith(IMAGES):
        return ""
    return why_no_image(member.path)


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
