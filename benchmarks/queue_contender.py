"""Describes a queue in the comparison: its commands, and where Redis shows its completed jobs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from redis_consumer.redis import RedisClient

#: Gives the number of jobs that Redis shows as completed at the time of the call.
Progress = Callable[[], int]


@dataclass(frozen=True)
class Contender:
    """A worker that runs no-op jobs.

    Attributes:
        name: key of its figure.
        jobs: jobs of one run; about two seconds' worth.
        worker: command line of the worker.
        progress: makes the count of completed jobs, once all jobs are in the queue.
        push: command line that fills the queue, but for the number of jobs; empty for the kiosk's own hashes and list.
        settings: what was chosen for it, as text.
        environment: variables of its processes besides ``REDIS_URL``.
    """

    name: str
    jobs: int
    worker: list[str]
    progress: Callable[[RedisClient, int], Progress]
    push: list[str] = field(default_factory=list)
    settings: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
