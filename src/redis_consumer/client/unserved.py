"""Finds queues with waiting jobs that no worker serves."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

from redis_consumer.client.queue_state import SCANNED
from redis_consumer.client.watch import JobState
from redis_consumer.errors import ConsumerError
from redis_consumer.queue.scripts import own_key

#: Seconds after which a queue without workers is reported, and between two checks.
FIRST_LOOK_S, LOOK_S = 2.0, 5.0

#: Workers of older software do not register, but they have a processing list while they run a job.
_READ_SERVICE = """
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
local rows = {}
for i = 1, #KEYS, 2 do
  local waiting, is_queue = 0, 0
  if redis.call('TYPE', KEYS[i]).ok == 'list' then
    waiting = redis.call('LLEN', KEYS[i])
    local job = redis.call('LINDEX', KEYS[i], -1)
    if job and redis.call('TYPE', job).ok == 'hash' then is_queue = redis.call('HEXISTS', job, 'status') end
  end
  rows[#rows + 1] = {waiting, is_queue, redis.call('ZCOUNT', KEYS[i + 1], '(' .. now, '+inf')}
end
return rows
"""


def unserved_queues(client: Any, warn: Callable[[str], None]) -> dict[str, int]:
    """Find queues with waiting jobs that no worker serves. Scans all keys of Redis.

    Args:
        client: a `RedisClient`.
        warn: called with a message if the Redis user has no permission to scan.

    Returns:
        Number of waiting jobs by queue; empty without that permission. Lists of other software, which contain no
        jobs, are left out.
    """
    try:
        return _unserved_queues(client)
    except ConsumerError as error:
        warn(f"Note: cannot look for queues that no worker serves: {error}")
        return {}


def _unserved_queues(client: Any) -> dict[str, int]:
    lists: set[str] = set()
    cursor = None
    while cursor != 0:
        cursor, names = client.scan(cursor or 0, count=SCANNED, _type="list")
        lists.update(names)
    foreign = {name.removeprefix("processing-").rpartition(":")[0] for name in lists if name.startswith("processing-")}
    names = sorted(name for name in lists if not name.startswith(("processing-", "redis-consumer:")))
    return {
        name: waiting
        for name, (waiting, is_queue, workers) in _service(client, names).items()
        if is_queue and not workers and name not in foreign
    }


def unserved_in_words(unserved: Mapping[str, int]) -> str:
    """Name the queues that no worker serves, in one line; empty if there are none.

    >>> unserved_in_words({"pridict": 3, "track": 1})
    'Jobs wait in queues that no worker serves: pridict (3), track (1)'
    """
    named = ", ".join(f"{queue} ({waiting})" for queue, waiting in unserved.items())
    return f"Jobs wait in queues that no worker serves: {named}" if named else ""


class ServiceCheck:
    """Reports once for each queue that its jobs wait and no worker serves it, and once when a worker does.

    Args:
        client: a `RedisClient`.
        tell: called with each message.
        clock: seconds that only grow.
    """

    def __init__(self, client: Any, tell: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._tell = tell
        self._clock = clock
        self._look_at = clock() + FIRST_LOOK_S
        self._reported: set[str] = set()

    def look(self, states: Iterable[JobState]) -> None:
        """Check the queues of waiting jobs, and of jobs with waiting child jobs, from time to time."""
        if self._clock() < self._look_at:
            return
        self._look_at = self._clock() + LOOK_S
        with suppress(ConsumerError):  # an outage is noticed where the states are read
            names = {queue for state in states if (queue := self._queue_of(state))}
            for queue, (_, _, workers) in _service(self._client, sorted(names)).items():
                self._report(queue, is_served=workers > 0)

    def _queue_of(self, state: JobState) -> str:
        if state.status == "waiting":
            child = self._client.srandmember(own_key("open", state.job_id))
            states = self._client.hget(child, "status") if child else None
            return str(child).partition(":")[0] if states == "new" else ""
        return state.job_id.partition(":")[0] if state.status == "new" else ""

    def _report(self, queue: str, *, is_served: bool) -> None:
        if is_served and queue in self._reported:
            self._reported.remove(queue)
            self._tell(f"A worker serves queue {queue} now.")
        elif not is_served and queue not in self._reported:
            self._reported.add(queue)
            kind = "zip" if queue.endswith("-zip") else "image"
            self._tell(
                f"Warning: no worker serves queue {queue}; its jobs wait until one starts, "
                f"e.g. `redis-consumer run --serve {kind}={queue}` (workers of older software are not counted)"
            )


def _service(client: Any, queues: list[str]) -> dict[str, tuple[int, int, int]]:
    """Read for each queue the number of waiting jobs, whether they are jobs, and the number of workers alive."""
    keys = [key for name in queues for key in (name, own_key("workers", name))]
    rows = client.eval(_READ_SERVICE, len(keys), *keys) if keys else []
    return {
        name: (int(waiting), int(is_queue), int(workers))
        for name, (waiting, is_queue, workers) in zip(queues, rows, strict=True)
    }
