"""Describes what a worker does or waits for, as it is published in Redis with the worker's registration."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

from redis_consumer.text import cut
from redis_consumer.worker.shared_status import SharedStatus

#: Threads that are described at most, longest key of a job in it, and longest reason for a pause.
MOST_SLOTS, MOST_KEY, MOST_REASON = 64, 1000, 300


def activity_of(
    statuses: Sequence[SharedStatus], *, since: str, memory_mb: float, fault: str = "", is_stopping: bool = False
) -> str:
    """Return what the slots of a queue do, as JSON.

    Args:
        statuses: one for each slot.
        since: start of the worker, ISO 8601.
        memory_mb: resident memory of the worker's processes.
        fault: why no slot can work on this machine; empty if they can.
        is_stopping: whether the worker takes no more jobs.

    Returns:
        An object with ``since``, ``consumer`` (name of the class that runs the jobs; empty before a slot has started),
        ``memory_mb``, ``starting`` (number of slots that can't claim yet), ``stopping``, ``waits_for`` (why no slot
        claims jobs; else empty), ``idle`` (number of slots without a job) and ``slots``: an object for each thread that
        runs a job, with ``job``, ``attempt`` and ``for_s``, the seconds since its start.
    """
    ready = [status for status in statuses if status.is_ready]
    now = time.monotonic()
    runs = [run for status in statuses for run in status.runs().values()]
    pauses = [status.pause for status in ready]
    slots = [
        {"job": run.job.id, "attempt": run.job.attempt, "for_s": round(now - run.started, 1)}
        for run in runs[:MOST_SLOTS]
        if len(run.job.id) <= MOST_KEY
    ]
    return json.dumps(
        {
            "since": since,
            "consumer": next((status.consumer for status in ready), ""),
            "memory_mb": round(memory_mb),
            "starting": len(statuses) - len(ready),
            "stopping": is_stopping,
            "waits_for": cut(fault or (pauses[0] if pauses and all(pauses) else ""), MOST_REASON),
            "idle": sum(not status.runs() for status in ready),
            "slots": slots,
        }
    )
