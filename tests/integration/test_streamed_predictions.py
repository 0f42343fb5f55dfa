"""Images in tiles with several calls under way: real models, a real Redis, and what ends a stream before its end."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest

from fixtures_serving import serve_models
from redis_consumer.consumers import TensorFlowServingConsumer, claimed_job
from redis_consumer.consumers.claimed_job import Interrupted
from redis_consumer.errors import JobCancelled, LeaseLost, ModelMismatch
from redis_consumer.job import Job, ModelId
from redis_consumer.models import ModelStore
from redis_consumer.redis import RedisClient
from redis_consumer.serving.base import ModelServer
from redis_consumer.serving.onnx.server import OnnxServer
from redis_consumer.serving.tfs.server import TFServingServer
from redis_consumer.storage import Storage
from support import onnx_models as models

JOB = "predict:a.tif:1"
#: The default of CALLS_IN_FLIGHT.
IN_FLIGHT = 4
CONVOLVING = ModelId("Convolving", 1)
WAIT_S = 20.0
Make = Callable[[ModelServer], TensorFlowServingConsumer]


def image(*shape: int) -> Any:
    return np.random.default_rng(3).random(shape, dtype=np.float32)


@pytest.fixture
def make(redis_client: RedisClient, tmp_path: Path) -> Make:
    """Makes a consumer of a model server."""

    def make(server: ModelServer) -> TensorFlowServingConsumer:
        return TensorFlowServingConsumer(
            redis_client,
            Storage(tmp_path.as_uri()),
            "predict",
            model_server=server,
            models=ModelStore(None),
            name="pod-1",
        )

    return make


class Gated:
    """A model server whose predictions wait until they are let go; all else is the real one's."""

    def __init__(self, server: ModelServer) -> None:
        self._server = server
        self.begun: SimpleQueue[int] = SimpleQueue()
        self.go = threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._server, name)

    def predict(self, model: ModelId, inputs: Mapping[str, Any], **options: Any) -> dict[str, Any]:
        self.begun.put(len(next(iter(inputs.values()))))
        assert self.go.wait(WAIT_S)
        return self._server.predict(model, inputs, **options)


@pytest.fixture
def gated(onnx_server: OnnxServer) -> Iterator[Gated]:
    server = Gated(onnx_server)
    yield server
    server.go.set()
    for thread in threading.enumerate():
        if thread.name.startswith("call-"):
            thread.join(WAIT_S)


@pytest.fixture
def claimed(redis_db: Any, make: Make, gated: Gated, monkeypatch: pytest.MonkeyPatch) -> TensorFlowServingConsumer:
    """A consumer that is in the middle of a job."""
    consumer = make(gated)
    redis_db.hset(JOB, mapping={"status": "new", "input_file_name": "uploads/a.tif"})
    redis_db.lpush("predict", JOB)
    with monkeypatch.context() as patch:
        patch.setattr(claimed_job, "PROGRESS_S", 0.0)
        consumer._hold(consumer.job_queue.claim())
    return consumer


def test_several_calls_are_under_way_at_once(make: Make, gated: Gated) -> None:
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.extend(make(gated).predict(image(20, 100, 120, 2), CONVOLVING)))
    thread.start()
    assert [gated.begun.get(timeout=WAIT_S) for _ in range(IN_FLIGHT)] == [64] * IN_FLIGHT
    assert gated.begun.empty()
    gated.go.set()
    thread.join(WAIT_S)
    assert [output.shape for output in results] == [(20, 100, 120, 1), (20, 100, 120, 3)]


