"""``redis-consumer reproduce``: runs a finished job again and compares the results."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from redis_consumer.app import open_bucket, open_redis, read_settings
from redis_consumer.cli import options
from redis_consumer.cli.images.submit import job_fields
from redis_consumer.cli.output import console, fail, notes, say, write_json
from redis_consumer.client.watch import read_hash
from redis_consumer.errors import EXIT_FAILED, EXIT_USAGE, PermanentError, SettingsError
from redis_consumer.job import Job
from redis_consumer.reproduce.record import find_record
from redis_consumer.reproduce.reproduction import Reproduction
from redis_consumer.reproduce.reproduction import reproduce as reproduce_record
from redis_consumer.text import printable


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=notes(
            "redis-consumer reproduce predict:cells.tif:0a1b2c3d-0000-4000-8000-000000000000",
            "redis-consumer reproduce output/d41d8cd98f00b204e9800998ecf8427e.provenance.json --keep build/again",
            "redis-consumer reproduce predict:cells.tif:1 --model NuclearSegmentation:2 --json",
        )
    )(reproduce)


def reproduce(
    job: Annotated[
        str,
        typer.Argument(
            help="Key of a job. If the job has expired: its provenance record, as a file or as a key in the bucket.",
            metavar="JOB",
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Model to use instead of the recorded one.", metavar="NAME:VERSION"),
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option(
            "--keep", file_okay=False, help="Folder for both results, both records, and pictures of the differences."
        ),
    ] = None,
    consumer: Annotated[
        list[str] | None,
        typer.Option(
            "--consumer",
            "-c",
            help="Import path of a consumer to trust although no installed package offers it; repeatable.",
            metavar="MODULE:CLASS",
        ),
    ] = None,
    redis: options.Redis = None,
    bucket: options.Bucket = None,
    model_server: options.ModelServer = None,
    json: options.Json = False,
) -> None:
    """Run a finished job again from its record and compare the results.

    It runs on this machine, without the queue. The job and its result are not changed.
    It lists what has changed since the record: software, libraries, settings, model,
    functions and input. Exit codes: 0 identical labels; 1 different; 2 cannot be run.
    """
    read_settings(redis=redis, bucket=bucket, model_server=model_server)
    fields = job_fields(model, {}, [])
    if keep is not None:
        _make_folder(keep)
    storage = open_bucket()
    try:
        record = find_record(job, storage, _read_job)
        say(f"{record.job_id}: checking its input")
        with tempfile.TemporaryDirectory(prefix="redis-consumer-reproduce-") as name:
            show = _Progress(record.job_id).show
            found = reproduce_record(
                record, storage, Path(name), fields=fields, trusted=consumer or (), keep=keep, on_write=show
            )
    except PermanentError as error:
        fail(f"cannot reproduce: {error}", EXIT_USAGE)
    if json:
        write_json({**asdict(found), "identical": found.is_identical})
    else:
        _write(found)
    if not found.is_identical:
        raise typer.Exit(EXIT_FAILED)


def _read_job(job_id: str) -> dict[str, str]:
    client = open_redis()
    return read_hash(client, job_id) if client.type(job_id) == "hash" else {}


class _Progress:
    """Prints a line for each stage of the job and of its children."""

    def __init__(self, job_id: str) -> None:
        self._job_id = job_id
        self._said = ""

    def show(self, job: Job) -> None:
        """Print the stage of a job when it changes."""
        child = "" if job.id == self._job_id else f" ({job.get('original_name')})"
        line = f"{self._job_id}: {job.status.replace('-', ' ')}{child}"
        if line != self._said:
            self._said = line
            say(line)


def _write(found: Reproduction) -> None:
    screen = console()
    verdict = "identical" if found.is_identical else "different"
    screen.print(Text(f"{verdict}: {printable(found.job)}, run again in {found.seconds:.1f} s", style="bold"))
    for each in found.files:
        screen.print(Text(printable(f"  {each.in_words()}")))
    if found.note:
        screen.print(Text(printable(f"  note: {found.note}")))
    if not found.differences:
        screen.print("All recorded conditions are the same now.")
        return
    table = Table("Difference", "Recorded", "Now", box=None, pad_edge=False, header_style="bold")
    for row in found.differences:
        table.add_row(*(Text(printable(str(row[key]))) for key in ("field", "recorded", "now")))
    screen.print(table)


def _make_folder(keep: Path) -> None:
    try:
        keep.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"--keep {keep}: cannot be written: {error.strerror}; choose another folder") from error
