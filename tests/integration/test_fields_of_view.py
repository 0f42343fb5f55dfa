"""A file with several images becomes a job for each of them, on a real Redis and with a real model."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from redis_consumer.consumers import ImageFileConsumer, ZipFileConsumer
from redis_consumer.models import ModelStore
from redis_consumer.queue import upkeep
from redis_consumer.redis import RedisClient
from redis_consumer.serving.onnx.server import OnnxServer
from redis_consumer.storage import Storage
from support import ome_zarr, vendors
from support.ome_files import write_ome_files
from support.queues import claimed

JOB = "predict:a:1"
IMAGES = [np.random.default_rng(seed).integers(1, 250, (40, 60)).astype(np.uint16) for seed in range(3)]


def write_plate(folder: Path) -> Path:
    return ome_zarr.plate(folder / "plate.zarr", {"A/1": IMAGES[:2], "B/2": IMAGES[2:]})


def write_packed_plate(folder: Path) -> Path:
    return ome_zarr.zipped(write_plate(folder), folder / "plate.ozx")


def write_scenes(folder: Path) -> Path:
    return vendors.write_czi(folder / "a.czi", [({"S": scene}, image) for scene, image in enumerate(IMAGES)])


def write_series(folder: Path) -> Path:
    return vendors.write_lif(folder / "a.lif", {name: ("YX", image) for name, image in zip("abc", IMAGES, strict=True)})


def write_tiffs(folder: Path) -> Path:
    with tifffile.TiffWriter(folder / "a.ome.tif", ome=True) as tif:
        for image in IMAGES:
            tif.write(image, metadata={"axes": "YX"})
    return folder / "a.ome.tif"


PLATE = ["A/1/0", "A/1/1", "B/2/0"]
FILES: dict[str, tuple[Callable[[Path], Path], list[str]]] = {
    "plate": (write_plate, PLATE),
    "plate in one file": (write_packed_plate, PLATE),
    "scenes of CZI": (write_scenes, ["0", "1", "2"]),
    "series of LIF": (write_series, ["a", "b", "c"]),
    "images of OME-TIFF": (write_tiffs, ["0", "1", "2"]),
}


@pytest.fixture
def consumer(redis_client: RedisClient, onnx_server: OnnxServer, tmp_path: Path) -> ImageFileConsumer:
    (tmp_path / "bucket").mkdir()
    storage = Storage((tmp_path / "bucket").as_uri())
    return ImageFileConsumer(redis_client, storage, "predict", model_server=onnx_server, models=ModelStore(None))


def upload(storage: Storage, path: Path) -> str:
    for file in path.rglob("*") if path.is_dir() else ():
        if file.is_file():
            storage.upload_file(file, f"uploads/{path.name}/{file.relative_to(path).as_posix()}")
    if path.is_file():
        storage.upload_file(path, f"uploads/{path.name}")
    return f"uploads/{path.name}"


def run_all(consumer: ImageFileConsumer, redis_db: Any) -> None:
    for _ in range(10):
        while (job := consumer.job_queue.claim()) is not None:
            consumer.run(job)
        redis_db.delete(consumer.job_queue.key("sweep"))
        upkeep.sweep(consumer.job_queue)
        if redis_db.hget(JOB, "status") in ("done", "failed"):
            return


def pixels(archive: zipfile.ZipFile, name: str) -> Any:
    """The result of an image: a TIFF, or the plain chunks of an OME-Zarr."""
    return tifffile.imread(io.BytesIO(archive.read(name)))


@pytest.mark.parametrize("kind", FILES)
def test_each_image_has_a_job_and_all_have_one_result(
    consumer: ImageFileConsumer, redis_db: Any, tmp_path: Path, kind: str
) -> None:
    write, fields = FILES[kind]
    path = write(tmp_path)
    given = {"original_name": path.name, "model_name": "Scaling", "model_version": "1", "scale": "1"}
    redis_db.hset(JOB, mapping={"status": "new", "input_file_name": upload(consumer.storage, path), **given})
    redis_db.lpush("predict", JOB)
    run_all(consumer, redis_db)
    after = redis_db.hgetall(JOB)
    assert after["status"] == "done", after
    children = [redis_db.hgetall(child) for child in after["children"].split(",")]
    assert [child["field_of_view"] for child in children] == fields
    assert [child["original_name"] for child in children] == [f"{path.name}/{field}" for field in fields]
    archive = zipfile.ZipFile(io.BytesIO(consumer.storage.read_bytes(after["output_file_name"])))
    names = archive.namelist()
    assert "summary.csv" in names
    for field, image in zip(fields, IMAGES, strict=True):
        found = [name for name in names if name.startswith(f"{path.name}/{field}_feature_0")]
        assert found, names
        if found[0].endswith(".tif"):
            np.testing.assert_array_equal(np.squeeze(pixels(archive, found[0])), 2.0 * image)


def test_a_job_can_name_one_image(consumer: ImageFileConsumer, redis_db: Any, tmp_path: Path) -> None:
    key = upload(consumer.storage, write_scenes(tmp_path))
    given = {"model_name": "Scaling", "model_version": "1", "scale": "1", "field_of_view": "1"}
    redis_db.hset(JOB, mapping={"status": "new", "input_file_name": key, **given})
    redis_db.lpush("predict", JOB)
    run_all(consumer, redis_db)
    after = redis_db.hgetall(JOB)
    assert after["status"] == "done", after
    archive = zipfile.ZipFile(io.BytesIO(consumer.storage.read_bytes(after["output_file_name"])))
    np.testing.assert_array_equal(np.squeeze(pixels(archive, "a_feature_0.tif")), 2.0 * IMAGES[1])


def test_an_image_that_is_not_there_is_named(consumer: ImageFileConsumer, redis_db: Any, tmp_path: Path) -> None:
    key = upload(consumer.storage, write_scenes(tmp_path))
    redis_db.hset(JOB, mapping={"status": "new", "input_file_name": key, "field_of_view": "7", "model_name": "Scaling"})
    redis_db.lpush("predict", JOB)
    run_all(consumer, redis_db)
    assert "a.czi: field field_of_view: there is no '7'; give one of 0, 1, 2" in redis_db.hget(JOB, "reason")


def start(redis_db: Any, queue: str, key: str, **fields: str) -> None:
    given = {"model_name": "Scaling", "model_version": "1", "scale": "1", "channels": "1", **fields}
    redis_db.hset(JOB, mapping={"status": "new", "input_file_name": key, **given})
    redis_db.lpush(queue, JOB)


def result(consumer: ImageFileConsumer, redis_db: Any) -> zipfile.ZipFile:
    after = redis_db.hgetall(JOB)
    assert after["status"] == "done", after
    return zipfile.ZipFile(io.BytesIO(consumer.storage.read_bytes(after["output_file_name"])))


SETS = np.random.default_rng(5).integers(1, 250, (2, 1, 2, 40, 60)).astype(np.uint16)


def test_the_other_files_of_an_ome_tiff_are_fetched_from_its_folder(
    consumer: ImageFileConsumer, redis_db: Any, tmp_path: Path
) -> None:
    for file in write_ome_files(tmp_path, SETS, lambda t, z, c: f"c{c} t{t}.ome.tif"):
        consumer.storage.upload_file(file, f"uploads/plate/{file.name}")
    start(redis_db, "predict", "uploads/plate/c0 t1.ome.tif")
    run_all(consumer, redis_db)
    with result(consumer, redis_db) as archive:
        np.testing.assert_array_equal(pixels(archive, "c0 t1.ome_feature_0.tif"), 2.0 * SETS[:, 0, 1])
    assert redis_db.hget(JOB, "axes_read") == "TCYX (2, 2, 40, 60), from the file"


def test_missing_files_of_an_ome_tiff_are_named(consumer: ImageFileConsumer, redis_db: Any, tmp_path: Path) -> None:
    first, *_ = write_ome_files(tmp_path, SETS, lambda t, z, c: f"c{c}.ome.tif")
    start(redis_db, "predict", upload(consumer.storage, first))
    run_all(consumer, redis_db)
    reason = redis_db.hget(JOB, "reason")
    assert "c0.ome.tif: is one of the 2 files of an OME-TIFF, of which 1 are missing (c1.ome.tif); put them" in reason


def test_files_of_an_ome_tiff_in_an_archive_are_one_image(
    consumer: ImageFileConsumer, redis_db: Any, tmp_path: Path
) -> None:
    files = write_ome_files(tmp_path, SETS, lambda t, z, c: f"c{c}.ome.tif")
    others = write_ome_files(tmp_path, SETS[::-1], lambda t, z, c: f"t{t}.ome.tif")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for number, pair in enumerate(zip(files, others, strict=True)):
            for folder, file in zip("ab", pair, strict=True):
                archive.write(file, f"{folder}/{file.name}")
            archive.write(files[0], f"single/{number}.tif") if number == 0 else None
    consumer.storage.upload_file(tmp_path / "a.zip", "uploads/a.zip")
    start(redis_db, "predict-zip", "uploads/a.zip")
    zips = ZipFileConsumer(consumer.redis, consumer.storage, "predict", name="pod-2")
    zips.run(claimed(zips.job_queue))
    children = [redis_db.hgetall(child) for child in redis_db.hget(JOB, "children").split(",")]
    assert [child["original_name"] for child in children] == ["a/c0.ome.tif", "b/t0.ome.tif", "single/0.tif"]
    while (job := consumer.job_queue.claim()) is not None:
        consumer.run(job)
    redis_db.delete(zips.job_queue.key("sweep"))
    upkeep.sweep(zips.job_queue)
    zips.run(claimed(zips.job_queue))
    with result(consumer, redis_db) as archive:
        np.testing.assert_array_equal(pixels(archive, "a/c0.ome_feature_0.tif"), 2.0 * SETS[:, 0, 1])
        np.testing.assert_array_equal(pixels(archive, "b/t0.ome_feature_0.tif"), 2.0 * SETS[::-1, 0, 1])
        summary = archive.read("summary.csv").decode()
    assert "of which 1 are missing (c1.ome.tif)" in summary
