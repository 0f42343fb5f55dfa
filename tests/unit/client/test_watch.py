"""A job's progress is read from its fields."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from redis_consumer.client.watch import GONE, JobState, _state, age_s


@pytest.mark.parametrize(
    ("status", "progress", "percent"),
    [
        ("new", None, 0),
        ("predicting", None, 30),
        ("predicting", "60", 60),
        ("predicting", "100", 99),
        ("predicting", "half", 30),
        ("retry-predicting - 1 - UNAVAILABLE", None, 50),
        ("done", None, 100),
        ("failed", "10", 100),
    ],
)
def test_progress(status: str, progress: str | None, percent: float) -> None:
    assert _state("predict:a:1", [status, progress, None, None, None, None]).progress == percent


def test_job_whose_hash_is_gone_is_failed() -> None:
    state = _state("predict:a:1", [None] * 6)
    assert (state.status, state.is_final, state.is_failed) == (GONE, True, True)
    assert "expired" in state.short_reason


@pytest.mark.parametrize(
    ("status", "is_final", "is_failed"), [("done", True, False), ("failed", True, True), ("new", False, False)]
)
def test_final_states(status: str, is_final: bool, is_failed: bool) -> None:
    state = JobState("predict:a:1", status)
    assert (state.is_final, state.is_failed) == (is_final, is_failed)


def test_age_of_a_moment_as_the_web_server_writes_it() -> None:
    moment = datetime.now(timezone.utc) - timedelta(hours=1)
    age = age_s(moment.strftime("%Y-%m-%dT%H:%M:%S.000Z"))
    assert age == pytest.approx(3600, abs=60)


@pytest.mark.parametrize("text", ["", "yesterday", "2020-02-27T17:44:01"])
def test_moment_without_zone_or_sense_has_no_age(text: str) -> None:
    assert age_s(text) is None
