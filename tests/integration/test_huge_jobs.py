"""Hashes that are too large to be read: no worker, parent or command reads them whole, and their jobs fail."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from redis_consumer.client.watch import read_hash, read_states
from redis_consumer.consumers.fan_out import common_fields
from redis_consumer.errors import InvalidJob
from redis_consumer.job import Job
from redis_consumer.queue import JobQueue, admin
from redis_consumer.queue.child_jobs import ChildJobs
from redis_consumer.redis import RedisClient
from support.cli import CommandLine
from support.redis_server import RedisServer
from support.worker import JOB, ROOT, environment, running_worker, status_is, submit, wait_for

MEGABYTE = 1 << 20
#: Fields of a job besides what each one has.
HUGE = {
    "one field of 50 MB": {"label": "x" * 50 * MEGABYTE},
    "fields of 50 MB": {f"field{number}": "x" * MEGABYTE for number in range(50)},
    "100,000 fields": {f"field{number}": "" for number in range(100_000)},
    "a name of 50 MB": {"x" * 50 * MEGABYTE: ""},
    "a status of 50 MB": {"status": "x" * 50 * MEGABYTE},
}


@pytest.fixture
def queue(redis_client: RedisClient) -> JobQueue:
    return JobQueue(redis_client, "predict", "pod-1")


@pytest.mark.parametrize("fields", HUGE.values(), ids=HUGE)
def test_a_huge_hash_fails_its_job_unread(queue: JobQueue, redis_db: Any, fields: dict[str, str]) -> None:
    submit(redis_db, **fields)
    sent = redis_db.info("stats")["total_net_output_bytes"]
    assert queue.claim() is None
    assert redis_db.info("stats")["total_net_output_bytes"] - sent < MEGABYTE
    status, reason = redis_db.hmget(JOB, "status", "reason")
    assert status == "failed"
    assert reason.startswith(f"InvalidJob: job {JOB}: its hash is too large, with ")
    assert reason.endswith("put what is large into the bucket")
    assert redis_db.keys("processing-*") == []
    assert redis_db.llen("predict") == 0
    assert admin.dead_letters(queue) == []
    assert redis_db.hgetall("redis-consumer:totals:predict") == {"failed": "1"}


def test_a_job_whose_key_is_too_long_fails(queue: JobQueue, redis_db: Any) -> None:
    long = f"predict:{'x' * MEGABYTE}:1"
    submit(redis_db, long)
    assert queue.claim() is None
    assert redis_db.hget(long, "status") == "failed"
    reason = redis_db.hget(long, "reason")
    assert reason.endswith("its key is too long, with 1048586 bytes, allowed are 60000; name the job by a shorter one")
    assert len(reason) < 1000
    assert redis_db.keys("processing-*") == []


@pytest.mark.parametrize("count", [1, 20_000])
def test_other_hashes_are_claimed(queue: JobQueue, redis_db: Any, count: int) -> None:
    submit(redis_db, label="x" * 10 * MEGABYTE, **{f"field{number}": "" for number in range(count)})
    job = queue.claim()
    assert job is not None
    assert len(job.get("label")) == 10 * MEGABYTE


def test_a_huge_child_fails_and_its_parent_goes_on(queue: JobQueue, redis_db: Any) -> None:
    submit(redis_db)
    parent = queue.claim()
    assert parent is not None
    child_jobs = ChildJobs(queue, parent)
    child_jobs.write_children([("predict:child:0", {"status": "new"}), ("predict:child:1", {"status": "new"})])
    child_jobs.fan_out("gather", {})
    redis_db.hset("predict:child:0", "label", "x" * 50 * MEGABYTE)
    assert queue.claim() is None
    child = queue.claim()
    assert child is not None
    assert child.id == "predict:child:1"
    queue.complete(child, {"status": "done"}, is_success=True)
    again = queue.claim()
    assert again is not None
    assert again.id == JOB
    first, second = ChildJobs(queue, again).children()
    assert (first.status, second.status) == ("failed", "done")
    assert "its hash is too large" in first.get("reason")
    assert first.get("label") == ""


def test_large_fields_are_not_copied_to_each_child() -> None:
    assert common_fields(Job(JOB, {"scale": "1", "note": "x" * 60_000})).keys() == {"scale", "note"}
    with pytest.raises(InvalidJob, match="hold 70004 bytes, .* allowed are 65536; put what is large into the bucket"):
        common_fields(Job(JOB, {"note": "x" * 70_000}))


def test_children_together_are_bounded(queue: JobQueue, redis_db: Any) -> None:
    parent = Job(JOB)
    for number in range(40):
        redis_db.hset(f"child:{number}", mapping={"status": "done", "label": "x" * MEGABYTE})
        redis_db.rpush(f"redis-consumer:children:{JOB}", f"child:{number}")
    children = list(ChildJobs(queue, parent).children())
    assert [child.status for child in children] == ["done"] * 40
    assert sum(len(child.get("label")) for child in children) <= 16 * MEGABYTE


def test_a_worker_fails_it_and_takes_the_next_one(redis_server: RedisServer, redis_db: Any, tmp_path: Path) -> None:
    (tmp_path / "uploads").mkdir()
    shutil.copy(ROOT / "data" / "nuclei.tif", tmp_path / "uploads" / "a.tif")
    submit(redis_db, **HUGE["100,000 fields"])
    submit(redis_db, "predict:b.tif:1", model_name="NuclearSegmentation", scale="x" * 10 * MEGABYTE)
    with running_worker(tmp_path, environment(redis_server, tmp_path.as_uri(), LOG_LEVEL="INFO")):
        wait_for(status_is(redis_db, "failed"), "the end of the huge job", tmp_path)
        wait_for(status_is(redis_db, "failed", "predict:b.tif:1"), "the end of the other one", tmp_path)
    assert "its hash is too large" in redis_db.hget(JOB, "reason")
    reason = redis_db.hget("predict:b.tif:1", "reason")
    assert len(reason) <= 1000
    assert reason.startswith("InvalidJob: field scale: 'xxx")
    assert len((tmp_path / "worker.log").read_text()) < 100_000


def test_commands_show_it_by_a_few_fields(redis_server: RedisServer, redis_db: Any, tmp_path: Path) -> None:
    fields = {
        **HUGE["one field of 50 MB"],
        "status": "failed",
        "reason": f"{'x' * 50 * MEGABYTE}\nInvalidJob: too large",
    }
    redis_db.hset(JOB, mapping=fields)
    [state] = read_states(redis_db, [JOB])
    assert state.short_reason == "InvalidJob: too large"
    assert len(state.reason) < MEGABYTE
    command = CommandLine.make(tmp_path, redis_server.port)
    for arguments in (["status", JOB], ["status", JOB, "--json"], ["reproduce", JOB]):
        shown = command.run(*arguments)
        assert shown.returncode in (1, 2), shown.stderr
        assert len(shown.stdout + shown.stderr) < MEGABYTE
    assert json.loads(command.run("status", JOB, "--json").stdout)["status"] == "failed"
    assert read_hash(redis_db, "predict:gone:1") == {}
