"""Metrics count what happened: runs, deaths of slots, queues."""

from __future__ import annotations

import signal
import urllib.error
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from redis_consumer import metrics
from redis_consumer.cli.queues import metrics as metrics_module
from redis_consumer.cli.queues.metrics import read_figures
from redis_consumer.consumers import Consumer
from redis_consumer.consumers.claimed_job import Interrupted
from redis_consumer.errors import (
    InvalidImage,
    ModelNotFound,
    ModelServerUnavailable,
    RedisUnavailable,
    StorageUnavailable,
)
from redis_consumer.job import ModelId
from redis_consumer.options import CallLimits, QueueOptions
from redis_consumer.queue import JobQueue, admin, upkeep
from redis_consumer.queue.child_jobs import ChildJobs
from redis_consumer.redis import RedisClient
from redis_consumer.serving.onnx.server import OnnxServer
from redis_consumer.serving.transport.channel import Channel
from redis_consumer.storage import Storage
from support.cli import CommandLine
from support.grpc_server import PREDICT, Answer, answering
from support.queues import claimed, give_up, submit
from support.redis_server import RedisServer, free_port
from support.scraping import names_of, samples_of, scrape, value
from support.worker import JOB, running_worker, variables, wait_for

Work = Callable[[Consumer, str], str]


class Scripted(Consumer):
    """Does what the test says."""

    work: Work

    def _consume(self, redis_hash: str) -> str:
        return type(self).work(self, redis_hash)


@pytest.fixture
def run(redis_client: RedisClient, redis_db: Any, tmp_path: Path) -> Iterator[Callable[[Work], str]]:
    """Runs a job by a consumer with this work; gives what was counted."""
    folder = tmp_path / "counts"
    folder.mkdir()
    metrics.start(folder, "slot-0")

    def run(work: Work) -> str:
        kind = type("Kind", (Scripted,), {"work": staticmethod(work)})
        submit(redis_db)
        consumer = kind(redis_client, Storage(tmp_path.as_uri()), "predict", name="pod-1")
        with suppress(SystemExit, Interrupted):
            consumer.run(claimed(consumer.job_queue))
        return metrics.text(folder).decode()

    yield run
    metrics.stop()


def raising(error: BaseException) -> Work:
    def work(*_: Any) -> str:
        raise error

    return work


def losing(self: Consumer, key: str) -> str:
    self.redis.delete(f"redis-consumer:holders:{self.queue}")
    return self.final_status


def cancelled(self: Consumer, key: str) -> str:
    admin.cancel(self.job_queue, key)
    self.update_key(key, {"status": "predicting"})
    raise AssertionError("goes on")


@pytest.mark.parametrize(
    ("work", "status"),
    [
        (lambda self, _: self.final_status, "done"),
        (lambda self, _: self.failed_status, "failed"),
        (raising(InvalidImage("a.tif: odd")), "failed"),
        (raising(ZeroDivisionError()), "dead"),
        (raising(StorageUnavailable("bucket: away")), "given_back"),
        (raising(Interrupted()), "given_back"),
        (raising(SystemExit(1)), "crashed"),
        (lambda *_: "new", "given_back"),
        (losing, "lost"),
        (cancelled, "cancelled"),
    ],
)
def test_a_run_is_counted_once_by_how_it_ended(run: Any, work: Work, status: str) -> None:
    text = run(work)
    assert value(text, "redis_consumer_jobs_total", queue="predict", consumer="Kind", status=status) == 1
    assert value(text, "redis_consumer_job_seconds_count", queue="predict", consumer="Kind") == 1
    assert value(text, "redis_consumer_attempts_total", queue="predict") == 1
    assert text.count("redis_consumer_jobs_total{") == 1


def test_each_status_is_a_stage(run: Any) -> None:
    def work(self: Consumer, key: str) -> str:
        for status in ("started", "predicting", "retry-predicting - 1 - UNAVAILABLE", "predicting", "counting-spots"):
            self.update_key(key, {"status": status})
        return self.final_status

    text = run(work)
    stages = ("started", "predicting", "counting-spots")
    name = "redis_consumer_stage_seconds_count"
    assert {stage: value(text, name, consumer="Kind", stage=stage) for stage in stages} == dict.fromkeys(stages, 1)
    assert text.count(f"{name}{{") == 3


