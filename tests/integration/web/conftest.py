"""Fixtures of the tests of the web server."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tifffile import imwrite

from redis_consumer import settings
from redis_consumer.consumers.registry import make_consumer
from redis_consumer.redis import RedisClient
from redis_consumer.settings import Settings
from redis_consumer.storage import Storage
from support.redis_server import RedisServer
from support.web import Api, make_context
from support.web_server import Web


@pytest.fixture
def api(redis_server: RedisServer, redis_db: Any, tmp_path: Path) -> Iterator[Api]:
    """API v1 on an empty Redis and an empty bucket."""
    api = Api(make_context(redis_server.port, tmp_path))
    yield api
    api.context.client.close()


@dataclass(frozen=True)
class DoneJob:
    """What a worker with the packaged model has made of an image."""

    fields: dict[str, str]
    bucket: Path


def nuclei() -> Any:
    """(C, Y, X) uint16: six bright discs, and a second channel."""
    y, x = np.mgrid[:120, :160]
    image = np.full((2, 120, 160), 200.0)
    for row, column in ((30, 30), (30, 80), (30, 130), (90, 30), (90, 80), (90, 130)):
        image[0] += 4000 * np.exp(-((((y - row) ** 2 + (x - column) ** 2) / 160) ** 2))
    return np.random.default_rng(1).poisson(image).astype(np.uint16)


@pytest.fixture(scope="session")
def done_job(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> DoneJob:
    """Run one real job, once."""
    bucket = tmp_path_factory.mktemp("bucket")
    client = RedisClient("127.0.0.1", redis_server.port, 0.05, deadline_s=20)
    storage = Storage(f"file://{bucket}")
    settings.use(Settings(model_server="onnx://", storage_bucket=f"file://{bucket}", redis_port=redis_server.port))
    path = tmp_path_factory.mktemp("input") / "nuclei.tif"
    imwrite(path, nuclei(), imagej=True, resolution=(1 / 0.65, 1 / 0.65), metadata={"axes": "CYX", "unit": "um"})
    storage.upload_file(path, "uploads/nuclei.tif")
    job_id = "predict:nuclei.tif:done"
    client.flushall()
    given = {"input_file_name": "uploads/nuclei.tif", "original_name": "nuclei.tif", "status": "new", "scale": "1"}
    client.hset(job_id, mapping={**given, "outputs": "table"})
    client.lpush("predict", job_id)
    consumer = make_consumer("image", redis_client=client, storage_client=storage, queue="predict")
    consumer.consume()
    fields = client.hgetall(job_id)
    assert fields["status"] == "done", fields
    client.close()
    settings.use(None)
    return DoneJob(fields, bucket)


@pytest.fixture
def done(api: Api, done_job: DoneJob) -> str:
    """The id of a job that is done, with its image and its result in the bucket."""
    job_id = "predict:nuclei.tif:done"
    shutil.copytree(done_job.bucket, Path(api.context.storage.bucket), dirs_exist_ok=True)
    api.context.client.hset(job_id, mapping=done_job.fields)
    return job_id


@pytest.fixture
def web(redis_server: RedisServer, redis_db: Any, tmp_path: Path) -> Iterator[Web]:
    """The same over HTTP."""
    web = Web(make_context(redis_server.port, tmp_path))
    yield web
    web.http.close()
    web.context.client.close()
