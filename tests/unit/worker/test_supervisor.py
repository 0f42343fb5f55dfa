"""The supervisor's loop handles probes and signals while a queue waits for Redis."""

from __future__ import annotations

import os
import signal
import time

from redis_consumer.queue import JobQueue
from redis_consumer.redis import RedisClient
from redis_consumer.worker.supervisor import DEAD_AFTER_S, Supervisor


class Noting(Supervisor):
    """Notes what its loop does, and ends after a few steps. Stands in for a Redis that hangs for seconds each time."""

    seen: list[object]

    def _tend(self, queue_index: int) -> float:
        self.seen.append(queue_index)
        return 0.0

    def _listen(self, until: float) -> None:
        self.seen.append("listen")
        self.pool.exit_code = int(len(self.seen) > 4)


class Woken(Supervisor):
    """Gets a signal while it tends to its queues, and has nothing to do for long."""

    waits: list[float]

    def _tend(self, queue_index: int) -> float:
        if not self.waits:
            os.kill(os.getpid(), signal.SIGCHLD)
        return time.monotonic() + 30

    def _listen(self, until: float) -> None:
        self.waits.append(until)
        super()._listen(until)
        self.pool.exit_code = int(len(self.waits) > 1)


def test_a_signal_between_two_queues_is_seen_to_at_once() -> None:
    supervisor = Woken([JobQueue(RedisClient("127.0.0.1", 1, 0.05), "a", "pod-1")], lambda _: 0, slots=0)
    supervisor.waits = []
    assert supervisor.run() == 1
    assert supervisor.waits == [0.0, 0.0]


def test_probes_are_answered_between_two_queues() -> None:
    client = RedisClient("127.0.0.1", 1, 0.05)
    supervisor = Noting([JobQueue(client, name, "pod-1") for name in ("a", "b")], lambda _: 0, slots=0)
    supervisor.seen = []
    assert supervisor.run() == 1
    assert supervisor.seen == [0, "listen", 1, "listen", "listen"]


class Slotless(Supervisor):
    """Can start no slot, as where no process can be started any more."""

    told: list[dict[str, object]]

    def _tend(self, queue_index: int) -> float:
        return time.monotonic() + 30

    def _listen(self, until: float) -> None:
        self.told.append(self._state())
        self._alive_at -= DEAD_AFTER_S / 2
        self.pool.exit_code = int(len(self.told) > 4)


def test_a_worker_without_slots_is_not_live_after_a_minute() -> None:
    supervisor = Slotless([JobQueue(RedisClient("127.0.0.1", 1, 0.05), "a", "pod-1")], lambda _: 0, slots=0)
    supervisor.told = []
    assert supervisor.run() == 1
    assert [state["live"] for state in supervisor.told[:5]] == [True, True, False, False, False]
    assert not any(state["ready"] for state in supervisor.told)
