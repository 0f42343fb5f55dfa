"""``redis-consumer dead``: lists dead letters, and retries or drops them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from redis_consumer.app import open_queue, open_redis, read_settings
from redis_consumer.cli import options
from redis_consumer.cli.images.status import read_job, write_job
from redis_consumer.cli.output import console, counted, duration, fail, notes, say, write_json
from redis_consumer.client.queue_state import queue_of
from redis_consumer.client.watch import age_s, read_fields
from redis_consumer.errors import EXIT_FAILED
from redis_consumer.queue import JobQueue, admin
from redis_consumer.text import last_line, printable

FIELDS = ("original_name", "updated_at", "reason")
JOB_ID = "predict:cells.tif:0a1b2c3d-0000-4000-8000-000000000000"
GONE = "its hash was deleted or has expired; drop it"

Jobs = Annotated[list[str] | None, typer.Argument(help="Keys of jobs, as printed by list.", metavar="JOB")]


@dataclass(frozen=True)
class Letter:
    """A dead letter: a job that failed for a reason other than its input.

    Attributes:
        job: key of its hash.
        queue: the queue that it was in.
        file: name of its input.
        failed_at: when it failed.
        reason: last line of the reason.
    """

    job: str
    queue: str
    file: str
    failed_at: str
    reason: str


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
    group.command(
        "list", epilog=notes("redis-consumer dead list", "redis-consumer dead list --queue predict --limit 0 --json")
    )(list_letters)
    group.command(epilog=notes(f"redis-consumer dead show {JOB_ID}"))(show)
    group.command(
        epilog=notes(
            f"redis-consumer dead retry {JOB_ID}",
            "redis-consumer dead retry --all",
            "redis-consumer dead retry --all --queue predict",
        )
    )(retry)
    group.command(epilog=notes(f"redis-consumer dead drop {JOB_ID}", "redis-consumer dead drop --all --queue track"))(
        drop
    )
    app.add_typer(
        group,
        name="dead",
        help="List, retry or drop dead letters: jobs that failed for a reason other than their input.",
        epilog=notes("redis-consumer dead list", "redis-consumer dead retry --all"),
    )


def list_letters(
    queue: options.Queues = None,
    limit: Annotated[
        int, typer.Option("--limit", min=0, help="Number of jobs to show for each queue, latest first; 0 for all.")
    ] = 50,
    redis: options.Redis = None,
    json: options.Json = False,
) -> None:
    """List dead letters, the latest of each queue first."""
    names = options.chosen_queues(read_settings(redis=redis), queue)
    client = open_redis()
    queues = [open_queue(client, name) for name in names]
    letters = [letter for each in queues for letter in read_letters(each, limit)]
    if json:
        write_json([{**asdict(letter), "age_s": age_s(letter.failed_at)} for letter in letters])
    elif letters:
        _write_table(letters)
    total = sum(client.llen(each.key("dead")) for each in queues)
    if total > len(letters):
        say(f"{counted(total - len(letters), 'older job')} not shown; --limit 0 shows all")
    elif not total:
        say(f"No dead letter in {', '.join(names)}")


def read_letters(queue: JobQueue, limit: int) -> list[Letter]:
    """Read the latest dead letters of a queue; a limit of 0 reads all."""
    job_ids = admin.dead_letters(queue, limit or -1)
    rows = read_fields(queue.redis, job_ids, FIELDS)
    return [_letter(job_id, queue.name, row) for job_id, row in zip(job_ids, rows, strict=True)]


def _letter(job_id: str, queue: str, row: list[str | None]) -> Letter:
    file, failed_at, reason = (value or "" for value in row)
    return Letter(job_id, queue, file, failed_at, last_line(reason) if any(row) else GONE)


def _write_table(letters: list[Letter]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    # Keys are pasted into other commands, so they are shown in full where possible.
    table.add_column("Job", overflow="fold", ratio=3)
    table.add_column("Queue", overflow="fold")
    table.add_column("Failed", no_wrap=True)
    table.add_column("Reason", overflow="fold", ratio=4)
    for letter in letters:
        age = age_s(letter.failed_at)
        when = f"{duration(age)} ago" if age is not None else ""
        table.add_row(*(Text(printable(text)) for text in (letter.job, letter.queue, when, letter.reason)))
    console().print(table)


def show(
    job: Annotated[str, typer.Argument(help="Key of a job, as printed by list.", metavar="JOB")],
    queue: options.JobQueue = None,
    redis: options.Redis = None,
    json: options.Json = False,
) -> None:
    """Show a dead letter with all its fields and the full reason."""
    name = queue_of(job, queue)
    read_settings(redis=redis)
    client = open_redis()
    fields = read_job(client, job)
    if client.lpos(open_queue(client, name).key("dead"), job) is None:
        fail(f"{job}: not a dead letter of queue {name}; `redis-consumer status JOB` shows the job", EXIT_FAILED)
    if json:
        write_json({"job": job, "queue": name, **fields})
    else:
        write_job(job, fields)


def retry(
    jobs: Jobs = None,
    everything: Annotated[bool, typer.Option("--all", help="All dead letters of the queues.")] = False,
    queue: options.JobQueue = None,
    redis: options.Redis = None,
    json: options.Json = False,
) -> None:
    """Return dead letters to their queues and print their keys.

    Each job gets all its attempts again. --all retries all dead letters of --queue,
    or of QUEUE and SEGMENTATION_QUEUE, the oldest first. The exit code is 1 if a JOB
    is not a dead letter or its hash no longer exists.
    """
    client, pairs = _chosen(jobs, queue, redis, is_all=everything)
    _settle(client, pairs, _retry, is_all=everything, is_json=json)


def drop(
    jobs: Jobs = None,
    everything: Annotated[bool, typer.Option("--all", help="All dead letters of the queues.")] = False,
    queue: options.JobQueue = None,
    redis: options.Redis = None,
    json: options.Json = False,
) -> None:
    """Remove jobs from the dead letters and print their keys.

    The jobs stay failed. This cannot be undone. --all drops all dead letters of
    --queue, or of QUEUE and SEGMENTATION_QUEUE. The exit code is 1 if a JOB is not a
    dead letter.
    """
    client, pairs = _chosen(jobs, queue, redis, is_all=everything)
    _settle(client, pairs, _drop, is_all=everything, is_json=json)


def _chosen(
    jobs: list[str] | None, queue: str | None, redis: str | None, *, is_all: bool
) -> tuple[Any, list[tuple[str, str]]]:
    """Connect, and list the chosen jobs with their queues."""
    if bool(jobs) == is_all:
        raise typer.BadParameter("give the keys of jobs, or --all", param_hint="JOB")
    pairs = [(job_id, queue_of(job_id, queue)) for job_id in dict.fromkeys(jobs or ())]
    settings = read_settings(redis=redis)
    client = open_redis()
    names = options.chosen_queues(settings, [queue] if queue else None) if is_all else []
    # The list begins with the latest job. The oldest one must be retried first.
    pairs += [(job_id, name) for name in names for job_id in reversed(admin.dead_letters(open_queue(client, name)))]
    return client, pairs


def _retry(queue: JobQueue, job_id: str) -> str:
    return "retried" if admin.retry(queue, job_id) else "none"


def _drop(queue: JobQueue, job_id: str) -> str:
    return "dropped" if admin.drop(queue, job_id) else "none"


def _settle(
    client: Any,
    pairs: list[tuple[str, str]],
    action: Callable[[JobQueue, str], str],
    *,
    is_all: bool,
    is_json: bool,
) -> None:
    """Change one job at a time, so that every printed job is done even if Redis then becomes unavailable."""
    queues = {name: open_queue(client, name) for _, name in pairs}
    outcomes = []
    for job_id, name in pairs:
        outcome = action(queues[name], job_id)
        outcomes.append({"job": job_id, "queue": name, "outcome": outcome})
        if outcome == "none":
            say(f"{job_id}: not a dead letter of queue {name}, or its hash no longer exists")
        elif not is_json:
            typer.echo(printable(job_id))
    if is_json:
        write_json(outcomes)
    missed = sum(each["outcome"] == "none" for each in outcomes)
    say(f"{counted(len(outcomes) - missed, 'job')} done")
    if missed and not is_all:
        raise typer.Exit(EXIT_FAILED)
