"""One job from claim to settle, on a real Redis, by consumers as authors write them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from redis_consumer.consumers import Consumer
from redis_consumer.consumers.claimed_job import Interrupted, Outcome
from redis_consumer.errors import InvalidImage, ModelServerUnavailable, SettingsError, reason_of
from redis_consumer.queue import admin
from redis_consumer.redis import RedisClient
from redis_consumer.storage import Storage

JOB = "predict:a.tif:1"
Work = Callable[["Scripted", str], str]


class Scripted(Consumer):
    """A consumer whose work is given by the test."""

    work: Work

    def _consume(self, redis_hash: str) -> str:
        return type(self).work(self, redis_hash)


@pytest.fixture
def make(redis_client: RedisClient, redis_db: Any, tmp_path: Path) -> Callable[[Work], Scripted]:
    """Makes a consumer and submits one job for it."""

    def make(work: Work, **fields: str) -> Scripted:
        kind = type("Kind", (Scripted,), {"work": staticmethod(work)})
        redis_db.hset(JOB, mapping={"status": "new", "input_file_name": "uploads/a.tif", **fields})
        redis_db.lpush("predict", JOB)
        consumer: Scripted = kind(redis_client, Storage(tmp_path.as_uri()), "Predict", name="pod-1")
        return consumer

    return make


def run(consumer: Consumer) -> Outcome:
    job = consumer.job_queue.claim()
    assert job is not None
    return consumer.run(job)


def state(db: Any) -> dict[str, Any]:
    return {**db.hgetall(JOB), "queue": db.lrange("predict", 0, -1), "running": db.keys("processing-*")}


Make = Callable[..., Scripted]


def test_a_returned_final_status_completes_the_job(make: Make, redis_db: Any) -> None:
    assert run(make(lambda self, _: self.final_status)) is Outcome.SETTLED
    after = state(redis_db)
    assert (after["status"], after["queue"], after["running"]) == ("done", [], [])
    assert after["finished_at"].endswith("+00:00")


def test_the_seeds_way_completes_by_update_key(make: Make, redis_db: Any) -> None:
    def work(self: Scripted, key: str) -> str:
        self.update_key(key, {"status": self.final_status, "output_url": "u", "output_file_name": "output/x.zip"})
        assert not redis_db.exists(self.processing_queue)  # settled together with the write
        self.update_key(key, {"note": "later"})
        return self.final_status

    assert run(make(work)) is Outcome.SETTLED
    after = state(redis_db)
    assert (after["status"], after["output_url"], after["note"]) == ("done", "u", "later")


def test_an_error_in_words_is_the_reason(make: Make, redis_db: Any) -> None:
    def work(*_: Any) -> str:
        raise InvalidImage("HeLa.tif: is cut off;\n upload it again")

    assert run(make(work)) is Outcome.SETTLED
    after = state(redis_db)
    assert (after["status"], after["running"]) == ("failed", [])
    assert after["reason"] == "InvalidImage: HeLa.tif: is cut off; upload it again"


def test_a_bug_is_a_traceback_without_machine_paths(make: Make, redis_db: Any) -> None:
    def work(*_: Any) -> str:
        return {"present": ""}["missing"]

    assert run(make(work)) is Outcome.SETTLED
    reason = redis_db.hget(JOB, "reason") or ""
    assert reason.splitlines()[-1] == "KeyError: 'missing'"
    assert "redis_consumer/consumers/base.py" in reason
    assert str(Path.cwd()) not in reason
    assert "/src/" not in reason


@pytest.mark.parametrize("error", [ModelServerUnavailable("model server tf:8500: away"), SettingsError("wrong key")])
def test_an_outage_gives_the_job_back_to_the_end_of_the_line(make: Make, redis_db: Any, error: Exception) -> None:
    def work(*_: Any) -> str:
        raise error

    consumer = make(work)
    redis_db.lpush("predict", "predict:later.tif:2")
    assert run(consumer) is Outcome.GIVEN_BACK
    after = state(redis_db)
    assert (after["queue"], after["running"]) == ([JOB, "predict:later.tif:2"], [])
    assert "reason" not in after


def test_a_stop_gives_the_job_back_as_the_next_one(make: Make, redis_db: Any) -> None:
    def work(*_: Any) -> str:
        raise Interrupted

    consumer = make(work)
    redis_db.lpush("predict", "predict:later.tif:2")
    with pytest.raises(Interrupted):
        run(consumer)
    assert state(redis_db)["queue"] == ["predict:later.tif:2", JOB]


def test_any_other_status_puts_the_job_back(make: Make, redis_db: Any) -> None:
    assert run(make(lambda *_: "waiting")) is Outcome.GIVEN_BACK
    assert state(redis_db)["queue"] == [JOB]


@pytest.mark.parametrize("writes_itself", [True, False])
def test_who_lost_the_job_shows_no_result(make: Make, redis_db: Any, writes_itself: bool) -> None:
    def work(self: Scripted, key: str) -> str:
        redis_db.lrem(self.processing_queue, 1, key)  # the janitor, or another worker, took it away
        if writes_itself:
            self.update_key(key, {"status": self.final_status, "output_url": "late"})
        return self.final_status

    assert run(make(work)) is Outcome.LOST
    after = state(redis_db)
    assert after["status"] == "new"
    assert "output_url" not in after


def test_an_invalid_job_fails_in_words(make: Make, redis_db: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    consumer = make(lambda self, _: self.final_status, original_name="a.zip")
    monkeypatch.setattr(consumer, "is_valid_hash", lambda _: False)  # plug-ins replace it on instances
    run(consumer)
    assert redis_db.hget(JOB, "reason") == (
        "InvalidJob: a.zip: not a file for queue 'predict'; submit it to a queue that takes this type"
    )


def test_consume_runs_one_job(make: Make, redis_db: Any) -> None:
    make(lambda self, _: self.final_status).consume()
    assert redis_db.hget(JOB, "status") == "done"


def test_consume_returns_when_there_is_no_job(make: Make, redis_db: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMPTY_QUEUE_TIMEOUT", "0.05")
    consumer = make(lambda self, _: self.final_status)
    redis_db.delete("predict")
    consumer.consume()
    assert redis_db.hget(JOB, "status") == "new"


def test_consume_recovers_what_an_earlier_life_stranded(
    make: Make, redis_db: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("redis_consumer.queue.upkeep.ORPHAN_S", 0.0)
    monkeypatch.setenv("EMPTY_QUEUE_TIMEOUT", "0.05")
    consumer = make(lambda self, _: self.final_status)
    redis_db.lmove("predict", consumer.processing_queue, src="RIGHT", dest="LEFT")
    for _ in range(2):  # the first sees the entry, the second finds it still there
        redis_db.delete("redis-consumer:sweep:predict")
        consumer.consume()
    assert redis_db.hget(JOB, "status") == "done"


def test_consume_renews_the_lease_of_a_long_job(make: Make, redis_db: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEASE_TIMEOUT", "0.3")

    def work(self: Scripted, _: str) -> str:
        leases = {redis_db.zscore("redis-consumer:leases:predict", JOB)}
        while len(leases) < 4:
            leases.add(redis_db.zscore("redis-consumer:leases:predict", JOB))
        return self.final_status

    make(work).consume()
    assert redis_db.hget(JOB, "status") == "done"


def test_a_bug_is_listed_among_the_dead_letters(make: Make, redis_db: Any) -> None:
    def work(*_: Any) -> str:
        raise RuntimeError("of a plug-in")

    run(make(work))
    assert redis_db.lrange("redis-consumer:dead:predict", 0, -1) == [JOB]


def test_bad_input_is_no_dead_letter(make: Make, redis_db: Any) -> None:
    def work(*_: Any) -> str:
        raise InvalidImage("a.tif: is empty; upload it again")

    run(make(work))
    assert not redis_db.exists("redis-consumer:dead:predict")


def test_a_cancelled_job_stops_at_its_next_step(make: Make, redis_db: Any) -> None:
    def work(self: Scripted, key: str) -> str:
        assert admin.cancel(self.job_queue, key) == "stopping"
        self.update_key(key, {"status": "predicting"})
        raise AssertionError("went on")

    run(make(work))
    assert (redis_db.hget(JOB, "reason") or "").startswith("JobCancelled")


def test_scripts_may_take_and_finish_a_job_themselves(make: Make, redis_db: Any) -> None:
    consumer = make(lambda self, _: self.final_status)
    key = consumer.get_redis_hash()
    assert key == JOB
    consumer.update_key(key, {"status": "done"})
    assert state(redis_db)["running"] == []
    assert consumer.get_redis_hash() is None


def test_put_back_returns_the_job(make: Make, redis_db: Any, caplog: pytest.LogCaptureFixture) -> None:
    consumer = make(lambda self, _: self.final_status)
    key = consumer.get_redis_hash()
    assert key is not None
    consumer._put_back_hash(key)
    assert state(redis_db)["queue"] == [JOB]
    consumer._put_back_hash(key)
    assert "nothing to put back" in caplog.text


def test_update_key_takes_a_dictionary_only(make: Make) -> None:
    consumer = make(lambda self, _: self.final_status)
    with pytest.raises(ValueError, match="wanted a dictionary"):
        consumer.update_key(JOB, "status")  # type: ignore[arg-type]


def test_update_key_writes_any_hash_with_time_and_worker(make: Make, redis_db: Any) -> None:
    make(lambda self, _: self.final_status).update_key("predict:child.tif:2", {"flag": True, "none": None})
    fields = redis_db.hgetall("predict:child.tif:2")
    assert fields.pop("updated_at").endswith("+00:00")
    assert fields == {"flag": "True", "none": "", "updated_by": "pod-1"}


def test_a_consumer_has_the_documented_attributes(make: Make) -> None:
    consumer = make(lambda self, _: self.final_status)
    assert (consumer.queue, consumer.processing_queue) == ("predict", "processing-predict:pod-1")
    assert (consumer.final_status, consumer.failed_status) == ("done", "failed")
    assert consumer.finished_statuses == {"done", "failed"}
    assert consumer.get_current_timestamp().endswith("+00:00")


def test_a_consumer_must_have_its_own_work(redis_client: RedisClient) -> None:
    with pytest.raises(NotImplementedError, match="_consume"):
        Consumer(redis_client, None, "predict")._consume(JOB)


def test_a_forgotten_return_is_said_in_words(make: Make, redis_db: Any) -> None:
    run(make(lambda *_: None))
    assert redis_db.hget(JOB, "status") == "failed"
    assert "must return a status" in (redis_db.hget(JOB, "reason") or "")


def test_a_reason_names_no_path_of_the_machine() -> None:
    error = OSError("cannot open '/home/me/secret/a.tif' or /tmp/b, see http://host/docs/page")
    assert reason_of(error).splitlines()[-1] == "OSError: cannot open 'a.tif' or b, see http://host/docs/page"


def test_the_last_line_of_a_reason_is_one_line() -> None:
    assert reason_of(ValueError("two\nlines")).splitlines()[-1] == "ValueError: two lines"
