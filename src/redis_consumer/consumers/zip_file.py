"""Processes an archive of images: one child job for each, and one zip of all their results."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from redis_consumer.archives import Member, iter_members, pack_folder
from redis_consumer.consumers import defaults
from redis_consumer.consumers.base import Consumer
from redis_consumer.consumers.fan_out import Child, common_fields, second_phase
from redis_consumer.consumers.gathering import SKIPPED_FIELD, gather_children
from redis_consumer.errors import InvalidJob, PermanentError
from redis_consumer.images.kinds import why_no_image
from redis_consumer.images.ome_zarr import is_ome_zarr
from redis_consumer.images.vendors.ome_files import has_only_pixels, other_files
from redis_consumer.job import Job, JobStatus, OrphanedResult, unreadable_archive
from redis_consumer.queue.child_jobs import NEXT_PHASE
from redis_consumer.storage.keys import discard_zips, zip_name
from redis_consumer.text import shown_name

#: File name endings of archives for this consumer.
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
#: File name endings of images. Files with other names get a child if their content is an image.
IMAGES = (
    ".tif", ".tiff", ".png", ".jpg", ".jpeg", ".jp2", ".j2k", ".bmp", ".gif", ".pbm", ".pgm", ".ppm", ".pnm", ".npy",
    ".zarr.zip", ".ozx",
)  # fmt: skip
_SKIPPED = "skipped.csv"


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
        scale: dict[str, str] | None = None if job.shares_scale and job.scale is None else {}
        skipped = folder / _SKIPPED
        with skipped.open("w", newline="", encoding="utf-8", errors="replace") as file:
            for name, image, beside in self._images(job, path, folder, csv.writer(file)):
                if scale is None:
                    scale = self._scale_of(job, image)
                    fields |= scale or {}
                yield Child(self.child_queue, name, image, {**common, **_told_to_children(scale or {})}, beside)
        if skipped.stat().st_size:
            fields[SKIPPED_FIELD], _ = self.storage.upload(str(skipped), zip_name(job).removesuffix(".zip"))

    def _images(self, job: Job, path: Path, folder: Path, skipped: Any) -> Iterator[tuple[str, Path, list[Path]]]:
        """Yield name and path of each image, and its other files. Write a row of `skipped` for every other member."""
        label, has_images = shown_name(job.original_name), False
        held: list[tuple[str, Path]] = []
        (folder / "images").mkdir()
        for member in iter_members(
            path,
            folder / "images",
            label=label,
            why_skipped=self.why_skipped,
            limits=defaults.archive_limits(),
            whole_folder=_zarr_folder,
        ):
            self.check_wanted()
            image, reason = _image_of(member)
            if image is None:
                skipped.writerow((member.name, reason))
                continue
            has_images = True
            if other_files(image, member.name):
                held.append((member.name, image))
            else:
                yield member.name, image, []
        yield from _file_sets(held, folder / "sets")
        if not has_images:
            raise InvalidJob(f"{label}: holds no images; pack files such as {', '.join(IMAGES[:3])}", job_id=job.id)

    def _scale_of(self, job: Job, image: Path) -> dict[str, str] | None:
        """Return fields with the scale of an image, for all images of its archive; None if it can't be read."""
        from redis_consumer.consumers.shared_scale import SharedScale  # late: loads what segments images

        shared = SharedScale(self, job)
        try:
            return shared.of_file(image)
        except PermanentError:
            return None  # its own job says why
        finally:
            shared.close()

    @second_phase
    def gather(self, redis_hash: str) -> str:
        """Merge the results of the children into one zip, with a table of their outcomes."""
        return gather_children(self, redis_hash)

    def discard(self, orphan: OrphanedResult) -> None:
        """Remove the zip that one run has uploaded, but never the visible one."""
        discard_zips(self.storage, orphan)


def _zarr_folder(name: str) -> str:
    """Return the outermost folder of an archive that is an OME-Zarr with this member; empty for no such folder."""
    parts = name.split("/")[:-1]
    ends = (number for number, part in enumerate(parts, 1) if part.lower().endswith(".zarr"))
    return "/".join(parts[: next(ends, 0)])


def _image_of(member: Member) -> tuple[Path | None, str]:
    """Return the file of an image, or why a file of an archive is none. A file with the name of an image is one."""
    path = member.path
    if path is None:
        return None, member.reason
    if path.is_dir():
        return pack_folder(path), ""
    reason = "" if member.name.lower().endswith(IMAGES) else why_no_image(path)
    if reason:
        path.unlink()
        return None, reason
    return path, ""


def _file_sets(held: Sequence[tuple[str, Path]], folder: Path) -> Iterator[tuple[str, Path, list[Path]]]:
    """Put files of an archive that are one OME-TIFF into one folder.

    Args:
        held: name in the archive and path of each file of which others are a part.
        folder: for a folder of each image.

    Yields:
        Name and path of the first file of each image that has the metadata, and the others that are there.
    """
    left = dict(held)
    # Files that have only pixels come last: those that no other file names.
    for name in sorted(left, key=lambda each: has_only_pixels(left[each])):
        if name not in left:
            continue
        image, place = left.pop(name), PurePosixPath(name).parent
        target = folder / str(len(left))
        target.mkdir(parents=True)
        names = [str(place / other) for other in other_files(image, name)]
        main = image.rename(target / image.name)
        yield (
            name,
            main,
            [left.pop(other).rename(target / PurePosixPath(other).name) for other in names if other in left],
        )


def _told_to_children(scale: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in scale.items() if name != "warning"}
