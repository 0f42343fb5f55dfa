"""`PolarisConsumer` with the consumers of its child jobs in this process, on a real Redis, with known answers."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from redis_consumer import settings
from redis_consumer.consumers import MesmerConsumer, PolarisConsumer, SegmentationConsumer, SpotConsumer
from redis_consumer.consumers.base import Consumer
from redis_consumer.models import ModelStore
from redis_consumer.queue import upkeep
from redis_consumer.redis import RedisClient
from redis_consumer.serving import open_model_server
from redis_consumer.serving.base import ModelServer
from redis_consumer.storage import Storage
from support import polaris
from support.polaris import CELLS, IMAGE, NUCLEI, SPOTS, known_rows, table
from support.running import Result, put_image, run_with_children
from support.vendors import write_czi

JOB = "polaris:a.tif:1"
KINDS: dict[str, type[Any]] = {
    "polaris": PolarisConsumer,
    "spot": SpotConsumer,
    "segmentation": SegmentationConsumer,
    "mesmer": MesmerConsumer,
}


@pytest.fixture(params=["onnx", "tfs"])
def model_server(request: pytest.FixtureRequest) -> Iterator[ModelServer]:
    """The test models in this process, and behind TensorFlow Serving's gRPC."""
    if request.param == "onnx":
        yield request.getfixturevalue("onnx_server")
        return
    server = open_model_server(f"tfs://{request.getfixturevalue('tf_serving')}", find_model=ModelStore(None).find)
    yield server
    server.close()


@pytest.fixture
def consumers(
    redis_client: RedisClient, model_server: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Consumer]:
    """A consumer for each queue."""
    for name, text in polaris.MODELS.items():
        monkeypatch.setenv(name, text)
    settings.use(None)
    storage, models = Storage(tmp_path.as_uri()), ModelStore(None)
    made: dict[str, Consumer] = {"polaris": PolarisConsumer(redis_client, storage, "polaris")}
    for queue in ("spot", "segmentation", "mesmer"):
        made[queue] = KINDS[queue](redis_client, storage, queue, model_server=model_server, models=models)
    return made


@pytest.fixture
def run(consumers: dict[str, Consumer], redis_db: Any, tmp_path: Path) -> Callable[..., Result]:
    """Runs one job and all of its children; gives its hash and the files of its result."""

    def run(image: Any, axes: str = "CYX", **fields: str) -> Result:
        given = {**put_image(tmp_path, image, axes=axes), "original_name": "plate/a.tif", "scale": ""}
        return run_with_children(consumers, redis_db, JOB, {**given, **fields})

    return run


def children(db: Any, queue: str) -> list[dict[str, str]]:
    return [db.hgetall(key) for key in sorted(db.keys(f"{queue}:*"), key=lambda key: db.hget(key, "channels") or "")]


def labels(files: dict[str, bytes], name: str) -> Any:
    return tifffile.imread(io.BytesIO(files[name]))


def test_cell_culture(run: Callable[..., Result], redis_db: Any) -> None:
    after, files = run(IMAGE, channels="0,1,2", segmentation_type="cell culture")
    assert after["status"] == "done", after.get("reason")
    names = ["plate/a_0.csv", "plate/a_batch_0_feature_0.tif", "plate/a_batch_0_feature_1.tif"]
    assert sorted(files) == names
    found = [labels(files, name) for name in names[1:]]
    assert [len(np.unique(image)) - 1 for image in found] == [2, 3]
    assert {(image.shape, image.dtype.name) for image in found} == {(CELLS.shape, "float32")}
    assert table(files["plate/a_0.csv"]) == known_rows(*found)
    assert (after["total_jobs"], after["progress"], after["objects"]) == ("1", "100", str(len(SPOTS)))
    assert {"download_time", "prediction_time", "upload_time", "total_time", "finished_at"} <= set(after)
    assert float(after["total_time"]) >= float(after["prediction_time"]) > 0
    (spot,), cells = children(redis_db, "spot"), children(redis_db, "segmentation")
    assert [child["channels"] for child in cells] == [",0", "0,"]
    for child, queue in ((spot, "spot"), *((each, "segmentation") for each in cells)):
        assert (child["scale"], child["dimension_order"], child["status"]) == ("0.38", "BXY", "done")
        prefix, _, rest = child["original_name"].partition("-")
        assert (len(prefix), rest) == (32, f"a.tif-{queue}-image.tif")
        assert "outputs" not in child
    assert children(redis_db, "mesmer") == []


