"""``redis-consumer reproduce``: runs a finished job again and compares the results."""

from __future__ import annotations

import json as json_library
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from redis_consumer.cli import options
from redis_consumer.cli.output import EXIT_FAILED, EXIT_USAGE, console, fail, notes, printable, say, write_json
from redis_consumer.errors import ObjectNotFound, PermanentError, SettingsError, UnsafeArchive

if TYPE_CHECKING:
    from redis_consumer.cli.comparison import FileDifference
    from redis_consumer.cli.record import Record
    from redis_consumer.job import Job
    from redis_consumer.storage import Storage


@dataclass(frozen=True)
class Reproduction:
    """Outcome of a reproduction.

    Attributes:
        job: key of the job.
        files: comparison of each file of the result.
        differences: ``field``, ``recorded`` and ``now`` of each condition that has changed.
        note: remark about the recorded result, or empty.
        seconds: duration of the new run.
    """

    job: str
    files: list[FileDifference]
    differences: list[dict[str, Any]] = field(default_factory=list)
    note: str = ""
    seconds: float = 0.0

    @property
    def is_identical(self) -> bool:
        """Whether all labels, tracks and other outputs are the same."""
        return all(each.is_identical for each in self.files)


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
    from redis_consumer.cli import connect
    from redis_consumer.cli.submit import job_fields

    connect.read_settings(redis=redis, bucket=bucket, model_server=model_server)
    fields = job_fields(model, {}, [])
    if keep is not None:
        _make_folder(keep)
    try:
        with tempfile.TemporaryDirectory(prefix="redis-consumer-reproduce-") as name:
            found = _run_and_compare(job, connect.open_bucket(), Path(name), fields, consumer or [], keep)
    except PermanentError as error:
        fail(f"cannot reproduce: {error}", EXIT_USAGE)
    if json:
        write_json({**asdict(found), "identical": found.is_identical})
    else:
        _write(found)
    if not found.is_identical:
        raise typer.Exit(EXIT_FAILED)


def _run_and_compare(
    name: str, bucket: Storage, folder: Path, fields: dict[str, str], trusted: list[str], keep: Path | None
) -> Reproduction:
    from redis_consumer.cli import connect
    from redis_consumer.cli.record import find_record
    from redis_consumer.cli.rerun import Rerun

    record = find_record(name, bucket, connect.open_redis)
    (folder / "run").mkdir()
    progress = _Progress(record.job_id)
    rerun = Rerun(record, bucket, folder / "run", fields=fields, trusted=trusted, on_write=progress.show)
    say(f"{record.job_id}: checking its input")
    rerun.check_input()
    started = time.monotonic()
    new = rerun.run()
    seconds = time.monotonic() - started
    before, after = folder / "recorded.zip", folder / "reproduced.zip"
    rerun.overlay.download_file(new.result_key, after)
    files, note = _compare(record, bucket, before, after)
    if not files:
        raise PermanentError(f"result {record.result_key}: contains no images or other files to compare")
    found = Reproduction(record.job_id, files, rerun.differences(new), note, round(seconds, 3))
    if keep is not None:
        _keep(keep, found, {"recorded": record, "reproduced": new}, folder, rerun.input_path)
    return found


def _compare(record: Record, bucket: Storage, before: Path, after: Path) -> tuple[list[FileDifference], str]:
    from redis_consumer.archives import check_result_zip
    from redis_consumer.cli.comparison import compare_sums, compare_zips
    from redis_consumer.digest import file_digest

    recorded = record.output
    try:
        bucket.download_file(record.result_key, before)
    except ObjectNotFound as error:
        if not recorded.get("files"):
            raise PermanentError(
                f"result {record.result_key}: no longer exists, and its record does not list its files"
            ) from error
        found = compare_sums(recorded["files"], after, is_complete=not record.files_left_out)
        but = f", except for {record.files_left_out} that the record does not list" if record.files_left_out else ""
        return found, f"the recorded result no longer exists; the checksums of its files were compared{but}"
    is_changed = recorded.get("sha256") not in (None, file_digest(before))
    note = "the result has changed since it was recorded; the present result was compared" if is_changed else ""
    try:
        check_result_zip(before, record.result_key)
    except UnsafeArchive as error:
        raise PermanentError(
            f"result {record.result_key}: not a zip file, or damaged; there is nothing to compare"
        ) from error
    return compare_zips(before, after), note


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
    from rich.table import Table
    from rich.text import Text

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


def _keep(keep: Path, found: Reproduction, records: dict[str, Record], folder: Path, image: Path | None) -> None:
    """Write both results, both records, and a picture for each label image that differs."""
    from redis_consumer.cli.difference import draw_difference
    from redis_consumer.consumers.results import result_stem

    for name, record in records.items():
        text = json_library.dumps(record.data, indent=1, ensure_ascii=False)
        (keep / f"{name}.json").write_text(text, encoding="utf-8")
        if (folder / f"{name}.zip").exists():
            shutil.copyfile(folder / f"{name}.zip", keep / f"{name}.zip")
    for each in found.files:
        if each.pixels and each.objects:
            picture = draw_difference(each.name, folder / "recorded.zip", folder / "reproduced.zip", image)
            stem = keep / result_stem(each.name)
            stem.parent.mkdir(parents=True, exist_ok=True)
            stem.with_name(f"difference-{stem.name}.png").write_bytes(picture)
