"""``redis-consumer sweep``: returns jobs of dead workers to their queues."""

from __future__ import annotations

import time
from typing import Any

import typer

from redis_consumer.app import open_queue, open_redis, read_settings
from redis_consumer.cli import options
from redis_consumer.cli.output import counted, notes, say, write_json
from redis_consumer.queue import JobQueue, upkeep
from redis_consumer.text import printable

#: The lock keeps many workers from sweeping at the same time. A person's sweep removes it at once.
LOCK_S = 0.001


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=notes("redis-consumer sweep", "redis-consumer sweep --queue predict --queue track --json"),
    )(sweep)


def sweep(queue: options.Queues = None, redis: options.Redis = None, json: options.Json = False) -> None:
    """Return jobs of dead workers to their queues and print their keys.

    Every worker does this every few seconds, so this command is only needed when no
    worker runs. A job that has no lease is returned if it has been in a worker's list
    for 5 s. The first sweep only notes it. If no sweep has run for some time, live
    workers first get a few seconds to renew their leases.
    """
    names = options.chosen_queues(read_settings(redis=redis), queue)
    client = open_redis()
    queues = [open_queue(client, name) for name in names]
    returned = {each.name: sweep_now(each) for each in queues}
    doubted = [each for each in queues if each.has_doubts]
    if doubted:
        wait_s = max(each.doubt_s for each in doubted)
        say(f"Waiting {wait_s:g} s for live workers to renew their leases")
        time.sleep(wait_s)
        for each in doubted:
            returned[each.name] += sweep_now(each)
    noted = sum(client.hlen(each.key("orphans")) for each in queues)
    _write(returned, is_json=json)
    if noted:
        say(f"{counted(noted, 'job')} without a lease; sweep again in 5 s")


def sweep_now(queue: JobQueue) -> list[str]:
    """Sweep a queue until no more jobs are returned, even if it was swept just before. Return the jobs' keys."""
    returned: list[str] = []
    while True:
        queue.redis.delete(queue.key("sweep"))
        found = upkeep.sweep(queue, every_s=LOCK_S)
        returned += found
        if len(found) < upkeep.SWEEP_LIMIT:
            return returned


def _write(returned: dict[str, list[str]], *, is_json: bool) -> None:
    jobs: list[dict[str, Any]] = [{"job": job_id, "queue": name} for name, ids in returned.items() for job_id in ids]
    if is_json:
        write_json(jobs)
    for job in jobs if not is_json else ():
        typer.echo(printable(job["job"]))
    say(f"{counted(len(jobs), 'job')} returned" if jobs else "No jobs to return")
