"""Shows one job, for `redis-consumer status JOB` and `redis-consumer dead show`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer
from rich.table import Table
from rich.text import Text

from redis_consumer.cli.output import console, duration, fail, in_words, write_json
from redis_consumer.client.queue_state import Outlook, look_ahead
from redis_consumer.client.watch import age_s, read_hash
from redis_consumer.errors import EXIT_FAILED
from redis_consumer.job import FINAL_STATUSES
from redis_consumer.text import printable


def show_job(client: Any, job_id: str, *, queue: str | None, is_json: bool) -> None:
    """Show a job with all its fields. If it is not ready, also show its place and the time left.

    Args:
        client: a `RedisClient`.
        job_id: key of its hash.
        queue: the queue it waits in; None to take the queue from its key.
        is_json: write data for scripts.

    Raises:
        typer.Exit: the job is unknown or failed.
    """
    fields = read_job(client, job_id)
    is_final = fields.get("status") in FINAL_STATUSES
    outlook = None if is_final else look_ahead(client, job_id, queue=queue)
    if is_json:
        write_json(_as_data(job_id, fields, outlook))
    else:
        write_job(job_id, fields, outlook)
    if fields.get("status") == "failed":
        raise typer.Exit(EXIT_FAILED)


def read_job(client: Any, job_id: str) -> dict[str, str]:
    """Read all fields of a job. Exit with a message if there is no such job."""
    kind = client.type(job_id)
    if kind != "hash":
        what = "no such job, or it has expired" if kind == "none" else f"this key holds a {kind}, not a job"
        fail(f"{job_id}: {what}; `redis-consumer status` lists waiting and running jobs", EXIT_FAILED)
    return read_hash(client, job_id)


def write_job(job_id: str, fields: Mapping[str, str], outlook: Outlook | None = None) -> None:
    """Print a job: first a summary, then all its fields."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    age = age_s(fields.get("created_at", ""))
    is_taken = fields.get("status") == "new" and outlook is not None and outlook.place.attempt is not None
    state = "claimed by a worker" if is_taken else in_words(fields)
    summary = state + (f", submitted {duration(age)} ago" if age is not None else "")
    table.add_row("job", Text(printable(job_id)))
    table.add_row("now", Text(printable(summary), style="red" if fields.get("status") == "failed" else "green"))
    for name, text in _outlook_rows(outlook, is_new=fields.get("status") == "new"):
        table.add_row(name, Text(printable(text)))
    for name, value in sorted(fields.items()):
        table.add_row(Text(printable(name)), Text(printable(value)))
    console().print(table)


def _outlook_rows(outlook: Outlook | None, *, is_new: bool) -> list[tuple[str, str]]:
    if outlook is None:
        return []
    place = outlook.place
    if place.attempt is not None:
        return [("runs", f"attempt {place.attempt} on {place.worker}")]
    if place.position is None:
        text = f"not in queue {place.queue}; if it waits in another queue, name that with --queue"
        return [("position", text)] if is_new else []
    left = f"about {duration(outlook.left_s)}, " if outlook.left_s is not None else "unknown: "
    return [
        ("position", f"{place.position} of {place.waiting} in queue {place.queue}"),
        ("time left", left + outlook.note),
    ]


def _as_data(job_id: str, fields: Mapping[str, str], outlook: Outlook | None) -> dict[str, Any]:
    place = outlook.place if outlook is not None else None
    return {
        "job": job_id,
        "age_s": age_s(fields.get("created_at", "")),
        "position": place.position if place is not None else None,
        "time_left_s": outlook.left_s if outlook is not None else None,
        "attempt": place.attempt if place is not None else None,
        **fields,
    }
