"""``redis-consumer demo``: segments an image with a temporary Redis and worker, and writes a report."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen
from typing import Annotated

import typer

from redis_consumer import settings
from redis_consumer.app import open_bucket, open_redis
from redis_consumer.cli import options
from redis_consumer.cli.embedded import RedisServer, run_redis, run_worker, stop_on_signals, tail
from redis_consumer.cli.images import report
from redis_consumer.cli.images.progress import progress_of
from redis_consumer.cli.images.submit import job_fields, write_table
from redis_consumer.cli.output import fail, notes, say
from redis_consumer.client.inputs import ARCHIVES, find_inputs
from redis_consumer.client.results import follow
from redis_consumer.client.submit import Result, submit_files
from redis_consumer.errors import EXIT_FAILED, EXIT_UNAVAILABLE, EXIT_USAGE
from redis_consumer.text import in_utf8, result_stem

SAMPLE = Path("data") / "nuclei.tif"
QUEUE, MOVIES, MODEL = "predict", "track", "NuclearSegmentation:1"
TIMEOUT_S = 120.0
BUCKET = "bucket"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=notes("redis-consumer demo", "redis-consumer demo --image cells.png --scale 0.8 --output build/cells")
    )(demo)


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", file_okay=False, help="Folder for the results.")] = Path(
        "build"
    )
    / "demo",
    image: Annotated[
        Path | None,
        typer.Option(
            "--image",
            "-i",
            exists=True,
            help="Image of nuclei, archive or folder of images, or movie. Default: the project's example.",
        ),
    ] = None,
    movie: Annotated[bool, typer.Option("--movie", help="Track the cells of a movie.")] = False,
    scale: Annotated[
        float | None,
        typer.Option(
            "--scale",
            "-s",
            min=1e-6,
            help="Factor to resize by; nuclei should become about 20 to 45 pixels wide. Default: found by the worker.",
        ),
    ] = None,
    channels: Annotated[
        str | None, typer.Option("--channels", help="Channels to use, as for submit.", metavar="0,")
    ] = None,
    dimension_order: options.DimensionOrder = None,
    postprocess: options.Postprocess = None,
    outputs: options.Outputs = None,
) -> None:
    """Segment an example image or your own, without any service, and write a report.

    Starts a Redis and a worker with the shipped model, and stops them at the end.
    Writes the result zip, labels.tif, overlay.png and report.html. For an archive, a
    folder or a movie, it writes the result zips only.
    """
    started = time.monotonic()
    path = image or find_sample()
    paths = find_inputs([path], is_recursive=True).paths
    if not paths:
        fail(f"{path} holds no images", EXIT_USAGE)
    (output / BUCKET).mkdir(parents=True, exist_ok=True)
    _remove_earlier(paths, [output / name for name in (*report.FILES, *map(_result_name, paths))])
    named = {"scale": scale, "channels": channels, "dimension_order": dimension_order}
    named |= {"postprocess_function": postprocess, "outputs": outputs}
    fields = job_fields(None if movie else MODEL, named, [])
    with stop_on_signals():
        results, jobs, elapsed_s = segment(paths, output, fields, is_movie=movie)
    _report_failures(results)
    if path.is_file() and not movie and not path.name.lower().endswith(ARCHIVES):
        found = report.write_results(output, path, results[0], jobs[0], elapsed_s)
        typer.echo(f"Found {found} after {time.monotonic() - started:.1f} s")
        names = [*report.FILES, _result_name(path)]
    else:
        for result in results:
            count = result.state.objects or "no"
            typer.echo(f"Found {count} objects in {result.submission.path.name}")
        write_table(results, output)
        names = list(map(_result_name, paths))
    for name in names:
        typer.echo(f"  {output / name}")


def _result_name(path: Path) -> str:
    return f"{result_stem(in_utf8(path.name)).name}-result.zip"


def _report_failures(results: Sequence[Result]) -> None:
    """End with an error if there is no result of an image."""
    failed = [result for result in results if result.path is None]
    for result in failed:
        reason = result.error or result.state.short_reason
        say(f"Error: {result.submission.path.name}: {result.state.status}: {reason}")
    if failed:
        raise typer.Exit(EXIT_FAILED if all(result.state.is_final for result in failed) else EXIT_UNAVAILABLE)


def _remove_earlier(images: Sequence[Path], results: list[Path]) -> None:
    """Remove the files of an earlier run, so that they are not mistaken for new ones. No image is removed."""
    overwritten = {path.resolve() for path in results}
    for image in images:
        if image.resolve() in overwritten:
            fail(f"{image} is a file that the demo overwrites; copy it, or choose another --output", EXIT_USAGE)
    for path in results:
        path.unlink(missing_ok=True)


def find_sample() -> Path:
    """Find the project's own image, in the working directory or beside the source."""
    for folder in (Path(), Path(__file__).resolve().parents[4]):
        if (folder / SAMPLE).is_file():
            return folder / SAMPLE
    fail(f"{SAMPLE} not found; run the demo in the project's folder, or give an image with --image", EXIT_USAGE)
    raise AssertionError


