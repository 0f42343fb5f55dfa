"""``redis-consumer status``: how is a job, how are the queues?"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Annotated, Any

import typer

from redis_consumer.cli import options
from redis_consumer.cli.output import EXIT_FAILED, console, fail, notes, write_json

if TYPE_CHECKING:
    from redis_consumer.cli.watch import JobState

LATEST = 10


@dataclass(frozen=True)
class QueueState:
    """How a queue is.

    Attributes:
        queue: its name.
        waiting: jobs in the queue.
        processing: jobs that workers have.
        workers: names of the workers that have jobs.
    """

    queue: str
    waiting: int
    processing: int
    workers: list[str]


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
    job: Annotated[str | None, typer.Argument(help="Key of a job, as submit prints it.", metavar="JOB")] = None,
    queue: Annotated[
        list[str] | None, typer.Option("--queue", "-q", help="Queue to show; repeatable.", metavar="NAME")
    ] = None,
    redis: options.Redis = None,
    json: options.Json = False,
) -> None:
    """Show one job with all its fields; without JOB the queues and the jobs in them.

    A job that failed, or is unknown, gives exit code 1.
    """
    from redis_consumer.cli import connect

    settings = connect.read_settings(redis=redis)
    client = connect.open_redis()
    if job is not None:
        _show_job(client, job, is_json=json)
        return
    names = queue or list(dict.fromkeys([settings.queue, settings.segmentation_queue]))
    _show_queues(client, [name.lower() for name in names], is_json=json)


def _show_job(client: Any, job_id: str, *, is_json: bool) -> None:
    kind = client.type(job_id)
    if kind != "hash":
        what = "there is no such job, or it has expired" if kind == "none" else f"the key holds a {kind}, no job"
        fail(f"{job_id}: {what}; `redis-consumer status` lists the jobs that wait or run", EXIT_FAILED)
    fields = client.hgetall(job_id)
    if is_json:
        write_json({"job": job_id, "age_s": age_s(fields.get("created_at", "")), **fields})
    else:
        _write_job(job_id, fields)
    if fields.get("status") == "failed":
        raise typer.Exit(EXIT_FAILED)


def _write_job(job_id: str, fields: dict[str, str]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    age = age_s(fields.get("created_at", ""))
    summary = in_words(fields) + (f", submitted {_duration(age)} ago" if age is not None else "")
    table.add_row("job", Text(job_id))
    table.add_row("now", Text(summary, style="red" if fields.get("status") == "failed" else "green"))
    for name, value in sorted(fields.items()):
        table.add_row(name, Text(value))
    console().print(table)


def _show_queues(client: Any, names: list[str], *, is_json: bool) -> None:
    from redis_consumer.cli.watch import read_states

    queues: list[QueueState] = []
    seen: list[str] = []
    for name in [full for base in names for full in (base, f"{base}-zip")]:
        running = _processing(client, name)
        held = [job_id for held_by in running.values() for job_id in held_by]
        queues.append(QueueState(name, client.llen(name), len(held), sorted(running)))
        # The right end is next in line.
        seen += [*held[:LATEST], *reversed(client.lrange(name, -LATEST, -1))]
    states = read_states(client, seen)
    if is_json:
        jobs = [{**asdict(state), "reason": state.short_reason} for state in states]
        write_json({"queues": [asdict(queue) for queue in queues], "jobs": jobs})
    else:
        _write_queues(queues, states)


def _processing(client: Any, queue: str) -> dict[str, list[str]]:
    """Give the jobs that workers have, by worker."""
    keys = client.scan_iter(match=f"processing-{queue}:*", count=1000)
    return {key.rpartition(":")[2]: client.lrange(key, 0, -1) for key in keys}


def _write_queues(queues: list[QueueState], states: list[JobState]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("Queue", "Waiting", "Processing", "Workers", box=None, pad_edge=False, header_style="bold")
    for queue in queues:
        table.add_row(Text(queue.queue), str(queue.waiting), str(queue.processing), Text(", ".join(queue.workers)))
    screen = console()
    screen.print(table)
    if not states:
        return
    jobs = Table("Job", "Status", "Progress", box=None, pad_edge=False, header_style="bold")
    for state in states:
        jobs.add_row(Text(state.job_id), Text(state.status.replace("-", " ")), f"{state.progress:.0f} %")
    screen.print()
    screen.print(jobs)


def in_words(fields: dict[str, str]) -> str:
    """Say in words how a job is, from its fields."""
    state = fields.get("status", "")
    if state == "failed":
        lines = fields.get("reason", "").strip().splitlines()
        return f"failed: {lines[-1]}" if lines else "failed"
    words = {"new": "waiting in its queue", "waiting": "waiting for its images", "": "without a status"}
    text = words.get(state, state.replace("-", " "))
    progress = fields.get("progress", "")
    return f"{text} ({progress} %)" if progress and state != "done" else text


def age_s(created_at: str) -> float | None:
    """Seconds since an ISO-8601 moment with zone, None where it can't be read."""
    try:
        # Python 3.10 doesn't know the Z that the kiosk's web server writes.
        moment = datetime.fromisoformat(created_at.replace("Z", "+00:00"))
    except ValueError:
        return None
    return None if moment.tzinfo is None else max((datetime.now(timezone.utc) - moment).total_seconds(), 0.0)


def _duration(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
