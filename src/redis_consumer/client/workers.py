"""Reads what the workers of queues do or wait for, and which facts explain why jobs wait.

This writes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from redis_consumer.client.queue_state import QueueView, read_queues
from redis_consumer.queue.scripts import own_key
from redis_consumer.redis import PROBE_KEY

#: Entries at the front of a queue that are looked at, and running jobs whose returns are counted.
SAMPLE = 20

#: A write that changes nothing shows whether Redis accepts writes.
_READ_FACTS = """
if redis.replicate_commands then redis.replicate_commands() end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local refused = redis.pcall('ZADD', KEYS[1], 'XX', 0, '')
local rows = {type(refused) == 'table' and refused.err or ''}
for start = 2, #KEYS, 6 do
  local queue, workers, activities = KEYS[start], KEYS[start + 1], KEYS[start + 2]
  local holders, attempts, given_back = KEYS[start + 3], KEYS[start + 4], KEYS[start + 5]
  local kind = redis.call('TYPE', queue).ok
  local alive, lost, lost_ms = {}, '', '0'
  local known = redis.call('TYPE', workers).ok == 'zset' and redis.call('ZRANGE', workers, 0, -1, 'WITHSCORES') or {}
  for index = 1, #known, 2 do
    if tonumber(known[index + 1]) > now then
      alive[#alive + 1] = known[index]
      alive[#alive + 1] = redis.call('HGET', activities, known[index]) or ''
    else
      lost, lost_ms = known[index], known[index + 1]
    end
  end
  local jobs, sampled, gone, strange = {}, 0, 0, 0
  for _, job in ipairs(kind == 'list' and redis.call('LRANGE', queue, -tonumber(ARGV[1]), -1) or {}) do
    sampled = sampled + 1
    local its_kind = redis.call('TYPE', job).ok
    if its_kind == 'none' then
      gone = gone + 1
    elseif its_kind ~= 'hash' or redis.call('HEXISTS', job, 'status') == 0 then
      strange = strange + 1
    else
      jobs[#jobs + 1] = job
    end
  end
  for index, job in ipairs(redis.call('HKEYS', holders)) do
    if index > tonumber(ARGV[1]) then break end
    jobs[#jobs + 1] = job
  end
  local most, which, why = 0, '', ''
  for _, job in ipairs(jobs) do
    local runs = tonumber(redis.call('HGET', attempts, job) or '0') or 0
    local back = tonumber(string.match(redis.call('HGET', given_back, job) or '0', '^%d+') or '0')
    local count = math.max(runs, back)
    if count > most then
      most, which = count, job
      why = redis.call('TYPE', job).ok == 'hash' and redis.call('HGET', job, 'last_error') or ''
    end
  end
  rows[#rows + 1] = {kind, alive, lost, lost_ms, sampled, gone, strange, most, which, string.sub(why, 1, 300),
    redis.call('HLEN', holders)}
end
return rows
"""


@dataclass(frozen=True)
class Task:
    """A job that a worker runs.

    Attributes:
        job: its key.
        attempt: number of the run.
        for_s: seconds since its start.
    """

    job: str
    attempt: int
    for_s: float


@dataclass(frozen=True)
class WorkerView:
    """What a worker does, as it published that at its last renewal.

    Attributes:
        name: of the worker.
        queue: that it serves.
        consumer: name of the class that runs its jobs; empty if not known.
        is_told: whether it published anything; workers of older versions don't.
        since: its start, ISO 8601; empty if not known.
        memory_mb: resident memory of its processes.
        waits_for: why it takes no jobs: an error; empty if it takes jobs.
        idle: slots without a job.
        starting: slots that can't claim yet.
        is_stopping: whether it takes no more jobs.
        tasks: the jobs that it runs.
    """

    name: str
    queue: str
    consumer: str = ""
    is_told: bool = False
    since: str = ""
    memory_mb: int = 0
    waits_for: str = ""
    idle: int = 0
    starting: int = 0
    is_stopping: bool = False
    tasks: tuple[Task, ...] = ()


@dataclass(frozen=True)
class QueueFacts:
    """What explains why the jobs of a queue wait.

    Attributes:
        view: counts of the queue.
        workers: workers alive.
        refusal: why Redis refuses writes; empty if it accepts them.
        key_type: type of the queue's key in Redis: ``list``, ``none`` or another one.
        lost: name of the worker whose registration lapsed last, and when (``10:42``); None for none.
        sampled: entries at the front of the queue that were looked at.
        gone: how many of them have no hash.
        strange: how many of them are no jobs.
        returns: times that a waiting or running job was run or given back, at most.
        returned_job: the job with that number.
        last_error: why it was given back; empty if not known.
        others: jobs that workers of other software hold.
    """

    view: QueueView
    workers: tuple[WorkerView, ...] = ()
    refusal: str = ""
    key_type: str = "list"
    lost: tuple[str, str] | None = None
    sampled: int = 0
    gone: int = 0
    strange: int = 0
    returns: int = 0
    returned_job: str = ""
    last_error: str = ""
    others: int = 0


def read_facts(client: Any, names: Sequence[str], views: Sequence[QueueView] | None = None) -> list[QueueFacts]:
    """Read the facts about queues, in one round trip more than their state.

    Args:
        client: a `RedisClient`.
        names: queues, in lower case.
        views: state of the queues, if it was read before. Otherwise it is read, and a name that belongs to a key which
            is no list is no error.
    """
    kinds = ("workers", "activities", "holders", "attempts", "given-back")
    keys = [key for name in names for key in (name, *(own_key(kind, name) for kind in kinds))]
    refusal, *rows = client.eval(_READ_FACTS, 1 + len(keys), PROBE_KEY, *keys, SAMPLE)
    if views is None:
        queues = [name for name, row in zip(names, rows, strict=True) if row[0] in ("list", "none")]
        views = read_queues(client, queues) if queues else []
    known = {view.queue: view for view in views}
    return [
        _facts(known.get(name) or QueueView(name, 0, 0, 0, 0, 0, 0.0), refusal, row)
        for name, row in zip(names, rows, strict=True)
    ]


def _facts(view: QueueView, refusal: str, row: Sequence[Any]) -> QueueFacts:
    kind, alive, lost, lost_ms, sampled, gone, strange, returns, returned_job, last_error, held = row
    pairs = zip(alive[::2], alive[1::2], strict=True)
    workers = tuple(worker_of(name, view.queue, text) for name, text in pairs)
    moment = datetime.fromtimestamp(float(lost_ms) / 1000, timezone.utc).strftime("%Y-%m-%d %H:%M")
    return QueueFacts(
        view, workers, refusal, kind, (lost, moment) if lost else None, sampled, gone, strange, returns, returned_job,
        last_error, max(view.running - held, 0),
    )  # fmt: skip


def worker_of(name: str, queue: str, text: str) -> WorkerView:
    """Read what a worker published; nothing is known of a worker whose text is empty or can't be read."""
    try:
        told = json.loads(text)
    except ValueError:
        told = None
    if not isinstance(told, Mapping):
        return WorkerView(name, queue)
    slots = told.get("slots")
    tasks = [
        Task(str(each.get("job", "")), _whole(each.get("attempt")), float(_whole(each.get("for_s"))))
        for each in (slots if isinstance(slots, list) else [])
        if isinstance(each, Mapping)
    ]
    return WorkerView(
        name,
        queue,
        consumer=str(told.get("consumer", "")),
        is_told=True,
        since=str(told.get("since", "")),
        memory_mb=_whole(told.get("memory_mb")),
        waits_for=str(told.get("waits_for", "")),
        idle=_whole(told.get("idle")),
        starting=_whole(told.get("starting")),
        is_stopping=told.get("stopping") is True,
        tasks=tuple(tasks),
    )


def _whole(value: object) -> int:
    return int(value) if isinstance(value, (int, float)) and abs(value) < 1e12 else 0
