"""Are states and ages said so that people understand them?"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from redis_consumer.cli.words import age_s, in_words


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"status": "new"}, "waiting in its queue"),
        ({"status": "pre-processing"}, "pre processing"),
        ({"status": "predicting", "progress": "40"}, "predicting (40 %)"),
        ({"status": "done", "progress": "100"}, "done"),
        (
            {"status": "failed", "reason": "Traceback\n  x\nInvalidImage: a.tif: empty\n"},
            "failed: InvalidImage: a.tif: empty",
        ),
        ({"status": "failed"}, "failed"),
        ({}, "without a status"),
    ],
)
def test_state_in_words(fields: dict[str, str], words: str) -> None:
    assert in_words(fields) == words


def test_age_of_a_moment_as_the_web_server_writes_it() -> None:
    moment = datetime.now(timezone.utc) - timedelta(hours=1)
    age = age_s(moment.strftime("%Y-%m-%dT%H:%M:%S.000Z"))
    assert age == pytest.approx(3600, abs=60)


@pytest.mark.parametrize("text", ["", "yesterday", "2020-02-27T17:44:01"])
def test_moment_without_zone_or_sense_has_no_age(text: str) -> None:
    assert age_s(text) is None
