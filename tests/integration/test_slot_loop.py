"""The loop around the jobs: real processes, real signals, a Redis that goes away."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.redis_server import RedisServer
from support.worker import JOB, is_idle, running_worker, status_is, submit, variables, wait_for


@pytest.fixture
def worker(redis_server: RedisServer, redis_db: Any, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    with running_worker(tmp_path, variables(redis_server, tmp_path)) as process:
        wait_for(lambda: is_idle(redis_db), "the idle worker", tmp_path)
        yield process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_worker_stops_at_a_signal(worker: subprocess.Popen[bytes], number: int) -> None:
    os.kill(worker.pid, number)
    assert worker.wait(30) == 0


def test_a_running_job_may_end_after_the_signal(worker: subprocess.Popen[bytes], redis_db: Any) -> None:
    submit(redis_db, seconds="0.5")
    wait_for(status_is(redis_db, "started"), "the job's start")
    worker.terminate()
    assert worker.wait(30) == 0
    assert redis_db.hget(JOB, "status") == "done"


def test_a_job_longer_than_the_grace_period_goes_back_as_the_next(
    redis_server: RedisServer, redis_db: Any, tmp_path: Path
) -> None:
    with running_worker(tmp_path, variables(redis_server, tmp_path, GRACE_PERIOD="0.2")) as process:
        submit(redis_db, seconds="60")
        submit(redis_db, "predict:later.tif:2")
        wait_for(status_is(redis_db, "started"), "the job's start", tmp_path)
        process.terminate()
        assert process.wait(30) == 0
    assert redis_db.lrange("predict", 0, -1) == ["predict:later.tif:2", JOB]
    assert redis_db.keys("processing-*") == []
    # By its slot: the supervisor would kill that and do it as well, but not before seconds have passed.
    assert f"Gave back job {JOB}: the worker stops" in (tmp_path / "worker.log").read_text()


def test_a_second_signal_stops_at_once(worker: subprocess.Popen[bytes], redis_db: Any, tmp_path: Path) -> None:
    submit(redis_db, seconds="60")
    wait_for(status_is(redis_db, "started"), "the job's start", tmp_path)
    worker.terminate()
    wait_for(lambda: "stopping within" in (tmp_path / "worker.log").read_text(), "the first signal's log line")
    worker.terminate()
    assert worker.wait(30) == 0
    assert redis_db.lrange("predict", 0, -1) == [JOB]
    assert f"Gave back job {JOB}: the worker stops" in (tmp_path / "worker.log").read_text()


def test_a_killed_workers_job_runs_in_its_next_life(redis_server: RedisServer, redis_db: Any, tmp_path: Path) -> None:
    settings = variables(redis_server, tmp_path, LEASE_TIMEOUT="1.5", SWEEP_INTERVAL="0.5")
    with running_worker(tmp_path, settings) as process:
        submit(redis_db, seconds="60")
        wait_for(status_is(redis_db, "started"), "the job's start", tmp_path)
        process.send_signal(signal.SIGKILL)
        process.wait()
    redis_db.hset(JOB, "seconds", "0")
    with running_worker(tmp_path, settings):
        wait_for(status_is(redis_db, "done"), "the second run", tmp_path)
    assert redis_db.keys("processing-*") == []


def test_a_worker_starts_before_redis_and_outlives_its_restart(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, is_durable=True)
    with running_worker(tmp_path, variables(server, tmp_path)) as process:
        wait_for(
            lambda: "Cannot reach Redis" in (tmp_path / "worker.log").read_text(),
            "the note that there is no Redis",
            tmp_path,
        )
        server.start()
        try:
            submit(server.client)
            wait_for(status_is(server.client, "done"), "the first job", tmp_path)
            server.stop()
            server.start()
            submit(server.client, "predict:b.tif:2")
            wait_for(status_is(server.client, "done", "predict:b.tif:2"), "the job after the restart", tmp_path)
            assert process.poll() is None
        finally:
            server.stop()
    log = (tmp_path / "worker.log").read_text()
    # Twice for each of the two processes of a worker: before the start, and at the restart.
    assert log.count("Cannot reach Redis") <= 4
    assert log.count("is available again after") <= 4
    assert "is available again after" in log
    assert "starting another" not in log  # no slot ended for it


def test_a_running_job_goes_on_when_redis_is_back(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, is_durable=True).start()
    try:
        with running_worker(tmp_path, variables(server, tmp_path, LEASE_TIMEOUT="600")):
            submit(server.client, seconds="1")
            wait_for(status_is(server.client, "started"), "the job's start", tmp_path)
            server.stop()
            wait_for(
                lambda: "Cannot reach Redis" in (tmp_path / "worker.log").read_text(), "the job's last write", tmp_path
            )
            server.start()
            wait_for(status_is(server.client, "done"), "the job's end", tmp_path)
    finally:
        server.stop()
    assert (tmp_path / "worker.log").read_text().count("Started job") == 1


def test_names_that_are_not_utf8_stop_nobody(redis_server: RedisServer, redis_db: Any, tmp_path: Path) -> None:
    odd = b"predict:\xff\xfe:1"
    redis_db.hset(odd, mapping={"status": "new", "original_name": b"caf\xe9.tif", "input_file_name": b"uploads/\xe9"})
    with running_worker(tmp_path, variables(redis_server, tmp_path)):
        redis_db.lpush("predict", odd)
        submit(redis_db)
        wait_for(status_is(redis_db, "done"), "the job behind it", tmp_path)
        assert redis_db.hget(odd, "status") == "done"


def test_during_an_outage_nothing_is_claimed(redis_server: RedisServer, redis_db: Any, tmp_path: Path) -> None:
    with running_worker(tmp_path, variables(redis_server, tmp_path, "OutageOnce")):
        submit(redis_db)
        wait_for(lambda: int(redis_db.get("checks") or 0) >= 3, "some looks at the bucket", tmp_path)
        assert redis_db.hget(JOB, "runs") == "1"
        assert redis_db.lrange("predict", 0, -1) == [JOB]
        redis_db.set("bucket-is-back", 1)
        wait_for(status_is(redis_db, "done"), "the run after the outage", tmp_path)
    assert redis_db.hget(JOB, "runs") == "2"
    assert "reason" not in redis_db.hgetall(JOB)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"CONSUMER_TYPE": "retrain"}, 'Invalid `consumer_type`: "retrain"'),
        ({"CONSUMER_TYPE": "no_such_module:Consumer"}, "No module named 'no_such_module'"),
        ({"CONSUMER_TYPE": "pathlib:Path"}, "no subclass of redis_consumer.consumers.Consumer"),
        ({"REDIS_PORT": "many"}, "REDIS_PORT"),
        ({"MODEL_SERVER": "http://tf:8501"}, "MODEL_SERVER"),
    ],
)
def test_a_wrong_setting_stops_the_start(
    redis_server: RedisServer, tmp_path: Path, settings: dict[str, str], text: str
) -> None:
    with running_worker(tmp_path, {**variables(redis_server, tmp_path), **settings}) as process:
        assert process.wait(60) == 2
    log = (tmp_path / "worker.log").read_text()
    assert text in log
    assert "Traceback" not in log
