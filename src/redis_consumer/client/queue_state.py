"""Reads the state of queues, and the place of a job in its queue.

Each takes one round trip and writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

from redis_consumer.client.watch import age_s
from redis_consumer.errors import SettingsError
from redis_consumer.queue.scripts import own_key

#: Minutes over which the rate of completed jobs is measured.
WINDOW_MIN = 10
#: Number of keys that one step of a scan reads.
SCANNED = 5000

#: A job in a processing list without a lease also counts as running. It was just taken, or other software that has no
#: leases holds it.
_READ_QUEUES = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local rows = {}
for start = 1, #KEYS, 9 do
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
    tonumber(redis.call('GET', KEYS[start + 5]) or 0), now, moments,
    redis.call('HGETALL', KEYS[start + 6]), redis.call('ZCARD', KEYS[start + 7]),
    redis.call('HGETALL', KEYS[start + 8])
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
    """The state of a queue at one moment.

    Attributes:
        queue: its name.
        waiting: jobs in the queue.
        running: jobs that workers hold.
        dead: jobs among its dead letters.
        workers: workers alive, which have renewed their registration in time.
        completed: jobs completed or failed so far, counted by workers of this software.
        oldest_waiting_s: seconds since the longest waiting job was submitted, None if not known.
        jobs_per_minute: rate of completed jobs in the last ten minutes.
        read_at_s: time of reading by the server's clock, in seconds since 1970.
        parents: jobs that wait for their children, and are in no list meanwhile.
        totals: counts for metrics by name, see `redis_consumer.queue.scripts`.
    """

    queue: str
    waiting: int
    running: int
    dead: int
    workers: int
    completed: int
    read_at_s: float
    oldest_waiting_s: float | None = None
    jobs_per_minute: float = 0.0
    parents: int = 0
    totals: Mapping[str, int] = field(default_factory=dict)

    def as_data(self) -> dict[str, Any]:
        """Return it as data for scripts."""
        return asdict(self)


@dataclass(frozen=True)
class Place:
    """Where a job is.

    Attributes:
        queue: the queue that was searched.
        position: 1 for the next job, None if the job does not wait in this queue.
        waiting: jobs in the queue.
        attempt: number of the current attempt, None if the job is not running.
        worker: the worker that runs it, empty if none does.
    """

    queue: str
    position: int | None
    waiting: int
    attempt: int | None = None
    worker: str = ""


@dataclass(frozen=True)
class Outlook:
    """Where a job is, and when it will be ready.

    Attributes:
        place: where the job is.
        left_s: estimated seconds until it is ready, None without an estimate.
        note: the basis of the estimate, or why there is none; empty for a job that is not waiting.
    """

    place: Place
    left_s: float | None = None
    note: str = ""


def queue_of(job_id: str, named: str | None = None) -> str:
    """Return the queue of a job: the named one, else the first part of the job's key (contract, section 1.1).

    Raises:
        SettingsError: the key has no such part, and no queue is named.
    """
    name, colon, _ = job_id.partition(":")
    if named is None and not (name and colon):
        raise SettingsError(
            f"{job_id!r}: does not begin with its queue, as in predict:cells.tif:1; name the queue with --queue"
        )
    return (named or name).lower()


def read_queues(client: Any, names: Sequence[str], *, has_foreign: bool = False) -> list[QueueView]:
    """Read the state of queues, all at the same moment.

    Args:
        client: a `RedisClient`.
        names: queues, in lower case.
        has_foreign: also count jobs of workers that are not registered. Their lists are found by a scan of all keys.

    Raises:
        SettingsError: a name belongs to a key that is not a list.
    """
    kinds = ("holders", "processing", "dead", "workers", "completed", "rates", "waiting", "totals")
    keys = [key for name in names for key in (name, *(own_key(kind, name) for kind in kinds))]
    foreign = processing_lists(client) if has_foreign else []
    rows = client.eval(_READ_QUEUES, len(keys), *keys, *foreign)
    if rows and isinstance(rows[0], str):
        raise SettingsError(f"--queue {rows[0]!r}: this key holds a {rows[1]}, not a queue; use a name such as predict")
    return [_view(*row) for row in rows]


def processing_lists(client: Any, queue: str = "*") -> list[str]:
    """List the processing lists of one queue or all, also those of other software. Scans all keys."""
    # Not redis-py's iterator, which lacks our client's handling of an unavailable Redis.
    found: set[str] = set()
    cursor = None
    while cursor != 0:
        cursor, names = client.scan(cursor or 0, match=f"processing-{queue}:*", count=SCANNED)
        found.update(names)
    return sorted(found)


def read_place(client: Any, job_id: str, queue: str) -> Place:
    """Find where a job is: in its queue, or with a worker."""
    position, waiting, holder = client.eval(_READ_PLACE, 2, queue, own_key("holders", queue), job_id)
    attempt, _, processing = str(holder or "").partition(" ")
    worker = processing.removeprefix(f"processing-{queue}:")
    return Place(queue, position, waiting, int(attempt) if attempt else None, worker)


def look_ahead(client: Any, job_id: str, *, queue: str | None) -> Outlook | None:
    """Find where a job is and, if it waits, when it will be ready. None if its queue is not known."""
    try:
        name = queue_of(job_id, queue)
    except SettingsError:
        return None
    [view] = read_queues(client, [name])
    place = read_place(client, job_id, name)
    if place.position is None:
        return Outlook(place)
    if not view.workers:
        return Outlook(place, note=f"no worker serves queue {name}")
    return Outlook(place, *estimate(place.position, view))


def estimate(position: int, view: QueueView) -> tuple[float | None, str]:
    """Estimate the seconds until a waiting job is ready. Return them with the basis of the estimate.

    The estimate assumes that running jobs, all jobs ahead and the job itself are completed at the recent rate.
    """
    if not view.jobs_per_minute:
        return None, "no job was completed in the last ten minutes"
    return 60 * (position + view.running) / view.jobs_per_minute, f"at {view.jobs_per_minute:.3g} jobs/min"


def jobs_per_minute(counts: Mapping[str, str], now_s: float) -> float:
    """Compute the rate of completed jobs, from the first of the last ten minutes that has any.

    >>> jobs_per_minute({"1970-01-01T00:01": "6", "1970-01-01T00:02": "3"}, now_s=180)
    4.5

    Args:
        counts: number of completed jobs for each minute (UTC).
        now_s: seconds since 1970.
    """
    now = datetime.fromtimestamp(now_s, timezone.utc)
    begins = {datetime.fromisoformat(minute).replace(tzinfo=timezone.utc): int(jobs) for minute, jobs in counts.items()}
    recent = {begin: jobs for begin, jobs in begins.items() if now - begin < timedelta(minutes=WINDOW_MIN)}
    if not recent:
        return 0.0
    # A job of the current minute counts as one per minute.
    minutes = max(1.0, (now - min(recent)) / timedelta(minutes=1))
    return sum(recent.values()) / minutes


def _view(queue: str, *row: Any) -> QueueView:
    waiting, running, dead, workers, completed, now_ms, moments, minutes, parents, totals = row
    ages = [age for age in map(age_s, moments) if age is not None]
    rate = jobs_per_minute(_paired(minutes), now_ms / 1000)
    oldest_s = max(ages, default=None)
    counts = {name: int(count) for name, count in _paired(totals).items()}
    return QueueView(queue, waiting, running, dead, workers, completed, now_ms / 1000, oldest_s, rate, parents, counts)


def _paired(texts: list[str]) -> dict[str, str]:
    """Pair each name with the value after it, in the form in which Redis gives a hash to a script."""
    return dict(zip(texts[::2], texts[1::2], strict=True))
