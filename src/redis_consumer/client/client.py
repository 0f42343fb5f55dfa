"""Segments images from a script or a notebook, by a web server or directly with Redis and a bucket."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redis_consumer.client.direct_jobs import DirectJobs
from redis_consumer.client.image_result import ImageResult
from redis_consumer.client.inputs import find_inputs
from redis_consumer.client.server_jobs import ServerJobs
from redis_consumer.errors import ConsumerError, SettingsError
from redis_consumer.redis import RedisClient
from redis_consumer.storage import Storage
from redis_consumer.text import result_stem

#: Images of a batch that are in flight at once. The others wait here, not in the queue.
AT_ONCE = 8
Tell = Callable[[str, float], None]


class Client:
    """Segments images.

    >>> client = Client("http://127.0.0.1:8080")
    >>> client = Client(redis="redis://127.0.0.1:6379", bucket="memory://")

    Args:
        url: address of a web server, ``redis-consumer serve``; empty to use Redis and bucket.
        token: of the user of the server; empty for none.
        redis: a client of Redis, or its address, see `DirectJobs`.
        bucket: the bucket, or its URL.
        queue: name of the queue, without a server.
        folder: for the results; None for a temporary folder, which is deleted together with the client.

    Raises:
        SettingsError: neither a server nor Redis and bucket are given, or an address is wrong.
    """

    def __init__(
        self,
        url: str = "",
        *,
        token: str = "",
        redis: RedisClient | str = "",
        bucket: Storage | str = "",
        queue: str = "predict",
        folder: Path | str | None = None,
    ) -> None:
        if bool(url) == bool(redis and bucket):
            raise SettingsError("client: give either the address of a server, or redis and bucket")
        self._jobs: ServerJobs | DirectJobs = ServerJobs(url, token) if url else DirectJobs(redis, bucket, queue)
        self.folder = Path(tempfile.mkdtemp(prefix="redis-consumer-") if folder is None else folder)
        if folder is None:
            weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)

    def segment(
        self,
        path: Path | str,
        *,
        kind: str = "",
        model: str = "",
        outputs: Sequence[str] = ("table",),
        progress: bool | Tell = True,
        timeout_s: float = 0.0,
        **options: Any,
    ) -> ImageResult:
        """Segment an image, and wait for its result.

        Args:
            path: the file.
            kind: of job, such as ``mesmer``; empty for the server's or the queue's own.
            model: ``name:version``; empty for the default.
            outputs: additional files of the result.
            progress: whether a bar is shown in a terminal; or a function that gets the stage and the percent.
            timeout_s: seconds to wait; 0 for no limit.
            options: fields of the job, such as ``scale=0.5`` or ``channels=[0, 1]``.

        Returns:
            The result, whose zip is in `folder`.

        Raises:
            PermanentError: the job failed or was refused; the text says why, and what to do.
            RetryableError: the server, Redis or the bucket is unavailable, or the job has not ended in time.
            OSError: the file can't be read.
        """
        path = Path(path)
        given = {"kind": kind, "model": model, "outputs": list(outputs), "options": options}
        with _shown(progress, path.name) as tell:
            return self._run(path, given, tell, timeout_s)

    def batch(
        self, paths: Path | str | Iterable[Path | str], *, progress: bool = True, **settings: Any
    ) -> Iterator[ImageResult | ConsumerError]:
        """Segment the images of a folder, or several files. Yield each result as soon as it is there.

        A failed image doesn't affect the others: its error is yielded in the place of its result.

        Args:
            paths: a folder, which is searched with the folders in it, or files.
            progress: whether a bar is shown in a terminal.
            settings: as for `segment`.

        Raises:
            SettingsError: there are no images.
            OSError: a file can't be read.
        """
        given = [Path(paths)] if isinstance(paths, (str, Path)) else [Path(path) for path in paths]
        files = find_inputs(given, is_recursive=True).paths
        if not files:
            raise SettingsError(f"batch: there are no images in {', '.join(map(str, given)) or 'an empty list'}")
        with _shown(progress, f"{len(files)} images") as tell, ThreadPoolExecutor(AT_ONCE) as pool:
            runs: list[Future[ImageResult]] = [
                pool.submit(self.segment, file, progress=_silent, **settings) for file in files
            ]
            for count, run in enumerate(as_completed(runs), 1):
                tell(f"{count} of {len(files)}", 100 * count / len(files))
                error = run.exception()
                if error is not None and not isinstance(error, ConsumerError):
                    raise error
                yield run.result() if error is None else error

    def _run(self, path: Path, given: dict[str, Any], tell: Tell, timeout_s: float) -> ImageResult:
        job_id = self._jobs.submit(path, given)
        fields = self._jobs.wait(job_id, tell, timeout_s)
        self.folder.mkdir(parents=True, exist_ok=True)
        target = self.folder / f"{result_stem(path.name).name}-{job_id[-12:]}-result.zip"
        self._jobs.fetch(job_id, target)
        return ImageResult(path.name, job_id, target, fields)


class AsyncClient:
    """The same for programs with an event loop. Arguments are those of `Client`."""

    def __init__(self, url: str = "", **connection: Any) -> None:
        self._client = Client(url, **connection)

    async def segment(self, path: Path | str, *, progress: bool | Tell = False, **settings: Any) -> ImageResult:
        """Segment an image, see `Client.segment`."""
        return await asyncio.to_thread(self._client.segment, path, progress=progress, **settings)

    async def batch(
        self, paths: Path | str | Iterable[Path | str], **settings: Any
    ) -> AsyncIterator[ImageResult | ConsumerError]:
        """Segment several images, see `Client.batch`."""
        results = self._client.batch(paths, progress=False, **settings)
        while (found := await asyncio.to_thread(next, results, None)) is not None:
            yield found


def _silent(_stage: str, _percent: float) -> None:
    """Show nothing."""


@contextmanager
def _shown(progress: bool | Tell, name: str) -> Iterator[Tell]:
    """Show a bar in a terminal, and return what moves it."""
    if callable(progress):
        yield progress
    elif not progress or not sys.stderr.isatty():
        yield _silent
    else:
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True)) as bars:
            task = bars.add_task(name, total=100)
            yield lambda stage, percent: bars.update(task, completed=percent, description=f"{name}: {stage}")
