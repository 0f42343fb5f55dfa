"""Runs many jobs with one image through a real worker and a real model server."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil

from benchmarks.model_server import ModelServer
from benchmarks.worker import ROOT, connect, idle_worker
from redis_consumer.cli import embedded
from redis_consumer.redis import RedisClient

TIMEOUT_S = 120.0
POLL_S = 0.005
#: Fields of a job with the seconds of each of its stages.
STAGES = ("download", "preprocess", "prediction", "postprocess", "upload")

Plane = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Run:
    """What was seen of many jobs.

    Attributes:
        jobs_per_s: from the first look that found completed ones, which don't count, to the last.
        jobs: the fields of each at its end.
    """

    jobs_per_s: float
    jobs: list[dict[str, str]]

    @property
    def stages_ms(self) -> dict[str, float]:
        """For each stage the median of all jobs."""
        return {name: round(1e3 * statistics.median(self.seconds(f"{name}_time")), 2) for name in STAGES}

    def seconds(self, field: str) -> list[float]:
        """A field of each job that holds a time."""
        return [float(job[field]) for job in self.jobs]


def photograph(height: int, width: int) -> Plane:
    """A real image of nuclei, mirrored at its edges where more is wanted, and smoothed.

    So its values are no integers, and shrink in a zip as little as what a network gives.
    """
    from scipy import ndimage
    from tifffile import imread

    picture = imread(ROOT / "data/nuclei.tif")
    missing = [(0, max(0, wanted - side)) for wanted, side in zip((height, width), picture.shape, strict=True)]
    pixels = np.pad(picture, missing, mode="reflect")[:height, :width].astype(np.float32)
    return np.asarray(ndimage.gaussian_filter(pixels, 1.0) / 255, np.float32)


@dataclass(frozen=True)
class Work:
    """What was done so far, in seconds of the processor.

    Attributes:
        slots_s: of all slots.
        redis_s: of Redis.
        redis_trips: how often a worker waited for Redis.
        slot_bytes: memory that the largest slot has for itself; not what was done, but what it takes.
    """

    slots_s: float
    redis_s: float
    redis_trips: int
    slot_bytes: int


class ImageWorker:
    """Workers that wait for jobs, and their bucket.

    Attributes:
        bucket: its folder.
    """

    def __init__(
        self,
        client: RedisClient,
        folder: Path,
        workers: Sequence[psutil.Process],
        redis: psutil.Process,
        *,
        poll_s: float = POLL_S,
    ) -> None:
        self.bucket = folder / "bucket"
        self._client, self._log, self._poll_s = client, folder / "worker.log", poll_s
        self._slots = [slot for worker in workers for slot in worker.children(recursive=True)]
        self._redis = redis
        self._jobs = 0

    def work(self) -> Work:
        """Look at what slots and Redis have done."""
        commands = self._client.info("commandstats")
        trips = sum(commands.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("evalsha", "blmove"))
        memory = max(slot.memory_full_info().uss for slot in self._slots)
        return Work(sum(map(_cpu_s, self._slots)), _cpu_s(self._redis), trips, memory)

    def run(self, image: Plane, jobs: int) -> Run:
        """Put that many jobs with an image into the queue, all at once, and wait until they are done."""
        from tifffile import imwrite

        uploads = self.bucket / "uploads"
        uploads.mkdir(exist_ok=True)
        imwrite(uploads / "image.tif", image)
        before = self._completed()
        job_ids = [f"predict:image.tif:{self._jobs + number}" for number in range(jobs)]
        self._jobs += jobs
        fields = {
            "status": "new",
            "original_name": "image.tif",
            "input_file_name": "uploads/image.tif",
            "model_name": "Echo",
            "model_version": "1",
            "scale": "1",
        }
        for job_id in job_ids:
            self._client.hset(job_id, mapping=fields)
        self._client.lpush("predict", *job_ids)
        first, started = self._wait(before + 1)
        _, ended = self._wait(before + jobs)
        done = [self._client.hgetall(job_id) for job_id in job_ids]
        for values in done:
            if values["status"] != "done":
                raise RuntimeError(f"a job failed: {values.get('reason')}")
        return Run((before + jobs - first) / (ended - started), done)

    def _completed(self) -> int:
        return int(self._client.get("redis-consumer:completed:predict") or 0)

    def _wait(self, jobs: int) -> tuple[int, float]:
        """Wait until so many jobs are completed; return how many are, and when."""
        deadline = time.monotonic() + TIMEOUT_S
        while (count := self._completed()) < jobs:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{count} of {jobs} jobs completed: {embedded.tail(self._log)}")
            time.sleep(self._poll_s)
        return count, time.monotonic()


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


@contextmanager
def image_worker(
    model_server: ModelServer, *, slots: int = 1, workers: int = 1, poll_s: float = POLL_S, **settings: str
) -> Iterator[ImageWorker]:
    """Run workers until the block ends: an empty Redis, a local bucket, the usual consumer, no functions."""
    variables = {
        "MODEL_SERVER": f"tfs://{model_server.address}",
        "CONCURRENCY": str(slots),
        "LOG_LEVEL": "WARNING",
        **settings,
    }
    with embedded.run_redis() as server, tempfile.TemporaryDirectory() as name, ExitStack() as running:
        client = connect(server)
        processes = []
        for _ in range(workers):
            process, _ = running.enter_context(idle_worker(server, Path(name), TMPDIR=name, **variables))
            processes.append(process)
        yield ImageWorker(client, Path(name), processes, psutil.Process(server.pid), poll_s=poll_s)
        client.close()
