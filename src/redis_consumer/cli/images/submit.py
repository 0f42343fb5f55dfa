"""``redis-consumer submit``: submits jobs for files and downloads their results."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from redis_consumer.app import open_bucket, open_redis, read_settings
from redis_consumer.cli import options
from redis_consumer.cli.embedded import stop_on_signals
from redis_consumer.cli.images.progress import progress_of
from redis_consumer.cli.output import notes, say, write_json
from redis_consumer.client.inputs import Found, find_inputs
from redis_consumer.client.results import follow
from redis_consumer.client.submit import Result, not_submitted, submit_files
from redis_consumer.client.tables import join_tables
from redis_consumer.client.watch import NOT_SUBMITTED
from redis_consumer.errors import EXIT_FAILED, EXIT_UNAVAILABLE, InvalidJob
from redis_consumer.job import Job, is_version, misspelt_fields, unknown_field
from redis_consumer.text import in_utf8

_FOLDER = "is a folder; submit the images in it with --recursive"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=notes(
            "redis-consumer submit cells.tif --wait",
            "redis-consumer submit *.tif --model NuclearSegmentation:1 --scale 0.5 --wait --output results",
            "redis-consumer submit plate.zip --queue predict --json",
            "redis-consumer submit plate/ --recursive --wait",
        )
    )(submit)


def submit(
    files: Annotated[list[Path], typer.Argument(help="Images, archives or folders of images.")],
    queue: options.Queue = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Model. Default: the worker's default model.", metavar="NAME:VERSION"),
    ] = None,
    scale: Annotated[
        float | None,
        typer.Option("--scale", "-s", min=1e-6, help="Factor to resize the image by before the model is applied."),
    ] = None,
    nucleus_px: Annotated[
        float | None,
        typer.Option(
            "--nucleus-px", min=1, help="Usual diameter of the nuclei or cells in pixels, instead of --scale."
        ),
    ] = None,
    channels: Annotated[
        str | None,
        typer.Option(
            "--channels",
            help="Channels to use. Without --model, in this order: nuclei, cytoplasm, phase.",
            metavar="0,",
        ),
    ] = None,
    dimension_order: options.DimensionOrder = None,
    postprocess: options.Postprocess = None,
    outputs: options.Outputs = None,
    field: Annotated[
        list[str] | None,
        typer.Option("--field", "-f", help="Any other field of the job; repeatable.", metavar="KEY=VALUE"),
    ] = None,
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Submit the images and archives in folders and below.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait for the results and download them.")] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", file_okay=False, help="Folder for results. Default: ./results. Implies --wait."),
    ] = None,
    unzip: Annotated[bool, typer.Option("--unzip", help="Unpack the results into folders. Implies --wait.")] = False,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0, help="Maximum seconds to wait; 0 for no limit.", metavar="SECONDS")
    ] = 0.0,
    redis: options.Redis = None,
    bucket: options.Bucket = None,
    json: options.Json = False,
) -> None:
    """Submit a job for each file, and download the results with --wait.

    An OME-Zarr is one image, as a folder or in one file. The files of an OME-TIFF of several
    files are one image, too; name one of them. Other folders need --recursive.

    Files are uploaded to the bucket. The key of each job is printed as soon as the job
    is in its queue. With --wait, the command shows the progress and downloads the
    results. If several results have tables of cells, results/cells.csv joins them. A
    file that cannot be submitted, or whose result cannot be downloaded,
    does not affect the others. While the command waits, Redis may be unavailable for
    up to a minute. With --json, the document is always written, even after an error,
    and has a row for each file.
    """
    named = {
        "scale": scale,
        "object_diameter_px": nucleus_px,
        "channels": channels,
        "dimension_order": dimension_order,
        "postprocess_function": postprocess,
        "outputs": outputs,
    }
    fields = job_fields(model, named, field or [])
    settings = read_settings(queue=queue, redis=redis, bucket=bucket)
    client, storage = open_redis(), open_bucket()
    is_waiting, folder = wait or unzip or output is not None, output or Path("results")
    found = find_inputs(files, is_recursive=recursive)
    rows = _rows_of(found, files)
    sending = submit_files(
        client, storage, found.paths, settings.queue, fields, warn=say, replicas=settings.redis_wait_replicas
    )
    try:
        with stop_on_signals():
            for row in sending:
                rows[row.submission.path] = row
                _tell(row, is_waiting=is_waiting, is_json=json)
            if is_waiting:
                for row in _wait(client, storage, rows.values(), folder, timeout, is_unzipped=unzip):
                    rows[row.submission.path] = row
                write_table(rows.values(), folder)
    finally:
        _write(list(rows.values()), is_waiting=is_waiting, is_json=json)
    if is_waiting and not all(row.state.is_final for row in rows.values()):
        say(f"Timed out after {timeout:g} s. The jobs continue; check them with `redis-consumer status JOB`.")
        raise typer.Exit(EXIT_UNAVAILABLE)
    raise typer.Exit(_exit_code(rows.values()))


def _rows_of(found: Found, named: Sequence[Path]) -> dict[Path, Result]:
    """Return a row for each input, in the order of the command line, and report what won't be submitted."""
    if found.others:
        say(f"Not submitted: {len(found.others)} other files, e.g. {in_utf8(str(found.others[0]))}")
    if found.parts:
        parts = f"{len(found.parts)} files that are parts of an OME-TIFF, e.g. {in_utf8(str(found.parts[0]))}"
        say(f"Submitted with the file that names them: {parts}")
    for folder in found.folders:
        say(f"{in_utf8(str(folder))}: not submitted: {_FOLDER}")
    rows = {
        **{path: not_submitted(path) for path in found.paths},
        **{folder: not_submitted(folder, InvalidJob(_FOLDER)) for folder in found.folders},
    }
    return {**{path: rows[path] for path in named if path in rows}, **rows}


