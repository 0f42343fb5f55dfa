"""``redis-consumer prune``: removes jobs that ended long ago, and their objects."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from redis_consumer.app import open_bucket, open_queue, open_redis, read_settings
from redis_consumer.cli import options
from redis_consumer.cli.output import counted, notes, say, write_json
from redis_consumer.client.old_jobs import OldJob, OldJobs
from redis_consumer.text import printable

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=notes(
            "redis-consumer prune --older-than 7d --dry-run",
            "redis-consumer prune --older-than 12h --queue predict --json",
        ),
    )(prune)


def prune(
    older_than: Annotated[
        str, typer.Option("--older-than", help="Time since the job ended, such as 90m, 12h or 7d.", metavar="AGE")
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be removed, and remove nothing.")] = False,
    queue: options.Queues = None,
    redis: options.Redis = None,
    bucket: options.Bucket = None,
    json: options.Json = False,
) -> None:
    """Remove jobs that ended long ago, with their results.

    Removes the hash, the dead letter, the result, the record and the unpacked members
    of an archive, and prints the keys of the jobs. It never removes uploaded inputs,
    objects that another job names, objects that no job names, jobs that have not
    ended, or children of such jobs. Redis and the bucket are read page by page, so
    that workers can continue meanwhile.
    """
    age_s = seconds_of(older_than)
    names = options.chosen_queues(read_settings(redis=redis, bucket=bucket), queue)
    client, storage = open_redis(), open_bucket()
    storage.check()
    found = OldJobs(client, storage, [open_queue(client, name) for name in names], age_s)
    _write(_removed(found.jobs(), is_dry=dry_run), is_json=json, is_dry=dry_run)


def seconds_of(age: str) -> float:
    """Convert an age such as ``7d`` to seconds.

    >>> seconds_of("90m")
    5400.0
    """
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)([smhdw])", age.strip())
    if match is None:
        raise typer.BadParameter(
            f"{printable(age)!r} is not a valid age; use e.g. 90m, 12h or 7d", param_hint="--older-than"
        )
    return float(match[1]) * _UNITS[match[2]]


def _removed(jobs: Iterator[OldJob], *, is_dry: bool) -> Iterator[OldJob]:
    for job in jobs:
        if is_dry or job.remove():
            yield job


def _write(jobs: Iterator[OldJob], *, is_json: bool, is_dry: bool) -> None:
    rows: list[dict[str, Any]] = []
    count = objects = size = memory = 0
    for job in jobs:
        count, objects = count + 1, objects + len(job.objects)
        size, memory = size + sum(job.objects.values()), memory + job.memory_bytes
        if is_json:
            row = {"job": job.job_id, "queue": job.queue.name, "objects": job.objects, "redis_bytes": job.memory_bytes}
            rows.append({**row, "removed": not is_dry})
        else:
            typer.echo(printable(job.job_id))
    if is_json:
        write_json(rows)
    say(
        f"{counted(count, 'job')} and {counted(objects, 'object')} {'would be removed' if is_dry else 'removed'}: "
        f"{size / 1e6:.1f} MB in the bucket, {memory / 1e3:.1f} KB in Redis"
    )