def test_bytes_of_the_bucket(run: Any, tmp_path: Path) -> None:
    def work(self: Consumer, _key: str) -> str:
        (tmp_path / "out").write_bytes(b"123")
        self.storage.upload(str(tmp_path / "out"))
        self.storage.download("output/out", str(tmp_path / "in"))
        return self.final_status

    text = run(work)
    for direction in ("download", "upload"):
        assert value(text, "redis_consumer_bytes_total", direction=direction) == 3


def counted(port: int, name: str, **labels: str) -> Callable[[], float | None]:
    def look() -> float | None:
        try:
            return value(scrape(port), name, **labels)
        except OSError:
            return None

    return look


def test_a_workers_counts_survive_its_slots(redis_server: RedisServer, redis_db: Any, tmp_path: Path) -> None:
    port = free_port()
    settings = variables(redis_server, tmp_path, "Crashing", HEALTH_ADDRESS=f"127.0.0.1:{port}")
    done = counted(port, "redis_consumer_jobs_total", queue="predict", consumer="Crashing", status="done")
    with running_worker(tmp_path, settings):
        wait_for(lambda: done() == 0, "a worker that counts", tmp_path)
        submit(redis_db, "a")
        wait_for(lambda: done() == 1, "the first job", tmp_path)
        submit(redis_db, "b", crash="1")
        deaths = counted(port, "redis_consumer_slot_deaths_total", cause="signal")
        wait_for(lambda: deaths() == 5, "the slots that crash", tmp_path)
        submit(redis_db, "c")
        wait_for(lambda: done() == 2, "a job after the crashes", tmp_path)
        text = scrape(port)
        assert value(text, "redis_consumer_attempts_total", queue="predict") == 7
        assert value(text, "redis_consumer_swept_total", queue="predict") == 0
        assert {"redis_consumer_info", "redis_consumer_job_seconds"} <= names_of(text)


# What the rooms count themselves.


@pytest.fixture
def counts(tmp_path: Path) -> Iterator[Callable[[], str]]:
    """Counts in this process; gives what was counted."""
    folder = tmp_path / "counted"
    folder.mkdir()
    metrics.start(folder, "slot-0")
    yield lambda: metrics.text(folder).decode()
    metrics.stop()


def refusing(code: grpc.StatusCode) -> Answer:
    def answer(_request: bytes, context: Any) -> bytes:
        context.abort(code, "no")
        raise AssertionError("abort raises")

    return answer


def call(answer: Answer) -> None:
    with answering({PREDICT: answer}) as target:
        channel = Channel([target], "TensorFlow Serving", limits=CallLimits(timeout_s=10, backoff_s=0, max_retries=2))
        try:
            channel.call(PREDICT, b"", model=ModelId("Nuclei", 1))
        finally:
            channel.close()


def test_calls_of_a_model_server(counts: Callable[[], str]) -> None:
    call(lambda request, _: request)
    assert value(counts(), "redis_consumer_model_server_seconds_count", model="Nuclei:1") == 1


def test_each_try_that_fails_is_an_error(counts: Callable[[], str]) -> None:
    with pytest.raises(ModelServerUnavailable):
        call(refusing(grpc.StatusCode.UNAVAILABLE))
    text = counts()
    assert value(text, "redis_consumer_model_server_errors_total", model="Nuclei:1", code="UNAVAILABLE") == 3
    assert value(text, "redis_consumer_retries_total", dependency="model_server") == 2


def test_models_that_nobody_has_are_counted_as_one(counts: Callable[[], str]) -> None:
    with pytest.raises(ModelNotFound):
        call(refusing(grpc.StatusCode.NOT_FOUND))
    assert value(counts(), "redis_consumer_model_server_errors_total", model="unknown", code="NOT_FOUND") == 1


