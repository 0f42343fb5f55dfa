"""Jobs of dead slots come back at once, also where Redis doesn't answer the supervisor at that moment."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterable
from typing import Any

import pytest

from redis_consumer.errors import RedisUnavailable
from redis_consumer.job import Job
from redis_consumer.options import QueueOptions, WorkerLimits
from redis_consumer.queue import JobQueue
from redis_consumer.redis import RedisClient
from redis_consumer.worker.shared_status import SupervisorPipe
from redis_consumer.worker.slot_pool import Slot
from redis_consumer.worker.supervisor import Supervisor
from support.queues import claimed, submit
from support.redis_server import RedisServer
from support.worker import JOB

#: Seconds after which a test ends that waits in vain.
LONG_S = 25.0


class Refusing(JobQueue):
    """Finds Redis unavailable at the first return of a job, as after a cut; ends the worker after the next."""

    refusals = 1

    def give_back(self, job: Job, *, is_next: bool = False, is_crash: bool = False, error: str = "") -> None:
        if self.refusals:
            self.refusals -= 1
            raise RedisUnavailable("Redis: no reply")
        super().give_back(job, is_next=is_next, is_crash=is_crash, error=error)
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_job_that_cannot_be_returned_at_once_is_returned_soon(redis_server: RedisServer, redis_db: Any) -> None:
    def queue(kind: type[JobQueue]) -> JobQueue:
        client = RedisClient("127.0.0.1", redis_server.port, 0.05, deadline_s=1.0)
        return kind(client, "predict", "pod-1", QueueOptions(lease_s=600))

    def run_slot(pipe: SupervisorPipe) -> int:
        pipe.wait_for_start("Slot")
        if redis_db.exists("died"):
            time.sleep(LONG_S)
            os.kill(os.getppid(), signal.SIGTERM)
            time.sleep(LONG_S)
        redis_db.set("died", "1")
        pipe.report(claimed(queue(JobQueue)))
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    submit(redis_db)
    assert Supervisor([queue(Refusing)], run_slot, limits=WorkerLimits(sweep_s=600)).run() == 0
    assert redis_db.lrange("predict", 0, -1) == [JOB]
    assert redis_db.hget("redis-consumer:attempts:predict", JOB) == "1"


class Silent(JobQueue):
    """Notes which of its calls had an end of their own."""

    ended: list[str]

    def run(self, script: str, *arguments: str | int) -> Any:
        try:
            return super().run(script, *arguments)
        except RedisUnavailable:
            self.ended.append(script)
            raise

    def renew(self, jobs: Iterable[Job] = (), activity: str = "") -> list[str]:
        raise AssertionError("the worker was never registered")


def test_a_slot_that_dies_while_redis_does_not_answer_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes connections and commands, and never replies."""

    def run_slot(_: SupervisorPipe) -> int:
        time.sleep(0.3)  # by then the supervisor waits for a reply
        return 7

    with socket.create_server(("127.0.0.1", 0)) as server:
        queue = Silent(RedisClient("127.0.0.1", server.getsockname()[1], 0.05, deadline_s=LONG_S), "predict", "pod-1")
        queue.ended = []
        supervisor = Supervisor([queue], run_slot)
        remove, codes = supervisor.pool._remove, []

        def note(slot: Slot, code: int) -> None:
            remove(slot, code)
            codes.append(code)
            supervisor.pool.is_stopping = len(codes) >= 2

        monkeypatch.setattr(supervisor.pool, "_remove", note)
        assert supervisor.run() == 0
    assert queue.ended == []
