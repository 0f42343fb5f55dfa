"""How full are queues, and where in its queue is a job? Read in one round trip each, and nothing is written."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from redis_consumer.cli.words import age_s
from redis_consumer.errors import SettingsError

if TYPE_CHECKING:
    from redis_consumer.settings import Settings

#: Looks that are older than this tell nothing about how fast a queue is now.
WINDOW_S = 60.0

#: Jobs in a processing list without a lease are running too: just taken, or held by software that knows no leases.
_READ_QUEUES = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local rows = {}
for start = 1, #KEYS, 6 do
  local queue, holders = KEYS[start], KEYS[start + 1]
  local kind = redis.call('TYPE', queue).ok
  if kind ~= 'list' and kind ~= 'none' then return {queue, kind} end
  local lists, prefix = {}, 'processing-' .. queue .. ':'
  for _, list in ipairs(redis.call('SMEMBERS', KEYS[start + 2])) do lists[list] = true end
  for _, list in ipairs(ARGV) do
    if string.sub(list, 1, #prefix) == prefix then lists[list] = true end
  end
  local running = redis.call('HLEN', holders)
  for list in pairs(lists) do
    for _, job in ipairs(redis.call('LRANGE', list, 0, -1)) do
      running = running + 1 - redis.call('HEXISTS', holders, job)
    end
  end
  local moments = {}
  for _, index in ipairs({-1, 0}) do
    local job = redis.call('LINDEX', queue, index)
    if job and redis.call('TYPE', job).ok == 'hash' then
      moments[#moments + 1] = redis.call('HGET', job, 'created_at') or ''
    end
  end
  rows[#rows + 1] = {
    queue, redis.call('LLEN', queue), running, redis.call('LLEN', KEYS[start + 3]),
    redis.call('ZCOUNT', KEYS[start + 4], '(' .. string.format('%.0f', now), '+inf'),
    tonumber(redis.call('GET', KEYS[start + 5]) or 0), now, moments
  }
end
return rows
"""

_READ_PLACE = """
local index = redis.call('LPOS', KEYS[1], ARGV[1], 'RANK', -1)
local waiting = redis.call('LLEN', KEYS[1])
return {index and waiting - index, waiting, redis.call('HGET', KEYS[2], ARGV[1])}
"""


@dataclass(frozen=True)
class QueueView:
    """How a queue is at a moment.

    Attributes:
        queue: its name.
        waiting: jobs in the queue.
        running: jobs that workers have.
        dead: jobs among its dead letters.
        workers: workers that are alive.
        completed: jobs completed or failed so far, as workers of this software count them.
        oldest_waiting_s: seconds since the job that waits longest was submitted, None where it can't be said.
        jobs_per_minute: how fast jobs are completed, None where only one look was taken.
        read_at_s: moment of the look by the server's clock, in seconds since 1970.
    """

    queue: str
    waiting: int
    running: int
    dead: int
    workers: int
    completed: int
    read_at_s: float
    oldest_waiting_s: float | None = None
    jobs_per_minute: float | None = None

    def as_data(self) -> dict[str, Any]:
        """Give it as data for scripts."""
        return asdict(self)


@dataclass(frozen=True)
class Place:
    """Where a job is.

    Attributes:
        queue: the queue that was looked at.
        position: 1 for the next in line, None where the job doesn't wait in this queue.
        waiting: jobs in the queue.
        attempt: which run of the job goes on, None where none does.
        worker: who runs it, empty where nobody does.
    """

    queue: str
    position: int | None
    waiting: int
    attempt: int | None = None
    worker: str = ""


