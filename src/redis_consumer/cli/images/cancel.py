"""``redis-consumer cancel``: stops jobs that are no longer wanted."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from redis_consumer.app import open_queue, open_redis, read_settings
from redis_consumer.cli import options
from redis_consumer.cli.output import notes, say, write_json
from redis_consumer.client.queue_state import queue_of
from redis_consumer.errors import EXIT_FAILED
from redis_consumer.queue import admin
from redis_consumer.text import printable

WORDS = {
    "cancelled": "cancelled; it was not running",
    "stopping": "running; its worker stops it at the next step",
    "final": "has already ended; `redis-consumer status JOB` shows its result",
    "gone": "no such job, or it has expired",
    "no job": "this key does not hold a job",
}
DONE = ("cancelled", "stopping")


def register(app: typer.Typer) -> None:
    """Add the command."""
    job_id = "predict:cells.tif:0a1b2c3d-0000-4000-8000-000000000000"
    app.command(epilog=notes(f"redis-consumer cancel {job_id}", f"redis-consumer cancel --json {job_id}"))(cancel)


def cancel(
    jobs: Annotated[list[str], typer.Argument(help="Keys of jobs, as printed by submit.", metavar="JOB")],
    queue: options.JobQueue = None,
    redis: options.Redis = None,
    json: options.Json = False,
) -> None:
    """Cancel waiting or running jobs.

    A waiting job is removed from its queue. A running job stops at its next step.
    Both end as failed. The exit code is 1 if a job has already ended or is unknown.
    """
    pairs = [(job_id, queue_of(job_id, queue)) for job_id in dict.fromkeys(jobs)]
    read_settings(redis=redis)
    client = open_redis()
    outcomes = [{"job": job_id, "queue": name, "outcome": _cancel(client, job_id, name)} for job_id, name in pairs]
    if json:
        write_json(outcomes)
    for each in outcomes if not json else ():
        text = printable(f"{each['job']}: {WORDS[each['outcome']]}")
        typer.echo(text) if each["outcome"] in DONE else say(f"Error: {text}")
    if any(each["outcome"] not in DONE for each in outcomes):
        raise typer.Exit(EXIT_FAILED)


def _cancel(client: Any, job_id: str, queue: str) -> str:
    if client.type(job_id) not in ("hash", "none"):
        return "no job"
    return admin.cancel(open_queue(client, queue), job_id)
