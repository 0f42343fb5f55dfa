"""Cells linked by models of both kinds of the contract, run by onnxruntime."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from redis_consumer import settings
from redis_consumer.consumers import TrackingConsumer
from redis_consumer.models import ModelStore
from redis_consumer.redis import RedisClient
from redis_consumer.serving import open_model_server
from redis_consumer.storage import Storage
from redis_consumer.tracking import write_track_file
from support import linking_models, onnx_models

JOB = "track:cells.trk:1"
FRAMES = 6
Run = Callable[..., dict[str, Any]]


def frames() -> list[Any]:
    """A cell that moves on, one that divides in frame 3, and labels that tell nothing."""
    rows, columns = np.indices((80, 80))
    result = []
    for number in range(FRAMES):
        discs = [(20.0, 12.0 + 3 * number, 6.0)]
        discs += [(56.0, 40.0, 9.0)] if number < 3 else [(56.0, 33.0, 6.0), (56.0, 47.0, 6.0)]
        labels = np.zeros(rows.shape, np.uint16)
        for index, (y, x, radius) in enumerate(reversed(discs) if number % 2 else discs, start=1):
            labels[np.hypot(rows - y, columns - x) < radius] = index
        result.append(labels)
    return result


@pytest.fixture
def run(redis_client: RedisClient, redis_db: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Tracks the movie by the settings; gives the job's hash, with its lineage where it is done."""
    movie = frames()
    path = tmp_path / "uploads" / "cells.trk"
    path.parent.mkdir()
    images = [np.where(labels, 900.0, 100.0) for labels in movie]
    write_track_file(path, images, movie, [], shape=(FRAMES, 80, 80))
    makers = {"Pairing": linking_models.pairing, "Encoding": linking_models.encoding}
    makers |= {"Embedding": linking_models.embedding, "Scaling": lambda: onnx_models.scaling(2.0)}
    for name, make in makers.items():
        onnx_models.save(tmp_path / "models", name, 1, make())

    def run(fields: dict[str, str] | None = None, **variables: str) -> dict[str, Any]:
        for name, text in variables.items():
            monkeypatch.setenv(name, text)
        settings.use(None)
        storage = Storage(tmp_path.as_uri())
        models = ModelStore(storage)
        server = open_model_server("onnx://", find_model=models.find)
        consumer = TrackingConsumer(redis_client, storage, "track", model_server=server, models=models)
        redis_db.hset(JOB, mapping={"status": "new", "input_file_name": "uploads/cells.trk", **(fields or {})})
        redis_db.lpush("track", JOB)
        job = consumer.job_queue.claim()
        assert job is not None
        consumer.run(job)
        after: dict[str, Any] = redis_db.hgetall(JOB)
        if after["status"] == "done":
            archive = zipfile.ZipFile(io.BytesIO(storage.read_bytes(after["output_file_name"])))
            after["lineage"] = json.loads(archive.read("lineage.json"))
        return after

    return run


def tracks(after: dict[str, Any]) -> list[tuple[list[int], bool, bool]]:
    assert after["status"] == "done", after.get("reason")
    lineage = after["lineage"].values()
    return sorted((each["frames"], each["parent"] is not None, each["capped"]) for each in lineage)


TRUTH = [([0, 1, 2], False, True), ([0, 1, 2, 3, 4, 5], False, False), *[([3, 4, 5], True, False)] * 2]


@pytest.mark.parametrize("normalize", ["true", "false"])
def test_a_model_of_pairs_links_and_divides(run: Run, normalize: str) -> None:
    after = run(TRACKING_MODEL="Pairing:1", DIVISION="0.6", NORMALIZE_TRACKING=normalize, TF_MAX_BATCH_SIZE="2")
    assert tracks(after) == TRUTH


@pytest.mark.parametrize("crop", ["resize", "fixed"])
def test_a_model_of_embeddings_links_and_divides(run: Run, crop: str) -> None:
    names = {"TRACKING_MODEL": "Embedding:1", "NEIGHBORHOOD_ENCODER": "Encoding:1"}
    assert tracks(run(**names, DIVISION="0.6", CROP_MODE=crop)) == TRUTH


def test_without_a_setting_no_model_is_asked(run: Run) -> None:
    assert tracks(run(MODEL_SERVER="tfs://127.0.0.1:9")) == TRUTH


def test_the_jobs_own_model_goes_before_the_setting(run: Run) -> None:
    job = {"model_name": "Pairing", "model_version": "1"}
    assert tracks(run(job, TRACKING_MODEL="NoSuchModel:1", DIVISION="0.6")) == TRUTH


def test_caliban_model_goes_before_tracking_model(run: Run) -> None:
    names = {"CALIBAN_MODEL": "Pairing:1", "TRACKING_MODEL": "NoSuchModel:1"}
    assert tracks(run(**names, DIVISION="0.6")) == TRUTH


def test_above_the_probability_of_divisions_new_cells_have_no_parent(run: Run) -> None:
    found = tracks(run(TRACKING_MODEL="Pairing:1", DIVISION="0.99"))
    assert not any(has_parent for _, has_parent, _ in found)


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ({"TRACKING_MODEL": "Scaling:1"}, "ModelMismatch: model Scaling:1: takes image, which is no linking model"),
        ({"TRACKING_MODEL": "NoSuchModel:1"}, "ModelNotFound: model NoSuchModel:1"),
        ({"TRACKING_MODEL": "Embedding:1", "NEIGHBORHOOD_ENCODER": "Nothing:1"}, "ModelNotFound: model Nothing:1"),
    ],
)
def test_a_wrong_model_fails_in_words_and_never_falls_back(run: Run, names: dict[str, str], reason: str) -> None:
    after = run(**names)
    assert after["status"] == "failed"
    assert after["reason"].startswith(reason)
