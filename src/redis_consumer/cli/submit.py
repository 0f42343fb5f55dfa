"""``redis-consumer submit``: how do files get into a queue and their results back?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from redis_consumer.cli import options
from redis_consumer.cli.output import EXIT_FAILED, EXIT_UNAVAILABLE, notes, say, write_json
from redis_consumer.text import in_utf8

if TYPE_CHECKING:
    from redis_consumer.cli.producer import Submission
    from redis_consumer.cli.results import Result
    from redis_consumer.redis import RedisClient
    from redis_consumer.storage import Storage


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=notes(
            "redis-consumer submit cells.tif --wait",
            "redis-consumer submit *.tif --model NuclearSegmentation:1 --scale 0.5 --wait --output results",
            "redis-consumer submit plate.zip --queue predict --json",
        )
    )(submit)


def submit(
    files: Annotated[
        list[Path], typer.Argument(exists=True, dir_okay=False, readable=True, help="Images, or zips of images.")
    ],
    queue: options.Queue = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Model; the worker's default if left out.", metavar="NAME:VERSION"),
    ] = None,
    scale: Annotated[
        float | None,
        typer.Option("--scale", "-s", min=1e-6, help="Factor to resize by before the model sees the image."),
    ] = None,
    channels: Annotated[
        str | None,
        typer.Option(
            "--channels", help="Channels to use; without --model by role: nuclei, cytoplasm, phase.", metavar="0,"
        ),
    ] = None,
    dimension_order: Annotated[
        str | None, typer.Option("--dimension-order", help="Axes of the image, e.g. XYB or CXY.", metavar="AXES")
    ] = None,
    postprocess: Annotated[
        str | None, typer.Option("--postprocess", help="Post-processing, e.g. deep_watershed.", metavar="NAMES")
    ] = None,
    field: Annotated[
        list[str] | None,
        typer.Option("--field", "-f", help="Any other field of the job; repeatable.", metavar="KEY=VALUE"),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait for the results and download them.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", file_okay=False, help="Folder for results, ./results if left out; implies --wait."
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0, help="Seconds to wait at most; 0 for no limit.", metavar="SECONDS")
    ] = 0.0,
    redis: options.Redis = None,
    bucket: options.Bucket = None,
    json: options.Json = False,
) -> None:
    """Upload files, push a job for each, and with --wait show their progress and fetch the results."""
    from redis_consumer.cli import connect, results

    named = {
        "scale": scale,
        "channels": channels,
        "dimension_order": dimension_order,
        "postprocess_function": postprocess,
    }
    fields = job_fields(model, named, field or [])
    settings = connect.read_settings(queue=queue, redis=redis, bucket=bucket)
    client, storage = connect.open_redis(), connect.open_bucket()
    submissions = push_all(client, storage, files, settings.queue, fields, replicas=settings.redis_wait_replicas)
    if not wait and output is None:
        _write_submissions(submissions, is_json=json)
        return
    found = results.fetch(client, storage, submissions, output or Path("results"), timeout_s=timeout)
    _write_results(found, is_json=json)
    if any(not result.state.is_final for result in found):
        say(f"Error: {timeout:g} s are over; `redis-consumer status JOB` tells how the jobs go on")
        raise typer.Exit(EXIT_UNAVAILABLE)
    if any(result.state.is_failed for result in found):
        raise typer.Exit(EXIT_FAILED)


def job_fields(model: str | None, named: Mapping[str, object], others: list[str]) -> dict[str, str]:
    """Build the fields of a job from the options.

    Raises:
        typer.BadParameter: a model isn't NAME:VERSION, or a field isn't KEY=VALUE.
    """
    fields = {name: str(value) for name, value in named.items() if value is not None}
    if model is not None:
        name, colon, version = model.rpartition(":")
        if not (name and colon and version.isdigit()):
            raise typer.BadParameter(f"{model!r} isn't NAME:VERSION, e.g. NuclearSegmentation:1", param_hint="--model")
        fields |= {"model_name": name, "model_version": version}
    for text in others:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise typer.BadParameter(f"{text!r} isn't KEY=VALUE, e.g. label=1", param_hint="--field")
        fields[key] = value
    return fields


def push_all(
    client: RedisClient,
    storage: Storage,
    files: list[Path],
    queue: str,
    fields: dict[str, str],
    *,
    replicas: int = 0,
) -> list[Submission]:
    """Submit each file once, in their order; say so where fewer replicas than wanted have a job."""
    from redis_consumer.cli.producer import submit_file

    submissions = []
    for path in dict.fromkeys(files):
        sent = submit_file(client, storage, path, queue, fields, replicas=replicas)
        submissions.append(sent)
        if sent.replicas is not None and sent.replicas < replicas:
            say(
                f"Warning: {sent.job_id} is on {sent.replicas} of {replicas} replicas: a failover now may lose it; "
                "see `redis-cli info replication`"
            )
    return submissions


def _write_submissions(submissions: list[Submission], *, is_json: bool) -> None:
    if is_json:
        write_json([{"job": sent.job_id, "file": in_utf8(str(sent.path)), **sent.fields} for sent in submissions])
        return
    for sent in submissions:
        typer.echo(sent.job_id)


def _write_results(found: list[Result], *, is_json: bool) -> None:
    if is_json:
        texts = [{key: value and in_utf8(str(value)) for key, value in result.as_data().items()} for result in found]
        write_json(texts)
        return
    for result in found:
        if result.path is not None:
            typer.echo(in_utf8(str(result.path)))
        elif result.state.is_failed:
            say(f"{result.submission.path.name}: failed: {result.state.short_reason} ({result.state.job_id})")
        else:
            say(f"{result.submission.path.name}: not ready, {result.state.status} ({result.state.job_id})")
