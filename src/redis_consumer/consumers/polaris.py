"""Assigns spots to cells. Other workers find the spots and segment the cells, as for the kiosk's jobs ``polaris``."""

from __future__ import annotations

import csv
import hashlib
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from redis_consumer.archives import iter_image_archive, zip_files
from redis_consumer.consumers import defaults
from redis_consumer.consumers.base import Consumer
from redis_consumer.consumers.claimed_job import Stages
from redis_consumer.consumers.fan_out import Child, reason_of_child, second_phase
from redis_consumer.errors import InvalidJob, PermanentError
from redis_consumer.images import write_channels
from redis_consumer.job import Job, JobStatus, OrphanedResult
from redis_consumer.movies.movie import natural
from redis_consumer.segmentation.frames import Frames, open_whole_frames
from redis_consumer.serving.base import Array
from redis_consumer.storage.keys import discard_zips, zip_name
from redis_consumer.text import quoted, result_stem, shown_name

#: Percentage of a job's progress that the child jobs account for.
CHILDREN_SHARE = 90
#: What the places of the field ``channels`` are (contract, section 5.5).
ROLES = ("spots", "nucleus", "cytoplasm")
#: Bytes that the name of a child's file takes from that of the image.
_NAME_BYTES = 150
_FEATURE = re.compile(r"(?:_batch_(?P<frame>[0-9]+))?_feature_(?P<feature>[0-9]+)\.tif$")


@dataclass(frozen=True)
class _Part:
    """A child job of a job.

    Attributes:
        queue: the queue of the child.
        places: channels of its image, as places among those that the job names; None for a blank one.
        channels: its field ``channels``; empty for none.
    """

    queue: str
    places: tuple[int | None, ...]
    channels: str = ""


class PolarisConsumer(Consumer):
    """Finds the spots in an image, segments the cells, and says in which cell each spot is.

    Contract, sections 5.1 and 5.5. The field ``channels`` names the channels of spots, nuclei and cytoplasm. The field
    ``segmentation_type`` says how cells are segmented: ``cell culture`` by the queue ``segmentation``, ``tissue`` by
    the queue ``mesmer``, ``none`` not at all. The queue ``spot`` finds the spots. The job occupies no worker until its
    child jobs have ended.
    """

    def is_valid_hash(self, redis_hash: str | None) -> bool:
        """Return whether the job's input can be an image."""
        return redis_hash is not None and not self._input_name(redis_hash).endswith(".zip")

    def _consume(self, redis_hash: str) -> str:
        """Send the channel of spots and those of cells to the workers that know them."""
        job = self._job_of(redis_hash)
        if job.is_final:
            return job.status
        parts = _parts(job)
        stages = Stages(job, self.update_key, self.final_status, self._claimed)
        stages.begin(JobStatus.STARTED, identity_started=self.name, progress=0)
        with tempfile.TemporaryDirectory(prefix="redis-consumer-") as name:
            folder = Path(name)
            path = self._download_file(job, job.input_file_name, folder / "input")
            view = job.with_fields(channels=",".join(_named(job)))
            with open_whole_frames(path, view, defaults.image_limits(), defaults.max_job_bytes()) as frames:
                stages.begin(JobStatus.PREDICTING, ended="download_time", **frames.fields)
                return self.fan_out(_children(job, parts, frames, folder), then="assign", share=CHILDREN_SHARE)

    @second_phase
    def assign(self, redis_hash: str) -> str:
        """Assign the spots to the cells, and upload both."""
        job = self._job_of(redis_hash)
        parts, children = _parts(job), list(self.child_jobs())
        waited_s = _waited_s(children)
        stages = Stages(job, self.update_key, self.final_status, self._claimed)
        stages.begin(JobStatus.SAVING_RESULTS, progress=CHILDREN_SHARE, prediction_time=f"{waited_s:.6f}")
        children += [Job("")] * (len(parts) - len(children))  # none if their records were deleted
        for child, part in zip(children, parts, strict=True):
            self._check_child(job, child, part)
        with tempfile.TemporaryDirectory(prefix="redis-consumer-") as name:
            folder, results = Path(name), Path(name, "results")
            found = [self._result_of(child, folder / str(index)) for index, child in enumerate(children)]
            spots, *cells = zip(parts, found, strict=True)
            features = [each for part, files in cells for each in _features(job, files, part.queue)]
            files, count = _write(job, _spots(job, spots[1]), features, results)
            key, url = self.provenance.upload(zip_files(files, results, name=zip_name(job)))
        # The time of the whole job, and not only of its second phase.
        stages.started -= waited_s + sum(
            float(job.get(each) or 0) for each in ("download_time", "children_upload_time")
        )
        stages.finish(output_file_name=key, output_url=url, progress=100, objects=count)
        return self.final_status

    def _check_child(self, job: Job, child: Job, part: _Part) -> None:
        """Raise an error if a child has no result."""
        reason = reason_of_child(child)
        if reason:
            what = "spots could not be found" if part.queue == "spot" else "cells could not be segmented"
            raise PermanentError(
                f"{shown_name(job.original_name)}: {what} by the workers of queue {part.queue}: {reason}", job_id=job.id
            )

    def _result_of(self, child: Job, folder: Path) -> list[Path]:
        """Download the files in the result of a child."""
        path = self.storage.download(child.get("output_file_name"), folder)
        return [Path(file) for file in sorted(iter_image_archive(path, folder / "result"), key=natural)]

    def discard(self, orphan: OrphanedResult) -> None:
        """Remove the zip that one run has uploaded, but never the visible one."""
        discard_zips(self.storage, orphan)


