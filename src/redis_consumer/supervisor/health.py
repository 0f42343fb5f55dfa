"""Answers health probes and Prometheus: whether the worker runs, whether it takes jobs, and its counters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

from redis_consumer import metrics
from redis_consumer.queue import JobQueue
from redis_consumer.supervisor.board import Board
from redis_consumer.supervisor.pages import Reply


def health_pages(state: Callable[[], dict[str, Any]], counts: Path) -> Mapping[str, Callable[[], Reply]]:
    """What is answered: ``/live``, ``/ready`` (both 503 unless it is so) and ``/metrics``.

    Args:
        state: what is shown by the first two as JSON; its keys ``live`` and ``ready`` decide.
        counts: the folder in which the worker's processes count.
    """

    def answer(key: str) -> Reply:
        shown = state()
        return Reply.of_data(shown, HTTPStatus.OK if shown[key] else HTTPStatus.SERVICE_UNAVAILABLE)

    return {
        "/live": lambda: answer("live"),
        "/ready": lambda: answer("ready"),
        "/metrics": lambda: Reply(metrics.text(counts), content_type=metrics.CONTENT_TYPE),
    }


def state_of(boards: Sequence[Board], fault: str) -> dict[str, Any]:
    """Describe the slots for probes.

    Args:
        boards: one for each slot.
        fault: why the machine lets nobody work, empty where it does.

    Returns:
        ``slots`` that take jobs, jobs that are ``running``, and what the others, or all of them, are ``waiting`` for.
    """
    pauses = [board.pause for board in boards if board.is_ready]
    return {
        "slots": pauses.count(""),
        "running": sum(len(board.runs()) for board in boards),
        "waiting": fault or next(filter(None, pauses), ""),
    }


def announce(queues: Sequence[JobQueue]) -> None:
    """Let the supervisor's counts be there, as 0, before they grow."""
    for queue in queues:
        metrics.SWEPT.add(queue.name, amount=0)
    for cause in metrics.DEATH_CAUSES:
        metrics.SLOT_DEATHS.add(cause, amount=0)
