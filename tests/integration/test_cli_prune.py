"""`redis-consumer prune` removes what old jobs left, and nothing else."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from redis_consumer.cli.app import app
from redis_consumer.job import Job
from redis_consumer.options import QueueOptions
from redis_consumer.queue import JobQueue, admin, upkeep
from redis_consumer.redis import RedisClient
from redis_consumer.storage import Storage
from redis_consumer.storage.keys import record_key, zip_name
from support.queues import claimed, give_up, submit
from support.redis_server import RedisServer

LONG_AGO = "2026-01-01T00:00:00+00:00"


@pytest.fixture
def queue(redis_client: RedisClient) -> JobQueue:
    return JobQueue(redis_client, "predict", "pod-1")


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    (tmp_path / "bucket").mkdir()
    return Storage((tmp_path / "bucket").as_uri())


@pytest.fixture
def prune(redis_server: RedisServer, storage: Storage) -> Any:
    def run(*arguments: str) -> Any:
        places = ["--redis", f"127.0.0.1:{redis_server.port}", "--bucket", storage.url]
        return CliRunner().invoke(app, ["prune", "--older-than", "7d", *places, *arguments])

    return run


def ended(db: Any, storage: Storage, name: str, queue: str = "predict", **fields: str) -> Job:
    """A job that ended long ago, with its objects."""
    job = Job(submit(db, name, queue))
    db.lrem(queue, 0, job.id)
    keys = {"output_file_name": f"output/{zip_name(job)}", "provenance_file_name": record_key(job)}
    given = {"status": "done", "updated_at": LONG_AGO, "finished_at": LONG_AGO, **keys, **fields}
    db.hset(job.id, mapping=given)
    for key in (f"uploads/{name}.tif", given["output_file_name"], given["provenance_file_name"]):
        storage.write_bytes(key, b"12345678")
    return job


def objects(storage: Storage) -> set[str]:
    """Keys of the bucket."""
    return {key for folder in ("uploads", "output") for key in storage.list_keys(folder)}


def test_an_old_job_goes_with_its_result_and_record(prune: Any, storage: Storage, redis_db: Any) -> None:
    job = ended(redis_db, storage, "a")
    result = prune()
    assert (result.exit_code, result.stdout) == (0, f"{job.id}\n")
    assert "1 job and 2 objects removed" in result.stderr
    assert not redis_db.exists(job.id)
    assert objects(storage) == {"uploads/a.tif"}


def test_a_dry_run_removes_nothing(prune: Any, storage: Storage, redis_db: Any) -> None:
    job = ended(redis_db, storage, "a")
    before = objects(storage)
    (row,) = json.loads(prune("--dry-run", "--json").stdout)
    assert (row["job"], sum(row["objects"].values()), row["removed"]) == (job.id, 16, False)
    assert row["redis_bytes"] > 100
    assert (objects(storage), redis_db.exists(job.id)) == (before, 1)


def test_dead_letters_go_with_their_counts(prune: Any, queue: JobQueue, redis_db: Any) -> None:
    job_id = give_up(redis_db, queue)
    redis_db.hset(job_id, "updated_at", LONG_AGO)
    assert prune().stdout == f"{job_id}\n"
    assert admin.dead_letters(queue) == []
    assert redis_db.keys("redis-consumer:attempts:*") == []


@pytest.mark.parametrize(
    "fields",
    [
        {"status": "started"},
        {"status": "new"},
        {"status": "waiting"},
        {"finished_at": "2999-01-01T00:00:00+00:00"},
        {"finished_at": "", "updated_at": "yesterday"},
        {"status": "failed", "updated_at": "2999-01-01T00:00:00+00:00"},  # and was done when it ran before
    ],
)
def test_what_has_not_ended_long_ago_stays(prune: Any, storage: Storage, redis_db: Any, fields: dict[str, str]) -> None:
    ended(redis_db, storage, "a", **fields)
    before = objects(storage)
    assert prune().stdout == ""
    assert objects(storage) == before


@pytest.mark.parametrize("key", ["uploads/b.tif", "models/a/1/model.onnx", "output/../uploads/b.tif"])
def test_what_a_job_names_as_its_result_may_be_somebodys_input(
    prune: Any, storage: Storage, redis_db: Any, key: str
) -> None:
    job = ended(redis_db, storage, "a")
    storage.write_bytes("uploads/b.tif", b"1")
    storage.write_bytes("models/a/1/model.onnx", b"1")
    redis_db.hset(job.id, "output_file_name", key)
    prune()
    assert storage.exists("uploads/b.tif")
    assert storage.exists("models/a/1/model.onnx")


def test_what_another_job_names_stays(prune: Any, storage: Storage, redis_db: Any) -> None:
    first, second = ended(redis_db, storage, "a"), ended(redis_db, storage, "b")
    kept = [f"output/{zip_name(first)}", f"output/{zip_name(second)}"]
    redis_db.hset("predict:waiting.tif:1", mapping={"status": "new", "input_file_name": kept[0]})
    redis_db.hset("other:done.tif:1", mapping={"status": "done", "output_file_name": kept[1]})
    prune()
    assert set(kept) <= objects(storage)


def test_a_copy_that_a_job_still_needs_stays(prune: Any, storage: Storage, redis_db: Any) -> None:
    parent = ended(redis_db, storage, "a", queue="predict-zip")
    copy = f"output/{hashlib.md5(parent.id.encode()).hexdigest()}/0/a.tif"
    storage.write_bytes(copy, b"1")
    redis_db.hset("predict:again.tif:1", mapping={"status": "new", "parent": parent.id, "input_file_name": copy})
    assert prune("--queue", "predict", "--queue", "predict-zip").stdout == f"{parent.id}\n"
    assert storage.exists(copy)


@pytest.mark.parametrize(
    "key", ["output/", "output//a.zip", "output/a\nb.zip", f"output/{'x' * 2000}", "output/folder"]
)
def test_a_result_that_can_be_no_object_stops_nothing(prune: Any, storage: Storage, redis_db: Any, key: str) -> None:
    storage.write_bytes("output/folder/other.zip", b"1")
    job = ended(redis_db, storage, "a")
    redis_db.hset(job.id, "output_file_name", key)
    result = prune()
    assert (result.exit_code, result.stdout) == (0, f"{job.id}\n")
    assert storage.exists("output/folder/other.zip")


def test_objects_that_no_job_names_stay(prune: Any, storage: Storage, redis_db: Any) -> None:
    ended(redis_db, storage, "a")
    storage.write_bytes("output/unknown.zip", b"1")
    storage.write_bytes("output/0123456789abcdef0123456789abcdef/0/a.tif", b"1")
    prune()
    assert objects(storage) == {
        "uploads/a.tif",
        "output/unknown.zip",
        "output/0123456789abcdef0123456789abcdef/0/a.tif",
    }


@pytest.mark.parametrize("status", ["waiting", "done"])
def test_children_stay_as_long_as_their_parent_lives(prune: Any, storage: Storage, redis_db: Any, status: str) -> None:
    parent = ended(redis_db, storage, "plate", "predict-zip", status=status)
    folder = f"output/{hashlib.md5(parent.id.encode(), usedforsecurity=False).hexdigest()}"
    child = ended(redis_db, storage, "child", parent=parent.id, input_file_name=f"{folder}/0/child.tif")
    storage.write_bytes(f"{folder}/0/child.tif", b"1")
    gone = Job("predict:gone.tif:1", attempt=2)
    redis_db.hset(parent.id, "children", f"{child.id},{gone.id}")
    for key in (f"{folder}/1/gone.tif", f"output/{zip_name(gone)}", record_key(gone)):
        storage.write_bytes(key, b"1")
    before = objects(storage)
    prune()
    if status == "waiting":
        assert objects(storage) == before
        assert redis_db.exists(parent.id, child.id) == 2
    else:
        assert objects(storage) == {"uploads/plate.tif", "uploads/child.tif"}
        assert redis_db.exists(parent.id, child.id) == 0


def test_jobs_of_other_queues_stay(prune: Any, storage: Storage, redis_db: Any) -> None:
    ended(redis_db, storage, "a", "other")
    assert prune().stdout == ""


def test_thousands_of_jobs_are_read_a_page_at_a_time(prune: Any, storage: Storage, redis_db: Any) -> None:
    with redis_db.pipeline(transaction=False) as pipe:
        for number in range(3_000):
            pipe.hset(f"predict:{number}.tif:1", mapping={"status": "failed", "updated_at": LONG_AGO})
        pipe.execute()
    assert len(prune().stdout.split()) == 3_000
    assert redis_db.dbsize() == 0


@pytest.mark.parametrize("age", ["7", "d", "-1d", "7 days", "1e3d", ""])
def test_an_age_that_is_none_is_refused(prune: Any, age: str) -> None:
    result = CliRunner().invoke(app, ["prune", "--older-than", age])
    assert result.exit_code == 2
    assert "7d" in result.stderr


@pytest.mark.parametrize("how", ["done", "failed", "dead", "cancelled", "exhausted", "too large"])
@pytest.mark.parametrize("ttl_s", [0, 600])
def test_a_hash_lasts_as_long_as_is_set(redis_client: RedisClient, redis_db: Any, how: str, ttl_s: int) -> None:
    queue = JobQueue(redis_client, "predict", "pod-1", QueueOptions(result_ttl_s=ttl_s, max_attempts=1))
    job_id = submit(redis_db)
    if how == "cancelled":
        admin.cancel(queue, job_id)
    elif how == "exhausted":
        queue.give_back(claimed(queue), is_crash=True)
        assert queue.claim() is None
    elif how == "too large":
        redis_db.hset(job_id, "label", "x" * (1 << 25))
        assert queue.claim() is None
    else:
        queue.complete(claimed(queue), {"status": how}, is_success=how == "done", is_dead=how == "dead")
    assert (0 < redis_db.ttl(job_id) <= 600) if ttl_s else redis_db.ttl(job_id) == -1


def test_a_dead_letter_ends_with_its_hash_and_a_retry_keeps_it(redis_client: RedisClient, redis_db: Any) -> None:
    queue = JobQueue(redis_client, "predict", "pod-1", QueueOptions(result_ttl_s=600))
    retried, expired = give_up(redis_db, queue, "a"), give_up(redis_db, queue, "b")
    redis_db.delete(expired)
    upkeep.sweep(queue)
    assert admin.dead_letters(queue) == [retried]
    assert admin.retry(queue, retried)
    assert redis_db.ttl(retried) == -1