class Rates:
    """How fast queues are, from repeated looks at them.

    Args:
        window_s: seconds after which a look no longer counts.
    """

    def __init__(self, window_s: float = WINDOW_S) -> None:
        self._window_s = window_s
        self._looks: dict[str, deque[QueueView]] = {}

    def add(self, views: Iterable[QueueView]) -> list[QueueView]:
        """Take a look into account; return it with the rates as they are now."""
        return [replace(view, jobs_per_minute=self._rate(view)) for view in views]

    def _rate(self, view: QueueView) -> float | None:
        looks = self._looks.setdefault(view.queue, deque())
        if looks and (view.completed < looks[-1].completed or view.read_at_s < looks[-1].read_at_s):
            looks.clear()  # another server, or an emptied one
        looks.append(view)
        while len(looks) > 2 and view.read_at_s - looks[0].read_at_s > self._window_s:
            looks.popleft()
        elapsed_s = view.read_at_s - looks[0].read_at_s
        return 60 * (view.completed - looks[0].completed) / elapsed_s if elapsed_s > 0 else None


def chosen_queues(settings: Settings, named: Sequence[str] | None) -> list[str]:
    """Give the queues to look at: those named, else those of the settings, each with that of its archives."""
    names = [name.lower() for name in named or (settings.queue, settings.segmentation_queue)]
    pairs = [(name,) if name.endswith("-zip") else (name, f"{name}-zip") for name in names]
    return list(dict.fromkeys(name for pair in pairs for name in pair))


def queue_of(job_id: str, named: str | None = None) -> str:
    """Give the queue of a job: the one named, else the first part of the job's key (contract, section 1.1).

    Raises:
        SettingsError: the key has no such part, and none is named.
    """
    name, colon, _ = job_id.partition(":")
    if named is None and not (name and colon):
        raise SettingsError(f"{job_id!r}: doesn't begin with its queue as in predict:cells.tif:1; name it with --queue")
    return (named or name).lower()


def read_queues(client: Any, names: Sequence[str], *, has_foreign: bool = False) -> list[QueueView]:
    """Look at queues, all at the same moment.

    Args:
        client: a `RedisClient`.
        names: queues, in lower case.
        has_foreign: also count jobs of workers that know no registry, whose lists only a scan of all keys finds.

    Raises:
        SettingsError: a name is that of a key that is no list.
    """
    kinds = ("holders", "processing", "dead", "workers", "completed")
    keys = [key for name in names for key in (name, *(own_key(kind, name) for kind in kinds))]
    foreign = list(client.scan_iter(match="processing-*", count=1000)) if has_foreign else []
    rows = client.eval(_READ_QUEUES, len(keys), *keys, *foreign)
    if rows and isinstance(rows[0], str):
        raise SettingsError(f"--queue {rows[0]!r}: the key holds a {rows[1]}, no queue; give a name such as predict")
    return [_view(*row) for row in rows]


def sample_queues(
    client: Any, names: Sequence[str], seconds: float, *, sleep: Callable[[float], None] = time.sleep
) -> list[QueueView]:
    """Look at queues twice, so many seconds apart, for their rates."""
    rates = Rates()
    rates.add(read_queues(client, names))
    sleep(seconds)
    return rates.add(read_queues(client, names))


def read_place(client: Any, job_id: str, queue: str) -> Place:
    """Look where a job is: in its queue, or with a worker."""
    position, waiting, holder = client.eval(_READ_PLACE, 2, queue, own_key("holders", queue), job_id)
    attempt, _, processing = str(holder or "").partition(" ")
    worker = processing.removeprefix(f"processing-{queue}:")
    return Place(queue, position, waiting, int(attempt) if attempt else None, worker)


def own_key(kind: str, queue: str) -> str:
    """Name of one of our own keys for a queue, see `redis_consumer.queue`."""
    return f"redis-consumer:{kind}:{queue}"


def _view(queue: str, *row: Any) -> QueueView:
    waiting, running, dead, workers, completed, now_ms, moments = row
    ages = [age for age in map(age_s, moments) if age is not None]
    return QueueView(queue, waiting, running, dead, workers, completed, now_ms / 1000, max(ages, default=None))
