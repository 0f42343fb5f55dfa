"""``redis-consumer status``: shows the jobs in the queues, or one job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from redis_consumer.app import open_redis, read_settings
from redis_consumer.cli import options
from redis_consumer.cli.output import console, duration, fail, in_words, notes, say, write_json
from redis_consumer.client.queue_state import Outlook, look_ahead, processing_lists, read_queues
from redis_consumer.client.standstill import explain, explained
from redis_consumer.client.unserved import unserved_in_words, unserved_queues
from redis_consumer.client.watch import JobState, age_s, read_hash, read_states
from redis_consumer.client.workers import read_facts
from redis_consumer.errors import EXIT_FAILED
from redis_consumer.job import FINAL_STATUSES
from redis_consumer.text import printable

LATEST = 10


@dataclass(frozen=True)
class QueueState:
    """State of a queue.

    Attributes:
        queue: its name.
        waiting: jobs in the queue.
        processing: jobs that workers hold.
        workers: workers alive.
        holders: names of workers that hold jobs, of any software.
    """

    queue: str
    waiting: int
    processing: int
    workers: int
    holders: list[str]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=notes(
            "redis-consumer status",
            "redis-consumer status predict:cells.tif:0a1b2c3d-0000-4000-8000-000000000000",
            "redis-consumer status --queue predict --queue track --json",
        )
    )(status)


def status(
    job: Annotated[str | None, typer.Argument(help="Key of a job, as printed by submit.", metavar="JOB")] = None,
    queue: options.Queues = None,
    redis: options.Redis = None,
    json: options.Json = False,
) -> None:
    """Show one job, or the queues and the jobs in them.

    With JOB, it shows the job's place in its queue and all its fields. The exit code is
    1 if the job failed or is unknown. Without JOB, it also names all queues in which
    jobs wait but that no worker serves.
    """
    settings = read_settings(redis=redis)
    client = open_redis()
    if job is not None:
        show_job(client, job, queue=queue[0] if queue else None, is_json=json)
        return
    _show_queues(client, options.chosen_queues(settings, queue), settings.job_timeout, is_json=json)


def _show_queues(client: Any, names: list[str], job_timeout_s: float, *, is_json: bool) -> None:
    facts = read_facts(client, names, read_queues(client, names))
    alive = {each.view.queue: each.view.workers for each in facts}
    found = {each.view.queue: explain(each, job_timeout_s=job_timeout_s) for each in facts}
    queues: list[QueueState] = []
    seen: list[str] = []
    for name in names:
        running = _processing(client, name)
        held = [job_id for held_by in running.values() for job_id in held_by]
        queues.append(QueueState(name, client.llen(name), len(held), alive[name], sorted(running)))
        # The next job is at the right end.
        seen += [*held[:LATEST], *reversed(client.lrange(name, -LATEST, -1))]
    states, unserved = read_states(client, seen), unserved_queues(client, say)
    if is_json:
        jobs = [{**asdict(state), "reason": state.short_reason} for state in states]
        write_json({"queues": [asdict(queue) for queue in queues], "jobs": jobs, "unserved": unserved})
        return
    _write_queues(queues, states)
    others = {name: waiting for name, waiting in unserved.items() if name not in found}
    for line in [*explained(found), *([unserved_in_words(others)] if others else [])]:
        console().print(f"\n{line}", style="yellow", markup=False)


def _processing(client: Any, queue: str) -> dict[str, list[str]]:
    """Read the jobs that workers hold, by worker."""
    keys = processing_lists(client, queue)
    return {key.rpartition(":")[2]: client.lrange(key, 0, -1) for key in keys}


def _write_queues(queues: list[QueueState], states: list[JobState]) -> None:
    table = Table("Queue", "Waiting", "Processing", "Workers", "Held by", box=None, pad_edge=False, header_style="bold")
    for queue in queues:
        table.add_row(
            Text(queue.queue),
            str(queue.waiting),
            str(queue.processing),
            str(queue.workers),
            Text(printable(", ".join(queue.holders))),
        )
    screen = console()
    screen.print(table)
    if not states:
        return
    jobs = Table("Job", "Status", "Progress", box=None, pad_edge=False, header_style="bold")
    for state in states:
        status = printable(state.status.replace("-", " "))
        jobs.add_row(Text(printable(state.job_id)), Text(status), f"{state.progress:.0f} %")
    screen.print()
    screen.print(jobs)


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
