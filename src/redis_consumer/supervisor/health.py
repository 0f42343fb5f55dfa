"""Does the worker live, may it be counted on, and what has it counted? Answers to Kubernetes and to Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from redis_consumer import metrics
from redis_consumer.supervisor.pages import Reply


def health_pages(state: Callable[[], dict[str, Any]], counts: Path) -> Mapping[str, Callable[[], Reply]]:
    """What is answered: ``/live`` with 200 always, ``/ready`` with 503 unless jobs are taken, ``/metrics``.

    Args:
        state: what is shown by the first two as JSON; its key ``ready`` decides.
        counts: the folder in which the worker's processes count.
    """

    def ready() -> Reply:
        shown = state()
        return Reply.of_data(shown, HTTPStatus.OK if shown["ready"] else HTTPStatus.SERVICE_UNAVAILABLE)

    return {
        "/live": lambda: Reply.of_data(state()),
        "/ready": ready,
        "/metrics": lambda: Reply(metrics.text(counts), content_type=metrics.CONTENT_TYPE),
    }