def segment(
    paths: Sequence[Path], output: Path, fields: dict[str, str], *, is_movie: bool = False
) -> tuple[list[Result], list[dict[str, str]], float]:
    """Start Redis and a worker, submit images as a producer does, wait for the results and stop both.

    Args:
        paths: images, archives or movies.
        output: folder for the bucket, the worker's log and the result zips.
        fields: fields of the jobs.
        is_movie: whether the images are movies.

    Returns:
        The results, the hashes of the jobs and the seconds from submission to the last result.
    """
    has_archives = any(path.name.lower().endswith(ARCHIVES) for path in paths)
    serve = {"tracking": MOVIES} if is_movie else {"zip": f"{QUEUE}-zip"} if has_archives else {}
    with run_redis() as redis, _worker(redis, output, serve) as worker:
        client, bucket = open_redis(), open_bucket()
        submitted = time.monotonic()
        pushed = list(submit_files(client, bucket, list(paths), MOVIES if is_movie else QUEUE, fields, warn=say))
        for row in pushed:
            if row.error:
                fail(row.error, EXIT_FAILED)

        def sleep(seconds: float) -> None:
            if worker.poll() is not None:
                fail(f"the worker ended with exit code {worker.returncode}", EXIT_FAILED)
            time.sleep(seconds)

        sent = [row.submission for row in pushed]
        results = {row.submission.job_id: row for row in pushed}
        with progress_of(sent) as display:
            # Not told that no worker serves the queue: its worker is starting.
            for result in follow(client, bucket, sent, output, timeout_s=TIMEOUT_S, tell=lambda _: None, sleep=sleep):
                results[result.submission.job_id] = result
                display.show(result.state)
        elapsed_s = time.monotonic() - submitted
        jobs = [client.hgetall(each.job_id) for each in sent]
        client.close()
    return list(results.values()), jobs, elapsed_s


@contextmanager
def _worker(redis: RedisServer, output: Path, serve: Mapping[str, str]) -> Iterator[Popen[bytes]]:
    """Run a worker on a local bucket, with models in the worker. If the block fails, show the end of its log."""
    values = {
        "REDIS_HOST": redis.host,
        "REDIS_PORT": str(redis.port),
        "REDIS_PASSWORD": redis.password,
        "QUEUE": QUEUE,
        "CONSUMER_TYPE": "image",
        "STORAGE_BUCKET": (output.resolve() / BUCKET).as_uri(),
        "MODEL_SERVER": "onnx://",
        "NUCLEAR_MODEL": MODEL,
        "LOG_LEVEL": "INFO",
        "GRACE_PERIOD": "2",
    }
    settings.use(settings.Settings.model_validate(values))
    log = output / "worker.log"
    try:
        arguments = [f"--serve={kind}={queue}" for kind, queue in ({"image": QUEUE, **serve} if serve else {}).items()]
        with run_worker(values, log=log, arguments=arguments) as worker:
            yield worker
    except Exception:
        say(f"End of the worker's log ({log}):\n{tail(log)}")
        raise
    finally:
        settings.use(None)
