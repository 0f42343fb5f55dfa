"""Dead letters can be listed, read, retried and dropped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from redis_consumer.cli.app import app
from redis_consumer.queue import JobQueue, admin
from redis_consumer.redis import RedisClient
from support.queues import claimed, counted_runs, give_up, submit
from support.redis_server import RedisServer


@pytest.fixture
def queue(redis_client: RedisClient) -> JobQueue:
    return JobQueue(redis_client, "predict", "pod-1")


@pytest.fixture
def dead(redis_server: RedisServer, redis_db: Any, tmp_path: Path) -> Any:
    def run(verb: str, *arguments: str) -> Result:
        address = f"127.0.0.1:{redis_server.port}"
        return CliRunner().invoke(app, ["dead", verb, "--redis", address, *arguments])

    return run


def test_list_as_data(dead: Any, queue: JobQueue, redis_db: Any) -> None:
    first, second = give_up(redis_db, queue, "a"), give_up(redis_db, queue, "b")
    listed = json.loads(dead("list", "--json").stdout)
    assert [each["job"] for each in listed] == [second, first]
    assert (listed[1]["queue"], listed[1]["file"]) == ("predict", "a.tif")
    assert listed[1]["reason"] == "ValueError: a is odd"
    assert listed[1]["age_s"] < 60


def test_list_as_a_table(dead: Any, queue: JobQueue, redis_db: Any) -> None:
    job_id = give_up(redis_db, queue, "a\x1b[2J")
    text = dead("list").stdout
    assert job_id.replace("\x1b", "?") in text
    assert "\x1b[2J" not in text
    assert "s ago" in text


def test_list_of_several_queues(dead: Any, redis_client: RedisClient, redis_db: Any) -> None:
    for name in ("predict-zip", "track"):
        give_up(redis_db, JobQueue(redis_client, name, "pod-1"))
    assert [each["queue"] for each in json.loads(dead("list", "--json").stdout)] == ["predict-zip"]
    assert [each["queue"] for each in json.loads(dead("list", "--json", "-q", "track").stdout)] == ["track"]


def test_list_says_what_it_leaves_out(dead: Any, queue: JobQueue, redis_db: Any) -> None:
    for name in "abc":
        give_up(redis_db, queue, name)
    result = dead("list", "--limit", "2", "--json")
    assert len(json.loads(result.stdout)) == 2
    assert "1 older job not shown" in result.stderr
    assert len(json.loads(dead("list", "--limit", "0", "--json").stdout)) == 3


def test_list_of_none(dead: Any) -> None:
    result = dead("list")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "No dead letter in predict, predict-zip" in result.stderr


def test_job_whose_hash_is_gone_is_listed(dead: Any, queue: JobQueue, redis_db: Any) -> None:
    redis_db.delete(give_up(redis_db, queue))
    [listed] = json.loads(dead("list", "--json").stdout)
    assert "its hash was deleted" in listed["reason"]
    assert listed["age_s"] is None


def test_show_has_the_whole_reason(dead: Any, queue: JobQueue, redis_db: Any) -> None:
    result = dead("show", give_up(redis_db, queue))
    assert result.exit_code == 0
    assert "Traceback" in result.stdout
    assert "ValueError: a is odd" in result.stdout


def test_show_as_data(dead: Any, queue: JobQueue, redis_db: Any) -> None:
    job_id = give_up(redis_db, queue)
    found = json.loads(dead("show", job_id, "--json").stdout)
    assert (found["job"], found["queue"], found["reason"].splitlines()[0]) == (job_id, "predict", "Traceback")


def test_show_of_a_job_that_is_no_dead_letter(dead: Any, redis_db: Any) -> None:
    result = dead("show", submit(redis_db))
    assert result.exit_code == 1
    assert "not a dead letter of queue predict" in result.stderr


def test_retry_brings_a_job_back(dead: Any, queue: JobQueue, redis_db: Any) -> None:
    job_id = give_up(redis_db, queue)
    result = dead("retry", job_id)
    assert (result.exit_code, result.stdout) == (0, f"{job_id}\n")
    assert admin.dead_letters(queue) == []
    assert redis_db.hget(job_id, "updated_by").startswith("command-line-")
    assert counted_runs(redis_db, claimed(queue).id) == 1


def test_retry_of_all_keeps_their_order(dead: Any, queue: JobQueue, redis_db: Any) -> None:
    job_ids = [give_up(redis_db, queue, name) for name in "abc"]
    outcomes = json.loads(dead("retry", "--all", "--json").stdout)
    assert [(each["job"], each["outcome"]) for each in outcomes] == [(job_id, "retried") for job_id in job_ids]
    assert [claimed(queue).id for _ in job_ids] == job_ids


def test_retry_of_all_takes_off_what_is_gone(dead: Any, queue: JobQueue, redis_db: Any) -> None:
    redis_db.delete(give_up(redis_db, queue))
    result = dead("retry", "--all")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "its hash no longer exists" in result.stderr
    assert admin.dead_letters(queue) == []


def test_retry_of_a_job_that_is_none_tells_and_does_the_others(dead: Any, queue: JobQueue, redis_db: Any) -> None:
    job_id = give_up(redis_db, queue)
    result = dead("retry", "predict:other.tif:1", job_id)
    assert (result.exit_code, result.stdout) == (1, f"{job_id}\n")
    assert "predict:other.tif:1: not a dead letter" in result.stderr


def test_retry_in_a_named_queue(dead: Any, redis_client: RedisClient, redis_db: Any) -> None:
    queue = JobQueue(redis_client, "other", "pod-1")
    redis_db.hset("predict:a.tif:1", "status", "failed")
    redis_db.lpush(queue.key("dead"), "predict:a.tif:1")
    assert dead("retry", "predict:a.tif:1", "--queue", "other").exit_code == 0
    assert redis_db.lrange("other", 0, -1) == ["predict:a.tif:1"]


def test_drop_leaves_a_job_failed(dead: Any, queue: JobQueue, redis_db: Any) -> None:
    job_id = give_up(redis_db, queue)
    result = dead("drop", job_id)
    assert (result.exit_code, result.stdout) == (0, f"{job_id}\n")
    assert admin.dead_letters(queue) == []
    assert redis_db.hget(job_id, "status") == "failed"
    assert not redis_db.exists("predict")


def test_drop_of_all_in_a_queue(dead: Any, queue: JobQueue, redis_client: RedisClient, redis_db: Any) -> None:
    kept = give_up(redis_db, queue)
    other = JobQueue(redis_client, "track", "pod-1")
    give_up(redis_db, other)
    assert dead("drop", "--all", "--queue", "track").exit_code == 0
    assert (admin.dead_letters(queue), admin.dead_letters(other)) == ([kept], [])


@pytest.mark.parametrize("arguments", [[], ["--all", "predict:a.tif:1"], ["key-without-queue"]])
@pytest.mark.parametrize("verb", ["retry", "drop"])
def test_wrong_usage(dead: Any, verb: str, arguments: list[str]) -> None:
    assert dead(verb, *arguments).exit_code == 2
