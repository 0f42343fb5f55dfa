"""Files that are small but claim much end with a reason within bounded memory and time, or are read."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from redis_consumer import settings
from redis_consumer.consumers.image import ImageFileConsumer
from redis_consumer.errors import InvalidImage
from redis_consumer.job import Job
from redis_consumer.models import ModelStore
from redis_consumer.options import ImageLimits
from redis_consumer.redis import RedisClient
from redis_consumer.segmentation import frames
from redis_consumer.segmentation.frames import open_frames
from redis_consumer.serving.onnx.server import OnnxServer
from redis_consumer.storage import Storage
from redis_consumer.testing import run
from support import attack_formats, attack_pictures, attacks

TESTS = Path(__file__).parents[1]
ATTACKS = {**attacks.ATTACKS, **attack_pictures.ATTACKS, **attack_formats.ATTACKS}
#: Of a file of the formats in `attack_formats`.
MAX_MB, MAX_S = 500, 5


@pytest.fixture(scope="module")
def reader() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "support.attacks"]
    with subprocess.Popen(command, cwd=TESTS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.mark.parametrize("case", ATTACKS)
def test_a_file_that_claims_much_is_refused_or_read_within_bounds(
    case: str, tmp_path: Path, reader: subprocess.Popen[str]
) -> None:
    attack = ATTACKS[case]
    path = tmp_path / f"a{attack.suffix}"
    attack.write(path)
    assert reader.stdin is not None
    assert reader.stdout is not None
    reader.stdin.write(json.dumps([str(path), attack.fields]) + "\n")
    reader.stdin.flush()
    found = json.loads(reader.stdout.readline())
    assert "status" not in found, f"the process that read it ended by {found}"
    if case in attack_formats.ATTACKS:
        assert found["peak_mb"] < MAX_MB, found
        assert found["cpu_s"] < MAX_S, found
    if not attack.reason:
        assert "shape" in found, found
        return
    assert found.get("kind") in {"InvalidImage", "InvalidJob"}, found
    message = found["message"]
    assert re.search(attack.reason, message), message[:1000]
    assert len(message) < 600
    assert ";" in message, "the reason doesn't say what to do"
    assert str(tmp_path) not in message


def test_channels_are_compared_with_the_model_before_anything_is_read(
    redis_db: Any, redis_client: RedisClient, onnx_server: OnnxServer
) -> None:
    consumer = ImageFileConsumer(
        redis_client, Storage("memory://"), "predict", model_server=onnx_server, models=ModelStore(None)
    )
    fields = {"input_file_name": "uploads/a.tif", "model_name": "Scaling", "model_version": "1", "channels": "0,0"}
    redis_db.hset("predict:1", mapping={"status": "new", **fields})
    redis_db.lpush("predict", "predict:1")
    job = consumer.job_queue.claim()
    assert job is not None
    consumer.run(job)
    # There is no such object in the bucket.
    reason = redis_db.hget("predict:1", "reason")
    assert reason.startswith("ModelMismatch: a.tif: field channels names 2 channels, model Scaling:1 takes 1; "), reason


@pytest.mark.parametrize(
    "fields",
    [
        {"channels": ",,0,"},  # the model takes one
        {"channels": "0,0", "preprocess_function": "first_channel"},
    ],
)
def test_what_may_fit_the_model_is_read(fields: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    functions = {"pre": {"first_channel": lambda image: image[..., :1]}}
    monkeypatch.setattr(settings, "PROCESSING_FUNCTIONS", functions)
    image = np.zeros((64, 64, 3), np.float32)
    given: dict[str, Any] = dict(fields)
    assert run(ImageFileConsumer, image, model=lambda tiles: tiles, **given).status == "done"


def test_frames_that_a_field_makes_too_high_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((8, 16, 2100), np.uint8))
    job = Job("j", {"input_file_name": "uploads/a.npy", "dimension_order": "CXY"})
    refused = pytest.raises(InvalidImage, match=r"a\.npy: 2100 px wide, allowed are 2048 px \(MAX_IMAGE_WIDTH\)")
    with refused, open_frames(tmp_path / "a.npy", job, ImageLimits(max_frames=60), takes_parts=False):
        pass


def test_channels_named_over_and_over_are_refused_by_what_they_take(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((60, 2048, 2048, 1), np.uint8))
    job = Job("j", {"input_file_name": "uploads/a.npy", "channels": "0,0,0"})
    refused = pytest.raises(InvalidImage, match=r"a\.npy: field channels names 3 channels of 1, which take 2880 MiB")
    with refused, open_frames(tmp_path / "a.npy", job, ImageLimits(max_frames=60), takes_parts=False):
        pass


def test_a_scale_that_makes_too_much_of_many_frames_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "GROUP_BYTES", 1 << 40)  # a job whose functions see all frames at once
    monkeypatch.setattr(settings, "MAX_JOB_MB", 200)
    done = run(ImageFileConsumer, np.zeros((60, 300, 300, 2), np.uint8), model=lambda tiles: tiles, scale=2)
    assert done.status == "failed"
    assert "of memory, allowed are 200 MB (MAX_JOB_MB)" in done.reason
