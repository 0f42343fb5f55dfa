"""Are rates and names of queues worked out rightly?"""

from __future__ import annotations

import pytest

from redis_consumer.cli.queue_state import QueueView, Rates, chosen_queues, queue_of
from redis_consumer.errors import SettingsError
from redis_consumer.settings import Settings


def view(read_at_s: float, completed: int) -> QueueView:
    return QueueView("predict", 0, 0, 0, 0, completed, read_at_s)


def rates_of(*looks: tuple[float, int]) -> list[float | None]:
    rates = Rates(window_s=60)
    return [rates.add([view(*look)])[0].jobs_per_minute for look in looks]


def test_one_look_gives_no_rate() -> None:
    assert rates_of((100, 5)) == [None]


def test_rate_is_of_jobs_a_minute() -> None:
    assert rates_of((100, 5), (110, 7)) == [None, 12]


def test_looks_before_the_last_minute_do_not_count() -> None:
    assert rates_of((0, 0), (50, 1000), (100, 1000))[-1] == 0


def test_looks_that_are_far_apart_count() -> None:
    assert rates_of((0, 0), (600, 100))[-1] == 10


@pytest.mark.parametrize("look", [(110, 3), (90, 20)])
def test_another_server_starts_anew(look: tuple[float, int]) -> None:
    assert rates_of((100, 10), look) == [None, None]


def test_queues_have_rates_of_their_own() -> None:
    rates = Rates()
    rates.add([view(100, 5)])
    [other] = rates.add([QueueView("track", 0, 0, 0, 0, 9, 110)])
    assert other.jobs_per_minute is None


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
