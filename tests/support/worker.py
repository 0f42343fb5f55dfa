"""A worker in a process of its own, on the test's Redis and bucket, by environment variables only."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.redis_server import RedisServer

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "consume-redis-events.py"
TIMEOUT_S = 90.0
JOB = "predict:a.tif:1"


def environment(server: RedisServer, bucket: str, **settings: str) -> dict[str, str]:
    """Variables of a worker, and nothing else of the machine's besides what Python needs."""
    kept = {name: text for name, text in os.environ.items() if name in ("PATH", "HOME") or name.startswith("COVERAGE_")}
    return {
        **kept,
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "REDIS_HOST": "127.0.0.1",
        "REDIS_PORT": str(server.port),
        "REDIS_TIMEOUT": "0.1",
        "STORAGE_BUCKET": bucket,
        "MODEL_SERVER": "onnx://",
        "HOSTNAME": "pod-1",
        **settings,
    }


@contextmanager
def running_worker(folder: Path, variables: dict[str, str], *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the seed's script until the block ends, or our command where it has arguments; its log is `worker.log`."""
    program = ["-m", "redis_consumer", "run", *arguments] if arguments else [str(SCRIPT)]
    with (folder / "worker.log").open("ab") as log:
        process = subprocess.Popen([sys.executable, *program], cwd=folder, env=variables, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(TIMEOUT_S)
        finally:
            process.kill()
            process.wait()


def wait_for(condition: Callable[[], Any], what: str, folder: Path | None = None) -> Any:
    """Wait until a condition holds and return its value; fail with what was waited for, and the worker's log."""
    deadline = time.monotonic() + TIMEOUT_S
    while not (value := condition()):
        if time.monotonic() > deadline:
            log = (folder / "worker.log").read_text()[-4000:] if folder and (folder / "worker.log").exists() else ""
            raise AssertionError(f"waited {TIMEOUT_S:g} s for {what}\n{log}")
        time.sleep(0.01)
    return value


def is_idle(db: Any) -> bool:
    """Whether a worker is blocked in its claim."""
    return any(client["cmd"] == "blmove" for client in db.client_list())


def submit(db: Any, job_id: str = JOB, **fields: str) -> str:
    """Submit a job to the queue `predict`, as the frontend does."""
    db.hset(job_id, mapping={"status": "new", "input_file_name": "uploads/a.tif", **fields})
    db.lpush("predict", job_id)
    return job_id


def variables(server: RedisServer, folder: Path, kind: str = "Slow", **settings: str) -> dict[str, str]:
    """Variables of a worker that runs a consumer of `support.consumers`."""
    return environment(server, folder.as_uri(), CONSUMER_TYPE=f"support.consumers:{kind}", **settings)


def status_is(db: Any, status: str, job_id: str = JOB) -> Any:
    """A condition for `wait_for`."""
    return lambda: db.hget(job_id, "status") == status
