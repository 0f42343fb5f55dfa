"""Reads the states of jobs, once or until they have ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from redis_consumer.errors import RedisUnavailable
from redis_consumer.job import FINAL_STATUSES
from redis_consumer.queue.scripts import Call, run_script
from redis_consumer.text import decimal, last_line

FIELDS = ("status", "progress", "reason", "output_file_name", "output_url", "objects")
FIRST_PAUSE_S, MAX_PAUSE_S = 0.05, 1.0
GONE, NOT_SUBMITTED = "gone", "not submitted"
#: Seconds that Redis may be unavailable while jobs are watched.
OUTAGE_S = 60.0

#: Percent of the work that is done at each status, for jobs that report no progress.
SHARES = {
    "new": 0.0,
    "started": 5.0,
    "pre-processing": 15.0,
    "predicting": 30.0,
    "post-processing": 70.0,
    "saving-results": 90.0,
    "done": 100.0,
    "failed": 100.0,
    GONE: 100.0,
}

#: One script for many hashes. Unlike a pipeline, it is retried as a whole while Redis is unavailable. Only the end of a
#: long text is read.
_READ_MANY = """
local found = {}
for i, key in ipairs(KEYS) do
  found[i] = {}
  for j, name in ipairs(ARGV) do
    local text = redis.call('HGET', key, name)
    found[i][j] = text and #text > 65536 and string.sub(text, -65536) or text
  end
end
return found
"""
_KEYS_AT_ONCE = 500


@dataclass(frozen=True)
class JobState:
    """State of a job for people.

    Attributes:
        job_id: key of its hash.
        status: as in its hash; ``gone`` if the hash no longer exists, ``not submitted`` if it never existed.
        progress: percent of the work that is done, estimated from the status if the job does not report it.
        reason: why it failed, empty otherwise.
        output_file_name: object key of the result, empty without one.
        output_url: link to the result, empty without one.
        objects: number of objects that were found, empty if the job doesn't say.
    """

    job_id: str
    status: str
    progress: float = 0.0
    reason: str = ""
    output_file_name: str = ""
    output_url: str = ""
    objects: str = ""

    @property
    def is_final(self) -> bool:
        """Whether the job has ended."""
        return self.status in FINAL_STATUSES or self.status in (GONE, NOT_SUBMITTED)

    @property
    def is_failed(self) -> bool:
        """Whether the job ended without a result."""
        return self.is_final and self.status != "done"

    @property
    def short_reason(self) -> str:
        """Last line of the reason, which says what is wrong and what to do."""
        if self.status == GONE:
            return "its hash was deleted, or expired before the result was read"
        return last_line(self.reason)


def read_hash(client: Any, key: str) -> dict[str, str]:
    """Read all fields of a job, or some if the hash is too large for a worker. Empty if there is no such job."""
    texts: list[str] = run_script(client, Call("read", key, ()))
    return dict(zip(texts[::2], texts[1::2], strict=True))


def read_states(client: Any, job_ids: Sequence[str]) -> list[JobState]:
    """Read the state of many jobs, in their order."""
    rows = read_fields(client, job_ids, FIELDS)
    return [_state(job_id, row) for job_id, row in zip(job_ids, rows, strict=True)]


def read_fields(client: Any, job_ids: Sequence[str], names: Sequence[str]) -> list[list[str | None]]:
    """Read some fields of many jobs, in their order; None if the job or the field does not exist."""
    rows: list[list[str | None]] = []
    for start in range(0, len(job_ids), _KEYS_AT_ONCE):
        part = job_ids[start : start + _KEYS_AT_ONCE]
        rows.extend(client.eval(_READ_MANY, len(part), *part, *names))
    return rows


def age_s(moment: str) -> float | None:
    """Compute the seconds since an ISO-8601 time with zone; None if it is not valid."""
    try:
        # Python 3.10 does not accept the Z that the kiosk's web server writes.
        then = datetime.fromisoformat(moment.replace("Z", "+00:00"))
    except ValueError:
        return None
    return None if then.tzinfo is None else max((datetime.now(timezone.utc) - then).total_seconds(), 0.0)


def watch(
    client: Any, job_ids: Sequence[str], *, timeout_s: float = 0.0, sleep: Callable[[float], None] = time.sleep
) -> Iterator[JobState]:
    """Yield the state of each job at the start and whenever it changes, until all have ended.

    Args:
        client: a `RedisClient`.
        job_ids: keys of the jobs' hashes.
        timeout_s: seconds after which it stops even if jobs have not ended; 0 for no limit.
        sleep: waits for a number of seconds; called between two reads.

    Raises:
        RedisUnavailable: Redis does not respond for a minute, or until the timeout.
    """
    seen: dict[str, JobState] = {}
    deadline = time.monotonic() + timeout_s if timeout_s > 0 else float("inf")
    pause_s, answered = FIRST_PAUSE_S, time.monotonic()
    waiting = list(job_ids)
    while waiting:
        try:
            states = read_states(client, waiting)
            answered = time.monotonic()
        except RedisUnavailable:
            if time.monotonic() >= min(answered + OUTAGE_S, deadline):
                raise
            states = []
        changed = [state for state in states if seen.get(state.job_id) != state]
        for state in changed:
            seen[state.job_id] = state
            yield state
        waiting = [job_id for job_id in waiting if job_id not in seen or not seen[job_id].is_final]
        if not waiting or time.monotonic() >= deadline:
            return
        pause_s = FIRST_PAUSE_S if changed else min(1.5 * pause_s, MAX_PAUSE_S)
        sleep(max(0.0, min(pause_s, deadline - time.monotonic())))


def _state(job_id: str, row: Sequence[str | None]) -> JobState:
    status, progress, reason, output_file_name, output_url, objects = row
    if status is None:
        return JobState(job_id, GONE, 100.0)
    try:
        percent = decimal(progress or "")
    except ValueError:
        percent = SHARES.get(status, 50.0)
    # A job that has not ended is never shown at 100 %.
    percent = 100.0 if status in FINAL_STATUSES else min(max(percent, 0.0), 99.0)
    texts = (text or "" for text in (reason, output_file_name, output_url, objects))
    return JobState(job_id, status, percent, *texts)
