"""`MesmerConsumer` in this process, on a real Redis: compartments, channels and names of the contract."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from skimage.segmentation import expand_labels
from training.scores import average_precision
from training.two_channels import Cells, draw_cells

from redis_consumer import settings
from redis_consumer.consumers import MesmerConsumer, MultiplexConsumer
from redis_consumer.models import ModelStore
from redis_consumer.redis import RedisClient
from redis_consumer.serving.onnx.server import OnnxServer
from redis_consumer.storage import Storage
from support.running import Labels, as_labels, put_image, run_job

JOB = "mesmer:a.tif:1"
#: Three cells, of which two have a nucleus.
CELLS = np.zeros((96, 96), np.float32)
CELLS[10:40, 10:40] = CELLS[50:80, 50:80] = CELLS[10:40, 55:85] = 1
NUCLEI = np.zeros((96, 96), np.float32)
NUCLEI[18:32, 18:32] = NUCLEI[58:72, 58:72] = 1
TISSUE = np.stack([NUCLEI, CELLS])


@pytest.fixture
def consumer(
    redis_client: RedisClient, onnx_server: OnnxServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> MesmerConsumer:
    monkeypatch.setenv("MESMER_MODEL", "Multiplex:1")
    settings.use(None)
    storage = Storage(tmp_path.as_uri())
    return MesmerConsumer(redis_client, storage, "mesmer", model_server=onnx_server, models=ModelStore(None))


@pytest.fixture
def run(consumer: MesmerConsumer, redis_db: Any, tmp_path: Path) -> Callable[..., Labels]:
    """Runs one job with an image; gives its hash and the arrays of its result."""

    def run(image: Any, axes: str, **fields: str) -> Labels:
        given = {**put_image(tmp_path, image, axes=axes), "scale": "1"}
        return as_labels(run_job(consumer, redis_db, JOB, {**given, **fields}))

    return run


def counts(images: dict[str, Any]) -> dict[str, list[int]]:
    """The numbers of the labels in each image."""
    return {name: np.unique(image)[1:].astype(int).tolist() for name, image in images.items()}


@pytest.mark.parametrize(
    ("compartment", "found"),
    [
        ("", {"a_feature_0.tif": [1, 2, 3]}),
        ("whole-cell", {"a_feature_0.tif": [1, 2, 3]}),
        ("Nuclear", {"a_feature_0.tif": [1, 2]}),
        ("both", {"a_feature_0.tif": [1, 2, 3], "a_feature_1.tif": [1, 2]}),
    ],
)
def test_compartments(run: Callable[..., Labels], compartment: str, found: dict[str, list[int]]) -> None:
    after, images = run(TISSUE, "CYX", channels="0,1", compartment=compartment, label="1")
    assert after["status"] == "done", after.get("reason")
    assert counts(images) == found
    assert {image.shape for image in images.values()} == {CELLS.shape}
    assert {image.dtype.name for image in images.values()} == {"float32"}
    assert set(np.unique(images["a_feature_0.tif"][CELLS == 0][:100])) == {0}


def test_the_variable_decides_where_the_job_does_not(
    run: Callable[..., Labels], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MESMER_COMPARTMENT", "both")
    settings.use(None)
    _, images = run(TISSUE, "CYX", channels="0,1")
    assert list(counts(images)) == ["a_feature_0.tif", "a_feature_1.tif"]


def test_channels_are_named_nucleus_first(run: Callable[..., Labels]) -> None:
    _, images = run(TISSUE[::-1], "CYX", channels="1,0", compartment="both")
    assert counts(images) == {"a_feature_0.tif": [1, 2, 3], "a_feature_1.tif": [1, 2]}


@pytest.mark.parametrize(("channels", "found"), [("0,", [[], [1, 2]]), (",1", [[1, 2, 3], []])])
def test_an_empty_place_is_a_blank_channel(run: Callable[..., Labels], channels: str, found: list[list[int]]) -> None:
    after, images = run(TISSUE, "CYX", channels=channels, compartment="both")
    assert after["status"] == "done", after.get("reason")
    assert list(counts(images).values()) == found


@pytest.mark.parametrize(("axes", "order"), [("CYX", "CYX"), ("YXC", "YXC")])
def test_the_order_of_the_file_is_told(run: Callable[..., Labels], axes: str, order: str) -> None:
    image = TISSUE if axes == "CYX" else np.moveaxis(TISSUE, 0, -1)
    after, images = run(image, axes, compartment="both", dim_order="")
    assert (after["status"], after["dim_order"]) == ("done", order)
    assert counts(images) == {"a_feature_0.tif": [1, 2, 3], "a_feature_1.tif": [1, 2]}


@pytest.mark.parametrize("order", ["BXY", "XYB", ""])
def test_an_order_of_one_channel_is_not_for_it(run: Callable[..., Labels], order: str) -> None:
    """Polaris gives all of its child jobs the same order."""
    after, images = run(TISSUE, "CYX", dimension_order=order, compartment="both")
    assert after["status"] == "done", after.get("reason")
    assert counts(images) == {"a_feature_0.tif": [1, 2, 3], "a_feature_1.tif": [1, 2]}


def test_a_file_holds_all_frames(run: Callable[..., Labels]) -> None:
    _, images = run(np.stack([TISSUE, TISSUE]), "TCYX", compartment="both")
    assert {name: image.shape for name, image in images.items()} == {
        "a_feature_0.tif": (2, 96, 96),
        "a_feature_1.tif": (2, 96, 96),
    }


def test_an_image_beyond_the_limits_has_both_compartments(
    run: Callable[..., Labels], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAX_IMAGE_HEIGHT", "64")
    settings.use(None)
    after, images = run(TISSUE, "CYX", channels="0,1", compartment="both")
    assert after["status"] == "done", after.get("reason")
    assert counts(images) == {"a_feature_0.tif": [1, 2, 3], "a_feature_1.tif": [1, 2]}


def test_a_wrong_compartment_fails_readably(run: Callable[..., Labels]) -> None:
    after, _ = run(TISSUE, "CYX", compartment="membrane")
    assert after["reason"] == (
        "InvalidJob: field compartment: 'membrane' can't be read; give one of whole-cell, nuclear, both, or leave it "
        "empty"
    )


@pytest.mark.parametrize(
    ("image", "axes", "channels", "reason"),
    [
        (NUCLEI, "YX", "", "ModelMismatch: a.tif: has 1 channel(s), model Multiplex:1 takes 2"),
        (TISSUE, "CYX", "0,2", "InvalidImage: a.tif: field channels asks for channel 2, but the image has 2"),
    ],
)
def test_fewer_channels_than_asked_fail_readably(
    run: Callable[..., Labels], image: Any, axes: str, channels: str, reason: str
) -> None:
    after, _ = run(image, axes, channels=channels)
    assert after["reason"].startswith(reason)


def test_a_model_with_other_outputs_fails_readably(run: Callable[..., Labels]) -> None:
    after, _ = run(NUCLEI[:64, :64], "YX", model_name="Distances", model_version="1")
    assert after["reason"].startswith("ModelMismatch: function mesmer: outputs has the shapes ")


@pytest.fixture
def own(
    redis_client: RedisClient, redis_db: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Labels]]:
    """Runs one job where no model of Mesmer is served, and the built-in method is allowed."""
    monkeypatch.setenv("BUILT_IN_WHOLE_CELL", "1")
    settings.use(None)
    models = ModelStore(None)
    server = OnnxServer(models.find, threads=1)
    storage = Storage(tmp_path.as_uri())
    consumer = MesmerConsumer(redis_client, storage, "mesmer", model_server=server, models=models)

    def run(image: Any, axes: str, **fields: str) -> Labels:
        return as_labels(run_job(consumer, redis_db, JOB, {**put_image(tmp_path, image, axes=axes), **fields}))

    yield run
    server.close()


@pytest.fixture(scope="module")
def cells() -> Cells:
    """Cells of a known size."""
    return draw_cells(np.random.default_rng(11), 192)


def test_without_a_model_cells_are_grown_from_nuclei(own: Callable[..., Labels], cells: Cells) -> None:
    after, images = own(np.stack([cells.light, cells.stain]), "CYX", channels="0,1", compartment="both", scale="1")
    assert after["status"] == "done", after.get("reason")
    whole, nuclei = (images[f"a_feature_{number}.tif"].astype(int) for number in range(2))
    assert (whole[nuclei > 0] == nuclei[nuclei > 0]).all()
    grown = max(average_precision([(cells.cells, expand_labels(nuclei, radius))], 0.5) for radius in (4, 7, 10, 14))
    assert average_precision([(cells.cells, whole)], 0.5) >= max(0.7, grown)
    assert after["warning"].startswith(
        "cells are grown by a classical watershed from nuclei of NuclearSegmentation:2, because model "
        "MultiplexSegmentation:9 is not served (BUILT_IN_WHOLE_CELL)"
    )


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"model_name": "MultiplexSegmentation", "model_version": "9"}, "ModelNotFound: "),
        ({"channels": "0"}, "InvalidImage: a.tif: "),
    ],
)
def test_a_model_of_the_job_and_two_channels_are_needed(
    own: Callable[..., Labels], cells: Cells, fields: dict[str, str], reason: str
) -> None:
    after, _ = own(np.stack([cells.light, cells.stain]), "CYX", **{"channels": "0,1", "scale": "1", **fields})
    assert after["status"] == "failed"
    assert after["reason"].startswith(reason)


def test_nuclei_alone_and_several_frames(own: Callable[..., Labels], cells: Cells) -> None:
    both = np.stack([cells.light, cells.stain])
    after, images = own(np.stack([both, both]), "TCYX", compartment="nuclear", scale="1")
    assert after["status"] == "done", after.get("reason")
    assert {name: image.shape for name, image in images.items()} == {"a_feature_0.tif": (2, 192, 192)}


def test_it_has_an_older_name() -> None:
    assert MultiplexConsumer is MesmerConsumer


@pytest.mark.parametrize("by", ["job", "variable"])
def test_a_table_says_which_nucleus_is_in_which_cell(
    consumer: MesmerConsumer, redis_db: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    monkeypatch.setenv("MESMER_COMPARTMENT", "both" if by == "variable" else "nuclear")
    settings.use(None)
    given = {"channels": "0,1", "scale": "1", "outputs": "table", "compartment": "both" if by == "job" else ""}
    after, files = run_job(consumer, redis_db, JOB, {**put_image(tmp_path, TISSUE, axes="CYX"), **given})
    assert after["status"] == "done", after.get("reason")
    rows = [line.split(",")[:3] for line in files["a_matched.csv"].decode().splitlines()]
    assert rows == [["frame", "cell", "nucleus"], ["0", "1", "1"], ["0", "2", ""], ["0", "3", "2"]]
    cells, nuclei = (files[f"a{number}_cells.csv"].decode().splitlines() for number in ("", "_1"))
    # Each compartment has its own map of distances.
    for lines, count in ((cells, 3), (nuclei, 2)):
        values = [line.split(",")[lines[0].split(",").index("confidence")] for line in lines[1:]]
        assert len(values) == count
        assert all(0.1 < float(value) <= 1 for value in values)
