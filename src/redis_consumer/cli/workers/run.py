"""``redis-consumer run``: starts a worker."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from redis_consumer.app import read_settings, run_worker, start_logs
from redis_consumer.cli import options
from redis_consumer.cli.output import notes, say
from redis_consumer.consumers.registry import BUILT_IN
from redis_consumer.errors import SettingsError
from redis_consumer.settings import load_settings

_CONSUMER = ("--consumer", "-c")
_ARGUMENTS = "redis_consumer.arguments"


class _Run(TyperCommand):
    """The command. Its help also shows the options of the consumer that it would run."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Keep the arguments for the help, which is written before they are parsed."""
        ctx.meta[_ARGUMENTS] = list(args)
        return super().parse_args(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help, then those options."""
        super().format_help(ctx, formatter)
        named = _named_consumer(ctx.meta.get(_ARGUMENTS, []))
        if named:
            _write_options_of(named)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        cls=_Run,
        epilog=notes(
            "redis-consumer run",
            "redis-consumer run --queue predict --consumer image --redis localhost:6379",
            "redis-consumer run --serve image=predict --serve zip=predict-zip",
            "redis-consumer run --bucket file:///data/bucket --model-server onnx:// --burst",
        ),
    )(run)


def run(
    queue: options.Queue = None,
    consumer: Annotated[
        str | None,
        typer.Option(
            *_CONSUMER,
            help="Consumer: a built-in name, an entry point or package.module:Class; overrides CONSUMER_TYPE.",
            metavar="TYPE",
        ),
    ] = None,
    serve: Annotated[
        list[str] | None,
        typer.Option(
            "--serve",
            help="Consumer and its queue, instead of --consumer and --queue; repeatable. Each queue has its own slots.",
            metavar="TYPE=QUEUE",
        ),
    ] = None,
    redis: options.Redis = None,
    bucket: options.Bucket = None,
    model_server: options.ModelServer = None,
    log_level: Annotated[
        str | None, typer.Option("--log-level", help="Lowest severity to log; overrides LOG_LEVEL.", metavar="LEVEL")
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option("--concurrency", min=1, help="Processes for each queue; overrides CONCURRENCY."),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option("--threads", min=1, help="Threads in each process, one job each; overrides THREADS."),
    ] = None,
    burst: Annotated[bool, typer.Option("--burst", help="Stop when the queues are empty.")] = False,
) -> None:
    """Run a worker, which takes jobs from its queues until it is stopped.

    Settings come from the environment or from files, see `redis-consumer settings`.
    The command line overrides them. After SIGTERM, running jobs have GRACE_PERIOD
    seconds to finish. Then they are returned to their queue.
    """
    settings = read_settings(
        queue=queue, consumer=consumer, redis=redis, bucket=bucket, model_server=model_server, log_level=log_level
    )
    start_logs(settings)
    raise typer.Exit(run_worker(serve=serve or (), is_burst=burst, slots=concurrency, threads=threads))


def _named_consumer(arguments: list[str]) -> str:
    """Return the consumer that the arguments or CONSUMER_TYPE name; empty for a built-in CONSUMER_TYPE."""
    for index, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        if option in _CONSUMER:
            return value if equals else "".join(arguments[index + 1 : index + 2])
    with suppress(SettingsError):  # the help must be shown even if a setting is wrong
        named = load_settings().consumer_type
        return "" if named.lower() in BUILT_IN else named
    return ""


def _write_options_of(consumer: str) -> None:
    from redis_consumer.cli.authors.consumers import write_options
    from redis_consumer.consumers.catalogue import describe

    try:
        listed = describe(consumer)
    except SettingsError as error:
        say(str(error))
        return
    if not listed.options:
        typer.echo(f"{consumer} has no options.")
        return
    typer.echo(f"Options of {consumer}. They are set by variables; those with a field can also be set per job:")
    write_options(listed.options)
