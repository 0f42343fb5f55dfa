"""Consumers of archives, movies and images that are slow in each phase, so that kills hit every phase."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from chaos.consumer import LEDGER_VARIABLE
from chaos.ledger import Ledger
from redis_consumer.consumers import Child, Consumer, ImageFileConsumer, TrackingConsumer, ZipFileConsumer
from redis_consumer.consumers.claimed_job import Outcome
from redis_consumer.job import Job

T = TypeVar("T")


class Slow(Consumer):
    """Waits before each child, when it makes them and when it reads them; notes which process runs which job.

    Attributes:
        pause_s: seconds for each child.
    """

    pause_s = 0.04

    def run(self, job: Job) -> Outcome:
        """As for every job."""
        ledger = Ledger(Path(os.environ[LEDGER_VARIABLE]))
        ledger.note("start", job=job.id)
        ledger.close()
        return super().run(job)

    def fan_out(self, children: Iterable[Child], **options: Any) -> str:
        """As for every parent."""
        return super().fan_out(self._slowly(children), **options)

    def child_jobs(self) -> Iterator[Job]:
        """As for every parent."""
        return self._slowly(super().child_jobs())

    def _slowly(self, items: Iterable[T]) -> Iterator[T]:
        for item in items:
            time.sleep(self.pause_s)
            yield item


class SlowImage(Slow, ImageFileConsumer):
    """Waits before its image."""

    def _consume(self, redis_hash: str) -> str:
        time.sleep(self.pause_s)
        return super()._consume(redis_hash)


class SlowZip(Slow, ZipFileConsumer):
    """Has many children."""


class SlowTracking(Slow, TrackingConsumer):
    """Has few children."""

    pause_s = 0.15
