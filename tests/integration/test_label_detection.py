"""The kind of an image is detected by the packaged classifier, on real images."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from skimage import io

from redis_consumer import settings
from redis_consumer.consumers import ImageFileConsumer
from redis_consumer.models import ModelStore
from redis_consumer.redis import RedisClient
from redis_consumer.serving.onnx.server import OnnxServer
from redis_consumer.storage import Storage
from support.documents import ROOT
from support.running import run_job

JOB = "predict:a.png:1"
IMAGES = ROOT / "data" / "dsb2018"
ROWS = {row["id"][:4]: row for row in json.loads((IMAGES / "index.json").read_text())}


@pytest.fixture
def run(
    redis_client: RedisClient, redis_db: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Path], dict[str, str]]]:
    """Runs one job without a label; gives its hash."""
    monkeypatch.setenv("LABEL_DETECT_ENABLED", "1")
    settings.use(None)
    models = ModelStore(None)
    server = OnnxServer(models.find, threads=1)
    consumer = ImageFileConsumer(
        redis_client, Storage(tmp_path.as_uri()), "predict", model_server=server, models=models
    )
    (tmp_path / "uploads").mkdir()

    def run(path: Path) -> dict[str, str]:
        shutil.copy(path, tmp_path / "uploads" / "a.png")
        fields = {"input_file_name": "uploads/a.png", "original_name": "a.png", "scale": "1"}
        after, _ = run_job(consumer, redis_db, JOB, fields)
        return after

    yield run
    server.close()


@pytest.mark.parametrize("name", ["0280", "0bf3"])
def test_the_model_follows_from_what_the_image_shows(run: Callable[[Path], dict[str, str]], name: str) -> None:
    after = run(IMAGES / "images" / f"{ROWS[name]['id']}.png")
    assert after["status"] == "done", after.get("reason")
    assert after["label"] == {"fluorescence": "0", "histology": "3"}[ROWS[name]["kind"]]
    assert int(after["objects"]) > 5


def test_an_image_of_something_else_fails_with_advice(run: Callable[[Path], dict[str, str]], tmp_path: Path) -> None:
    stripes = (np.arange(256) // 8 % 2 * 200).astype(np.uint8) * np.ones((256, 1), np.uint8)
    io.imsave(tmp_path / "stripes.png", stripes, check_contrast=False)
    after = run(tmp_path / "stripes.png")
    assert after["status"] == "failed"
    assert after["reason"] == (
        "InvalidJob: a.png: looks like no kind of image that there is a model for (the detected label is 4); check the "
        "channel, or give field label (0 nuclei, 1 cytoplasm, 2 phase contrast, 3 stained tissue)"
    )
