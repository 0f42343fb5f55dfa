"""What the documents for authors of consumers promise: the example, and ``get_consumer``."""

from __future__ import annotations

import importlib.util
import io
import re
import textwrap
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tifffile

from redis_consumer.consumers import Consumer, ImageFileConsumer, TensorFlowServingConsumer, TrackingConsumer
from redis_consumer.consumers.registry import get_consumer_class
from redis_consumer.redis import RedisClient
from redis_consumer.storage import Storage
from redis_consumer.testing import JobRun
from support import onnx_models
from support.redis_server import RedisServer
from support.worker import ROOT, SCRIPT, environment, running_worker, wait_for

#: The document that the project began with. Its text belongs to its authors, so it is read where it lies.
SEED = ROOT.parent / "shared" / "seed-designing-a-custom-consumer.rst"
OUR_EXAMPLE = ROOT / "docs" / "examples" / "my_consumer.py"
KEY = "predict:two.npy:1"
HEADER = """
from redis_consumer import utils
from redis_consumer.consumers import TensorFlowServingConsumer

name = "result"
subdir = ""


class MyConsumer(TensorFlowServingConsumer):
"""


def seed_blocks() -> list[str]:
    if not SEED.is_file():
        pytest.skip("the document is not beside this repository; our own example runs in its place")
    found = re.findall(
        r"^\.\. code-block:: python\n\n((?:    .*\n|\n)+)", SEED.read_text(encoding="utf-8"), re.MULTILINE
    )
    return [str(block) for block in found]


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    folder = tmp_path / "bucket"
    (folder / "uploads").mkdir(parents=True)
    np.save(folder / "uploads" / "two.npy", np.random.default_rng(1).random((32, 32, 2), dtype=np.float32))
    np.save(folder / "uploads" / "one.npy", np.full((8, 9, 1), 3, np.float32))
    onnx_models.save(folder / "models", "Convolving", 1, onnx_models.convolving())
    onnx_models.save(folder / "models", "Scaling", 1, onnx_models.scaling(2.0))
    return folder


def run_job(
    consumer: str, model: str, file: str, server: RedisServer, db: Any, bucket: Path, folder: Path, *arguments: str
) -> dict[str, Any]:
    """Run one job by a worker process that was told its consumer by the environment; give the result's files.

    The worker is the seed's script, or our command where it has arguments.
    """
    variables = environment(server, bucket.as_uri(), CONSUMER_TYPE=consumer)
    with running_worker(folder, {**variables, "PYTHONPATH": str(folder)}, *arguments):
        fields = {"status": "new", "model_name": model, "model_version": "1", "input_file_name": f"uploads/{file}"}
        db.hset(KEY, mapping=fields)
        db.lpush("predict", KEY)
        wait_for(lambda: db.hget(KEY, "status") in ("done", "failed"), "the end of the job", folder)
    job = db.hgetall(KEY)
    assert job["status"] == "done", job.get("reason")
    assert job["output_url"].endswith(job["output_file_name"])
    assert db.keys("processing-*") == []
    archive = zipfile.ZipFile(io.BytesIO((bucket / job["output_file_name"]).read_bytes()))
    return {name: tifffile.imread(io.BytesIO(archive.read(name))) for name in archive.namelist()}


@pytest.mark.parametrize("arguments", [[], ["--log-level", "INFO"]], ids=["script", "command"])
def test_the_seeds_example_runs_unchanged(
    redis_server: RedisServer, redis_db: Any, bucket: Path, tmp_path: Path, arguments: list[str]
) -> None:
    (tmp_path / "my_consumer.py").write_text(HEADER + seed_blocks()[0])
    kind = "my_consumer:MyConsumer"
    files = run_job(kind, "Scaling", "one.npy", redis_server, redis_db, bucket, tmp_path, *arguments)
    assert list(files) == ["result_feature_0.tif"]
    np.testing.assert_array_equal(np.squeeze(files["result_feature_0.tif"]), np.full((8, 9), 6))


