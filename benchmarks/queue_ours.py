"""Defines our jobs and workers in the comparison of queues, and the bare loop that is its limit."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.queue_contender import Contender, Progress
from redis_consumer.cli import embedded
from redis_consumer.redis import RedisClient

QUEUE = "predict"
FLOOR_LIST = f"processing-{QUEUE}:floor"
#: Threads of the single slot: 1 takes 5,500 jobs a second through, 2: 7,300, 4: 8,600, 8: 7,600 (side by side on two
#: cores, one of which Redis has). They hide how long Redis takes to answer; each runs one job and holds no other.
THREADS = 4
#: Jobs that are pushed in one round trip.
CHUNK = 500


def ours(name: str, jobs: int, *, slots: int = 1, threads: int = 1) -> Contender:
    """``redis-consumer run`` with that many slots; like every contender it logs warnings only."""
    options = ["--concurrency", str(slots), "--threads", str(threads)]
    return Contender(
        name,
        jobs,
        [sys.executable, "-m", "redis_consumer", "run", *options],
        lambda client, _jobs: lambda: int(client.get(f"redis-consumer:completed:{QUEUE}") or 0),
        settings=" ".join(options),
        environment={"CONSUMER_TYPE": "benchmarks.queue_consumer:Nothing", "LOG_LEVEL": "WARNING"},
    )


def floor(jobs: int) -> Contender:
    """A bare loop of two scripts, see `benchmarks.queue_floor`."""
    return Contender(
        "floor",
        jobs,
        [sys.executable, "-m", "benchmarks.queue_floor", QUEUE, FLOOR_LIST],
        _left_in_lists,
        settings="redis-py, hiredis, one process",
    )


def _left_in_lists(client: RedisClient, jobs: int) -> Progress:
    return lambda: jobs - client.llen(QUEUE) - client.llen(FLOOR_LIST)


def push(client: RedisClient, jobs: int) -> None:
    """Fill the queue as a producer does, with the two fields that a job needs."""
    for first in range(0, jobs, CHUNK):
        commands: list[tuple[str, ...]] = []
        for number in range(first, min(first + CHUNK, jobs)):
            job_id = f"{QUEUE}:image.tif:{number}"
            commands.append(("HSET", job_id, "status", "new", "input_file_name", "uploads/image.tif"))
            commands.append(("LPUSH", QUEUE, job_id))
        client.batch(*commands)


def settings_of(server: embedded.RedisServer, bucket: Path) -> dict[str, str]:
    """Variables of our worker that name the Redis and a bucket that no one uses."""
    return {
        "REDIS_HOST": server.host,
        "REDIS_PORT": str(server.port),
        "REDIS_PASSWORD": server.password,
        "STORAGE_BUCKET": bucket.as_uri(),
        "MODEL_SERVER": "onnx://",
    }
