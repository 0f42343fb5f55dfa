"""Each log line about a job carries the job's key, also a line of a library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest

from redis_consumer.consumers import Consumer
from redis_consumer.errors import InvalidImage
from redis_consumer.logs import initialize_logger
from redis_consumer.options import QueueOptions
from redis_consumer.queue import JobQueue, upkeep
from redis_consumer.redis import RedisClient
from redis_consumer.storage import Storage
from redis_consumer.wanted import OrderedPool
from support.queues import claimed, submit
from support.redis_server import RedisServer
from support.worker import JOB, running_worker, status_is, variables, wait_for
from support.worker import submit as submit_to_worker


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_lines_of_slots_and_of_their_supervisor(redis_server: RedisServer, redis_db: Any, tmp_path: Path) -> None:
    with running_worker(tmp_path, variables(redis_server, tmp_path, "Quitting", LOG_FORMAT="json")):
        submit_to_worker(redis_db)
        wait_for(status_is(redis_db, "done"), "the job's second attempt", tmp_path)
        submit_to_worker(redis_db, "predict:b.tif:2")
        wait_for(status_is(redis_db, "done", "predict:b.tif:2"), "the second job", tmp_path)
    written = lines((tmp_path / "worker.log").read_text())
    about = [line for line in written if JOB in line["message"]]
    assert about
    assert {(line["job_id"], line["queue"]) for line in about} == {(JOB, "predict")}
    of_runs = [line for line in about if line["logger"].startswith("support.consumers")]
    assert {(line["attempt"], line["consumer"]) for line in of_runs} == {(1, "Quitting"), (2, "Quitting")}


def test_lines_of_the_supervisor_about_a_slot_that_died(
    redis_server: RedisServer, redis_db: Any, tmp_path: Path
) -> None:
    with running_worker(tmp_path, variables(redis_server, tmp_path, "Littering", LOG_FORMAT="json")):
        submit_to_worker(redis_db)
        wait_for(status_is(redis_db, "done"), "the job's second attempt", tmp_path)
    [line] = [line for line in lines((tmp_path / "worker.log").read_text()) if "its slot ended" in line["message"]]
    assert {"job_id": JOB, "queue": "predict", "attempt": 1, "consumer": "Littering"}.items() <= line.items()


class Shouting(Consumer):
    """Lets a library log, also in threads."""

    def _consume(self, redis_hash: str) -> str:
        def shout(number: int) -> None:
            self.logger.getChild("library").warning("Number %d", number)

        with OrderedPool(2) as pool:
            list(pool.map(shout, range(3)))
        return self.final_status


def test_lines_of_libraries_in_threads(
    redis_client: RedisClient, redis_db: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    initialize_logger("info", "json")
    submit(redis_db)
    consumer = Shouting(redis_client, Storage(tmp_path.as_uri()), "predict", name="pod-1")
    consumer.run(claimed(consumer.job_queue))
    written = lines(capsys.readouterr().err)
    expected = {"job_id": JOB, "attempt": 1, "queue": "predict", "consumer": "Shouting"}
    assert [line["message"].partition(" ")[0] for line in written] == ["Started", "Number", "Number", "Number", "Ended"]
    assert all(expected.items() <= line.items() for line in written)


class Failing(Consumer):
    """Fails by its input, by a bug, or not at all, as the job's field ``how`` says."""

    def _consume(self, redis_hash: str) -> str:
        how = self.job.get("how") if self.job else ""
        if how == "input":
            raise InvalidImage("a.tif: can't be read")
        if how == "bug":
            raise ZeroDivisionError("by zero")
        return self.failed_status if how == "status" else self.final_status


@pytest.mark.parametrize(
    ("how", "level", "ending"),
    [
        ("", "INFO", "done"),
        ("status", "INFO", "failed"),
        ("input", "WARNING", "failed: InvalidImage: a.tif: can't be read"),
        ("bug", "ERROR", "failed by a bug: ZeroDivisionError: by zero"),
    ],
)
def test_the_start_and_the_end_of_a_job_are_logged_once(
    redis_client: RedisClient,
    redis_db: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    how: str,
    level: str,
    ending: str,
) -> None:
    initialize_logger("info", "json")
    submit(redis_db, how=how)
    consumer = Failing(redis_client, Storage(tmp_path.as_uri()), "predict", name="pod-1")
    consumer.run(claimed(consumer.job_queue))
    started, ended = lines(capsys.readouterr().err)
    assert (started["level"], started["message"]) == ("INFO", f"Started job {JOB}")
    assert (ended["level"], ended["message"].split(" s: ")) == (level, [ANY, ending])
    assert ended["message"].startswith(f"Ended job {JOB} after ")


def test_lines_about_jobs_that_nobody_runs(
    redis_client: RedisClient, redis_db: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    initialize_logger("info", "json")
    queue = JobQueue(redis_client, "predict", "pod-1")
    redis_db.lpush("predict", "predict:gone.tif:1")
    assert queue.claim() is None
    submit(redis_db)
    claimed(JobQueue(redis_client, "predict", "pod-2", QueueOptions(lease_s=0.001)))
    redis_db.zadd("redis-consumer:leases:predict", {JOB: 1})
    upkeep.sweep(queue)
    written = lines(capsys.readouterr().err)
    assert [(line["job_id"], line["queue"]) for line in written] == [
        ("predict:gone.tif:1", "predict"),
        (JOB, "predict"),
    ]
    assert written[1]["attempt"] == 1
    assert "its worker pod-2 is gone" in written[1]["message"]
