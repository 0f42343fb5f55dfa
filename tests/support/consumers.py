"""Consumers for tests, loaded by a worker as ``CONSUMER_TYPE=support.consumers:…``."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from redis_consumer.consumers import Child, TensorFlowServingConsumer, second_phase
from redis_consumer.errors import InvalidImage, StorageUnavailable


class Slow(TensorFlowServingConsumer):
    """Works for as long as the job's field ``seconds`` says."""

    def _consume(self, redis_hash: str) -> str:
        # Read before anybody sees that it started: tests shorten the next run then.
        seconds = float(self.redis.hget(redis_hash, "seconds") or 0)
        self.update_key(redis_hash, {"status": "started"})
        time.sleep(seconds)
        return self.final_status


class OutageOnce(TensorFlowServingConsumer):
    """Finds the bucket away until the key ``bucket-is-back`` exists."""

    def _consume(self, redis_hash: str) -> str:
        self.redis.hincrby(redis_hash, "runs", 1)
        self._check_dependencies()
        return self.final_status

    def _check_dependencies(self) -> None:
        self.redis.incr("checks")
        if not self.redis.exists("bucket-is-back"):
            raise StorageUnavailable("bucket: away")


class Crashing(TensorFlowServingConsumer):
    """Dies by SIGSEGV in jobs whose field ``crash`` is set; for the others it is done."""

    def _consume(self, redis_hash: str) -> str:
        if self.redis.hget(redis_hash, "crash"):
            self.redis.hincrby(redis_hash, "crashes", 1)
            os.kill(os.getpid(), signal.SIGSEGV)
        return self.final_status


class Greedy(TensorFlowServingConsumer):
    """Says which process ran the job, and keeps 200 MB for ever."""

    def _consume(self, redis_hash: str) -> str:
        self.hoard = bytearray(os.urandom(1 << 20)) * 200
        self.update_key(redis_hash, {"pid": os.getpid()})
        return self.final_status


class Stubborn(TensorFlowServingConsumer):
    """Holds the interpreter for as long as the job's field ``seconds`` says, as native code may; hears no signal."""

    def _consume(self, redis_hash: str) -> str:
        seconds = int(self.redis.hget(redis_hash, "seconds") or 0)
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGALRM))
        self.update_key(redis_hash, {"status": "started"})
        ctypes.PyDLL(None).sleep(seconds)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGALRM))
        return self.final_status


class Littering(TensorFlowServingConsumer):
    """Makes a large temporary file and dies over it; done in the second attempt."""

    def _consume(self, redis_hash: str) -> str:
        folder = tempfile.mkdtemp()
        self.update_key(redis_hash, {"folder": folder})
        if self.job is not None and self.job.attempt == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.final_status


class Stalling(TensorFlowServingConsumer):
    """Stalls in jobs whose field ``stalls`` is set; works on the others until such a job has failed."""

    def _consume(self, redis_hash: str) -> str:
        self.redis.hincrby(redis_hash, "runs", 1)
        if self.redis.hget(redis_hash, "stalls"):
            time.sleep(600)
        while self.redis.hget("predict:a.tif:1", "status") != "failed":
            self.update_key(redis_hash, {"status": "started"})
            time.sleep(0.05)
        return self.final_status


class Broken(TensorFlowServingConsumer):
    """Ends its process before it is made, as a library that finds no device might."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        os._exit(1)

    def _consume(self, redis_hash: str) -> str:
        return self.final_status


class Quitting(TensorFlowServingConsumer):
    """Ends its process in the first attempt, as a script's own function might."""

    def _consume(self, redis_hash: str) -> str:
        if self.job is not None and self.job.attempt == 1:
            sys.exit(7)
        return self.final_status


class Dividing(TensorFlowServingConsumer):
    """Divides its job into a child of the queue `predict`, and is done when that is; children are done at once."""

    def _consume(self, redis_hash: str) -> str:
        if self.job is not None and self.job.get("parent"):
            return self.final_status
        self.update_key(redis_hash, {"status": "started"})
        child = Child("predict", "child.tif", fields={"input_file_name": "uploads/child.tif"})
        return self.fan_out([child], then="_gather")

    @second_phase
    def _gather(self, redis_hash: str) -> str:
        return self.final_status


class Asking(TensorFlowServingConsumer):
    """Asks a model about an image of ones."""

    def _consume(self, redis_hash: str) -> str:
        self.grpc_image(np.ones((16, 16, 1), np.float32), "Scaling", 1)
        return self.final_status


class Filing(TensorFlowServingConsumer):
    """Makes a folder of temporary files, works for as long as the field ``seconds`` says, and writes a file there."""

    def _consume(self, redis_hash: str) -> str:
        seconds = float(self.redis.hget(redis_hash, "seconds") or 0)
        with tempfile.TemporaryDirectory() as folder:
            self.update_key(redis_hash, {"status": "started", "pid": os.getpid()})
            time.sleep(seconds)
            Path(folder, "result").write_bytes(b"result")
        return self.final_status


class Catching(Filing):
    """Catches its errors itself and says by the status that it failed, as consumers of 2020 do."""

    def _consume(self, redis_hash: str) -> str:
        try:
            return super()._consume(redis_hash)
        except OSError:
            return self.failed_status


class Hoarding(TensorFlowServingConsumer):
    """Opens as many files at once as the field ``files`` says, and reads the input with a library that hides why."""

    def _consume(self, redis_hash: str) -> str:
        with contextlib.ExitStack() as opened:
            try:
                for _ in range(int(self.redis.hget(redis_hash, "files") or 0)):
                    opened.enter_context(Path(os.devnull).open("rb"))
            except OSError as error:
                raise InvalidImage("a.tif: can't be read") from error
        return self.final_status


class Hanging(TensorFlowServingConsumer):
    """Hangs before its first job, until the key ``go-on`` exists."""

    def prepare(self) -> None:
        while not self.redis.exists("go-on"):
            self.redis.incr("hangs")
            time.sleep(0.5)

    def _consume(self, redis_hash: str) -> str:
        return self.final_status


class Parting(TensorFlowServingConsumer):
    """Starts a process that outlives its own parent in a group of its own, and ends when the job's ``gate`` opens."""

    def _consume(self, redis_hash: str) -> str:
        inner = "import os, sys; print(os.getpid(), flush=True); sys.stdin.read()"
        outer = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {inner!r}], start_new_session=True)"
        with subprocess.Popen(
            [sys.executable, "-c", outer], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as parent:
            assert parent.stdout is not None
            orphan = parent.stdout.readline().strip()
            self.update_key(redis_hash, {"orphan": orphan, "supervisor": os.getppid()})
        return self.final_status
