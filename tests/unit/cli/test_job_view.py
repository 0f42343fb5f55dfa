"""Is the time left of a waiting job estimated, or said to be unknown?"""

from __future__ import annotations

import pytest

from redis_consumer.cli.job_view import estimate
from redis_consumer.cli.queue_state import QueueView


def test_all_jobs_before_it_and_itself_have_to_be_completed() -> None:
    view = QueueView("predict", 10, 2, 0, 1, 50, 1e9, jobs_per_minute=60)
    left_s, note = estimate(4, view)
    assert left_s == pytest.approx(6)
    assert note == "at 60 jobs/min"


def test_nothing_is_known_where_nothing_was_completed() -> None:
    left_s, note = estimate(1, QueueView("predict", 1, 0, 0, 1, 0, 1e9))
    assert left_s is None
    assert note == "no job was completed in the last ten minutes"
