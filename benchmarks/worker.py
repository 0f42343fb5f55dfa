"""Runs a worker for a benchmark: a real process with an empty Redis and a local bucket."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from redis_consumer.cli import embedded
from redis_consumer.redis import RedisClient

ROOT = Path(__file__).parents[1]
READY_TIMEOUT_S = 60.0


def connect(server: embedded.RedisServer) -> RedisClient:
    """A client of the embedded Redis."""
    return RedisClient(server.host, server.port, 0.05, password=server.password, deadline_s=10)


def environment(server: embedded.RedisServer, folder: Path, **settings: str) -> dict[str, str]:
    """Variables of a worker: those that Python needs, and our settings; nothing else of this machine's."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return {
        **kept,
        "PYTHONPATH": str(ROOT),
        "REDIS_HOST": server.host,
        "REDIS_PORT": str(server.port),
        "REDIS_PASSWORD": server.password,
        "STORAGE_BUCKET": (folder / "bucket").as_uri(),
        "MODEL_SERVER": "onnx://",
        "LOG_LEVEL": "INFO",
        **settings,
    }


@contextmanager
def idle_worker(server: embedded.RedisServer, folder: Path, **settings: str) -> Iterator[tuple[psutil.Process, float]]:
    """Run a worker until the block ends; yield its process and the seconds until its slots waited for jobs.

    Its log is ``worker.log``, or where others run on this Redis and folder already, ``worker-2.log`` and so on.
    """
    (folder / "bucket").mkdir(exist_ok=True)
    client = connect(server)
    command = [sys.executable, "-m", "redis_consumer", "run"]
    waiting = _waiting(client) + int(settings.get("CONCURRENCY", "1"))
    number = len(list(folder.glob("worker*.log")))
    log = folder / (f"worker-{number + 1}.log" if number else "worker.log")
    started = time.perf_counter()
    with embedded.run_process(command, log=log, environment=environment(server, folder, **settings)) as process:
        while _waiting(client) < waiting:
            if process.poll() is not None or time.perf_counter() - started > READY_TIMEOUT_S:
                raise RuntimeError(f"the worker doesn't start: {embedded.tail(log)}")
            time.sleep(0.002)
        yield psutil.Process(process.pid), time.perf_counter() - started
    client.close()


def _waiting(client: RedisClient) -> int:
    """How many slots wait for a job."""
    return sum(entry["cmd"] == "blmove" for entry in client.client_list())