def test_predictions_in_this_process(counts: Callable[[], str], onnx_server: OnnxServer) -> None:
    onnx_server.predict(ModelId("Scaling", 1), {"image": np.ones((1, 4, 4, 1), np.float32)})
    assert value(counts(), "redis_consumer_model_server_seconds_count", model="Scaling:1") == 1


def test_commands_of_redis_that_are_repeated(counts: Callable[[], str]) -> None:
    client = RedisClient("127.0.0.1", free_port(), 0.01, deadline_s=0.02)
    with pytest.raises(RedisUnavailable):
        client.ping()
    assert (value(counts(), "redis_consumer_retries_total", dependency="redis") or 0) >= 1


# Queues.


@pytest.fixture
def queue(redis_client: RedisClient) -> JobQueue:
    return JobQueue(redis_client, "predict", "pod-1")


@contextmanager
def exporter(folder: Path, redis_port: int, *options: str) -> Iterator[int]:
    port = free_port()
    process = CommandLine.make(folder, redis_port).start("metrics", "--listen", f"127.0.0.1:{port}", *options)
    try:
        wait_for(lambda: counted(port, "redis_consumer_up")() is not None, "the exporter")
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=20)
        assert process.returncode == 0, errors


def test_queues_without_a_worker(redis_server: RedisServer, redis_db: Any, queue: JobQueue, tmp_path: Path) -> None:
    upkeep.register(queue)
    give_up(redis_db, queue, "dead")
    submit(redis_db, "running")
    claimed(queue)
    child = submit(redis_db, "child", queue="other")
    submit(redis_db, "parent", children=child)
    ChildJobs(queue, claimed(queue)).adopt("_later", {})
    redis_db.lpush("processing-predict:old-pod", "predict:b.tif:1")
    for name in "xyz":
        submit(redis_db, name, created_at=(datetime.now(timezone.utc) - timedelta(hours=1)).isoformat())
    with exporter(tmp_path, redis_server.port) as port:
        text = scrape(port)
    jobs = {state: value(text, "redis_consumer_queue_jobs", queue="predict", state=state) for state in STATES}
    assert jobs == {"waiting": 3, "running": 2, "dead": 1}
    assert value(text, "redis_consumer_queue_unfinished_jobs", queue="predict") == 6
    assert value(text, "redis_consumer_queue_workers", queue="predict") == 1
    assert value(text, "redis_consumer_queue_oldest_waiting_seconds", queue="predict") == pytest.approx(3600, abs=60)
    assert value(text, "redis_consumer_queue_oldest_waiting_seconds", queue="predict-zip") == 0
    assert names_of(text) == {metric.name for metric in metrics.queues.ALL}


STATES = ("waiting", "running", "dead")


def fail(queue: JobQueue, db: Any) -> None:
    queue.complete(claimed(queue), {"status": "failed"})


def complete(queue: JobQueue, db: Any) -> None:
    queue.complete(claimed(queue), {"status": "done"}, is_success=True)


def die(queue: JobQueue, db: Any) -> None:
    queue.complete(claimed(queue), {"status": "failed"}, is_dead=True)


def exhaust(queue: JobQueue, db: Any) -> None:
    queue.give_back(claimed(queue), is_crash=True)
    assert JobQueue(queue.redis, "predict", "pod-2", QueueOptions(max_attempts=1)).claim() is None


def cancel(queue: JobQueue, db: Any) -> None:
    admin.cancel(queue, JOB)


def cancel_running(queue: JobQueue, db: Any) -> None:
    job = claimed(queue)
    admin.cancel(queue, JOB)
    queue.complete(job, {"status": "failed"})


def claim_unwanted(queue: JobQueue, db: Any) -> None:
    db.hset(JOB, "parent", "gone")
    db.sadd("redis-consumer:open:gone", JOB)
    assert queue.claim() is None


def divide(queue: JobQueue, db: Any) -> None:
    db.hset(JOB, "children", submit(db, "child", queue="other"))
    ChildJobs(queue, claimed(queue)).adopt("_later", {})


