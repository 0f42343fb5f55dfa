"""Models that find objects, boxes with a mask each, by the image consumer: the whole image in one call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from redis_consumer import settings
from redis_consumer.consumers import ImageFileConsumer
from redis_consumer.models import ModelStore
from redis_consumer.redis import RedisClient
from redis_consumer.serving.onnx.server import OnnxServer
from redis_consumer.storage import Storage
from support.running import as_labels, put_image, run_job

JOB = "predict:a.tif:1"
IMAGE = np.random.default_rng(2).random((110, 120), dtype=np.float32)


def run(client: RedisClient, db: Any, server: OnnxServer, folder: Path, **fields: str) -> tuple[dict[str, str], Any]:
    consumer = ImageFileConsumer(
        client, Storage(folder.as_uri()), "predict", model_server=server, models=ModelStore(None)
    )
    model = {"model_name": "Detecting", "model_version": "1", "dimension_order": "BXY", "scale": "1"}
    given = {**put_image(folder, np.stack([IMAGE, IMAGE])), **model}
    after, labels = as_labels(run_job(consumer, db, JOB, {**given, **fields}))
    return after, labels.get("a_feature_0.tif")


@pytest.mark.parametrize("scale", ["1", "2"])
def test_each_frame_has_the_objects(
    redis_client: RedisClient, redis_db: Any, onnx_server: OnnxServer, tmp_path: Path, scale: str
) -> None:
    after, labels = run(redis_client, redis_db, onnx_server, tmp_path, postprocess_function="retinanet", scale=scale)
    assert after["status"] == "done", after.get("reason")
    assert labels.shape == (2, *IMAGE.shape)
    # The model's boxes are those of the resized image.
    at = int(scale)
    assert [labels[0, y // at, x // at] for y, x in [(15, 15), (50, 45), (50, 85), (90, 90)]] == [1, 2, 3, 0]
    assert after["objects"] == "6"
    np.testing.assert_array_equal(labels[0], labels[1])


def test_an_image_beyond_the_limits_fails_readably(
    redis_client: RedisClient, redis_db: Any, onnx_server: OnnxServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAX_IMAGE_WIDTH", "64")
    settings.use(None)
    after, _ = run(redis_client, redis_db, onnx_server, tmp_path, postprocess_function="retinanet")
    assert after["reason"] == (
        "InvalidImage: a.tif: is too large for function retinanet, whose model needs the whole image; crop the image, "
        "or give a smaller scale"
    )


def test_a_model_of_pixels_fails_readably(
    redis_client: RedisClient, redis_db: Any, onnx_server: OnnxServer, tmp_path: Path
) -> None:
    fields = {"model_name": "Distances", "postprocess_function": "retinanet-semantic"}
    after, _ = run(redis_client, redis_db, onnx_server, tmp_path, **fields)
    assert after["reason"].startswith("ModelMismatch: ")
    assert "function retinanet-semantic: outputs end with the shapes" in after["reason"]
