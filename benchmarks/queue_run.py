"""Measures how fast one contender empties a queue, and how often our worker waits for Redis."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import queue_ours
from benchmarks.queue_contender import Contender, Progress
from benchmarks.queue_trips import counted
from benchmarks.worker import ROOT, connect
from redis_consumer.cli import embedded

TIMEOUT_S = 60.0
POLL_S = 0.01


def jobs_per_s(contender: Contender) -> float:
    """Empty a full queue on a Redis of its own; return the jobs per second.

    All jobs are in the queue before the worker starts. The clock runs from the first look at Redis that finds completed
    jobs, which aren't counted, to the one that finds all completed; so the start of the worker isn't in it, and nothing
    is added to its jobs. Redis is looked at every 10 ms, by the same cheap command for each contender.

    Raises:
        RuntimeError: the worker ended, or took more than a minute.
    """
    with (
        embedded.run_redis() as server,
        _filled(server, contender) as (done, folder),
        _worker(contender, server, folder) as process,
    ):
        first, started = _wait(done, 1, process, folder)
        _, ended = _wait(done, contender.jobs, process, folder)
    return (contender.jobs - first) / (ended - started)


def round_trips_per_job(contender: Contender) -> float:
    """Times that our worker, supervisor and slots, sends something to Redis and waits for its reply, for each job."""
    with (
        embedded.run_redis() as server,
        _filled(server, contender) as (done, folder),
        counted(server.port) as counter,
        _worker(contender, dataclasses.replace(server, port=counter.port), folder) as process,
    ):
        first, _ = _wait(done, 1, process, folder)
        before = counter.trips
        _wait(done, contender.jobs, process, folder)
        return (counter.trips - before) / (contender.jobs - first)


@contextmanager
def _filled(server: embedded.RedisServer, contender: Contender) -> Iterator[tuple[Progress, Path]]:
    """Fill the queue; return the count of completed jobs, and a folder for the worker."""
    client = connect(server)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "bucket").mkdir()
        if contender.push:
            command = [*contender.push, str(contender.jobs)]
            subprocess.run(
                command, env=_environment(contender, server, folder), cwd=ROOT, check=True, timeout=TIMEOUT_S
            )
        else:
            queue_ours.push(client, contender.jobs)
        yield contender.progress(client, contender.jobs), folder
    client.close()


@contextmanager
def _worker(contender: Contender, server: embedded.RedisServer, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    environment = _environment(contender, server, folder)
    with embedded.run_process(
        contender.worker, log=folder / "worker.log", environment=environment, folder=str(folder)
    ) as process:
        try:
            yield process
        finally:
            # Some take seconds to end in good order, some leave processes behind; it has a group of its own.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _environment(contender: Contender, server: embedded.RedisServer, folder: Path) -> dict[str, str]:
    return {
        **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
        "PYTHONPATH": str(ROOT),
        "REDIS_URL": f"redis://:{server.password}@{server.host}:{server.port}/0",
        **queue_ours.settings_of(server, folder / "bucket"),
        **contender.environment,
    }


def _wait(done: Progress, jobs: int, process: subprocess.Popen[bytes], folder: Path) -> tuple[int, float]:
    """Wait until so many jobs are completed; return how many are, and when."""
    deadline = time.monotonic() + TIMEOUT_S
    while (count := done()) < jobs:
        if time.monotonic() > deadline or (process.poll() is not None and done() < jobs):
            raise RuntimeError(f"only {count} of {jobs} jobs completed: {embedded.tail(folder / 'worker.log')}")
        time.sleep(POLL_S)
    return count, time.monotonic()