def write_table(rows: Iterable[Result], folder: Path) -> None:
    """Join the tables of cells in several results to ``cells.csv``."""
    path = folder / "cells.csv"
    done = [(row.submission.path.name, row.path) for row in rows if row.path is not None]
    count = join_tables(done, path) if done else 0
    if count:
        say(f"{in_utf8(str(path))}: the cells of {count} images")


def _wait(
    client: Any, storage: Any, rows: Iterable[Result], folder: Path, timeout_s: float, *, is_unzipped: bool
) -> Iterator[Result]:
    """Wait for the submitted jobs, and show their progress."""
    sent = [row.submission for row in rows if not row.error]
    with progress_of(sent) as display:
        results = follow(client, storage, sent, folder, timeout_s=timeout_s, is_unzipped=is_unzipped, tell=say)
        for row in results:
            display.show(row.state)
            yield row


def _exit_code(rows: Iterable[Result]) -> int:
    failed = [row for row in rows if row.is_failed]
    if any(row.is_unavailable for row in failed):
        return EXIT_UNAVAILABLE
    return EXIT_FAILED if failed else 0


def job_fields(model: str | None, named: Mapping[str, object], others: list[str]) -> dict[str, str]:
    """Build the fields of a job from the options.

    Raises:
        typer.BadParameter: a model is not NAME:VERSION, a field is not KEY=VALUE, the axes are unknown, or the scale is
            given twice.
    """
    fields = {name: str(value) for name, value in named.items() if value is not None}
    if model is not None:
        name, colon, version = model.rpartition(":")
        if not (name and colon and is_version(version)):
            raise typer.BadParameter(
                f"{model!r} isn't NAME:VERSION, e.g. NuclearSegmentation:1 or NuclearSegmentation:latest",
                param_hint="--model",
            )
        fields |= {"model_name": name, "model_version": version}
    if {"scale", "object_diameter_px"} <= set(fields):
        raise typer.BadParameter("is another way to give the scale; give only one of them", param_hint="--nucleus-px")
    for text in others:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise typer.BadParameter(f"{text!r} isn't KEY=VALUE, e.g. label=1", param_hint="--field")
        fields[key] = value
    try:
        _ = Job("", fields).dimension_order
    except InvalidJob as error:
        raise typer.BadParameter(str(error), param_hint="--dimension-order") from error
    for strange, near in misspelt_fields(fields).items():
        say(f"Warning: {unknown_field(strange, near)}")
    return fields


def _tell(row: Result, *, is_waiting: bool, is_json: bool) -> None:
    """Print the result of a submission at once."""
    sent = row.submission
    if row.error:
        say(f"{sent.path.name}: not submitted: {row.error}")
    elif is_waiting:
        say(f"{sent.path.name}: submitted as {sent.job_id}")
    elif not is_json:
        typer.echo(sent.job_id)


def _write(rows: list[Result], *, is_waiting: bool, is_json: bool) -> None:
    """Write the results at the end, or those known so far if the command ends early."""
    if is_json:
        write_json([_as_data(row, is_waiting=is_waiting) for row in rows])
        return
    for row in rows if is_waiting else []:
        if row.path is not None:
            typer.echo(in_utf8(str(row.path)))
            if row.state.objects:
                say(f"{in_utf8(row.submission.path.name)}: {in_utf8(row.state.objects)} objects")
        elif row.state.status == NOT_SUBMITTED:
            pass  # already printed
        elif row.is_failed:
            say(f"{row.submission.path.name}: failed: {row.reason} ({row.state.job_id})")
        elif not row.state.is_final:
            say(f"{row.submission.path.name}: not ready, {row.state.status} ({row.state.job_id})")


def _as_data(row: Result, *, is_waiting: bool) -> dict[str, Any]:
    texts = {key: value and in_utf8(value) for key, value in row.as_data().items()}
    if is_waiting or row.error:
        return texts
    return {"job": texts["job"], "file": texts["file"], **row.submission.fields}
