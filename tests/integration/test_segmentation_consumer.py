"""`SegmentationConsumer` in this process, on a real Redis: a model for each role, and the contract's names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from redis_consumer import settings
from redis_consumer.consumers import SegmentationConsumer, claimed_job
from redis_consumer.models import ModelStore
from redis_consumer.redis import RedisClient
from redis_consumer.serving.onnx.server import OnnxServer
from redis_consumer.storage import Storage
from support.running import Labels, as_labels, put_image, run_job

JOB = "segmentation:a.tif:1"
#: Two squares in the first plane, three in the second one.
NUCLEI = np.zeros((60, 64), np.float32)
NUCLEI[5:20, 5:20] = NUCLEI[35:50, 30:45] = 1
CELLS = NUCLEI.copy()
CELLS[5:20, 40:55] = 1


@pytest.fixture
def consumer(
    redis_client: RedisClient, onnx_server: OnnxServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> SegmentationConsumer:
    for role in ("NUCLEAR", "CYTOPLASM"):
        monkeypatch.setenv(f"{role}_MODEL", "Distances:1")
    settings.use(None)
    storage = Storage(tmp_path.as_uri())
    return SegmentationConsumer(
        redis_client, storage, "segmentation", model_server=onnx_server, models=ModelStore(None)
    )


@pytest.fixture
def run(consumer: SegmentationConsumer, redis_db: Any, tmp_path: Path) -> Callable[..., Labels]:
    """Runs one job with an image; gives its hash and the arrays of its result."""

    def run(image: Any, **fields: str) -> Labels:
        given = {**put_image(tmp_path, image), "original_name": "plate/a.tif", "scale": ""}
        return as_labels(run_job(consumer, redis_db, JOB, {**given, **fields}))

    return run


def counts(images: dict[str, Any]) -> dict[str, int]:
    return {name: len(np.unique(image)) - 1 for name, image in images.items()}


@pytest.mark.parametrize(
    ("channels", "found"),
    [
        ("0,", {"plate/a_batch_0_feature_0.tif": 2}),
        (",1", {"plate/a_batch_0_feature_0.tif": 3}),
        ("0,1", {"plate/a_batch_0_feature_0.tif": 2, "plate/a_batch_0_feature_1.tif": 3}),
        ("1,0,", {"plate/a_batch_0_feature_0.tif": 3, "plate/a_batch_0_feature_1.tif": 2}),
    ],
)
def test_each_role_has_a_label_image(run: Callable[..., Labels], channels: str, found: dict[str, int]) -> None:
    after, images = run(np.stack([NUCLEI, CELLS]), channels=channels, dimension_order="CXY")
    assert after["status"] == "done", after.get("reason")
    assert counts(images) == found
    assert {image.shape for image in images.values()} == {NUCLEI.shape}
    assert {image.dtype.name for image in images.values()} == {"float32"}
    assert (after["scale"], after["total_jobs"], after["progress"]) == ("1", "1", "100")
    times = {f"{name}_time" for name in ("download", "preprocess", "prediction", "postprocess", "upload", "total")}
    assert times <= set(after)


def test_frames_become_files(run: Callable[..., Labels]) -> None:
    after, images = run(np.stack([NUCLEI, CELLS, NUCLEI]), channels="0,", dimension_order="BXY")
    assert after["status"] == "done", after.get("reason")
    assert counts(images) == {f"plate/a_batch_{frame}_feature_0.tif": count for frame, count in enumerate((2, 3, 2))}


def test_frames_with_roles_become_files_of_each(run: Callable[..., Labels]) -> None:
    stack = np.stack([np.stack([NUCLEI, CELLS], -1), np.stack([CELLS, NUCLEI], -1)])
    after, images = run(stack, channels="0,1", dimension_order="BXYC")
    assert after["status"] == "done", after.get("reason")
    assert counts(images) == {
        f"plate/a_batch_{frame}_feature_{role}.tif": count
        for (frame, role), count in {(0, 0): 2, (0, 1): 3, (1, 0): 3, (1, 1): 2}.items()
    }


def test_a_job_of_a_client_names_nothing(run: Callable[..., Labels]) -> None:
    after, images = run(NUCLEI, model_name="", model_version="", label="")
    assert after["status"] == "done", after.get("reason")
    assert counts(images) == {"plate/a_batch_0_feature_0.tif": 2}


def test_statuses_rise_through_all_roles(
    run: Callable[..., Labels], consumer: SegmentationConsumer, redis_db: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, str]] = []
    monkeypatch.setattr(claimed_job, "PROGRESS_S", 0.0)
    monkeypatch.setattr(consumer, "on_update", lambda: seen.append(tuple(redis_db.hmget(JOB, "status", "progress"))))
    run(np.stack([NUCLEI, CELLS]), channels="0,1", dimension_order="CXY")
    statuses = list(dict.fromkeys(status for status, _ in seen))
    assert statuses == ["started", "pre-processing", "predicting", "post-processing", "saving-results"]
    progress = [int(text) for _, text in seen if text]
    assert progress == sorted(progress)
    assert 50 in progress


def test_a_role_without_a_served_model_says_what_the_page_can_do(
    run: Callable[..., Labels], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CYTOPLASM_MODEL", "Nowhere:5")
    settings.use(None)
    after, _ = run(np.stack([NUCLEI, CELLS]), channels="0,1", dimension_order="CXY")
    assert after["reason"] == (
        "ModelNotFound: a.tif: field channels '0,1' gives a cytoplasm channel, but its model Nowhere:5 is not served; "
        "select the nuclear channel only, or ask the operator to serve it or to set CYTOPLASM_MODEL"
    )


@pytest.mark.parametrize(
    ("channels", "reason"),
    [
        ("0,2", "InvalidImage: a.tif: field channels asks for channel 2, but the image has 2 (0, 1); "),
        (",,,0", "InvalidJob: field channels: ',,,0' gives a channel at place 4; there are 3 places: nuclear, "),
        (",", "InvalidJob: field channels: ',' names none; give the index of a channel at the place of its role "),
    ],
)
def test_wrong_channels_fail_readably(run: Callable[..., Labels], channels: str, reason: str) -> None:
    after, _ = run(np.stack([NUCLEI, CELLS]), channels=channels, dimension_order="CXY")
    assert after["reason"].startswith(reason)


def test_other_outputs_of_several_roles_are_named_by_them(
    run: Callable[..., Labels], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tifffile, "imread", lambda file: file.read())
    _, files = run(np.stack([NUCLEI, CELLS]), channels="0,1", dimension_order="CXY", outputs="table")
    assert sorted(files) == [
        *(f"plate/a_batch_0_feature_{role}.tif" for role in range(2)),
        "plate/a_cytoplasm_cells.csv",
        "plate/a_nuclear_cells.csv",
    ]
