"""The queues of an option and of the settings are found."""

from __future__ import annotations

from redis_consumer.cli.options import chosen_queues
from redis_consumer.settings import Settings


def test_queues_of_the_settings_with_those_of_their_archives() -> None:
    settings = Settings(queue="track", segmentation_queue="predict")
    assert chosen_queues(settings, None) == ["track", "track-zip", "predict", "predict-zip"]


def test_named_queues_once_each() -> None:
    assert chosen_queues(Settings(), ["Spot", "spot-zip", "spot"]) == ["spot", "spot-zip"]
