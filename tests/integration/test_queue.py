from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from redis_consumer.errors import JobCancelled, LeaseLost, RedisUnavailable, SettingsError
from redis_consumer.job import Job
from redis_consumer.options import QueueOptions
from redis_consumer.queue import JobQueue, admin, upkeep
from redis_consumer.redis import RedisClient
from support.queues import counted_runs
from support.redis_server import RedisServer
from support.worker import wait_for


@pytest.fixture
def queue(redis_client: RedisClient) -> JobQueue:
    return JobQueue(redis_client, "Predict", "pod-1")


def submit(db: Any, name: str = "a", **fields: str) -> str:
    """What the frontend does: hash first, then its key to the left of the list."""
    job_id = f"predict:{name}.tif:1"
    db.hset(job_id, mapping={"status": "new", "input_file_name": f"uploads/{name}.tif", **fields})
    db.lpush("predict", job_id)
    return job_id


def claimed(queue: JobQueue) -> Job:
    job = queue.claim()
    assert job is not None
    return job


def test_the_oldest_job_is_claimed_first(queue: JobQueue, redis_db: Any) -> None:
    first, second = submit(redis_db, "a"), submit(redis_db, "b")
    assert [claimed(queue).id, claimed(queue).id] == [first, second]
    assert queue.claim() is None


def test_a_claimed_job_is_in_the_processing_list_and_stamped(queue: JobQueue, redis_db: Any) -> None:
    job_id = submit(redis_db)
    job = claimed(queue)
    assert redis_db.lrange("processing-predict:pod-1", 0, -1) == [job_id]
    assert job.fields["updated_by"] == "pod-1"
    updated_at = datetime.fromisoformat(redis_db.hget(job_id, "updated_at") or "")
    assert updated_at.tzinfo is not None  # the janitor subtracts it from its own time


def test_a_waiting_claim_takes_a_job_that_comes_later(queue: JobQueue, redis_db: Any) -> None:
    timer = threading.Timer(0.1, submit, [redis_db])
    timer.start()
    job = queue.claim(20.0)
    timer.join()
    assert job is not None


def test_an_empty_queue_gives_none_after_the_timeout(queue: JobQueue) -> None:
    assert queue.claim(0.1) is None


def test_a_key_without_hash_is_dropped(queue: JobQueue, redis_db: Any, caplog: pytest.LogCaptureFixture) -> None:
    redis_db.lpush("predict", "predict:gone.tif:1")
    assert queue.claim() is None
    assert not redis_db.exists("predict", "processing-predict:pod-1", "predict:gone.tif:1")
    assert "its hash is gone" in caplog.text


def test_a_key_that_is_no_hash_is_dropped(queue: JobQueue, redis_db: Any, caplog: pytest.LogCaptureFixture) -> None:
    redis_db.set("predict:odd.tif:1", "text")
    redis_db.lpush("predict", "predict:odd.tif:1")
    assert queue.claim() is None
    assert redis_db.get("predict:odd.tif:1") == "text"
    assert not redis_db.exists("processing-predict:pod-1")
    assert "holds a string, not a hash" in caplog.text


@pytest.mark.parametrize("status", ["done", "failed"])
def test_a_job_that_has_its_result_is_dropped(queue: JobQueue, redis_db: Any, status: str) -> None:
    job_id = submit(redis_db, status=status)
    before = redis_db.hgetall(job_id)
    assert queue.claim() is None
    assert redis_db.hgetall(job_id) == before
    assert not redis_db.exists("processing-predict:pod-1")


def test_update_writes_texts(queue: JobQueue, redis_db: Any) -> None:
    job_id = submit(redis_db)
    queue.update(claimed(queue), {"status": "started", "progress": 5, "reason": None})
    fields = redis_db.hgetall(job_id)
    assert (fields["status"], fields["progress"], fields["reason"]) == ("started", "5", "")


def test_complete_writes_the_result_and_ends_the_claim(queue: JobQueue, redis_db: Any) -> None:
    job_id = submit(redis_db)
    queue.complete(claimed(queue), {"status": "done", "output_file_name": "output/x.zip"})
    assert redis_db.hget(job_id, "status") == "done"
    assert redis_db.hget(job_id, "output_file_name") == "output/x.zip"
    assert not redis_db.exists("processing-predict:pod-1")


