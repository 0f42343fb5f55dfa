"""The main job, end to end: a real producer's commands, a real worker process, a real bucket and a real model."""

from __future__ import annotations

import io
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from fixtures_serving import serve_models
from fixtures_storage import BucketForTests
from redis_consumer.cli.embedded import find_redis_server
from support import onnx_models
from support.redis_server import RedisServer
from support.worker import ROOT, environment, running_worker, wait_for

IMAGE = ROOT / "data" / "nuclei.tif"
PACKAGED_MODELS = ROOT / "src" / "redis_consumer" / "models"
KEY = "predict:nuclei.tif:5f0c8e0e-1111-4222-8333-444455556666"
STATUSES = ["started", "pre-processing", "predicting", "post-processing", "saving-results", "done"]


def job_fields(**fields: str) -> dict[str, str]:
    """What the frontend writes for an image (contract, section 2)."""
    return {
        "original_name": "nuclei.tif",
        "input_file_name": "uploads/0a1b.tif",
        "model_name": "NuclearSegmentation",
        "model_version": "1",
        "preprocess_function": "",
        "postprocess_function": "",
        "cuts": "0",
        "url": "",
        "label": "",
        "scale": "0.5",
        "status": "new",
        "created_at": "2026-01-01T17:44:01.123Z",
        "updated_at": "2026-01-01T17:44:01.123Z",
        "identity_upload": "frontend",
        **fields,
    }


def submit(db: Any, key: str = KEY, **fields: str) -> None:
    db.hset(key, mapping=job_fields(**fields))
    db.lpush("predict", key)


def ended(db: Any, folder: Path, key: str = KEY) -> dict[str, str]:
    wait_for(lambda: db.hget(key, "status") in ("done", "failed"), f"the end of {key}", folder)
    fields: dict[str, str] = db.hgetall(key)
    assert fields["status"] == "done", fields.get("reason")
    return fields


def result_of(bucket: BucketForTests, fields: dict[str, str]) -> dict[str, Any]:
    """Arrays of the result zip by member name."""
    archive = zipfile.ZipFile(io.BytesIO(bucket.open().read_bytes(fields["output_file_name"])))
    return {name: tifffile.imread(io.BytesIO(archive.read(name))) for name in archive.namelist()}


@pytest.fixture(params=["file_bucket", "s3_bucket", "gcs_bucket"])
def bucket(request: pytest.FixtureRequest) -> BucketForTests:
    """Each kind of bucket, with the real image in it."""
    bucket: BucketForTests = request.getfixturevalue(request.param)
    bucket.open().upload_file(IMAGE, "uploads/0a1b.tif")
    return bucket


def test_a_job_by_redis_cli_ends_done(
    bucket: BucketForTests, redis_server: RedisServer, redis_db: Any, tmp_path: Path
) -> None:
    with running_worker(tmp_path, environment(redis_server, **_variables(bucket))):
        pairs = [text for pair in job_fields().items() for text in pair]
        for command in (["HSET", KEY, *pairs], ["LPUSH", "predict", KEY]):
            _redis_cli(redis_server, command)
        fields = ended(redis_db, tmp_path)
    images = result_of(bucket, fields)
    assert list(images) == ["nuclei_feature_0.tif"]
    labels = images["nuclei_feature_0.tif"]
    assert (labels.shape, labels.dtype) == ((1024, 1344), np.float32)
    assert 50 <= labels.max() <= 70
    assert set(np.unique(labels)) == set(range(int(labels.max()) + 1))
    assert fields["output_file_name"].startswith("output/")
    assert fields["output_url"].endswith(fields["output_file_name"])
    assert redis_db.keys("processing-*") == []


def _variables(bucket: BucketForTests) -> dict[str, str]:
    variables = dict(bucket.environment)
    return {"bucket": variables.pop("STORAGE_BUCKET"), **variables}


