"""The processes that the chaos harness breaks: Redis, its proxy, a model server, a bucket and workers."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import psutil
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from chaos.consumer import LEDGER_VARIABLE
from redis_consumer import models
from redis_consumer.cli import embedded

ROOT = Path(__file__).parents[2]
MODELS = Path(models.__file__).parent
START_S, STOP_S = 20.0, 40.0
SLOTS = 2
CONCURRENT = ("--concurrency", str(SLOTS))
MASTER = "chaos"


class Process:
    """A program that can be ended, stopped and started again; what it says goes to a log file.

    Args:
        log: the file.
    """

    def __init__(self, log: Path) -> None:
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None
        self.is_stopped = False
        self.started = 0.0

    @property
    def is_running(self) -> bool:
        """Whether it lives, stopped or not."""
        return self.process is not None and self.process.poll() is None

    def launch(self, command: list[str], *, variables: dict[str, str] | None = None, reads: bool = False) -> None:
        """Start it in a process group of its own.

        Args:
            command: what to run.
            variables: its environment, that of this process by default.
            reads: whether to give pipes for its standard input and output instead of nothing and the log.
        """
        pipe: int | IO[bytes] = subprocess.PIPE
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdin=pipe if reads else subprocess.DEVNULL,
                stdout=pipe if reads else log,
                stderr=log,
                env=variables,
                cwd=self.log.parent,
                start_new_session=True,
            )
        self.started, self.is_stopped = time.monotonic(), False

    def family(self) -> list[int]:
        """Its process id, and then those of its children."""
        if not self.is_running or self.process is None:
            return []
        with contextlib.suppress(psutil.NoSuchProcess):
            return [self.process.pid, *(child.pid for child in psutil.Process(self.process.pid).children())]
        return []

    def send(self, number: int) -> list[int]:
        """Send a signal to the process and then to its children; return their ids."""
        family = self.family()
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        if number in (signal.SIGSTOP, signal.SIGCONT):
            self.is_stopped = number == signal.SIGSTOP
        return family

    def wait(self) -> None:
        """Wait until it has ended, and forget it."""
        if self.process is None:
            return
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.send(signal.SIGKILL)
            self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        self.process = None

    def end(self) -> None:
        """End it for good."""
        self.send(signal.SIGCONT)
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
        self.wait()

    def read_port(self) -> int:
        """The port that it prints when it is ready."""
        line = b"" if self.process is None or self.process.stdout is None else self.process.stdout.readline()
        if not line.startswith(b"ready "):
            raise RuntimeError(f"{self.log.stem} doesn't start: {embedded.tail(self.log)}")
        return int(line.split()[1])


class Redis(Process):
    """A redis-server whose acknowledged writes outlive it: append-only file, written before each reply."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir()
        super().__init__(folder / f"{name}.log")
        self.port = free_port()

    def start(self, *, replica_of: int | None = None) -> None:
        """Start it; it answers some milliseconds later."""
        options = ["--save", "", "--appendonly", "yes", "--appendfsync", "always", "--repl-diskless-sync-delay", "0"]
        if replica_of is not None:
            options += ["--replicaof", "127.0.0.1", str(replica_of)]
        place = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.log.parent)]
        self.launch([embedded.find_redis_server(), *place, *options])

    def start_sentinel(self, master: int) -> None:
        """Start it as the Sentinel of another."""
        config = self.log.with_suffix(".conf")
        config.write_text(
            f"port {self.port}\nbind 127.0.0.1\nsentinel monitor {MASTER} 127.0.0.1 {master} 1\n"
            f"sentinel down-after-milliseconds {MASTER} 1000\nsentinel failover-timeout {MASTER} 4000\n",
            encoding="utf-8",
        )
        self.launch([embedded.find_redis_server(), str(config), "--sentinel"])

    def connect(self) -> Any:
        """A plain client on a single connection; it raises where the server is unavailable."""
        # redis-py's own retries would hold up all other faults.
        never = Retry(NoBackoff(), 0)
        return redis.Redis(
            "127.0.0.1", self.port, decode_responses=True, socket_timeout=5, single_connection_client=True, retry=never
        )

    def await_ready(self) -> None:
        """Wait until it answers."""
        deadline = time.monotonic() + START_S
        while True:
            try:
                client = self.connect()
                client.ping()
                client.close()
                return
            except redis.RedisError:
                if not self.is_running or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)


