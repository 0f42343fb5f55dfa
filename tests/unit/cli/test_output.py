"""States are written so that people understand them."""

from __future__ import annotations

import pytest

from redis_consumer.cli.output import in_words


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
