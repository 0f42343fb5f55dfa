"""Consumers as others wrote them for the older software run unchanged, by a real job to its end.

Redis, the model server's gRPC and the bucket are real; the model server is a stand-in for TensorFlow Serving.
"""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from fixtures_storage import BucketForTests
from support.redis_server import RedisServer
from support.worker import environment, running_worker, wait_for

Files = dict[str, Any]
RNG = np.random.default_rng(11)
RAMP = np.arange(24 * 30, dtype=np.float32).reshape(24, 30)
TWO = RNG.random((64, 64, 2), dtype=np.float32)
#: Two bright squares on dark ground.
CELLS = np.zeros((60, 60), np.float32)
CELLS[5:25, 5:25] = CELLS[35:55, 30:50] = 1

#: The script of 2020 in short: its own logger, `get_consumer` and loop.
SCRIPT_2020 = """
import logging
import sys
import traceback

import redis_consumer
from redis_consumer import settings
from contract import consumers_2020

_logger = logging.getLogger(__file__)


def initialize_logger(debug_mode=True):
    logger = logging.getLogger()
    logger.setLevel(logging.DEBUG if debug_mode else logging.INFO)
    logger.addHandler(logging.StreamHandler(stream=sys.stdout))


def get_consumer(consumer_type, **kwargs):
    logging.debug('Getting `%s` consumer with args %s.', consumer_type, kwargs)
    ct = str(consumer_type).lower()
    if ct == 'image':
        return redis_consumer.consumers.ImageFileConsumer(**kwargs)
    for consumer in (
            consumers_2020.Doubling, consumers_2020.Cutting, consumers_2020.Labelling, consumers_2020.Unpacking):
        if ct == consumer.__name__.lower():
            return consumer(**kwargs)
    raise ValueError('Invalid `consumer_type`: "{}"'.format(consumer_type))


if __name__ == '__main__':
    initialize_logger(settings.DEBUG)
    redis = redis_consumer.redis.RedisClient(
        settings.REDIS_HOST, settings.REDIS_PORT, settings.REDIS_TIMEOUT)
    storage_client = redis_consumer.storage.get_client(settings.CLOUD_PROVIDER)
    consumer = get_consumer(settings.CONSUMER_TYPE, redis_client=redis, storage_client=storage_client,
                            queue=settings.QUEUE, final_status='done')
    while True:
        try:
            consumer.consume()
        except Exception as err:
            _logger.critical('Fatal Error: %s: %s\\n%s', type(err).__name__, err, traceback.format_exc())
            sys.exit(1)
"""

#: The script of 2023 in short: consumers are found in `CONSUMERS`.
SCRIPT_2023 = """
import logging
import sys

import redis_consumer
from redis_consumer import settings
from contract import consumers_2023

redis_consumer.consumers.CONSUMERS.update({
    name.lower(): getattr(consumers_2023, name)
    for name in ('Segmenting', 'Multiplexing', 'OwnApplication', 'Parents')})


def get_consumer(consumer_type, **kwargs):
    consumer_cls = redis_consumer.consumers.CONSUMERS.get(str(consumer_type).lower())
    if not consumer_cls:
        raise ValueError('Invalid `consumer_type`: "{}"'.format(consumer_type))
    return consumer_cls(**kwargs)


if __name__ == '__main__':
    logging.basicConfig(level=settings.LOG_LEVEL, stream=sys.stdout)
    redis = redis_consumer.redis.RedisClient(settings.REDIS_HOST, settings.REDIS_PORT, settings.REDIS_TIMEOUT)
    storage_client = redis_consumer.storage.get_client(settings.STORAGE_BUCKET)
    consumer = get_consumer(settings.CONSUMER_TYPE, redis_client=redis, storage_client=storage_client,
                            queue=settings.QUEUE, name=settings.HOSTNAME)
    while True:
        consumer.consume()
"""