def test_the_result_is_the_same_to_the_last_bit_however_calls_come_back(
    make: Make, onnx_server: OnnxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TF_MAX_BATCH_SIZE", "3")
    pixels = image(1, 150, 170, 2)
    first, *others = (make(onnx_server).predict(pixels, CONVOLVING) for _ in range(4))
    assert all(np.array_equal(*pair) for other in others for pair in zip(first, other, strict=True))


def test_tiles_give_what_the_whole_image_gives(make: Make, tmp_path: Path) -> None:
    """The convolutions see 1 px around: less than the quarter of the overlap that no tile gives."""
    for side in (32, 100):
        models.save(tmp_path, f"Side{side}", 1, models.convolving(side))
    server = OnnxServer(lambda model: tmp_path / model.name / "1" / "model.onnx", threads=1)
    consumer, pixels = make(server), image(1, 100, 100, 2)
    tiled, whole = (consumer.predict(pixels, ModelId(f"Side{side}", 1)) for side in (32, 100))
    for output, expected in zip(tiled, whole, strict=True):
        np.testing.assert_allclose(output, expected, atol=1e-6)
    server.close()


@pytest.mark.parametrize(
    ("sides", "shape"),
    [
        ((None, None, None), (2, 20, 30, 1)),
        ((None, 16, 16), (2, 20, 30, 1)),
        ((None, None, None, None, 2), (5, 20, 30, 2)),
        ((None, 4, 16, 16, 2), (11, 20, 30, 2)),
        ((None, 4, 16, 16, 2), (2, 11, 20, 30, 2)),
    ],
    ids=["planes", "planes in tiles", "a volume", "a volume in tiles", "volumes in tiles"],
)
def test_models_of_planes_and_of_volumes(
    make: Make, tmp_path: Path, sides: tuple[int | None, ...], shape: tuple[int, ...]
) -> None:
    models.save(tmp_path, "Scaling", 1, models.scaling(2.0, shape=sides))
    server = OnnxServer(lambda model: tmp_path / model.name / "1" / "model.onnx", threads=1)
    pixels = image(*shape)
    (output,) = make(server).predict(pixels, ModelId("Scaling", 1))
    np.testing.assert_array_equal(output, 2 * pixels)
    server.close()


def test_images_one_after_the_other_are_one_stream(make: Make, gated: Gated) -> None:
    images = [image(1, 40, 40, 2) for _ in range(5)]
    with contextlib.closing(make(gated).predict_each(images, CONVOLVING)) as predicted:
        gated.go.set()
        outputs = next(predicted)
        # One was asked for; the server has got the next ones meanwhile.
        assert [gated.begun.get(timeout=WAIT_S) for _ in range(4)]
        assert [output.shape for output in outputs] == [(1, 40, 40, 1), (1, 40, 40, 3)]
        assert len(list(predicted)) == 4


def test_the_progress_of_a_job_is_written(
    claimed: TensorFlowServingConsumer, gated: Gated, redis_db: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claimed_job, "PROGRESS_S", 0.0)
    written: list[int] = []
    monkeypatch.setattr(claimed, "on_update", lambda: written.append(int(redis_db.hget(JOB, "progress"))))
    gated.go.set()
    claimed.predict(image(7, 90, 90, 2), CONVOLVING)
    assert written == sorted(written)
    assert len(written) > 1
    assert written[-1] == 100


def test_progress_is_written_once_a_second_at_most(claimed: TensorFlowServingConsumer, redis_db: Any) -> None:
    claimed.report_progress(1, 4)
    claimed.report_progress(2, 4)
    assert redis_db.hget(JOB, "progress") == "25"


def test_a_lost_lease_ends_the_stream(
    claimed: TensorFlowServingConsumer, gated: Gated, redis_db: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis_db.lrem(claimed.processing_queue, 1, JOB)
    gated.go.set()
    with pytest.raises(LeaseLost):
        claimed.predict(image(40, 100, 100, 2), CONVOLVING)
    assert gated.begun.qsize() < 10


def test_a_cancelled_job_ends_the_stream(
    claimed: TensorFlowServingConsumer, gated: Gated, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cancelled(*_: object) -> None:
        raise JobCancelled("job: cancelled", job_id=JOB)

    monkeypatch.setattr(claimed, "update_key", cancelled)
    gated.go.set()
    with pytest.raises(JobCancelled):
        claimed.predict(image(40, 100, 100, 2), CONVOLVING)


def test_an_interrupted_worker_waits_for_no_call(claimed: TensorFlowServingConsumer, gated: Gated) -> None:
    def on_signal(*_: object) -> None:
        raise Interrupted

    def interrupt() -> None:
        for _ in range(IN_FLIGHT):
            gated.begun.get(timeout=WAIT_S)
        signal.raise_signal(signal.SIGUSR2)

    previous = signal.signal(signal.SIGUSR2, on_signal)
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(Interrupted):
            claimed.predict(image(40, 100, 100, 2), CONVOLVING)
        assert not gated.go.is_set()
    finally:
        signal.signal(signal.SIGUSR2, previous)
        thread.join(WAIT_S)
    assert gated.begun.empty()


def test_an_error_of_one_call_ends_the_others(make: Make, onnx_server: OnnxServer) -> None:
    class Failing(Gated):
        def predict(self, model: ModelId, inputs: Mapping[str, Any], **options: Any) -> dict[str, Any]:
            self.begun.put(0)
            raise ModelMismatch("model: no")

    server = Failing(onnx_server)
    with pytest.raises(ModelMismatch, match="model: no"):
        make(server).predict(image(40, 100, 100, 2), CONVOLVING)
    assert server.begun.qsize() <= IN_FLIGHT


def test_retries_are_told_to_the_job_by_the_thread_that_runs_it(
    redis_db: Any, make: Make, onnx_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve_models(onnx_model_dir, "--fail-first", "3") as address:
        server = TFServingServer(address, backoff_s=0)
        consumer = make(server)
        redis_db.hset(JOB, mapping={"status": "predicting"})
        consumer._hold(Job(JOB, {}))
        threads: set[threading.Thread] = set()
        monkeypatch.setattr(consumer, "update_key", lambda *_: threads.add(threading.current_thread()))
        (output,) = consumer.predict(image(1, 8, 8, 1), ModelId("Scaling", 1))
        server.close()
    assert output.shape == (1, 8, 8, 1)
    assert consumer._claimed is not None
    assert consumer._claimed.retries == 3
    assert threads == {threading.current_thread()}


@pytest.mark.parametrize("method", ["grpc_image", "_get_predict_client"])
def test_a_plugins_own_way_to_the_model_is_taken_in_the_jobs_thread(
    make: Make, onnx_server: OnnxServer, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    consumer = make(onnx_server)
    own, threads = getattr(consumer, method), set()

    def called(*args: Any) -> Any:
        threads.add(threading.current_thread())
        return own(*args)

    monkeypatch.setattr(consumer, method, called)
    assert consumer.predict(image(2, 50, 50, 2), CONVOLVING)[0].shape == (2, 50, 50, 1)
    assert threads == {threading.current_thread()}