@pytest.mark.parametrize(
    "write",
    [
        lambda queue, job: queue.complete(job, {"status": "done"}),
        lambda queue, job: queue.update(job, {"status": "started"}),
        lambda queue, job: queue.give_back(job),
    ],
    ids=["complete", "update", "give back"],
)
def test_who_lost_the_job_writes_nothing(
    queue: JobQueue, redis_db: Any, write: Callable[[JobQueue, Job], None]
) -> None:
    job_id = submit(redis_db)
    job = claimed(queue)
    redis_db.lrem("processing-predict:pod-1", 1, job_id)
    before = redis_db.hgetall(job_id)
    with pytest.raises(LeaseLost, match="result is dropped"):
        write(queue, job)
    assert redis_db.hgetall(job_id) == before
    assert not redis_db.exists("predict")


@pytest.mark.parametrize("settles", [True, False])
def test_an_expired_hash_does_not_come_back(queue: JobQueue, redis_db: Any, settles: bool) -> None:
    job_id = submit(redis_db)
    job = claimed(queue)
    redis_db.delete(job_id)
    write = queue.complete if settles else queue.update
    with pytest.raises(LeaseLost):
        write(job, {"status": "done"})
    assert redis_db.keys("*") == []  # an entry left in the list would look like a busy worker to the autoscaler


def test_the_reason_of_an_earlier_life_goes(queue: JobQueue, redis_db: Any) -> None:
    job_id = submit(redis_db, reason="ObjectNotFound: earlier")
    claimed(queue)
    assert redis_db.hget(job_id, "reason") is None


def test_names_that_are_not_utf8_go_through(queue: JobQueue, redis_db: Any) -> None:
    job_id, name = b"predict:\xff.tif:1", b"caf\xe9.tif"
    redis_db.hset(job_id, mapping={"status": "new", "original_name": name})
    redis_db.lpush("predict", job_id)
    job = claimed(queue)
    assert job.fields["original_name"].encode("utf-8", "surrogateescape") == name
    queue.complete(job, {"status": "done", "bytes": b"\xe9", "text": job.fields["original_name"]})
    assert redis_db.llen("processing-predict:pod-1") == 0


def test_a_queue_that_is_no_list_is_said_in_words(queue: JobQueue, redis_db: Any) -> None:
    redis_db.set("predict", "text")
    with pytest.raises(SettingsError, match="set QUEUE to a name of its own"):
        queue.claim()


