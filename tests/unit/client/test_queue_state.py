"""Rates, names of queues and the remaining time of a job are computed correctly."""

from __future__ import annotations

import pytest

from redis_consumer.client.queue_state import QueueView, estimate, jobs_per_minute, queue_of
from redis_consumer.errors import SettingsError

NOON_S = 12 * 3600.0


@pytest.mark.parametrize(
    ("counts", "rate"),
    [
        ({}, 0),
        ({"1970-01-01T12:00": "5"}, 5),
        ({"1970-01-01T11:59": "5"}, 5),
        ({"1970-01-01T11:56": "30", "1970-01-01T11:58": "10"}, 10),
        ({"1970-01-01T11:50": "1000"}, 0),
        ({"1970-01-01T11:51": "1000"}, pytest.approx(111, abs=1)),
    ],
)
def test_rate_since_the_first_completion_of_the_last_ten_minutes(counts: dict[str, str], rate: float) -> None:
    assert jobs_per_minute(counts, NOON_S) == rate


def test_queue_is_the_first_part_of_the_key() -> None:
    assert queue_of("Predict-zip:a:b.zip:1") == "predict-zip"


def test_named_queue_wins() -> None:
    assert queue_of("predict:a:1", "Other") == "other"


@pytest.mark.parametrize("job_id", ["predict", ":a:1"])
def test_key_without_queue(job_id: str) -> None:
    with pytest.raises(SettingsError, match="--queue"):
        queue_of(job_id)


def test_all_jobs_before_it_and_itself_have_to_be_completed() -> None:
    view = QueueView("predict", 10, 2, 0, 1, 50, 1e9, jobs_per_minute=60)
    left_s, note = estimate(4, view)
    assert left_s == pytest.approx(6)
    assert note == "at 60 jobs/min"


def test_nothing_is_known_where_nothing_was_completed() -> None:
    left_s, note = estimate(1, QueueView("predict", 1, 0, 0, 1, 0, 1e9))
    assert left_s is None
    assert note == "no job was completed in the last ten minutes"