@dataclass(frozen=True)
class Case:
    """A consumer, the job that it gets, and what must come of it.

    Attributes:
        consumer: module and class; the script of the module's year runs it.
        image: what the job's file holds.
        files: names of the result's files, with a check of each.
        fields: of the job.
        written: fields that the consumer has to write.
        variables: of its process.
        suffix: of the job's file.
    """

    consumer: str
    image: Any
    files: dict[str, Callable[[Any], None]]
    fields: dict[str, str] = field(default_factory=dict)
    written: dict[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    suffix: str = ".tif"


def equals(expected: Any) -> Callable[[Any], None]:
    def check(found: Any) -> None:
        np.testing.assert_allclose(np.squeeze(found), expected, rtol=1e-5)

    return check


def has_shape(*shape: int) -> Callable[[Any], None]:
    def check(found: Any) -> None:
        assert np.squeeze(found).shape == shape
        assert 0 <= found.min() < found.max() <= 1

    return check


def two_cells(found: Any) -> None:
    labels = np.squeeze(found)
    assert labels.shape == CELLS.shape
    assert sorted([labels[15, 15], labels[45, 40]]) == [1, 2]
    assert labels[30, 5] == 0


def is_text(expected: str) -> Callable[[Any], None]:
    def check(found: Any) -> None:
        assert found == expected

    return check


SCALING = {"model_name": "Scaling", "model_version": "1"}
CONVOLVING = {"model_name": "Convolving", "model_version": "1"}
NORMAL = (RAMP - RAMP.mean()) / RAMP.std()
CASES = [
    Case(
        "consumers_2020:Doubling",
        RAMP,
        {"plate/a_feature_0.tif": equals(2 * RAMP)},
        {**SCALING, "original_name": "plate/a.tif"},
        {"identity_started": "pod-1", "retried": "False"},
    ),
    Case(
        "consumers_2020:Cutting",
        np.kron(RAMP, np.ones((2, 2), np.float32)),
        {"cut_feature_0.tif": equals(2 * np.kron(RAMP, np.ones((2, 2))))},
        {"cuts": "2", "field_size": "9", "scale": "0.5"},
        {"label": "0", "post": "deep_watershed"},
        {"NUCLEAR_MODEL": "Scaling:1"},
    ),
    Case(
        "consumers_2020:Labelling",
        10 * CELLS + 5,
        {"a_feature_0.tif": two_cells},
        {**SCALING, "preprocess_function": "background,Normalize,", "postprocess_function": "pixelwise"},
    ),
    Case(
        "consumers_2020:Unpacking",
        {"in/a.tif": RAMP, "b.png.tif": 7 * RAMP, "__MACOSX/a.tif": RAMP, "readme": RAMP},
        {"in/a_feature_0.tif": equals(NORMAL), "b.png_feature_0.tif": equals(NORMAL)},
        suffix=".zip",
        written={"progress": "2", "failures": ""},
    ),
    Case("consumers_mid_2020:Predicting", RAMP, {"predicted_feature_0.tif": equals(2 * RAMP)}, SCALING),
    Case(
        "consumers_mid_2020:OwnClient",
        RAMP,
        {"own_feature_0.tif": equals(2 * RAMP)},
        SCALING,
        {"inputs": '[{"in_tensor_name": "image", "in_tensor_dtype": "DT_FLOAT", "in_tensor_shape": "-1,-1,-1,1"}]'},
    ),
    Case("consumers_mid_2020:Tiling", TWO, {"tiled_feature_0.tif": has_shape(64, 64)}, CONVOLVING),
    Case(
        "consumers_mid_2020:Measuring",
        RAMP,
        {"a_feature_0.tif": equals(2 * np.clip(NORMAL, 0, None) + 1)},
        {**SCALING, "preprocess_function": "normalize", "scale": "1"},
        {"asked": "Scaling/1", "total_jobs": "1"},
    ),
    Case(
        "consumers_2023:Segmenting",
        CELLS,
        {"a_feature_0.tif": two_cells},
        written={"scale": "1", "total_jobs": "1"},
        variables={"NUCLEAR_MODEL": "Distances:1"},
    ),
    Case(
        "consumers_2023:Multiplexing",
        np.moveaxis(np.concatenate([TWO, TWO[..., :1]], axis=-1), -1, 0),
        {f"a_feature_{channel}.tif": has_shape(32, 32) for channel in range(3)},
        {**CONVOLVING, "channels": "1,0"},
        {"dim_order": "CYX", "identity_started": "pod-1"},
    ),
    Case(
        "consumers_2023:OwnApplication",
        RAMP,
        {"a.npy": equals(2 * RAMP + 0.5), "a.csv": is_text("x,y,value\n0,0,0.5\n")},
        SCALING,
    ),
    Case(
        "consumers_2023:Parents",
        RAMP,
        {"a.npy": equals(2 * RAMP + 0.5), "a.csv": is_text("x,y,value\n0,0,0.5\n")},
        SCALING,
        {"progress": "50"},
    ),
]


@contextmanager
def running(case: Case, variables: dict[str, str], folder: Path) -> Iterator[None]:
    """Run a consumer by the script of its year; those of mid-2020 by the worker of today."""
    module, _, name = case.consumer.partition(":")
    script = {"consumers_2020": SCRIPT_2020, "consumers_2023": SCRIPT_2023}.get(module)
    if script is None:
        with running_worker(folder, {**variables, "CONSUMER_TYPE": f"contract.{case.consumer}"}):
            yield
        return
    (folder / "script.py").write_text(script)
    with (folder / "worker.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "script.py"], cwd=folder, env={**variables, "CONSUMER_TYPE": name}, stdout=log, stderr=log
        )
    try:
        yield
    finally:
        process.kill()
        process.wait()


def packed(case: Case) -> bytes:
    """The job's file."""
    file = io.BytesIO()
    if case.suffix == ".zip":
        with zipfile.ZipFile(file, "w") as archive:
            for name, image in case.image.items():
                archive.writestr(name, packed(Case("", image, {})))
    else:
        tifffile.imwrite(file, case.image, photometric="minisblack")
    return file.getvalue()


def unpacked(data: bytes) -> Files:
    """The files of a result."""
    archive = zipfile.ZipFile(io.BytesIO(data))
    readers: dict[str, Callable[[io.BytesIO], Any]] = {
        ".tif": tifffile.imread,
        ".npy": np.load,
        ".csv": lambda file: file.read().decode(),
    }
    return {name: readers[name[-4:]](io.BytesIO(archive.read(name))) for name in archive.namelist()}


def run_to_done(case: Case, variables: dict[str, str], db: Any, folder: Path) -> dict[str, str]:
    """Submit a case's job as the frontend does, and give its fields once it is done."""
    key = f"predict:a{case.suffix}:1"
    fields = {"status": "new", "original_name": f"a{case.suffix}", "input_file_name": f"uploads/a{case.suffix}"}
    db.hset(key, mapping={**fields, "scale": "", "model_name": "", "model_version": "", **case.fields})
    db.lpush("predict", key)
    with running(case, variables, folder):
        wait_for(lambda: db.hget(key, "status") in ("done", "failed"), "the end of the job", folder)
    job: dict[str, str] = db.hgetall(key)
    assert job["status"] == "done", job.get("reason")
    assert job["output_url"].endswith(job["output_file_name"])
    assert {name: job.get(name) for name in case.written} == case.written
    assert db.keys("processing-*") == []
    return job


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.consumer)
def test_an_older_consumer_runs(
    redis_server: RedisServer, redis_db: Any, tf_serving: str, tmp_path: Path, case: Case
) -> None:
    bucket = tmp_path / "bucket"
    (bucket / "uploads").mkdir(parents=True)
    (bucket / "uploads" / f"a{case.suffix}").write_bytes(packed(case))
    host, _, port = tf_serving.partition(":")
    server = {"MODEL_SERVER": "", "TF_HOST": host, "TF_PORT": port}
    variables = environment(redis_server, bucket.as_uri(), EMPTY_QUEUE_TIMEOUT="0.1", **server, **case.variables)
    job = run_to_done(case, variables, redis_db, tmp_path)
    files = unpacked((bucket / job["output_file_name"]).read_bytes())
    assert sorted(files) == sorted(case.files)
    for name, check in case.files.items():
        check(files[name])


