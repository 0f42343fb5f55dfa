"""A job that crashes the model server ends, and other jobs continue once the server is up."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.redis_server import RedisServer, free_port
from support.worker import environment, running_worker, wait_for

TESTS = Path(__file__).parents[1]
FATAL_PIXEL = 666
MAX_ATTEMPTS = 2
PATIENCE = {"GRPC_TIMEOUT": "5", "GRPC_BACKOFF": "0.05", "MAX_RETRY": "1", "MAX_ATTEMPTS": str(MAX_ATTEMPTS)}


class ModelServer:
    """A model server on one port that dies of `FATAL_PIXEL`, and is started again by `keep_up`."""

    def __init__(self, models: Path, *options: str) -> None:
        self.port = free_port()
        self.deaths = 0
        self._command = [sys.executable, "-m", "support.tf_serving_server", "--models", str(models), "--port"]
        self._command += [str(self.port), "--fatal-pixel", str(FATAL_PIXEL), "--until-stdin-closes", *options]
        self._process = self._start()

    def _start(self) -> subprocess.Popen[str]:
        variables = {**os.environ, "PYTHONPATH": str(TESTS)}
        process = subprocess.Popen(
            self._command, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline().startswith("ready"), "the model server didn't start; its error is above"
        return process

    def keep_up(self) -> bool:
        """Start it again where it has died; say whether it had."""
        if self._process.poll() is None:
            return False
        self._forget()
        self.deaths += 1
        self._process = self._start()
        return True

    def stop(self) -> None:
        self._process.kill()
        self._forget()

    def _forget(self) -> None:
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


@contextmanager
def serving(models: Path, *options: str) -> Iterator[ModelServer]:
    server = ModelServer(models, *options)
    try:
        yield server
    finally:
        server.stop()


def submit(db: Any, name: str, pixel: float) -> str:
    job_id = f"predict:{name}.tif:1"
    db.hset(job_id, mapping={"status": "new", "input_file_name": f"uploads/{name}.tif", "pixel": pixel})
    db.lpush("predict", job_id)
    return job_id


@contextmanager
def asking_workers(server: RedisServer, folder: Path, model_server: ModelServer, count: int) -> Iterator[None]:
    settings = {"MODEL_SERVER": f"tfs://127.0.0.1:{model_server.port}", "CONSUMER_TYPE": "support.asking:Asking"}
    with ExitStack() as stack:
        for number in range(count):
            variables = environment(server, folder.as_uri(), HOSTNAME=f"pod-{number}", **settings, **PATIENCE)
            stack.enter_context(running_worker(folder, variables))
        yield


@pytest.mark.parametrize("goes_on", [pytest.param(True, marks=pytest.mark.slow), False])
def test_a_job_that_brings_the_model_server_down_fails_and_the_others_are_done(
    redis_server: RedisServer, redis_db: Any, tmp_path: Path, onnx_model_dir: Path, goes_on: bool
) -> None:
    killer = submit(redis_db, "killer", FATAL_PIXEL)
    others = [submit(redis_db, f"early-{number}", number) for number in range(3)]
    with serving(onnx_model_dir) as model_server, asking_workers(redis_server, tmp_path, model_server, 2):

        def has_failed() -> bool:
            if model_server.keep_up() and goes_on:
                others.append(submit(redis_db, f"later-{model_server.deaths}", model_server.deaths))
            return bool(redis_db.hget(killer, "status") == "failed")

        wait_for(has_failed, "the end of the job that kills the model server", tmp_path)
        wait_for(lambda: {redis_db.hget(job_id, "status") for job_id in others} == {"done"}, "the others", tmp_path)
    assert [redis_db.hget(job_id, "answer") for job_id in others[:3]] == ["0", "2", "4"]
    reason = redis_db.hget(killer, "reason") or ""
    assert reason.startswith(f"AttemptsExhausted: job {killer}: ")
    assert "(the last time: ModelServerUnavailable: " in reason
    assert redis_db.lrange("redis-consumer:dead:predict", 0, -1) == [killer]
    assert redis_db.lrange("runs", 0, -1).count(killer) > MAX_ATTEMPTS
    assert redis_db.keys("processing-*") == []
