"""Measures how long a worker takes until it can claim a job, and its memory while idle."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.worker import idle_worker
from redis_consumer.cli import embedded

RUNS = 3
IMPORT = "import time; t = time.perf_counter(); import redis_consumer; print(time.perf_counter() - t)"
REFERENCE = "import numpy, grpc, redis"


def measure() -> dict[str, Any]:
    """Medians of three runs, alternating.

    Returns:
        ``import_s`` of the package; ``ready_s`` from the start of ``redis-consumer run`` to its first blocking claim;
        ``reference_s`` of a bare Python that imports numpy, grpc and redis, from start to end; ``rss_mb`` of the
        idle worker: its supervisor and one slot, pages that they share counted once (proportional set size).
    """
    imports, ready, reference, rss = [], [], [], []
    with embedded.run_redis() as server, tempfile.TemporaryDirectory() as folder:
        for _ in range(RUNS):
            imports.append(float(subprocess.check_output([sys.executable, "-c", IMPORT])))
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", REFERENCE], check=True)
            reference.append(time.perf_counter() - started)
            with idle_worker(server, Path(folder)) as (process, ready_s):
                ready.append(ready_s)
                time.sleep(1.0)
                both = [process, *process.children()]
                rss.append(sum(each.memory_full_info().pss for each in both) / 1e6)
    return {
        "import_s": round(statistics.median(imports), 4),
        "ready_s": round(statistics.median(ready), 3),
        "reference_s": round(statistics.median(reference), 3),
        "ready_ratio": round(statistics.median(ready) / statistics.median(reference), 2),
        "rss_mb": round(statistics.median(rss), 1),
    }