def test_tissue(run: Callable[..., Result], redis_db: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESMER_COMPARTMENT", "both")
    settings.use(None)
    after, files = run(IMAGE, channels="0,1,2", segmentation_type="tissue", outputs="")
    assert after["status"] == "done", after.get("reason")
    names = ["plate/a_0.csv", "plate/a_batch_0_feature_0.tif", "plate/a_batch_0_feature_1.tif"]
    assert sorted(files) == names
    found = [labels(files, name) for name in names[1:]]
    assert [len(np.unique(image)) - 1 for image in found] == [3, 2]
    assert table(files["plate/a_0.csv"]) == known_rows(*found)
    (child,) = children(redis_db, "mesmer")
    assert child["original_name"].endswith("-a.tif-mesmer-image.tif")
    assert (child["dimension_order"], child["scale"]) == ("BXY", "0.38")
    assert children(redis_db, "segmentation") == []


@pytest.mark.parametrize(
    "fields", [{"segmentation_type": "none", "channels": "0,1,2"}, {"channels": ""}, {"channels": "0,,"}]
)
def test_spots_alone(run: Callable[..., Result], redis_db: Any, fields: dict[str, str]) -> None:
    after, files = run(IMAGE, **fields)
    assert after["status"] == "done", after.get("reason")
    assert list(files) == ["plate/a_0.csv"]
    assert table(files["plate/a_0.csv"]) == known_rows()
    assert redis_db.keys("segmentation:*") == redis_db.keys("mesmer:*") == []


def test_a_field_of_view_is_chosen(consumers: dict[str, Consumer], redis_db: Any, tmp_path: Path) -> None:
    path = tmp_path / "uploads" / "a.czi"
    path.parent.mkdir()
    write_czi(path, [({"S": 0}, polaris.spots([])), ({"S": 1}, IMAGE[0])])
    given = {"status": "new", "input_file_name": "uploads/a.czi", "original_name": "a.czi", "field_of_view": "1"}
    after, files = run_with_children(consumers, redis_db, JOB, {**given, "segmentation_type": "none"})
    assert after["status"] == "done", after.get("reason")
    assert table(files["a_0.csv"]) == known_rows()
    redis_db.delete(JOB)
    after, _ = run_with_children(consumers, redis_db, JOB, {**given, "field_of_view": "", "segmentation_type": "none"})
    assert "a.czi: holds 2 images (0, 1); name one in field field_of_view, e.g. 0" in after["reason"]


def test_one_channel_of_cells(run: Callable[..., Result]) -> None:
    _, files = run(IMAGE, channels="0,,2")
    assert sorted(files) == ["plate/a_0.csv", "plate/a_batch_0_feature_0.tif"]
    cells = labels(files, "plate/a_batch_0_feature_0.tif")
    assert len(np.unique(cells)) - 1 == 3
    assert table(files["plate/a_0.csv"]) == known_rows(cells)


@pytest.mark.parametrize("kind", ["cell culture", "tissue"])
def test_each_frame_has_files(run: Callable[..., Result], kind: str) -> None:
    blank = np.stack([polaris.spots([SPOTS[0]]), NUCLEI, CELLS])
    after, files = run(np.stack([IMAGE, blank]), "TCYX", channels="0,1,2", segmentation_type=kind, compartment="both")
    assert after["status"] == "done", after.get("reason")
    assert sorted(files) == [
        *(f"plate/a_{frame}.csv" for frame in range(2)),
        *(f"plate/a_batch_{frame}_feature_{feature}.tif" for frame in range(2) for feature in range(2)),
    ]
    found = [labels(files, f"plate/a_batch_1_feature_{feature}.tif") for feature in range(2)]
    assert table(files["plate/a_1.csv"]) == known_rows(*found, places=[SPOTS[0]])


def test_no_consumer_is_held_while_children_run(consumers: dict[str, Consumer], redis_db: Any, tmp_path: Path) -> None:
    (tmp_path / "uploads").mkdir()
    tifffile.imwrite(tmp_path / "uploads" / "a.tif", IMAGE, photometric="minisblack", metadata={"axes": "CYX"})
    redis_db.hset(JOB, mapping={"status": "new", "input_file_name": "uploads/a.tif", "channels": "0,1,2"})
    redis_db.lpush("polaris", JOB)
    job = consumers["polaris"].job_queue.claim()
    assert job is not None
    consumers["polaris"].run(job)
    assert redis_db.hget(JOB, "status") == "waiting"
    assert (redis_db.llen("polaris"), redis_db.keys("processing-*")) == (0, [])
    assert [redis_db.llen(queue) for queue in ("spot", "segmentation")] == [1, 2]
    # Nobody serves these queues, which the job says until its children have ended.
    assert redis_db.hget(JOB, "warning") == (
        "no worker serves queue segmentation, spot now; the job waits until one starts"
    )


def test_the_warning_of_a_queue_goes_with_its_cause(run: Callable[..., Result], consumers: dict[str, Consumer]) -> None:
    upkeep.register(consumers["spot"].job_queue)
    after, _ = run(IMAGE, channels="0,1,2")
    assert (after["status"], after["warning"]) == ("done", "")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (
            {"segmentation_type": "organoid"},
            "InvalidJob: field segmentation_type: 'organoid' can't be read; ",
        ),
        (
            {"channels": ",1,2"},
            "InvalidJob: field channels: ',1,2' can't be used for spots in cells; ",
        ),
        ({"channels": "0,1,2,0"}, "InvalidJob: field channels: '0,1,2,0' can't be used for spots in cells; "),
        (
            {"channels": "0,", "segmentation_type": "tissue"},
            "InvalidJob: field channels: '0,' names no channel of",
        ),
        ({"channels": "0,1,3"}, "InvalidImage: a.tif: field channels asks for channel 3, but the image has 3"),
    ],
)
def test_wrong_fields_fail_readably(
    run: Callable[..., Result], redis_db: Any, fields: dict[str, str], reason: str
) -> None:
    after, _ = run(IMAGE, **fields)
    assert after["reason"].startswith(reason)
    assert redis_db.keys("spot:*") == []


