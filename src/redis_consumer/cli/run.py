"""``redis-consumer run``: how does a worker start?"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from redis_consumer.cli import options
from redis_consumer.cli.output import exit_code_of, notes

if TYPE_CHECKING:
    from redis_consumer.consumers.base import Consumer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=notes(
            "redis-consumer run",
            "redis-consumer run --queue predict --consumer image --redis localhost:6379",
            "redis-consumer run --serve image=predict --serve zip=predict-zip",
            "redis-consumer run --bucket file:///data/bucket --model-server onnx:// --burst",
        )
    )(run)


def run(
    queue: options.Queue = None,
    consumer: Annotated[
        str | None,
        typer.Option(
            "--consumer",
            "-c",
            help="Consumer, instead of CONSUMER_TYPE: a built-in name, an entry point or package.module:Class.",
            metavar="TYPE",
        ),
    ] = None,
    serve: Annotated[
        list[str] | None,
        typer.Option(
            "--serve",
            help="Consumer and the queue it serves, instead of --consumer and --queue; repeatable. Each queue gets "
            "slots of its own, so that none waits for another.",
            metavar="TYPE=QUEUE",
        ),
    ] = None,
    redis: options.Redis = None,
    bucket: options.Bucket = None,
    model_server: options.ModelServer = None,
    log_level: Annotated[
        str | None, typer.Option("--log-level", help="Least severity to log, instead of LOG_LEVEL.", metavar="LEVEL")
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option("--concurrency", min=1, help="Processes that run jobs of each queue, instead of CONCURRENCY."),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option("--threads", min=1, help="Threads of each process that run one job each, instead of THREADS."),
    ] = None,
    burst: Annotated[bool, typer.Option("--burst", help="Stop as soon as the queues are empty.")] = False,
) -> None:
    """Run a worker: take jobs from its queues and work on them, one in each slot, until it is told to stop.

    All settings come from the environment or files, as `redis-consumer settings`
    shows them; options win over them. SIGTERM lets the running job end within
    GRACE_PERIOD seconds, or gives it back to its queue.
    """
    from redis_consumer.cli import connect

    settings = connect.read_settings(
        queue=queue, consumer=consumer, redis=redis, bucket=bucket, model_server=model_server, log_level=log_level
    )
    connect.start_logs(settings)
    raise typer.Exit(connect.run_worker(serve=serve or (), is_burst=burst, slots=concurrency, threads=threads))


def run_script(initialize_logger: Callable[[], None], get_consumer: Callable[..., Consumer]) -> int:
    """Run a worker for a script of a user's with functions of its own; return the exit code that the help names."""
    from redis_consumer.cli import connect

    def start() -> int:
        connect.read_settings()
        initialize_logger()
        return connect.run_worker(get_consumer)

    return exit_code_of(start)