def test_a_repeated_complete_whose_reply_was_lost_counts_as_done(
    queue: JobQueue, redis_db: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(redis_db)
    job = claimed(queue)
    monkeypatch.setattr("redis_consumer.queue.job_queue.timestamp", lambda: "2026-01-01T00:00:00+00:00")
    queue.complete(job, {"status": "done"})
    queue.complete(job, {"status": "done"})


@pytest.mark.parametrize(("is_next", "order"), [(True, ["a", "b"]), (False, ["b", "a"])])
def test_give_back_goes_to_the_asked_end(queue: JobQueue, redis_db: Any, is_next: bool, order: list[str]) -> None:
    submit(redis_db, "a")
    submit(redis_db, "b")
    queue.give_back(claimed(queue), is_next=is_next)
    assert not redis_db.exists("processing-predict:pod-1")
    assert [claimed(queue).id for _ in order] == [f"predict:{name}.tif:1" for name in order]


def test_attempts_are_counted_at_the_claim(queue: JobQueue, redis_db: Any) -> None:
    submit(redis_db)
    first = claimed(queue)
    queue.give_back(first, is_crash=True)
    assert (first.attempt, claimed(queue).attempt) == (1, 2)


def test_giving_back_counts_no_attempt(queue: JobQueue, redis_db: Any) -> None:
    submit(redis_db)
    for is_next in (True, False, False):
        queue.give_back(claimed(queue), is_next=is_next)
    assert counted_runs(redis_db, claimed(queue).id) == 1


def test_no_two_runs_have_the_same_number(queue: JobQueue, redis_db: Any) -> None:
    """Or a late run could pass for the one that runs now under the same list."""
    job_id = submit(redis_db)
    runs = []
    for is_next in (True, False):
        runs.append(claimed(queue))
        queue.give_back(runs[-1], is_next=is_next)
    runs.append(claimed(queue))
    queue.complete(runs[-1], {"status": "failed"}, is_dead=True)
    admin.retry(queue, job_id)
    runs.append(claimed(queue))
    assert [run.attempt for run in runs] == [1, 2, 3, 4]
    with pytest.raises(LeaseLost):
        queue.give_back(runs[0])


def test_outages_of_one_job_count_while_others_succeed(queue: JobQueue, redis_db: Any) -> None:
    submit(redis_db, "bad")
    attempts = []
    for number in range(7):
        job = claimed(queue)
        attempts.append(counted_runs(redis_db, job.id))
        queue.give_back(job)
        submit(redis_db, f"good-{number}")
        redis_db.lmove("predict", "predict", src="LEFT", dest="RIGHT")
        queue.complete(claimed(queue), {"status": "done"})
    assert attempts == [1, 1, 1, 1, 2, 3, 4]


def test_a_job_without_an_attempt_left_is_a_dead_letter(queue: JobQueue, redis_db: Any) -> None:
    job_id = submit(redis_db)
    for _ in range(5):
        queue.give_back(claimed(queue), is_crash=True)
    assert queue.claim() is None
    fields = redis_db.hgetall(job_id)
    assert fields["status"] == "failed"
    assert fields["reason"].startswith("AttemptsExhausted: job predict:a.tif:1: ")
    assert admin.dead_letters(queue) == [job_id]
    assert not redis_db.exists("processing-predict:pod-1", "predict")


@pytest.mark.parametrize(
    ("workers", "others", "runs"),
    [(["pod-1", "pod-1"], [], 2), (["pod-1", "pod-2"], ["pod-3"], 2), (["pod-1", "pod-1", "pod-1"], ["pod-3"], 3)],
    ids=["one worker", "two workers", "one of several workers"],
)
def test_a_job_may_take_too_long_once(
    redis_client: RedisClient, redis_db: Any, workers: list[str], others: list[str], runs: int
) -> None:
    job_id = submit(redis_db)
    for name in {*workers, *others}:
        upkeep.register(JobQueue(redis_client, "predict", name))
    for number, name in enumerate(workers, 1):
        queue = JobQueue(redis_client, "predict", name)
        job = claimed(queue)
        assert queue.give_back_late(job, "slow") == (number < runs)
    queue.complete(job, {"status": "failed"}, is_dead=True)
    assert admin.dead_letters(queue) == [job_id]
    assert admin.retry(queue, job_id)
    job = claimed(queue)
    assert queue.give_back_late(job, "slow")


def test_a_dead_letter_gets_all_its_attempts_again(queue: JobQueue, redis_db: Any) -> None:
    job_id = submit(redis_db)
    queue.complete(claimed(queue), {"status": "failed", "reason": "KeyError: 'x'"}, is_dead=True)
    assert admin.retry(queue, job_id)
    assert redis_db.hget(job_id, "reason") is None
    assert counted_runs(redis_db, claimed(queue).id) == 1
    assert admin.dead_letters(queue) == []
    assert not admin.retry(queue, job_id)


def test_a_dropped_dead_letter_stays_failed(queue: JobQueue, redis_db: Any) -> None:
    job_id = submit(redis_db)
    queue.complete(claimed(queue), {"status": "failed"}, is_dead=True)
    assert (admin.drop(queue, job_id), admin.drop(queue, job_id)) == (True, False)
    assert redis_db.hget(job_id, "status") == "failed"


def test_a_late_finisher_is_fenced_by_its_attempt(queue: JobQueue, redis_db: Any) -> None:
    """The same worker's other slot runs the job by now: the processing list alone couldn't tell them apart."""
    job_id = submit(redis_db)
    late = claimed(queue)
    queue.give_back(late, is_crash=True)
    current = claimed(queue)
    with pytest.raises(LeaseLost):
        queue.complete(late, {"status": "done", "output_url": "late"})
    with pytest.raises(LeaseLost):
        queue.update(late, {"status": "predicting"})
    with pytest.raises(LeaseLost):
        queue.give_back(late)
    queue.complete(current, {"status": "done", "output_url": "current"})
    assert redis_db.hget(job_id, "output_url") == "current"


@pytest.fixture
def other(redis_client: RedisClient) -> JobQueue:
    """The same queue as another worker sees it."""
    return JobQueue(redis_client, "predict", "pod-2")


def test_a_running_job_that_the_janitor_pushed_again_stays_with_its_holder(
    queue: JobQueue, other: JobQueue, redis_db: Any
) -> None:
    job_id = submit(redis_db)
    job = claimed(queue)
    redis_db.lrem("processing-predict:pod-1", 1, job_id)
    redis_db.lpush("predict", job_id)
    assert other.claim() is None
    assert redis_db.lrange("processing-predict:pod-1", 0, -1) == [job_id]
    assert not redis_db.exists("processing-predict:pod-2", "predict")
    queue.complete(job, {"status": "done"})
    assert redis_db.hget(job_id, "status") == "done"


@pytest.mark.parametrize("is_same_worker", [True, False])
def test_a_second_delivery_of_a_running_job_is_dropped(
    queue: JobQueue, other: JobQueue, redis_db: Any, is_same_worker: bool
) -> None:
    job_id = submit(redis_db)
    job = claimed(queue)
    redis_db.lpush("predict", job_id)
    assert (queue if is_same_worker else other).claim() is None
    assert redis_db.lrange("processing-predict:pod-1", 0, -1) == [job_id]
    queue.complete(job, {"status": "done"})
    assert not redis_db.exists("processing-predict:pod-1", "processing-predict:pod-2", "predict")


def short(redis_client: RedisClient, worker: str = "pod-1") -> JobQueue:
    """A queue whose leases end at once."""
    return JobQueue(redis_client, "predict", worker, QueueOptions(lease_s=0.001))


def test_the_sweep_returns_what_a_silent_worker_held(
    redis_client: RedisClient, other: JobQueue, redis_db: Any, caplog: pytest.LogCaptureFixture
) -> None:
    ids = [submit(redis_db, name) for name in "ab"]
    silent = short(redis_client)
    jobs = [claimed(silent) for _ in ids]
    while redis_db.zcount("redis-consumer:leases:predict", "-inf", _server_ms(redis_db)) < 2:
        pass
    assert sorted(upkeep.sweep(other)) == sorted(ids)
    told = [f"Swept job {job_id} back to queue predict: its worker pod-1 is gone" for job_id in ids]
    assert sorted(caplog.messages) == sorted(told)
    assert [claimed(other).attempt for _ in ids] == [2, 2]
    with pytest.raises(LeaseLost):
        silent.complete(jobs[0], {"status": "done"})


def _server_ms(db: Any) -> int:
    seconds, micros = db.time()
    return int(seconds * 1000 + micros // 1000)


def test_a_renewed_lease_is_not_swept(redis_client: RedisClient, queue: JobQueue, redis_db: Any) -> None:
    job_id = submit(redis_db)
    before = redis_db.hget(job_id, "updated_at")
    job = claimed(short(redis_client))
    assert queue.renew([job]) == []
    assert upkeep.sweep(queue) == []
    assert redis_db.hget(job_id, "updated_at") != before  # the janitor judges by it


def test_a_renewal_says_which_jobs_are_lost(queue: JobQueue, redis_db: Any) -> None:
    submit(redis_db)
    job = claimed(queue)
    queue.give_back(job)
    assert queue.renew([job]) == [job.id]


def test_a_renewal_does_not_bring_a_hash_back(queue: JobQueue, redis_db: Any) -> None:
    job_id = submit(redis_db)
    job = claimed(queue)
    redis_db.delete(job_id)
    assert queue.renew([job]) == [job_id]
    assert not redis_db.exists(job_id)


def test_the_sweep_returns_entries_that_have_no_lease_for_a_while(
    queue: JobQueue,
    other: JobQueue,
    redis_db: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    job_id = submit(redis_db)
    queue.renew()
    redis_db.lmove("predict", "processing-predict:pod-1", src="RIGHT", dest="LEFT")  # and dies before its script
    assert upkeep.sweep(other, every_s=0.001) == []
    monkeypatch.setattr("redis_consumer.queue.upkeep.ORPHAN_S", 0.0)
    while redis_db.exists("redis-consumer:sweep:predict"):
        pass
    assert upkeep.sweep(other) == [job_id]
    assert caplog.messages[-1].endswith("its worker pod-1 is gone")
    assert redis_db.lrange("predict", 0, -1) == [job_id]


def test_one_sweep_at_a_time(queue: JobQueue, other: JobQueue, redis_db: Any, redis_client: RedisClient) -> None:
    assert upkeep.sweep(queue) == []
    submit(redis_db)
    claimed(short(redis_client))
    assert upkeep.sweep(other) == []


@pytest.mark.parametrize("is_supervised", [True, False])
def test_a_list_is_known_before_a_key_is_moved_into_it(tmp_path: Path, is_supervised: bool) -> None:
    """After Redis came back empty too: a worker that dies right behind the move would lose the key."""
    server = RedisServer(tmp_path).start()
    try:
        queue = JobQueue(RedisClient("127.0.0.1", server.port, 0.05, deadline_s=20), "predict", "pod-1")
        if is_supervised:
            upkeep.register(queue)
        assert queue.claim(0.1) is None
        server.stop()
        server.start()
        with contextlib.suppress(RedisUnavailable):
            assert queue.claim(0.1) is None
        queue.claim(0.1)
        assert server.client.smembers("redis-consumer:processing:predict") == {queue.processing}
    finally:
        server.stop()


def test_a_worker_has_its_name_again_after_redis_came_back_empty(queue: JobQueue, redis_db: Any) -> None:
    upkeep.register(queue)
    redis_db.flushall()
    queue.renew()
    assert upkeep.register(JobQueue(queue.redis, queue.name, queue.worker)) > 0
    assert redis_db.smembers("redis-consumer:processing:predict") == {queue.processing}
    upkeep.unregister(queue)
    assert not redis_db.exists("redis-consumer:workers:predict", "redis-consumer:registrations:predict")


def test_a_name_is_taken_until_its_registration_lapses(queue: JobQueue) -> None:
    assert upkeep.register(queue) == 0
    other = JobQueue(queue.redis, queue.name, queue.worker)
    assert 0 < upkeep.register(other) <= queue.options.lease_s
    upkeep.unregister(queue)
    assert upkeep.register(queue) == 0


def test_a_waiting_job_is_cancelled_at_once(queue: JobQueue, redis_db: Any) -> None:
    job_id = submit(redis_db)
    assert admin.cancel(queue, job_id) == "cancelled"
    assert redis_db.hget(job_id, "status") == "failed"
    assert (redis_db.hget(job_id, "reason") or "").startswith("JobCancelled")
    assert queue.claim() is None
    assert (admin.cancel(queue, job_id), admin.cancel(queue, "predict:nope:1")) == ("final", "gone")


def test_a_running_job_is_cancelled_at_its_next_step(queue: JobQueue, redis_db: Any) -> None:
    job_id = submit(redis_db)
    job = claimed(queue)
    assert admin.cancel(queue, job_id) == "stopping"
    with pytest.raises(JobCancelled):
        queue.update(job, {"status": "predicting"})
    queue.complete(job, {"status": "failed", "reason": "JobCancelled"})
    assert redis_db.keys("redis-consumer:cancelled:*") == []


def test_an_ended_job_leaves_nothing_of_ours_behind(queue: JobQueue, redis_db: Any) -> None:
    submit(redis_db)
    queue.give_back(claimed(queue))
    queue.complete(claimed(queue), {"status": "done"})
    assert sorted(redis_db.keys("redis-consumer:*")) == [
        "redis-consumer:completed:predict",
        "redis-consumer:leftovers:predict",
        "redis-consumer:rates:predict",
        "redis-consumer:totals:predict",
    ]


def test_only_the_last_hours_completions_are_kept_by_the_minute(queue: JobQueue, redis_db: Any) -> None:
    redis_db.hset("redis-consumer:rates:predict", "2026-01-01T00:00", "7")
    submit(redis_db)
    queue.complete(claimed(queue), {"status": "done"})
    upkeep.sweep(queue)
    assert list(redis_db.hvals("redis-consumer:rates:predict")) == ["1"]


def test_a_job_cancelled_in_its_last_step_has_no_result(queue: JobQueue, redis_db: Any) -> None:
    job_id = submit(redis_db)
    job = claimed(queue)
    assert admin.cancel(queue, job_id) == "stopping"
    with pytest.raises(JobCancelled):
        queue.complete(job, {"status": "done"}, is_success=True)
    queue.complete(job, {"status": "failed"})
    assert redis_db.hget(job_id, "status") == "failed"


def test_a_registration_whose_reply_was_lost_is_known_again(queue: JobQueue) -> None:
    assert upkeep.register(queue) == 0
    assert upkeep.register(queue) == 0


def test_a_result_that_replicas_have_is_confirmed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    master = RedisServer(tmp_path).start()
    (tmp_path / "replica").mkdir()
    replica = RedisServer(tmp_path / "replica", replica_of=master.port).start()
    try:
        queue = JobQueue(
            RedisClient("127.0.0.1", master.port, 0.05, deadline_s=20), "predict", "pod-1", QueueOptions(replicas=1)
        )
        wait_for(lambda: master.client.info("replication").get("slave0", {}).get("state") == "online", "the replica")
        job_id = submit(master.client)
        queue.complete(claimed(queue), {"status": "done"})
        assert replica.client.hget(job_id, "status") == "done"
        assert caplog.text == ""
    finally:
        replica.stop()
        master.stop()


def test_a_result_that_no_replica_has_is_told(
    redis_client: RedisClient, redis_db: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("redis_consumer.queue.job_queue.CONFIRM_S", 0.05)
    queue = JobQueue(redis_client, "predict", "pod-1", QueueOptions(replicas=1))
    job_id = submit(redis_db)
    queue.complete(claimed(queue), {"status": "done"})
    assert redis_db.hget(job_id, "status") == "done"
    assert "is on 0 of 1 replicas" in caplog.text


def test_scripts_survive_a_server_that_forgot_them(queue: JobQueue, redis_db: Any) -> None:
    for name in "ab":
        submit(redis_db, name)
        queue.complete(claimed(queue), {"status": "done"})
        redis_db.script_flush()


def test_the_next_job_is_kept_where_the_server_forgot_the_script_that_ends_the_first(
    queue: JobQueue, redis_db: Any
) -> None:
    redis_db.script_flush()
    queue.is_chained = True
    submit(redis_db, "a")
    second = submit(redis_db, "b")
    queue.complete(claimed(queue), {"status": "done"}, is_success=True, is_last=True)  # claim is known, complete isn't
    assert claimed(queue).id == second


def test_a_plain_client_will_do(redis_server: RedisServer, redis_db: Any) -> None:
    submit(redis_db)
    queue = JobQueue(redis_db, "predict", "pod-2")
    queue.complete(claimed(queue), {"status": "done"})


def test_the_end_of_a_job_takes_the_next_one_in_the_same_round_trip(queue: JobQueue, redis_db: Any) -> None:
    first, second = submit(redis_db, "a"), submit(redis_db, "b")
    queue.is_chained = True
    queue.complete(claimed(queue), {"status": "done"}, is_last=True)
    assert redis_db.lrange("processing-predict:pod-1", 0, -1) == [second]
    assert redis_db.hget(first, "status") == "done"
    assert claimed(queue).id == second


def test_the_end_of_the_last_job_takes_none(queue: JobQueue, redis_db: Any) -> None:
    submit(redis_db)
    queue.is_chained = True
    queue.complete(claimed(queue), {"status": "done"}, is_last=True)
    assert queue.claim() is None


def test_a_job_taken_in_advance_goes_back_where_the_worker_stops(queue: JobQueue, redis_db: Any) -> None:
    submit(redis_db, "a")
    second = submit(redis_db, "b")
    queue.is_chained = True
    queue.complete(claimed(queue), {"status": "done"}, is_last=True)
    queue.release()
    queue.release()
    assert redis_db.lrange("predict", 0, -1) == [second]
    assert counted_runs(redis_db, second) == 0


def test_who_lost_its_job_has_the_next_one_all_the_same(queue: JobQueue, redis_db: Any) -> None:
    submit(redis_db, "a")
    second = submit(redis_db, "b")
    job = claimed(queue)
    redis_db.hdel("redis-consumer:holders:predict", job.id)
    queue.is_chained = True
    with pytest.raises(LeaseLost):
        queue.complete(job, {"status": "done"}, is_last=True)
    assert claimed(queue).id == second


def test_chained_scripts_survive_a_server_that_forgot_them(queue: JobQueue, redis_db: Any) -> None:
    submit(redis_db, "a")
    second = submit(redis_db, "b")
    queue.is_chained = True
    job = claimed(queue)
    redis_db.script_flush()
    queue.complete(job, {"status": "done"}, is_last=True)
    assert claimed(queue).id == second
    assert queue.claim() is None


@pytest.mark.parametrize("settles", [True, False])
def test_a_running_job_that_a_janitor_put_back_still_is_ours(queue: JobQueue, redis_db: Any, settles: bool) -> None:
    job_id = submit(redis_db)
    job = claimed(queue)
    redis_db.lrem(queue.processing, 1, job_id)
    redis_db.lpush("predict", job_id)
    if settles:
        queue.complete(job, {"status": "done"})
    else:
        queue.update(job, {"status": "started"})
        assert redis_db.lrange(queue.processing, 0, -1) == [job_id]
    assert not redis_db.exists("predict")


def test_outages_that_others_recover_from_are_counted_once_a_job_is_suspect(queue: JobQueue, redis_db: Any) -> None:
    submit(redis_db)
    for _ in range(2):
        redis_db.incr("redis-consumer:completed:predict")
        queue.give_back(claimed(queue))
    attempts = []
    for _ in range(4):
        queue.give_back(claimed(queue))  # by another worker, in the same outage
        queue.note_recovery()
        queue.give_back(claimed(queue))
        attempts.append(counted_runs(redis_db, "predict:a.tif:1"))
    assert attempts == sorted(attempts)
    assert attempts[0] == 0
    assert attempts[-1] > 0


def test_outages_of_a_job_that_is_not_suspect_are_never_counted(queue: JobQueue, redis_db: Any) -> None:
    submit(redis_db)
    for _ in range(10):
        queue.give_back(claimed(queue))
        queue.note_recovery()
    assert counted_runs(redis_db, "predict:a.tif:1") == 0


def test_the_runs_of_a_job_that_a_stranger_ended_are_forgotten(queue: JobQueue, redis_db: Any) -> None:
    job_id = submit(redis_db)
    queue.give_back(claimed(queue))
    redis_db.hset(job_id, "status", "done")
    upkeep.sweep(queue)
    assert redis_db.keys("redis-consumer:attempts:*") == redis_db.keys("redis-consumer:forgiven:*") == []


def test_a_dead_letter_keeps_its_count(queue: JobQueue, redis_db: Any) -> None:
    job_id = submit(redis_db)
    queue.complete(claimed(queue), {"status": "failed"}, is_dead=True)
    upkeep.sweep(queue)
    assert redis_db.hgetall("redis-consumer:attempts:predict") == {job_id: "1"}
    admin.drop(queue, job_id)
    assert not redis_db.exists("redis-consumer:attempts:predict")


def test_a_sweep_notes_thousands_of_entries_without_a_lease(queue: JobQueue, redis_db: Any) -> None:
    upkeep.register(queue)
    redis_db.lpush(queue.processing, *(f"predict:{number}.tif:1" for number in range(400)))
    for name in range(20):
        redis_db.sadd("redis-consumer:processing:predict", f"processing-predict:pod-x-{name}")
        redis_db.lpush(f"processing-predict:pod-x-{name}", *(f"predict:{name}-{each}.tif:1" for each in range(400)))
    assert upkeep.sweep(queue) == []
    assert redis_db.hlen("redis-consumer:orphans:predict") == 8400


def test_a_cancelled_job_that_becomes_a_dead_letter_can_be_retried(redis_client: RedisClient, redis_db: Any) -> None:
    queue = JobQueue(redis_client, "predict", "pod-1", QueueOptions(max_attempts=1))
    job_id = submit(redis_db)
    job = claimed(queue)
    admin.cancel(queue, job_id)
    queue.give_back(job, is_crash=True)
    assert queue.claim() is None
    assert admin.retry(queue, job_id)
    queue.update(claimed(queue), {"status": "started"})


def test_a_job_cancelled_in_its_last_step_costs_no_other_job_its_attempt(queue: JobQueue, redis_db: Any) -> None:
    first, second = submit(redis_db, "a"), submit(redis_db, "b")
    submit(redis_db, "c")
    queue.is_chained = True
    job = claimed(queue)
    admin.cancel(queue, first)
    with pytest.raises(JobCancelled):
        queue.complete(job, {"status": "done"}, is_success=True, is_last=True)
    queue.complete(job, {"status": "failed"}, is_last=True)
    assert claimed(queue).id == second
    assert redis_db.llen("predict") == 1


def test_a_key_without_a_name_is_taken_away(queue: JobQueue, redis_db: Any) -> None:
    assert queue.claim() is None
    redis_db.lpush("predict", "")
    assert queue.claim(5) is None
    assert not redis_db.exists("predict", queue.processing)


def test_who_was_frozen_leaves_its_successors_registration(queue: JobQueue, redis_db: Any) -> None:
    upkeep.register(queue)
    redis_db.zadd("redis-consumer:workers:predict", {"pod-1": 1})
    assert upkeep.register(JobQueue(queue.redis, queue.name, queue.worker)) == 0
    upkeep.unregister(queue)
    assert redis_db.zscore("redis-consumer:workers:predict", "pod-1") is not None