def test_a_script_of_2020_finds_its_bucket_on_s3(
    redis_server: RedisServer, redis_db: Any, tf_serving: str, tmp_path: Path, s3_bucket: BucketForTests
) -> None:
    """By ``CLOUD_PROVIDER`` and ``AWS_S3_BUCKET``, at an address of its own."""
    case, storage = CASES[0], s3_bucket.open()
    storage.write_bytes("uploads/a.tif", packed(case))
    host, _, port = tf_serving.partition(":")
    variables = environment(redis_server, "", MODEL_SERVER=f"tfs://{host}:{port}")
    bucket = {"CLOUD_PROVIDER": "aws", "AWS_S3_BUCKET": storage.bucket, "STORAGE_BUCKET": ""}
    job = run_to_done(case, {**variables, **s3_bucket.environment, **bucket}, redis_db, tmp_path)
    assert job["output_url"].startswith(f"{s3_bucket.server_url}/{storage.bucket}/output/")
    assert list(unpacked(storage.read_bytes(job["output_file_name"]))) == ["plate/a_feature_0.tif"]


@pytest.mark.parametrize(
    ("options", "names", "db", "variables"),
    [
        (["--requirepass", "secret"], {"password": "secret"}, 0, {"REDIS_PASSWORD": "secret"}),
        (
            ["--user", "default", "off", "--user", "jobs", "on", ">a@b", "~*", "&*", "+@all"],
            {"username": "jobs", "password": "a@b"},
            0,
            {"REDIS_USERNAME": "jobs", "REDIS_PASSWORD": "a@b"},
        ),
        (["--requirepass", "secret"], {"password": "secret"}, 2, {"REDIS_URL": "redis://:secret@127.0.0.1:{port}/2"}),
    ],
    ids=["password", "user", "url"],
)
def test_the_client_that_a_script_makes_is_let_in(
    tf_serving: str, tmp_path: Path, options: list[str], names: dict[str, Any], db: int, variables: dict[str, str]
) -> None:
    """It names host, port and pause only; the settings say the rest."""
    case, bucket = CASES[0], tmp_path / "bucket"
    (bucket / "uploads").mkdir(parents=True)
    (bucket / "uploads" / "a.tif").write_bytes(packed(case))
    server = RedisServer(tmp_path, options=options, connect={**names, "db": db})
    given = environment(server, bucket.as_uri(), MODEL_SERVER=f"tfs://{tf_serving}")
    given.update({name: text.format(port=server.port) for name, text in variables.items()})
    if "REDIS_URL" in given:
        del given["REDIS_HOST"], given["REDIS_PORT"]
    server.start()
    try:
        job = run_to_done(case, given, server.client, tmp_path)
    finally:
        server.stop()
    assert list(unpacked((bucket / job["output_file_name"]).read_bytes())) == ["plate/a_feature_0.tif"]
