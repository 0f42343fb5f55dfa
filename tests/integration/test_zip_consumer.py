"""`ZipFileConsumer` in this process, on a real Redis and a real bucket: where it stops when nobody wants its job."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tifffile

from redis_consumer.consumers import ZipFileConsumer, claimed_job
from redis_consumer.images import ImageLimits
from redis_consumer.images.windows import open_windowed
from redis_consumer.job import Job
from redis_consumer.queue import admin, upkeep
from redis_consumer.redis import RedisClient
from redis_consumer.segmentation.frames import open_frames
from redis_consumer.storage import Storage
from redis_consumer.wanted import AT_ONCE
from support import ome_zarr
from support.archives import TIF, make_zip
from support.formats import GREY
from support.queues import claimed

JOB = "predict-zip:a.zip:1"


class Cancelled(ZipFileConsumer):
    """Is cancelled at the third file, or the third child, that it looks at."""

    seen = 0

    def why_skipped(self, name: str) -> str:
        self._look_at_one()
        return super().why_skipped(name)

    def child_jobs(self) -> Iterator[Job]:
        for child in super().child_jobs():
            self._look_at_one()
            yield child

    def _look_at_one(self) -> None:
        self.seen += 1
        if self.seen == 3:
            admin.cancel(self.job_queue, JOB)


@pytest.fixture
def parts(
    redis_client: RedisClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[RedisClient, Storage, str]:
    """What a consumer is made of; each step looks whether the job is wanted."""
    monkeypatch.setattr(claimed_job, "PROGRESS_S", 0.0)
    return redis_client, Storage(tmp_path.as_uri()), "predict"


def submit(db: Any, storage: Storage, names: list[str]) -> None:
    storage.write_bytes("uploads/a.zip", make_zip(dict.fromkeys(names, TIF)))
    db.hset(JOB, mapping={"status": "new", "input_file_name": "uploads/a.zip"})
    db.lpush("predict-zip", JOB)


def reason(db: Any) -> str:
    return str(db.hget(JOB, "reason")).partition(":")[0]


@pytest.mark.parametrize("end", ["txt", "tif"])
def test_it_unpacks_no_further(parts: Any, redis_db: Any, end: str) -> None:
    consumer = Cancelled(*parts, name="pod-1")
    submit(redis_db, parts[1], [f"{number}.{end}" for number in range(90)])
    consumer.run(claimed(consumer.job_queue))
    assert reason(redis_db) == "JobCancelled"
    assert consumer.seen == 3
    assert redis_db.keys("predict:*") == []


def test_it_merges_no_further(parts: Any, redis_db: Any) -> None:
    first, consumer = ZipFileConsumer(*parts, name="pod-1"), Cancelled(*parts, name="pod-1")
    submit(redis_db, parts[1], [f"{number}.tif" for number in range(90)])
    first.run(claimed(first.job_queue))
    for child in redis_db.lrange("predict", 0, -1):
        redis_db.hset(child, mapping={"status": "failed", "reason": "bad"})
    for _ in range(2):
        redis_db.delete(first.job_queue.key("sweep"))
        upkeep.sweep(first.job_queue)
    consumer.run(claimed(consumer.job_queue))
    assert reason(redis_db) == "JobCancelled"
    assert consumer.seen <= 2 * AT_ONCE + 1
    assert not redis_db.hexists(JOB, "output_file_name")


def children_of(parts: Any, redis_db: Any, path: Path) -> dict[str, dict[str, str]]:
    """The child jobs of an archive, by the names of their images."""
    consumer = ZipFileConsumer(*parts, name="pod-1")
    parts[1].upload_file(path, "uploads/a.zip")
    redis_db.hset(JOB, mapping={"status": "new", "input_file_name": "uploads/a.zip", "original_name": "a.zip"})
    redis_db.lpush("predict-zip", JOB)
    consumer.run(claimed(consumer.job_queue))
    children = [redis_db.hgetall(key) for key in reversed(redis_db.lrange("predict", 0, -1))]
    return {child["original_name"]: child for child in children}


def pixels_of(storage: Storage, child: dict[str, str], folder: Path) -> Any:
    path = Path(storage.download(child["input_file_name"], folder))
    with open_frames(path, Job("j", child), ImageLimits(), takes_parts=True) as frames:
        if frames is not None:
            return frames.all()[0, ..., 0]
        with open_windowed(path, name=path.name) as image:
            return image.read(0, (slice(0, image.shape[1]), slice(0, image.shape[2])))[0, ..., 0]


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_content_decides_and_a_zarr_folder_is_one_image(parts: Any, redis_db: Any, tmp_path: Path, kind: str) -> None:
    plate = tmp_path / "packed" / "plate"
    plate.mkdir(parents=True)
    for name in ("a.tif", "b.lsm", "c.stk", "d.svs", "e.ndpi", "f.qptiff", "g.btf", "h.tf8", "noext"):
        tifffile.imwrite(plate / name, GREY, photometric="minisblack")
    ome_zarr.write(plate / "i.ome.zarr", GREY, "yx")
    (plate / "i.ome.zarr" / "notes.txt").write_text("within the image")
    (plate / "readme.txt").write_text("no image")
    (plate / "k.ims").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    (plate / "inner.zip").write_bytes(make_zip({"a.tif": TIF}))
    path = Path(shutil.make_archive(str(tmp_path / "a"), "zip" if kind == "zip" else "gztar", tmp_path / "packed"))
    found = children_of(parts, redis_db, path)
    names = {"a.tif", "b.lsm", "c.stk", "d.svs", "e.ndpi", "f.qptiff", "g.btf", "h.tf8", "noext", "i.ome.zarr"}
    assert set(found) == {f"plate/{name}" for name in names}
    for name, child in found.items():
        assert (pixels_of(parts[1], child, tmp_path / "down" / name) == GREY).all(), name
    skipped = parts[1].read_bytes(redis_db.hget(JOB, "skipped_file_name")).decode()
    assert "plate/readme.txt,\"isn't an image of a known format" in skipped
    assert "an HDF5 file" in skipped
    assert "plate/inner.zip,is an archive within the archive" in skipped
    assert "i.ome.zarr" not in skipped


@pytest.mark.parametrize("below", ["", "cells.zarr/"])
def test_a_zip_that_is_an_ome_zarr_is_one_image(parts: Any, redis_db: Any, tmp_path: Path, below: str) -> None:
    path = ome_zarr.zipped(ome_zarr.write(tmp_path / "a.zarr", GREY, "yx"), tmp_path / "a.zip", below=below)
    (child,) = children_of(parts, redis_db, path).values()
    assert child["input_file_name"].endswith(".ozx")
    assert (pixels_of(parts[1], child, tmp_path / "down") == GREY).all()