def _named(job: Job) -> list[str]:
    """Return the channels that the job names, in the order of their roles."""
    return [str(channel) for channel in job.channels or (0,) if channel is not None]


def _parts(job: Job) -> list[_Part]:
    """Return the children of a job, spots first.

    Raises:
        InvalidJob: the channels or the kind of segmentation can't be used.
    """
    roles = [role for role, channel in enumerate(job.channels or (0,)) if channel is not None]
    if not roles or roles[0] != 0 or roles[-1] >= len(ROLES):
        raise InvalidJob(
            f"field channels: {quoted(job.get('channels'))} can't be used for spots in cells; give the channels of "
            f"{', '.join(ROLES)} in this order, e.g. 0,1,2 or 0,1 or 0",
            job_id=job.id,
        )
    spots, nucleus, cytoplasm = (roles.index(role) if role in roles else None for role in range(len(ROLES)))
    parts = [_Part("spot", (spots,))]
    kind = job.segmentation_type or "cell culture"
    if kind == "tissue":
        parts.append(_tissue(job, nucleus, cytoplasm))
    elif kind == "cell culture":
        # The place of the index is the role of the channel.
        parts += [
            _Part("segmentation", (place,), channels)
            for place, channels in ((nucleus, "0,"), (cytoplasm, ",0"))
            if place is not None
        ]
    return parts


def _tissue(job: Job, nucleus: int | None, cytoplasm: int | None) -> _Part:
    if nucleus is None and cytoplasm is None:
        raise InvalidJob(
            f"field channels: {quoted(job.get('channels'))} names no channel of cells, which segmentation_type tissue "
            "needs; give the channels of spots, nucleus and cytoplasm, e.g. 0,1,2, or give segmentation_type none",
            job_id=job.id,
        )
    return _Part("mesmer", (nucleus, cytoplasm))


def _children(job: Job, parts: Sequence[_Part], frames: Frames, folder: Path) -> Iterator[Child]:
    """Yield the children of a job. The image of each is written when it is needed."""
    prefix = hashlib.md5(job.id.encode("utf-8", "surrogateescape"), usedforsecurity=False).hexdigest()
    shown = shown_name(job.original_name).encode()[-_NAME_BYTES:].decode("utf-8", "ignore")
    for index, part in enumerate(parts):
        path = folder / str(index) / f"{prefix}-{shown}-{part.queue}-image.tif"
        path.parent.mkdir()
        _write_planes(frames, part.places, path)
        fields = {"scale": defaults.polaris_scale(), "dimension_order": "BXY"}
        if part.channels:
            fields["channels"] = part.channels
        if part.queue == "mesmer" and job.compartment:
            fields["compartment"] = job.compartment
        yield Child(part.queue, path.name, path, fields=fields)


