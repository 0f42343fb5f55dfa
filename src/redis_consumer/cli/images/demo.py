"""``redis-consumer demo``: segments an image with a temporary Redis and worker, and writes a report."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen
from typing import Annotated

import typer

from redis_consumer import settings
from redis_consumer.app import open_bucket, open_redis
from redis_consumer.cli.embedded import RedisServer, run_redis, run_worker, stop_on_signals, tail
from redis_consumer.cli.images import report
from redis_consumer.cli.images.progress import progress_of
from redis_consumer.cli.images.submit import job_fields
from redis_consumer.cli.output import fail, notes, say
from redis_consumer.client.results import follow
from redis_consumer.client.submit import Result, submit_files
from redis_consumer.errors import EXIT_FAILED, EXIT_UNAVAILABLE, EXIT_USAGE

SAMPLE = Path("data") / "nuclei.tif"
QUEUE, MODEL = "predict", "NuclearSegmentation:1"
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
            "--image", "-i", exists=True, dir_okay=False, help="Image of nuclei; the project's example if left out."
        ),
    ] = None,
    scale: Annotated[
        float | None,
        typer.Option(
            "--scale",
            "-s",
            min=1e-6,
            help="Factor to resize by; nuclei should become about 20 to 45 pixels wide. Default: found by the worker.",
        ),
    ] = None,
) -> None:
    """Segment an example image or your own, without any service, and write a report.

    Starts a Redis and a worker with the shipped model, and stops them at the end.
    Writes the result zip, labels.tif, overlay.png and report.html.
    """
    started = time.monotonic()
    path = image or find_sample()
    (output / BUCKET).mkdir(parents=True, exist_ok=True)
    _remove_earlier(path, [output / name for name in (*report.FILES, f"{path.stem}-result.zip")])
    with stop_on_signals():
        result, fields, elapsed_s = segment(path, output, scale)
    if result.path is None:
        say(f"Error: {path.name}: {result.state.status}: {result.state.short_reason}")
        raise typer.Exit(EXIT_FAILED if result.state.is_final else EXIT_UNAVAILABLE)
    found = report.write_results(output, path, result, fields, elapsed_s)
    typer.echo(f"Found {found} after {time.monotonic() - started:.1f} s")
    for name in (*report.FILES, result.path.name):
        typer.echo(f"  {output / name}")


def _remove_earlier(image: Path, results: list[Path]) -> None:
    """Remove the files of an earlier run, so that they are not mistaken for new ones. The image is never removed."""
    if image.resolve() in {path.resolve() for path in results}:
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


def segment(path: Path, output: Path, scale: float | None) -> tuple[Result, dict[str, str], float]:
    """Start Redis and a worker, submit an image as a producer does, wait for the result and stop both.

    Args:
        path: the image.
        output: folder for the bucket, the worker's log and the result zip.
        scale: factor to resize the image by before the model sees it; None if the worker finds it.

    Returns:
        The result, the job's hash and the seconds from submission to result.
    """
    with run_redis() as redis, _worker(redis, output) as worker:
        client, bucket = open_redis(), open_bucket()
        fields = job_fields(MODEL, {"scale": scale}, [])
        submitted = time.monotonic()
        [pushed] = submit_files(client, bucket, [path], QUEUE, fields, warn=say)
        if pushed.error:
            fail(pushed.error, EXIT_FAILED)

        def sleep(seconds: float) -> None:
            if worker.poll() is not None:
                fail(f"the worker ended with exit code {worker.returncode}", EXIT_FAILED)
            time.sleep(seconds)

        sent = [pushed.submission]
        with progress_of(sent) as display:
            # Not told that no worker serves the queue: its worker is starting.
            for result in follow(client, bucket, sent, output, timeout_s=TIMEOUT_S, tell=lambda _: None, sleep=sleep):
                display.show(result.state)
        elapsed_s = time.monotonic() - submitted
        job = client.hgetall(pushed.submission.job_id)
        client.close()
    return result, job, elapsed_s


@contextmanager
def _worker(redis: RedisServer, output: Path) -> Iterator[Popen[bytes]]:
    """Run a worker on a local bucket, with models in the worker. If the block fails, show the end of its log."""
    values = {
        "REDIS_HOST": redis.host,
        "REDIS_PORT": str(redis.port),
        "REDIS_PASSWORD": redis.password,
        "QUEUE": QUEUE,
        "CONSUMER_TYPE": "image",
        "STORAGE_BUCKET": (output.resolve() / BUCKET).as_uri(),
        "MODEL_SERVER": "onnx://",
        "LOG_LEVEL": "INFO",
        "GRACE_PERIOD": "2",
    }
    settings.use(settings.Settings.model_validate(values))
    log = output / "worker.log"
    try:
        with run_worker(values, log=log) as worker:
            yield worker
    except Exception:
        say(f"End of the worker's log ({log}):\n{tail(log)}")
        raise
    finally:
        settings.use(None)
