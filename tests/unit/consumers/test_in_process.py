from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from redis_consumer.consumers import Child, Consumer, second_phase
from redis_consumer.consumers.fan_out import inherited
from redis_consumer.consumers.in_process import Desk, run_to_its_end, seat
from redis_consumer.errors import InvalidImage, PermanentError, RetryableError, StorageUnavailable
from redis_consumer.job import Job


class Sum(Consumer):
    """Divides a number into its digits, twice over, and adds what the children give."""

    def _consume(self, redis_hash: str) -> str:
        return self._divide("again")

    def _divide(self, then: str) -> str:
        job = self.job or Job("")
        children = (Child("digits", digit, fields={**inherited(job), "digit": digit}) for digit in job.get("number"))
        return self.fan_out(children, then=then)

    @second_phase
    def again(self, redis_hash: str) -> str:
        return self._divide("add")

    @second_phase
    def add(self, redis_hash: str) -> str:
        values = [int(child.get("value")) for child in self.child_jobs()]
        self.update_key(redis_hash, {"status": self.final_status, "values": values})
        return self.final_status


class Double(Consumer):
    """Doubles a digit."""

    def _consume(self, redis_hash: str) -> str:
        digit = self.redis.hget(redis_hash, "digit")
        self.update_key(redis_hash, {"status": "started"})
        self.redis.hset(redis_hash, "value", 2 * int(digit))
        return self.final_status


class Failing(Consumer):
    """Raises what the test wants."""

    error: Exception

    def _consume(self, redis_hash: str) -> str:
        raise self.error


def run(job: Job, *kinds: type[Consumer], on_write: Callable[[Job], None] | None = None) -> Job:
    desk = Desk(on_write)
    consumers = {kind: seat(kind(desk, object(), kind.__name__, name="here"), desk) for kind in kinds}
    own, *others = consumers.values()
    return run_to_its_end(job, desk, lambda each: own if each.id == job.id else others[0])


def test_a_divided_job_runs_with_its_children_through_all_phases() -> None:
    ended = run(Job("sum:1", {"number": "123", "status": "new"}), Sum, Double)
    assert (ended.status, ended.get("values")) == ("done", "[2, 4, 6]")
    assert ended.get("total_jobs") == "3"


def test_a_job_without_children_goes_on_at_once() -> None:
    assert run(Job("sum:1", {"number": "", "status": "new"}), Sum).get("values") == "[]"


def test_children_of_children_have_an_end() -> None:
    desk = Desk()
    consumer = seat(Sum(desk, object(), "sum", name="here"), desk)
    with pytest.raises(PermanentError, match="is a child of children, 16 deep"):
        run_to_its_end(Job("sum:1", {"number": "1", "status": "new"}), desk, lambda _: consumer)


def test_each_write_is_told() -> None:
    seen: list[str] = []
    run(Job("digits:1", {"digit": "4", "status": "new"}), Double, on_write=lambda job: seen.append(job.status))
    assert seen == ["started", "started", "done"]


def test_bad_input_fails_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Failing, "error", InvalidImage("a.tif: is damaged"), raising=False)
    ended = run(Job("a:1"), Failing)
    assert (ended.status, ended.get("reason")) == ("failed", "InvalidImage: a.tif: is damaged")


def test_what_is_away_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Failing, "error", StorageUnavailable("bucket: away"), raising=False)
    with pytest.raises(RetryableError, match="bucket: away"):
        run(Job("a:1"), Failing)


def test_there_is_no_more_of_redis() -> None:
    with pytest.raises(PermanentError, match=r"redis\.lpush: this run has no Redis"):
        _: Any = Desk().lpush
