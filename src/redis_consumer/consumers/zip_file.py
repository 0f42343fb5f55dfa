"""Processes an archive of images: one child job for each, and one zip of all their results."""

from __future__ import annotations

import csv
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from redis_consumer.archives import ResultZip, check_result_zip, iter_members
from redis_consumer.consumers import defaults
from redis_consumer.consumers.base import Consumer
from redis_consumer.consumers.fan_out import Child, common_fields, reason_of_child, second_phase
from redis_consumer.consumers.reasons import describe
from redis_consumer.consumers.summary import Summary
from redis_consumer.errors import InvalidJob, PermanentError
from redis_consumer.job import Job, JobStatus, OrphanedResult, unreadable_archive
from redis_consumer.ordered_pool import AT_ONCE, OrderedPool
from redis_consumer.queue.child_jobs import NEXT_PHASE
from redis_consumer.storage.results import discard_zips, zip_name
from redis_consumer.text import shown_name

#: Ends of archives' names that this consumer takes.
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
#: Ends of images' names; what they hold, the child finds out.
IMAGES = (
    ".tif", ".tiff", ".png", ".jpg", ".jpeg", ".jp2", ".j2k", ".bmp", ".gif", ".pbm", ".pgm", ".ppm", ".pnm", ".npy",
    ".zarr.zip", ".ozx",
)  # fmt: skip
SUMMARY = "summary.csv"
_SKIPPED = "skipped.csv"
#: Field of the parent with the object that lists what was skipped.
_SKIPPED_FIELD = "skipped_file_name"


class ZipFileConsumer(Consumer):
    """Makes a job of each image of an archive (zip, tar or tar.gz), and one zip of all results.

    Contract, section 5.6.

    Args:
        redis_client: as for `Consumer`.
        storage_client: as for `Consumer`.
        queue: queue of the images; that of the archives is ``<queue>-zip``, which may be given as well.
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
        """Say whether the job's input is an archive, by its name."""
        if redis_hash is None:
            return False
        running = self.job is not None and self.job.id == redis_hash
        name = (
            self.job.get("input_file_name") if running and self.job else self.redis.hget(redis_hash, "input_file_name")
        )
        return str(name or "").lower().endswith(ARCHIVES) or bool(unreadable_archive(str(name or "")))

    def why_skipped(self, name: str) -> str:
        """Say by its name why a file of an archive gets no child, empty for one that does."""
        lower = name.lower()
        if lower.endswith(IMAGES):
            return ""
        if lower.endswith(ARCHIVES):
            return "is an archive within the archive; submit it by itself"
        return "is no image by its name"

    def _consume(self, redis_hash: str) -> str:
        """Unpack an archive, image by image, into children."""
        job = self.job or Job(redis_hash, self.redis.hgetall(redis_hash))
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
        """Give a child for each image; note in `fields` where the list of what was skipped is."""
        common = common_fields(job)
        if job.input_file_name.lower().endswith(".zarr.zip"):
            where = {"input_file_name": job.input_file_name, "url": job.get("url")}
            yield Child(self.child_queue, job.original_name, fields={**common, **where})
            return
        limits = defaults.archive_limits()
        images, skipped, label = 0, folder / _SKIPPED, shown_name(job.original_name)
        (folder / "images").mkdir()
        with skipped.open("w", newline="", encoding="utf-8", errors="replace") as file:
            rows = csv.writer(file)
            for member in iter_members(
                path, folder / "images", label=label, why_skipped=self.why_skipped, limits=limits
            ):
                self.check_wanted()
                if member.path is None:
                    rows.writerow((member.name, member.reason))
                else:
                    images += 1
                    yield Child(self.child_queue, member.name, member.path, common)
        if not images:
            raise InvalidJob(f"{label}: holds no images; pack files such as {', '.join(IMAGES[:3])}", job_id=job.id)
        if skipped.stat().st_size:
            fields[_SKIPPED_FIELD], _ = self.storage.upload(str(skipped), zip_name(job).removesuffix(".zip"))

    @second_phase
    def gather(self, redis_hash: str) -> str:
        """Merge the results of the children into one zip, with a table of the outcome of each."""
        started = time.monotonic()
        job = self.job or Job(redis_hash, self.redis.hgetall(redis_hash))
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
        """Take over the result of each child, some of them downloaded ahead."""

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
        """Download the result of a child; the reason where there is none."""
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
        for key in discard_zips(self.storage, orphan):
            self.logger.info("Deleted %s, which attempt %d left", key, orphan.job.attempt)