def test_the_seeds_example_is_tried_without_any_server(
    run_consumer: Callable[..., JobRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tried.py").write_text(HEADER + seed_blocks()[0])
    monkeypatch.syspath_prepend(tmp_path)
    run = run_consumer("tried:MyConsumer", np.full((8, 9, 1), 3, np.float32), model=lambda batch: 2 * batch)
    assert run.status == "done", run.reason
    np.testing.assert_array_equal(np.squeeze(run.outputs["result_feature_0.tif"]), np.full((8, 9), 6))


def test_the_seeds_example_takes_a_model_with_several_outputs(
    redis_server: RedisServer, redis_db: Any, bucket: Path, tmp_path: Path
) -> None:
    (tmp_path / "my_module.py").write_text(HEADER + seed_blocks()[0])
    files = run_job("my_module:MyConsumer", "Convolving", "two.npy", redis_server, redis_db, bucket, tmp_path)
    assert sorted(files) == [f"result_feature_{channel}.tif" for channel in range(4)]


def test_the_seeds_get_consumer_finds_our_classes(redis_client: RedisClient) -> None:
    block = textwrap.dedent(seed_blocks()[1])
    names: dict[str, Any] = {}
    exec(f"import logging\nimport redis_consumer\n{block}", names)
    consumer = names["get_consumer"]("IMAGE", redis_client=redis_client, storage_client=None, queue="predict")
    assert isinstance(consumer, ImageFileConsumer)
    with pytest.raises(ValueError, match='Invalid `consumer_type`: "retrain"'):
        names["get_consumer"]("retrain")


def test_our_example_runs(redis_server: RedisServer, redis_db: Any, bucket: Path, tmp_path: Path) -> None:
    (tmp_path / "my_consumer.py").write_text(OUR_EXAMPLE.read_text())
    np.save(bucket / "uploads" / "ramp.npy", np.arange(72, dtype=np.float32).reshape(8, 9, 1))
    files = run_job("my_consumer:MyConsumer", "Scaling", "ramp.npy", redis_server, redis_db, bucket, tmp_path)
    assert list(files) == ["predictions/ramp_feature_0.tif"]
    assert files["predictions/ramp_feature_0.tif"].max() == pytest.approx(float(redis_db.hget(KEY, "peak")))


@pytest.fixture
def script() -> ModuleType:
    """The seed's script as a module; its name is no identifier."""
    spec = importlib.util.spec_from_file_location("consume_redis_events", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("consumer_type", ["image", "Image", "IMAGE"])
def test_get_consumer_takes_any_case(script: ModuleType, redis_client: RedisClient, consumer_type: str) -> None:
    consumer = script.get_consumer(
        consumer_type,
        redis_client=redis_client,
        storage_client=Storage("memory://"),
        queue="Predict",
        final_status="ok",
    )
    assert isinstance(consumer, ImageFileConsumer)
    assert (consumer.queue, consumer.final_status) == ("predict", "ok")


@pytest.mark.parametrize("consumer_type", ["tracking", "Caliban"])
def test_get_consumer_knows_the_trackers(script: ModuleType, redis_client: RedisClient, consumer_type: str) -> None:
    consumer = script.get_consumer(consumer_type, redis_client=redis_client, storage_client=None, queue="track")
    assert isinstance(consumer, TrackingConsumer)


@pytest.mark.parametrize("queue", ["predict", "Predict-ZIP"])
def test_a_zip_consumer_takes_the_name_of_either_queue(
    script: ModuleType, redis_client: RedisClient, queue: str
) -> None:
    consumer = script.get_consumer("zip", redis_client=redis_client, storage_client=None, queue=queue)
    assert (consumer.queue, consumer.child_queue) == ("predict-zip", "predict")
    assert not consumer.is_valid_hash(None)


def test_our_example_of_a_divided_job_runs(
    redis_server: RedisServer, redis_db: Any, bucket: Path, tmp_path: Path
) -> None:
    (tmp_path / "mosaic.py").write_text(OUR_EXAMPLE.with_name("mosaic.py").read_text())
    tifffile.imwrite(bucket / "uploads" / "nuclei.tif", tifffile.imread(ROOT / "data/nuclei.tif")[:512, :512])
    variables = {**environment(redis_server, bucket.as_uri()), "PYTHONPATH": str(tmp_path)}
    key = "mosaic:nuclei.tif:1"
    with running_worker(tmp_path, variables, "--serve", "mosaic:Mosaic=mosaic", "--serve", "image=predict"):
        fields = {"status": "new", "model_name": "NuclearSegmentation", "model_version": "1", "scale": "0.5"}
        redis_db.hset(key, mapping={**fields, "input_file_name": "uploads/nuclei.tif"})
        redis_db.lpush("mosaic", key)
        wait_for(lambda: redis_db.hget(key, "status") in ("done", "failed"), "the end of the job", tmp_path)
    assert redis_db.hget(key, "status") == "done", redis_db.hget(key, "reason")
    assert 5 < int(redis_db.hget(key, "objects")) < 60


def test_get_consumer_refuses_what_it_does_not_know(script: ModuleType) -> None:
    with pytest.raises(ValueError, match=r'^Invalid `consumer_type`: "retrain"'):
        script.get_consumer("retrain")


def test_the_scripts_logger_can_be_started(script: ModuleType) -> None:
    script.initialize_logger()


@pytest.fixture
def _plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package with an entry point, as pip would lay it down."""
    site = tmp_path / "site"
    (site / "counting-1.0.dist-info").mkdir(parents=True)
    work = "    def _consume(self, redis_hash):\n        return self.final_status\n"
    (site / "counting.py").write_text(HEADER.replace("MyConsumer", "Counting") + work)
    (site / "counting-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: counting\nVersion: 1.0\n")
    (site / "counting-1.0.dist-info" / "entry_points.txt").write_text(
        "[redis_consumer.consumers]\ncount = counting:Counting\n"
    )
    monkeypatch.syspath_prepend(site)


@pytest.mark.usefixtures("_plugin")
def test_a_package_offers_its_consumer_by_an_entry_point() -> None:
    found = get_consumer_class("count")
    assert issubclass(found, TensorFlowServingConsumer)
    assert found.__name__ == "Counting"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("no_such_module:Consumer", "No module named"),
        ("pathlib:Nothing", "has no attribute 'Nothing'"),
        ("pathlib:Path", "no subclass"),
        ("redis_consumer.consumers:TensorFlowServingConsumer", "has no method _consume"),
        ("broken:Consumer", "SyntaxError"),
    ],
)
def test_a_class_that_is_no_consumer_is_refused(tmp_path: Path, path: str, text: str) -> None:
    (tmp_path / "broken.py").write_text("class Consumer(:\n")
    with pytest.raises(ValueError, match=text):
        get_consumer_class(path)


def test_a_constructor_that_does_not_fit_is_refused(script: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "bad_init.py").write_text(
        HEADER + "    def __init__(self, other): pass\n    def _consume(self, key): pass\n"
    )
    with pytest.raises(ValueError, match="its constructor must take the arguments redis_client"):
        script.get_consumer("bad_init:MyConsumer", redis_client=None, storage_client=None, queue="predict")


def test_the_base_classes_are_where_the_documents_say() -> None:
    import redis_consumer

    assert redis_consumer.consumers.TensorFlowServingConsumer is TensorFlowServingConsumer
    assert issubclass(TensorFlowServingConsumer, Consumer)
    for name in ("_get_predict_client", "grpc_image", "_consume"):
        assert callable(getattr(TensorFlowServingConsumer, name))