def _write_planes(frames: Frames, places: tuple[int | None, ...], path: Path) -> None:
    """Write channels of an image: one as (B, Y, X), several as (C, Y, X), or as (B, C, Y, X) if there are frames."""
    from tifffile import imwrite

    count, height, width, _ = frames.shape
    leading = (count,) if len(places) == 1 else (len(places),) if count == 1 else (count, len(places))
    axes = {1: "TYX"} if len(places) == 1 else {1: "CYX", 2: "TCYX"}

    def planes() -> Iterator[Array]:
        for number in range(count):
            frame = frames.read(number, number + 1)[0]
            for place in places:
                yield (
                    np.zeros((height, width), np.float32) if place is None else np.ascontiguousarray(frame[..., place])
                )

    imwrite(
        path,
        planes(),
        shape=(*leading, height, width),
        dtype=np.float32,
        photometric="minisblack",
        metadata={"axes": axes[len(leading)]},
    )


def _spots(job: Job, files: Sequence[Path]) -> list[Array]:
    """Read y and x of the spots in each frame."""
    try:
        spots = [np.load(file, allow_pickle=False) for file in files if file.suffix == ".npy"]
    except ValueError as error:
        raise _unusable(job, "spot", str(error)) from error
    if not spots or any(points.ndim != 2 or points.shape[1] != 2 for points in spots):
        shapes = ", ".join(str(points.shape) for points in spots) or "none"
        raise _unusable(job, "spot", f"its arrays have the shapes {shapes}, wanted (spots, 2)")
    return spots


def _features(job: Job, files: Sequence[Path], queue: str) -> list[list[tuple[Path, int]]]:
    """Find the label images in a result: for each feature, file and page of each frame."""
    from tifffile import TiffFile

    found: dict[int, list[tuple[Path, int]]] = {}
    for path in files:
        match = _FEATURE.search(path.name)
        if match is not None:
            with TiffFile(path) as file:
                found.setdefault(int(match["feature"]), []).extend((path, page) for page in range(len(file.pages)))
    if not found:
        raise _unusable(job, queue, "it holds no label image")
    return [found[feature] for feature in sorted(found)]


def _unusable(job: Job, queue: str, problem: str) -> PermanentError:
    return PermanentError(
        f"{shown_name(job.original_name)}: the result of queue {queue} can't be used: {problem}; check the workers of "
        "this queue",
        job_id=job.id,
    )


def _write(
    job: Job, spots: Sequence[Array], features: Sequence[list[tuple[Path, int]]], folder: Path
) -> tuple[list[Path], int]:
    """Write the label images and the table of spots of each frame.

    Returns:
        The files, and the number of spots.
    """
    from tifffile import imread

    stem = folder / result_stem(job.original_name)
    stem.parent.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    if any(len(feature) != len(spots) for feature in features):
        counts = ", ".join(str(len(feature)) for feature in features)
        raise _unusable(job, "spot", f"it has {len(spots)} frames, and the label images have {counts}")
    for number, points in enumerate(spots):
        labels = [imread(path, key=page) for path, page in (feature[number] for feature in features)]
        if labels:
            files += write_channels(np.stack(labels, axis=-1), stem.with_name(f"{stem.name}_batch_{number}"))
        files.append(_write_table(points, labels, stem.with_name(f"{stem.name}_{number}.csv")))
    return files, sum(map(len, spots))


def _write_table(points: Array, labels: Sequence[Array], path: Path) -> Path:
    """Write x and y of each spot, and the label at its place in each label image; 0 is outside of cells."""
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("x", "y", *(f"cellID{feature}" for feature in range(len(labels)))))
        for y, x in points.tolist():
            cells = [image[_inside(y, image.shape[0]), _inside(x, image.shape[1])] for image in labels]
            rows.writerow((round(x, 4), round(y, 4), *map(int, cells)))
    return path


def _inside(position_px: float, side: int) -> int:
    return min(max(int(position_px), 0), side - 1)


def _waited_s(children: Sequence[Job]) -> float:
    """Return the seconds from the first child's creation to the last one's end."""
    with suppress(ValueError):
        created = [datetime.fromisoformat(child.get("created_at")) for child in children]
        ended = [datetime.fromisoformat(child.get("finished_at") or child.get("updated_at")) for child in children]
        return max((max(ended) - min(created)).total_seconds(), 0.0)
    return 0.0
