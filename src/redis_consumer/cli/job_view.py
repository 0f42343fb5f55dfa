"""``redis-consumer status JOB``: shows one job, and estimates when it will be ready."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from redis_consumer.cli.output import EXIT_FAILED, console, fail, printable, write_json
from redis_consumer.cli.watch import read_hash
from redis_consumer.cli.words import age_s, duration, in_words
from redis_consumer.errors import SettingsError
from redis_consumer.job import FINAL_STATUSES

if TYPE_CHECKING:
    from redis_consumer.cli.queue_state import Place, QueueView


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


def look_ahead(client: Any, job_id: str, *, queue: str | None) -> Outlook | None:
    """Find where a job is and, if it waits, when it will be ready. None if its queue is not known."""
    from redis_consumer.cli.queue_state import queue_of, read_place, read_queues

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


def write_job(job_id: str, fields: Mapping[str, str], outlook: Outlook | None = None) -> None:
    """Print a job: first a summary, then all its fields."""
    from rich.table import Table
    from rich.text import Text

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
