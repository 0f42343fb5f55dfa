"""Measures how soon after its arrival a job starts on an idle worker."""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.worker import connect, idle_worker
from redis_consumer.cli import embedded

RUNS = 3
JOBS = 200
SEED = 7
MEAN_INTERVAL_S = 0.05
TIMEOUT_S = 30.0


def measure() -> dict[str, Any]:
    """Time from LPUSH to the status ``started``, 200 jobs at random intervals; medians of three runs.

    Returns:
        ``p50_ms`` and ``p99_ms``; ``reference_ms``, one round trip to the same Redis.
    """
    with embedded.run_redis() as server, tempfile.TemporaryDirectory() as folder:
        with idle_worker(server, Path(folder), CONSUMER_TYPE="benchmarks.consumers:NoOp"):
            runs = [sorted(_run(server, run)) for run in range(RUNS)]
        client = connect(server)
        trips = [_timed(client.ping) for _ in range(JOBS)]
    return {
        "p50_ms": round(1e3 * statistics.median(run[JOBS // 2] for run in runs), 2),
        "p99_ms": round(1e3 * statistics.median(run[int(JOBS * 0.99)] for run in runs), 2),
        "reference_ms": round(1e3 * statistics.median(trips), 3),
        "jobs": JOBS,
        "runs": RUNS,
    }


def _run(server: embedded.RedisServer, run: int) -> list[float]:
    client, dice = connect(server), random.Random(SEED + run)
    latencies_s = []
    for number in range(JOBS):
        job_id = f"predict:image-{run}.tif:{number}"
        client.hset(job_id, mapping={"status": "new", "input_file_name": "uploads/image.tif"})
        time.sleep(dice.expovariate(1 / MEAN_INTERVAL_S))
        pushed = time.perf_counter()
        client.lpush("predict", job_id)
        while client.hget(job_id, "status") == "new":
            if time.perf_counter() - pushed > TIMEOUT_S:
                raise RuntimeError(f"{job_id} was not taken within {TIMEOUT_S:g} s")
        latencies_s.append(time.perf_counter() - pushed)
    client.close()
    return latencies_s


def _timed(call: Any) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
