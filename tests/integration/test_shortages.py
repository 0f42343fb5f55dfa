"""A job that needs more memory or disk than there is fails after its attempts; it is not returned for ever."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from redis_consumer.consumers import Consumer
from redis_consumer.consumers.claimed_job import Outcome
from redis_consumer.consumers.image import ImageFileConsumer
from redis_consumer.consumers.zip_file import ZipFileConsumer
from redis_consumer.errors import InvalidJob, OutOfResources
from redis_consumer.images.image import Source
from redis_consumer.images.reading import OpenedImage
from redis_consumer.machine import check_room
from redis_consumer.models import ModelStore
from redis_consumer.redis import RedisClient
from redis_consumer.serving.onnx.server import OnnxServer
from redis_consumer.storage import Storage

JOB = "predict:a.npy:1"
DISK_BYTES = 8 << 20
#: Runs of a job that ends; one that is returned for ever has more.
MOST_RUNS = 10


class Greedy(Consumer):
    """Takes more memory than any machine has."""

    def _consume(self, redis_hash: str) -> str:
        return str(np.ones(1 << 48).sum())


def run_to_its_end(consumer: Consumer, db: Any, name: str, **fields: str) -> dict[str, Any]:
    """Run a job until nothing is in the queue; give its fields, and how often it ran."""
    db.hset(JOB, mapping={"status": "new", "input_file_name": f"uploads/{name}", "original_name": name, **fields})
    db.lpush(consumer.queue, JOB)
    runs = 0
    while runs < MOST_RUNS and (job := consumer.job_queue.claim()) is not None:
        outcome = consumer.run(job)
        runs += 1
        assert outcome in {Outcome.GIVEN_BACK, Outcome.SETTLED}
    dead = db.lrange(f"redis-consumer:dead:{consumer.queue}", 0, -1)
    return {**db.hgetall(JOB), "runs": runs, "dead": dead}


def assert_exhausted(after: dict[str, Any], words: str) -> None:
    assert after["status"] == "failed"
    assert after["reason"].startswith(f"AttemptsExhausted: job {JOB}: "), after["reason"]
    assert f"OutOfResources: {words}" in after["reason"], after["reason"]
    assert "Traceback" not in after["reason"]
    assert after["runs"] == 5
    assert after["dead"] == [JOB]


def test_a_job_that_needs_more_memory_fails_after_its_attempts(
    redis_client: RedisClient, redis_db: Any, tmp_path: Path
) -> None:
    after = run_to_its_end(Greedy(redis_client, Storage(tmp_path.as_uri()), "predict"), redis_db, "a.npy")
    assert_exhausted(after, "a.npy: needs more memory than this worker has; give the worker more memory")


def test_a_decoder_without_memory_does_not_call_the_file_damaged() -> None:
    source = Source((8, 8), "YX", np.dtype(np.uint8), lambda: np.ones(1 << 48))
    with pytest.raises(MemoryError):
        OpenedImage(source, "TIFF", "a.tif").read()


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A disk of 8 MiB for temporary files."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    folder = tmp_path / "bucket" / "uploads"
    folder.mkdir(parents=True)
    return folder


Make = Callable[..., Consumer]
#: A model that the model server has.
SCALING = {"model_name": "Scaling", "model_version": "1"}


@pytest.fixture
def make(redis_client: RedisClient, onnx_server: OnnxServer, bucket: Path) -> Make:
    def make(kind: type[Consumer], **options: Any) -> Consumer:
        return kind(redis_client, Storage(bucket.parent.as_uri()), "predict", **options)

    return lambda kind=ImageFileConsumer: (
        make(kind, model_server=onnx_server, models=ModelStore(None)) if kind is ImageFileConsumer else make(kind)
    )


def save(path: Path, mebibytes: int) -> None:
    np.save(path, np.zeros((mebibytes, 1024, 1024, 1), np.uint8))


@pytest.mark.usefixtures("disk")
def test_an_input_larger_than_the_disk_fails_at_once(make: Make, bucket: Path, redis_db: Any) -> None:
    save(bucket / "a.npy", 9)
    after = run_to_its_end(make(), redis_db, "a.npy", **SCALING)
    assert (after["status"], after["runs"]) == ("failed", 1)
    assert after["reason"].startswith("InvalidJob: object uploads/a.npy in the local folder: "), after["reason"]
    assert (
        f"9437312 bytes are more than the worker's whole disk of temporary files has ({DISK_BYTES}); "
        in after["reason"]
    )


def test_an_input_larger_than_what_is_free_fails_after_its_attempts(
    make: Make, bucket: Path, disk: Path, redis_db: Any
) -> None:
    (disk / "other").write_bytes(bytes(4 << 20))
    save(bucket / "a.npy", 5)
    assert_exhausted(run_to_its_end(make(), redis_db, "a.npy", **SCALING), "object uploads/a.npy in the local folder: ")


@pytest.mark.usefixtures("disk")
def test_a_result_larger_than_the_disk_fails_after_its_attempts(make: Make, bucket: Path, redis_db: Any) -> None:
    save(bucket / "a.npy", 3)
    fields = {"model_name": "Scaling", "model_version": "1", "scale": "1"}
    assert_exhausted(run_to_its_end(make(), redis_db, "a.npy", **fields), "a.npy: needs more disk than this worker has")


@pytest.mark.usefixtures("disk")
def test_an_archive_that_unpacks_to_more_than_the_disk_fails_after_its_attempts(
    make: Make, bucket: Path, redis_db: Any
) -> None:
    with zipfile.ZipFile(bucket / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.tif", bytes(12 << 20))
    after = run_to_its_end(make(ZipFileConsumer), redis_db, "a.zip")
    assert_exhausted(after, "a.zip: needs more disk than this worker has")


def test_a_disk_that_says_nothing_of_its_size_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Sizes of disks that can't be made here.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for total, free, error in ((0, 0, None), (100, 5, OutOfResources), (9, 5, InvalidJob), (100, 50, None)):
        monkeypatch.setattr(
            shutil, "disk_usage", lambda _, total=total, free=free: shutil._ntuple_diskusage(total, 0, free)
        )
        if error is None:
            check_room(tmp_path / "a.tif", 10, "object a.tif")
        else:
            with pytest.raises(error, match="object a.tif: 10 bytes are more than"):
                check_room(tmp_path / "a.tif", 10, "object a.tif")


def test_files_that_are_kept_elsewhere_have_another_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    check_room(tmp_path / "model.onnx", 1 << 60, "object models/A/1/model.onnx")