@pytest.mark.parametrize(
    ("variable", "queue", "what"),
    [
        ("POLARIS_MODEL", "spot", "spots could not be found"),
        ("CYTOPLASM_MODEL", "segmentation", "cells could not be segmented"),
    ],
)
def test_a_child_that_fails_fails_the_job_with_its_reason(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, variable: str, queue: str, what: str
) -> None:
    monkeypatch.setenv(variable, "Nowhere:1")
    settings.use(None)
    after, _ = run(IMAGE, channels="0,1,2")
    assert after["status"] == "failed"
    assert after["reason"].startswith(f"PermanentError: a.tif: {what} by the workers of queue {queue}: ModelNotFound: ")


def test_a_child_that_is_gone_fails_the_job(
    consumers: dict[str, Consumer], run: Callable[..., Result], redis_db: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle = SegmentationConsumer.run

    def vanish(self: Any, job: Any) -> Any:
        outcome = settle(self, job)
        redis_db.delete(job.id)
        return outcome

    monkeypatch.setattr(SegmentationConsumer, "run", vanish)
    after, _ = run(IMAGE, channels="0,1")
    assert after["reason"].startswith("PermanentError: a.tif: cells could not be segmented by the workers of queue ")
    assert "its job expired, or was deleted" in after["reason"]


def test_a_long_name_fits_into_files(run: Callable[..., Result]) -> None:
    after, files = run(IMAGE, channels="0,1", original_name="ä" * 300 + ".tif")
    assert after["status"] == "done", after.get("reason")
    assert len(files) == 2