def _redis_cli(server: RedisServer, command: list[str]) -> None:
    program = shutil.which("redis-cli") or str(Path(find_redis_server()).with_name("redis-cli"))
    subprocess.run([program, "-h", "127.0.0.1", "-p", str(server.port), *command], check=True, capture_output=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bucket's folder with the real image, small ones, and models besides the packaged one."""
    folder = tmp_path_factory.mktemp("jobs")
    (folder / "uploads").mkdir()
    shutil.copy(IMAGE, folder / "uploads" / "0a1b.tif")
    tifffile.imwrite(folder / "uploads" / "small.tif", tifffile.imread(IMAGE)[:96, :80])
    stack = np.stack([tifffile.imread(IMAGE)[:96, :80]] * 3)
    tifffile.imwrite(folder / "uploads" / "stack.tif", stack, photometric="minisblack", metadata={"axes": "TYX"})
    np.save(folder / "uploads" / "two.npy", np.random.default_rng(1).random((40, 32, 2), dtype=np.float32))
    for name, model in (("Convolving", onnx_models.convolving()), ("Scaling", onnx_models.scaling(2.0))):
        onnx_models.save(folder / "models", name, 1, model)
    return folder


@pytest.fixture
def _worker(folder: Path, redis_server: RedisServer, redis_db: Any) -> Iterator[None]:
    with running_worker(folder, environment(redis_server, folder.as_uri(), LOG_LEVEL="INFO")):
        yield


def arrays(folder: Path, fields: dict[str, str]) -> dict[str, Any]:
    return result_of(BucketForTests(folder.as_uri()), fields)


@pytest.mark.usefixtures("_worker")
def test_every_stage_is_shown_and_timed(redis_server: RedisServer, redis_db: Any, folder: Path) -> None:
    with redis_server.client.monitor() as commands:
        submit(redis_db, input_file_name="uploads/small.tif")
        fields = ended(redis_db, folder)
        redis_db.ping()
        seen = []
        for command in commands.listen():
            words = command["command"].split()
            if words[0] == "PING":
                break
            if words[0] == "EVALSHA" and "status" in words:
                seen.append(words[words.index("status") + 1])
    assert seen == STATUSES
    times = ["download_time", "preprocess_time", "prediction_time", "postprocess_time", "upload_time", "total_time"]
    assert all(float(fields[name]) >= 0 for name in times)
    assert sum(float(fields[name]) for name in times[:-1]) <= float(fields["total_time"])
    assert (fields["total_jobs"], fields["predict_retries"], fields["identity_started"]) == ("1", "0", "pod-1")
    finished, created = (
        datetime.fromisoformat(fields[name].replace("Z", "+00:00")) for name in ("finished_at", "created_at")
    )
    assert finished > created


@pytest.mark.usefixtures("_worker")
def test_an_explicit_postprocess_function_gives_the_same(redis_db: Any, folder: Path) -> None:
    submit(redis_db)
    submit(redis_db, "predict:explicit:2", postprocess_function="deep_watershed")
    by_card = arrays(folder, ended(redis_db, folder))
    by_name = arrays(folder, ended(redis_db, folder, "predict:explicit:2"))
    np.testing.assert_array_equal(by_name["nuclei_feature_0.tif"], by_card["nuclei_feature_0.tif"])


@pytest.mark.usefixtures("_worker")
def test_a_stack_is_segmented_plane_by_plane(redis_db: Any, folder: Path) -> None:
    submit(redis_db, input_file_name="uploads/stack.tif", original_name="day 1/stack.tif")
    images = arrays(folder, ended(redis_db, folder))
    assert list(images) == ["day 1/stack_feature_0.tif"]
    labels = images["day 1/stack_feature_0.tif"]
    assert labels.shape == (3, 96, 80)
    np.testing.assert_array_equal(labels[0], labels[2])


@pytest.mark.usefixtures("_worker")
def test_a_model_with_several_outputs_and_no_functions_gives_all_channels(redis_db: Any, folder: Path) -> None:
    submit(redis_db, input_file_name="uploads/two.npy", original_name="two.npy", model_name="Convolving", scale="1")
    images = arrays(folder, ended(redis_db, folder))
    assert sorted(images) == [f"two_feature_{channel}.tif" for channel in range(4)]
    assert {image.shape for image in images.values()} == {(40, 32)}


@pytest.mark.usefixtures("_worker")
def test_named_channels_are_taken(redis_db: Any, folder: Path) -> None:
    fields = {"input_file_name": "uploads/two.npy", "original_name": "two.npy", "model_name": "Scaling", "scale": "1"}
    submit(redis_db, channels=",1", **fields)
    image = arrays(folder, ended(redis_db, folder))["two_feature_0.tif"]
    np.testing.assert_array_equal(image, 2 * np.load(folder / "uploads" / "two.npy")[..., 1])


@pytest.mark.usefixtures("_worker")
def test_cuts_and_field_size_are_honoured(redis_db: Any, folder: Path) -> None:
    submit(
        redis_db, input_file_name="uploads/small.tif", original_name="small.tif", model_name="Scaling", scale="1",
        cuts="3", field_size="11",
    )  # fmt: skip
    image = arrays(folder, ended(redis_db, folder))["small_feature_0.tif"]
    np.testing.assert_array_equal(image, 2.0 * tifffile.imread(folder / "uploads" / "small.tif"))


@pytest.mark.usefixtures("_worker")
def test_the_same_job_twice_in_the_queue_runs_once(redis_db: Any, folder: Path) -> None:
    key = "predict:twice.tif:1"
    submit(redis_db, key, input_file_name="uploads/small.tif")
    redis_db.lpush("predict", key)
    first = ended(redis_db, folder, key)
    wait_for(lambda: redis_db.llen("predict") == 0, "the second delivery", folder)
    wait_for(lambda: not redis_db.keys("processing-*"), "the second delivery's end", folder)
    assert redis_db.hgetall(key) == first
    assert (folder / "worker.log").read_text().count(f"Ended job {key}") == 1


def test_tensorflow_serving_and_onnx_give_identical_label_images(
    folder: Path, redis_server: RedisServer, redis_db: Any, tmp_path: Path
) -> None:
    with serve_models(PACKAGED_MODELS) as address:
        images = []
        for number, url in enumerate(("onnx://", f"tfs://{address}")):
            variables = environment(redis_server, folder.as_uri(), MODEL_SERVER=url)
            with running_worker(tmp_path, variables):
                submit(redis_db, f"predict:same.tif:{number}")
                fields = ended(redis_db, tmp_path, f"predict:same.tif:{number}")
                images.append(arrays(folder, fields)["nuclei_feature_0.tif"])
    assert images[0].max() > 0
    np.testing.assert_array_equal(images[0], images[1])


def test_a_model_server_that_is_away_for_a_moment_is_asked_again(
    folder: Path, redis_server: RedisServer, redis_db: Any, tmp_path: Path
) -> None:
    with serve_models(PACKAGED_MODELS, "--fail-first", "2", "--code", "UNAVAILABLE") as address:
        variables = environment(redis_server, folder.as_uri(), MODEL_SERVER=f"tfs://{address}", GRPC_BACKOFF="0.05")
        with running_worker(tmp_path, variables):
            submit(redis_db, input_file_name="uploads/small.tif")
            ended(redis_db, tmp_path)
    assert "Gave back job" not in (tmp_path / "worker.log").read_text()  # in the same run
