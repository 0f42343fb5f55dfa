"""Measures the time, Redis traffic and memory of an archive of many small images on one worker."""

from __future__ import annotations

import io
import math
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.queue_trips import Counter, counted
from benchmarks.worker import connect, environment
from redis_consumer.cli import embedded
from redis_consumer.queue.scripts import digest_of
from redis_consumer.redis import RedisClient

IMAGES = 1000
HUGE = 10_000
SIDE_PX = 64
#: Archives of two images, one after the other, for the time between the last child's end and the parent's second phase.
FAN_INS = 100
TIMEOUT_S = 900.0
POLL_S = 0.02
QUEUES = ("predict", "predict-zip")


def measure(*, is_huge: bool = False) -> dict[str, Any]:
    """One worker for both queues with a slot each, real Redis, local bucket, an ONNX model of one multiplication.

    Args:
        is_huge: also an archive of 10,000 images, whose figures end with ``_10000``.

    Returns:
        ``images_per_s`` from the submission of an archive of 1,000 images to its result;
        ``redis_round_trips_per_image`` of the whole worker, without those that write progress;
        ``redis_round_trips_with_progress``;
        ``fan_in_ms``, the 99th percentile, and ``fan_in_median_ms``; ``peak_rss_mb``, the largest of the worker's
        processes; ``parent_kb``, what the parent's hash holds at its end.
    """
    with (
        tempfile.TemporaryDirectory() as name,
        embedded.run_redis() as server,
        counted(server.port, mark=digest_of("update")) as counter,
        _worker(server, counter, Path(name)) as process,
    ):
        client = connect(server)
        scene = _Scene(client, counter, process, Path(name))
        scene.run(10)
        figures = scene.run(IMAGES)
        waits = sorted(scene.fan_in_ms() for _ in range(FAN_INS))
        figures["fan_in_ms"] = round(waits[math.ceil(0.99 * FAN_INS) - 1], 1)
        figures["fan_in_median_ms"] = round(waits[FAN_INS // 2], 1)
        if is_huge:
            figures |= {f"{key}_{HUGE}": value for key, value in scene.run(HUGE).items()}
        client.close()
    return figures


class _Scene:
    def __init__(self, client: RedisClient, counter: Counter, process: psutil.Process, folder: Path) -> None:
        self._client = client
        self._counter = counter
        self._process = process
        self._folder = folder
        self._jobs = 0

    def run(self, images: int) -> dict[str, Any]:
        """Send one archive through the worker."""
        _write_archive(self._folder / f"bucket/uploads/{images}.zip", images)
        trips, marked = self._counter.trips, self._counter.marked
        started = time.monotonic()
        job_id, peak = self._submit(images)
        took_s = time.monotonic() - started
        trips, marked = self._counter.trips - trips, self._counter.marked - marked
        fields = self._client.hgetall(job_id)
        with zipfile.ZipFile(self._folder / "bucket" / fields["output_file_name"]) as archive:
            if len(archive.namelist()) != images + 1:
                raise RuntimeError(f"the result holds {len(archive.namelist())} files")
        return {
            "images_per_s": round(images / took_s, 1),
            "redis_round_trips_per_image": round((trips - marked) / images, 2),
            "redis_round_trips_with_progress": round(trips / images, 2),
            "peak_rss_mb": round(peak / 1e6, 1),
            "parent_kb": round(sum(len(name) + len(text) for name, text in fields.items()) / 1e3, 1),
        }

    def fan_in_ms(self) -> float:
        """Milliseconds between the end of an archive's last child and the start of its second phase."""
        _write_archive(self._folder / "bucket/uploads/2.zip", 2)
        job_id, _ = self._submit(2)
        fields = self._client.hgetall(job_id)
        last = max(_moment(self._client.hget(child, "finished_at")) for child in fields["children"].split(","))
        return 1e3 * (_moment(fields["finished_at"]) - float(fields["cleanup_time"]) - last)

    def _submit(self, images: int) -> tuple[str, int]:
        """Submit an archive and wait for its end; return the job and the largest memory of the worker's processes."""
        self._jobs += 1
        job_id = f"predict-zip:{images}.zip:{self._jobs}"
        fields = {"original_name": f"{images}.zip", "input_file_name": f"uploads/{images}.zip", "status": "new",
                  "model_name": "Scaling", "model_version": "1", "scale": "1"}  # fmt: skip
        self._client.hset(job_id, mapping=fields)
        self._client.lpush("predict-zip", job_id)
        deadline, peak = time.monotonic() + TIMEOUT_S, 0
        while (status := self._client.hget(job_id, "status")) != "done":
            if status == "failed" or time.monotonic() > deadline:
                log = embedded.tail(self._folder / "worker.log")
                raise RuntimeError(f"{status}: {self._client.hget(job_id, 'reason')}; {log}")
            if images > 2:
                peak = max(peak, *(child.memory_info().rss for child in self._process.children(recursive=True)))
            time.sleep(POLL_S)
        return job_id, peak


def _moment(text: str | None) -> float:
    return datetime.fromisoformat(text or "").timestamp()


def _write_archive(path: Path, images: int) -> None:
    from tifffile import imwrite

    path.parent.mkdir(exist_ok=True)
    rng = np.random.default_rng(1)
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(images):
            buffer = io.BytesIO()
            imwrite(buffer, rng.integers(0, 4000, (SIDE_PX, SIDE_PX), np.uint16))
            archive.writestr(f"plate {number % 8}/image {number}.tif", buffer.getvalue())


@contextmanager
def _worker(server: embedded.RedisServer, counter: Counter, folder: Path) -> Iterator[psutil.Process]:
    """Run a worker of both queues until the block ends; it reaches Redis by the counter."""
    from support import onnx_models  # loads onnx, whose size would count in other benchmarks

    onnx_models.save(folder / "bucket/models", "Scaling", 1, onnx_models.scaling(2.0))
    variables = environment(server, folder, REDIS_PORT=str(counter.port), LOG_LEVEL="WARNING", TMPDIR=str(folder))
    served = [
        text for kind, queue in zip(("image", "zip"), QUEUES, strict=True) for text in ("--serve", f"{kind}={queue}")
    ]
    command = [sys.executable, "-m", "redis_consumer", "run", *served]
    client = connect(server)
    with embedded.run_process(command, log=folder / "worker.log", environment=variables) as process:
        while sum(entry["cmd"] == "blmove" for entry in client.client_list()) < len(QUEUES):
            if process.poll() is not None:
                raise RuntimeError(f"the worker doesn't start: {embedded.tail(folder / 'worker.log')}")
            time.sleep(POLL_S)
        yield psutil.Process(process.pid)
    client.close()
