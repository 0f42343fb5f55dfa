"""Spots are found by the packaged model where none is served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from redis_consumer.consumers import SpotConsumer
from redis_consumer.models import ModelStore
from redis_consumer.processing.spots import points_of_blobs
from redis_consumer.redis import RedisClient
from redis_consumer.serving.onnx.server import OnnxServer
from redis_consumer.storage import Storage
from support.running import put_image, run_job

JOB = "spot:a.tif:1"


def draw(count: int) -> tuple[Any, Any]:
    """An image with spots far from each other on a wavy ground, and their places."""
    random = np.random.default_rng(5)
    y, x = np.mgrid[:160, :160]
    grid = 12 + 14 * np.argwhere(np.ones((10, 10)))
    places = random.permutation(grid)[:count] + random.uniform(-2, 2, (count, 2))
    image = 300 + 40 * np.sin(y / 20) + random.normal(0, 10, y.shape)
    for row, column in places:
        image += random.uniform(100, 300) * np.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * 1.5**2))
    return image.astype(np.float32), places


@pytest.mark.parametrize("name", ["", "SpotDetection"])
def test_the_packaged_model_finds_spots(redis_client: RedisClient, redis_db: Any, tmp_path: Path, name: str) -> None:
    image, places = draw(40)
    models = ModelStore(None)
    server = OnnxServer(models.find, threads=1)
    consumer = SpotConsumer(redis_client, Storage(tmp_path.as_uri()), "spot", model_server=server, models=models)
    after, files = run_job(consumer, redis_db, JOB, {**put_image(tmp_path, image), "model_name": name})
    server.close()
    assert after["status"] == "done", after.get("reason")
    (path,) = [each for each in files if each.endswith(".npy")]
    (tmp_path / "found.npy").write_bytes(files[path])
    found = np.load(tmp_path / "found.npy")
    nearest = np.hypot(*(found[:, None] - places).transpose(2, 0, 1))
    assert len(found) == 40
    assert nearest.min(axis=0).max() < 1
    np.testing.assert_allclose(found, points_of_blobs(image), atol=0.02)


def test_a_model_that_the_job_names_is_not_replaced(redis_client: RedisClient, redis_db: Any, tmp_path: Path) -> None:
    models = ModelStore(None)
    server = OnnxServer(models.find, threads=1)
    consumer = SpotConsumer(redis_client, Storage(tmp_path.as_uri()), "spot", model_server=server, models=models)
    given = {**put_image(tmp_path, draw(3)[0]), "model_name": "SpotDetection", "model_version": "3"}
    after, _ = run_job(consumer, redis_db, JOB, given)
    server.close()
    assert after["reason"].startswith("ModelNotFound: a.tif: the model of spots, SpotDetection:3, is not served")