def lapse(queue: JobQueue, db: Any) -> None:
    claimed(queue)
    db.zadd("redis-consumer:leases:predict", {JOB: 1})
    upkeep.sweep(queue)


def strand(queue: JobQueue, db: Any) -> None:
    upkeep.register(queue)
    db.lmove("predict", queue.processing)
    upkeep.sweep(queue)
    db.hset("redis-consumer:orphans:predict", f"{queue.processing} {JOB}", 1)
    db.delete("redis-consumer:sweep:predict")
    upkeep.sweep(queue)


@pytest.mark.parametrize(
    ("act", "ended", "attempts", "swept"),
    [
        (complete, {"done": 1}, 1, 0),
        (fail, {"failed": 1}, 1, 0),
        (die, {"dead": 1}, 1, 0),
        (exhaust, {"dead": 1}, 1, 0),
        (cancel, {"failed": 1}, 0, 0),
        (cancel_running, {"failed": 1}, 1, 0),
        (claim_unwanted, {"failed": 1}, 0, 0),
        (divide, {}, 1, 0),
        (lapse, {}, 1, 1),
        (strand, {}, 0, 1),
    ],
)
def test_each_end_is_counted_once_by_redis(
    queue: JobQueue, redis_db: Any, act: Any, ended: dict[str, int], attempts: int, swept: int
) -> None:
    assert submit(redis_db) == JOB
    act(queue, redis_db)
    figures = read_figures(queue.redis, ["predict"])
    told = {status: count for (_, status), count in figures[metrics.queues.ENDED].items()}
    assert told == {"done": 0, "failed": 0, "dead": 0, **ended}
    assert figures[metrics.queues.ATTEMPTS] == {("predict",): attempts}
    assert figures[metrics.queues.SWEPT] == {("predict",): swept}


def test_the_exporter_outlives_redis(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    with exporter(tmp_path, server.port, "--queue", "track") as port:
        assert names_of(scrape(port)) == {"redis_consumer_up"}
        assert value(scrape(port), "redis_consumer_up") == 0
        server.start()
        try:
            wait_for(lambda: value(scrape(port), "redis_consumer_up") == 1, "Redis")
            assert value(scrape(port), "redis_consumer_queue_workers", queue="track") == 0
        finally:
            server.stop()
        wait_for(lambda: value(scrape(port), "redis_consumer_up") == 0, "the outage in the metrics")


def test_who_asks_at_once_gets_the_same_figures(
    redis_client: RedisClient, redis_db: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_module, "KEPT_S", 60.0)
    give = metrics_module.pages_of(redis_client, ["predict"])["/metrics"]
    first = give()
    submit(redis_db)
    assert give() is first


def test_a_key_that_is_no_queue_is_said(redis_server: RedisServer, redis_db: Any, tmp_path: Path) -> None:
    with exporter(tmp_path, redis_server.port) as port:
        redis_db.set("predict", "text")
        wait_for(lambda: "holds a string, not a queue" in refusal(port), "word of the key")


def refusal(port: int) -> str:
    """Why it tells nothing, empty where it does."""
    try:
        scrape(port)
    except urllib.error.HTTPError as refused:
        return refused.read().decode()
    return ""


def test_named_queues_are_told_of_and_no_other(redis_server: RedisServer, redis_db: Any, tmp_path: Path) -> None:
    with exporter(tmp_path, redis_server.port, "--queue", "Track", "--queue", "track") as port:
        text = scrape(port)
    workers = [dict(labels) for name, labels in samples_of(text) if name == "redis_consumer_queue_workers"]
    assert workers == [{"queue": "track"}]


def test_an_address_that_is_taken_stops_the_start(redis_server: RedisServer, tmp_path: Path) -> None:
    cli = CommandLine.make(tmp_path, redis_server.port)
    result = cli.run("metrics", "--listen", f"127.0.0.1:{redis_server.port}")
    assert result.returncode == 2
    assert "--listen 127.0.0.1" in result.stderr
