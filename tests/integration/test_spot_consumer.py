"""`SpotConsumer` in this process, on a real Redis, with a model whose answer is known."""

from __future__ import annotations

import io
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from redis_consumer import settings
from redis_consumer.consumers import SpotConsumer
from redis_consumer.models import ModelStore
from redis_consumer.redis import RedisClient
from redis_consumer.segmentation import frames, segmentation
from redis_consumer.serving.onnx.server import OnnxServer
from redis_consumer.storage import Storage
from support.running import Result, put_image, run_job

JOB = "spot:a.tif:1"
PLACES = [(10, 12), (20, 33), (41, 7)]
#: What the model `Spots` adds to each pixel.
OFFSET = (0.25, -0.25)


def plane(places: list[tuple[int, int]], height: int = 50, width: int = 60) -> Any:
    image = np.full((height, width), 100, np.uint16)
    for y, x in places:
        image[y, x] = 900
    return image


@pytest.fixture
def consumer(
    redis_client: RedisClient, onnx_server: OnnxServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> SpotConsumer:
    monkeypatch.setenv("POLARIS_MODEL", "Spots:1")
    settings.use(None)
    storage = Storage(tmp_path.as_uri())
    return SpotConsumer(redis_client, storage, "spot", model_server=onnx_server, models=ModelStore(None))


@pytest.fixture
def run(consumer: SpotConsumer, redis_db: Any, tmp_path: Path) -> Callable[..., Result]:
    """Runs one job with an image; gives its hash and the files of its result."""

    def run(image: Any, **fields: str) -> Result:
        given = {**put_image(tmp_path, image), "original_name": "plate/a.tif", "scale": ""}
        return run_job(consumer, redis_db, JOB, {**given, **fields})

    return run


def points(files: dict[str, bytes], number: int = 0) -> list[list[float]]:
    found = np.load(io.BytesIO(files[f"plate/a_{number}.npy"]), allow_pickle=False)
    assert found.dtype == np.float64
    rows: list[list[float]] = found.tolist()
    return rows


def known(places: list[tuple[int, int]]) -> list[list[float]]:
    return [[y + OFFSET[0], x + OFFSET[1]] for y, x in places]


@pytest.mark.parametrize("scale", ["", "0.38"])
def test_a_plane_has_points_and_a_picture(run: Callable[..., Result], scale: str) -> None:
    after, files = run(plane(PLACES), scale=scale)
    assert after["status"] == "done", after.get("reason")
    assert sorted(files) == ["plate/a_0.npy", "plate/a_0.tif"]
    assert points(files) == known(PLACES)
    picture = tifffile.imread(io.BytesIO(files["plate/a_0.tif"]))
    assert (picture.shape, picture.dtype.name) == ((50, 60, 3), "uint8")
    assert (after["dim_order"], after["objects"], after["total_jobs"]) == ("YXC", "3", "1")
    times = {f"{name}_time" for name in ("download", "preprocess", "prediction", "postprocess", "upload", "total")}
    assert times <= set(after)


@pytest.mark.parametrize("order", ["BXY", "CXY", "XYB", "XYC"])
def test_each_frame_or_channel_is_a_plane(run: Callable[..., Result], order: str) -> None:
    stack = np.stack([plane(PLACES), plane(PLACES[:1]), plane([])])
    after, files = run(stack if order.endswith("XY") else np.moveaxis(stack, 0, -1), dimension_order=order)
    assert after["status"] == "done", after.get("reason")
    assert [points(files, number) for number in range(3)] == [known(PLACES), known(PLACES[:1]), []]
    assert len(files) == 6


def test_no_group_of_outputs_is_held_while_the_next_one_is_made(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[weakref.ref[Any]] = []

    def restored(result: Any, shape_yx: tuple[int, int], postprocess: Any) -> Any:
        held = [ref() for ref in made if ref() is not None]
        # Those of the same group are there: a model of spots has two outputs.
        assert len(held) == len(made) % 2
        output = np.array(restore(result, shape_yx, postprocess))
        made.append(weakref.ref(output))
        return output

    restore = segmentation.restore
    monkeypatch.setattr(segmentation, "restore", restored)
    monkeypatch.setattr(frames, "GROUP_BYTES", 4 * 50 * 60)
    after, _ = run(np.stack([plane(PLACES)] * 3), dimension_order="BXY")
    assert (after["status"], after.get("reason"), len(made)) == ("done", None, 6)


def test_channels_choose_planes(run: Callable[..., Result]) -> None:
    stack = np.stack([plane(PLACES), plane([]), plane(PLACES[1:])])
    _, files = run(stack, dimension_order="CXY", channels="2,0")
    assert [points(files, number) for number in range(2)] == [known(PLACES[1:]), known(PLACES)]
    assert len(files) == 4


def test_spots_at_the_border_are_left_out(run: Callable[..., Result]) -> None:
    _, files = run(plane([(0, 20), (20, 59), *PLACES]))
    assert points(files) == known(PLACES)


def test_a_threshold_applies(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    image = plane(PLACES)
    image[30, 30] = 800  # a probability of 0.875
    assert len(points(run(image)[1])) == 3
    monkeypatch.setenv("POLARIS_THRESHOLD", "0.8")
    settings.use(None)
    assert len(points(run(image)[1])) == 4


def test_clipping_keeps_dim_spots_beside_a_hot_pixel(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = plane(PLACES)
    image[30, 30] = 60000
    assert len(points(run(image)[1])) == 1
    monkeypatch.setenv("POLARIS_CLIP", "true")
    settings.use(None)
    assert len(points(run(image)[1])) == 4


def test_a_table_comes_where_it_is_asked_for(run: Callable[..., Result]) -> None:
    _, files = run(plane(PLACES), outputs="table")
    assert files["plate/a_0.csv"].decode().split() == ["x,y", "11.75,10.25", "32.75,20.25", "6.75,41.25"]


def test_another_output_fails_readably(run: Callable[..., Result]) -> None:
    after, _ = run(plane(PLACES), outputs="rois")
    assert after["reason"] == "InvalidJob: field outputs: 'rois' is unknown for spots; give table or csv or all"


def test_spots_without_a_model(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLARIS_MODEL", "Nowhere:1")
    settings.use(None)
    y, x = np.mgrid[:50, :60]
    truth = [(10.3, 12.1), (20.0, 33.4), (40.6, 7.2)]
    image = sum(np.exp(-((y - a) ** 2 + (x - b) ** 2) / (2 * 1.5**2)) for a, b in truth)
    image = image + np.random.default_rng(3).normal(0, 0.02, image.shape)
    after, files = run(image.astype(np.float32), spot_detector="log")
    assert after["status"] == "done", after.get("reason")
    np.testing.assert_allclose(points(files), truth, atol=0.1)


def test_a_model_that_is_not_served_says_what_to_do(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POLARIS_MODEL", "Nowhere:1")
    settings.use(None)
    after, _ = run(plane(PLACES))
    assert after["reason"].startswith("ModelNotFound: a.tif: the model of spots, Nowhere:1, is not served; ask the ")
    assert after["reason"].endswith("or give the field spot_detector=log to find spots without a model")


def test_a_model_of_something_else_fails_readably(run: Callable[..., Result]) -> None:
    after, _ = run(plane(PLACES), model_name="Scaling", model_version="1")
    assert after["reason"] == (
        "ModelMismatch: model Scaling:1: has outputs prediction; spots need classification and offset_regression: "
        "name another model"
    )


def test_an_image_beyond_the_limits_fails_readably(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAX_IMAGE_WIDTH", "32")
    settings.use(None)
    after, _ = run(plane(PLACES))
    assert after["reason"].startswith("InvalidImage: a.tif: is an OME-Zarr or larger than 2048 x 32 px")
