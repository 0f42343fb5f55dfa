"""Are rates and names of queues worked out rightly?"""

from __future__ import annotations

import pytest

from redis_consumer.cli.queue_state import chosen_queues, jobs_per_minute, queue_of
from redis_consumer.errors import SettingsError
from redis_consumer.settings import Settings

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


def test_queues_of_the_settings_with_those_of_their_archives() -> None:
    settings = Settings(queue="track", segmentation_queue="predict")
    assert chosen_queues(settings, None) == ["track", "track-zip", "predict", "predict-zip"]


def test_named_queues_once_each() -> None:
    assert chosen_queues(Settings(), ["Spot", "spot-zip", "spot"]) == ["spot", "spot-zip"]


def test_queue_is_the_first_part_of_the_key() -> None:
    assert queue_of("Predict-zip:a:b.zip:1") == "predict-zip"


def test_named_queue_wins() -> None:
    assert queue_of("predict:a:1", "Other") == "other"


@pytest.mark.parametrize("job_id", ["predict", ":a:1"])
def test_key_without_queue(job_id: str) -> None:
    with pytest.raises(SettingsError, match="--queue"):
        queue_of(job_id)
