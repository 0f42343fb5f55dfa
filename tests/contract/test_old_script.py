"""A user's own script of the old kind, which loops on ``consumer.consume()``: a process that is killed or freezes."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.neighbours import Frontend
from support.worker import is_idle, running_worker, status_is, wait_for

BODY = {"jobType": "predict", "imageName": "a.tif"}
TIMING = {"LEASE_TIMEOUT": "1", "SWEEP_INTERVAL": "0.3"}
Gated = Callable[..., dict[str, str]]

#: As the old documents have it; the consumer's work is that of `support.gated`.
SCRIPT = """
import logging
import sys

from redis_consumer import consumers, redis, settings, storage
from support.gated import Gated


class MyConsumer(Gated, consumers.TensorFlowServingConsumer):
    pass


def get_consumer(consumer_type, **kwargs):
    if consumer_type == "mine":
        return MyConsumer(**kwargs)
    raise ValueError(consumer_type)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    consumer = get_consumer(
        "mine",
        redis_client=redis.RedisClient(settings.REDIS_HOST, settings.REDIS_PORT, settings.REDIS_TIMEOUT),
        storage_client=storage.get_client(settings.STORAGE_BUCKET),
        queue=settings.QUEUE,
        final_status="done",
    )
    while True:
        consumer.consume()
"""


@contextmanager
def running_script(folder: Path, variables: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run the script until the block ends; its log is `script.log` in the folder."""
    (folder / "script.py").write_text(SCRIPT)
    with (folder / "script.log").open("ab") as log:
        process = subprocess.Popen([sys.executable, "script.py"], cwd=folder, env=variables, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def started(db: Any, frontend: Frontend, style: str = "update_key") -> str:
    key = frontend.predict(BODY)
    db.hset(key, "style", style)
    wait_for(status_is(db, "started", key), "the job's start in the script")
    db.delete("redis-consumer:sweep:predict")  # its own sweep keeps others from theirs for 5 s
    return key


@pytest.mark.parametrize("style", ["update_key", "return"])
def test_it_runs_one_job_after_the_other(
    redis_db: Any, frontend: Frontend, gated: Gated, tmp_path: Path, style: str
) -> None:
    keys = [frontend.predict(BODY) for _ in range(3)]
    for key in keys:
        redis_db.hset(key, mapping={"style": style, "gate": "open"})
    with running_script(tmp_path, gated(HOSTNAME="script")):
        wait_for(lambda: {redis_db.hget(key, "status") for key in keys} == {"done"}, "the end of all jobs")
    assert redis_db.lrange("runs", 0, -1) == [f"script 1 {key}" for key in keys]
    assert redis_db.keys("processing-*") == []


def test_its_running_job_is_left_alone_by_workers(
    redis_db: Any, frontend: Frontend, gated: Gated, tmp_path: Path
) -> None:
    with running_script(tmp_path, gated(HOSTNAME="script", **TIMING)), running_worker(tmp_path, gated(**TIMING)):
        wait_for(lambda: is_idle(redis_db), "the idle worker", tmp_path)
        key = frontend.predict(BODY)
        wait_for(status_is(redis_db, "started", key), "the job's start", tmp_path)
        leases = {redis_db.zscore("redis-consumer:leases:predict", key)}

        def is_renewed() -> bool:
            leases.add(redis_db.zscore("redis-consumer:leases:predict", key))
            return bool(max(leases) - min(leases) > 2000)

        wait_for(is_renewed, "renewals for two seconds, twice the lease", tmp_path)
        redis_db.hset(key, "gate", "open")
        wait_for(status_is(redis_db, "done", key), "the job's end", tmp_path)
    assert redis_db.llen("runs") == 1


def test_the_job_of_a_killed_one_runs_elsewhere(
    redis_db: Any, frontend: Frontend, gated: Gated, tmp_path: Path
) -> None:
    with running_script(tmp_path, gated(HOSTNAME="script", **TIMING)) as script:
        key = started(redis_db, frontend)
        script.send_signal(signal.SIGKILL)
        script.wait()
    redis_db.hset(key, "gate", "open")
    with running_worker(tmp_path, gated(**TIMING)):
        wait_for(status_is(redis_db, "done", key), "the run by a worker", tmp_path)
    assert redis_db.lrange("runs", 0, -1) == [f"script 1 {key}", f"pod-1 2 {key}"]
    assert redis_db.hget(key, "output_url") == "by pod-1 in attempt 2"
    assert redis_db.keys("processing-*") == []


def test_the_job_of_a_killed_one_runs_in_its_next_life(
    redis_db: Any, frontend: Frontend, gated: Gated, tmp_path: Path
) -> None:
    variables = gated(HOSTNAME="script", EMPTY_QUEUE_TIMEOUT="0.2", **TIMING)
    with running_script(tmp_path, variables) as script:
        key = started(redis_db, frontend)
        script.send_signal(signal.SIGKILL)
        script.wait()
    redis_db.hset(key, "gate", "open")
    with running_script(tmp_path, variables):
        wait_for(status_is(redis_db, "done", key), "the second run")
    assert redis_db.lrange("runs", 0, -1) == [f"script 1 {key}", f"script 2 {key}"]


@pytest.mark.parametrize("style", ["update_key", "return"])
def test_one_that_finishes_late_shows_no_result(
    redis_db: Any, frontend: Frontend, gated: Gated, tmp_path: Path, style: str
) -> None:
    """Frozen for longer than its lease, it goes on after a worker has done its job."""
    with running_script(tmp_path, gated(HOSTNAME="script", **TIMING)) as script:
        key = started(redis_db, frontend, style)
        script.send_signal(signal.SIGSTOP)
        redis_db.hset(key, "gate", "open")
        with running_worker(tmp_path, gated(**TIMING)):
            wait_for(status_is(redis_db, "done", key), "the run by a worker", tmp_path)
        ended = redis_db.hgetall(key)
        script.send_signal(signal.SIGCONT)
        wait_for(lambda: "Lost job" in (tmp_path / "script.log").read_text(), "the late finisher")
    assert redis_db.hgetall(key) == ended
    assert ended["output_url"] == "by pod-1 in attempt 2"
