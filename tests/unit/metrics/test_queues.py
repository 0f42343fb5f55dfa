"""Figures of queues are written in the format of Prometheus."""

from __future__ import annotations

from redis_consumer import metrics
from redis_consumer.metrics import queues
from support.scraping import samples_of


def test_figures_by_their_labels() -> None:
    text = metrics.text_of_queues({queues.UP: {(): 1.0}, queues.JOBS: {("predict", "waiting"): 3.0}}).decode()
    assert samples_of(text) == {
        ("redis_consumer_up", frozenset()): 1,
        ("redis_consumer_queue_jobs", frozenset({("queue", "predict"), ("state", "waiting")})): 3,
    }