class Proxy(Process):
    """The only way from the workers to Redis."""

    def start(self, target: int) -> int:
        """Start it and return its port."""
        self.launch([sys.executable, "-m", "chaos.proxy", str(target)], variables=python_variables(), reads=True)
        return self.read_port()


class Model(Process):
    """The tests' stand-in for TensorFlow Serving, which shares no code with our client, on the shipped model."""

    def __init__(self, log: Path) -> None:
        super().__init__(log)
        self.port = free_port()

    def start(self) -> None:
        """Start it; it answers a second later."""
        options = ["--models", str(MODELS), "--port", str(self.port), "--until-stdin-closes"]
        command = [sys.executable, "-m", "support.tf_serving_server", *options]
        self.launch(command, variables=python_variables(), reads=True)


class Bucket:
    """A folder that can be made to fail: its name becomes a link to itself, which no right of root's can follow."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.away = folder.with_name("bucket-away")
        (folder / "uploads").mkdir(parents=True)
        (folder / "output").mkdir()

    def fail(self) -> None:
        """Let every access fail."""
        if not self.away.exists():
            self.folder.rename(self.away)
            self.folder.symlink_to(self.folder.name)

    def mend(self) -> None:
        """Let it be as before."""
        if self.away.exists():
            self.folder.unlink()
            self.away.rename(self.folder)


class Worker(Process):
    """A ``redis-consumer run`` with its slots.

    Args:
        folder: where its log goes.
        number: which one.
        settings: its environment besides what Python needs.
        arguments: of its command; by default those for several slots of one queue.
    """

    def __init__(
        self, folder: Path, number: int, settings: dict[str, str], *, arguments: Sequence[str] = CONCURRENT
    ) -> None:
        super().__init__(folder / f"worker-{number}.log")
        self.number = number
        self.settings = settings
        self.arguments = arguments
        self.life = 0
        self.name = f"pod-{number}"

    def start_again(self, is_renamed: bool) -> None:
        """Start it, under its last name (a container that restarts) or a new one (a pod that is replaced)."""
        self.wait()
        if is_renamed:
            self.life += 1
            self.name = f"pod-{self.number}-{self.life}"
        command = [sys.executable, "-m", "redis_consumer", "run", *self.arguments]
        self.launch(command, variables={**python_variables(), **self.settings, "HOSTNAME": self.name})

    @property
    def is_able(self) -> bool:
        """Whether it lives, runs, and has been up for long enough to have taken its place."""
        return self.is_running and not self.is_stopped and time.monotonic() - self.started > 3


def python_variables() -> dict[str, str]:
    """What a Python of ours needs of this process's environment, and no setting besides."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    return {**kept, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}


def worker_settings(folder: Path, *, redis_port: int, model_port: int, queue: str) -> dict[str, str]:
    """Settings of the workers: defaults for all that concerns the queue, short patience with the model server."""
    # What killed processes leave there goes with the folder of the run.
    temporary = folder / "tmp"
    temporary.mkdir()
    return {
        "TMPDIR": str(temporary),
        "CONSUMER_TYPE": "chaos.consumer:Chaos",
        "QUEUE": queue,
        "REDIS_HOST": "127.0.0.1",
        "REDIS_PORT": str(redis_port),
        "STORAGE_BUCKET": (folder / "bucket").as_uri(),
        "MODEL_SERVER": f"tfs://127.0.0.1:{model_port}",
        "GRPC_TIMEOUT": "2",
        "GRPC_BACKOFF": "0.2",
        "MAX_RETRY": "2",
        "STORAGE_MAX_BACKOFF": "1",
        LEDGER_VARIABLE: str(folder / "ledger.jsonl"),
    }


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_gone(pid: int) -> bool:
    """Return whether a process has ended."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def clear(folder: Path) -> None:
    """Remove what a run has left."""
    shutil.rmtree(folder, ignore_errors=True)
