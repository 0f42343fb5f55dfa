"""Starts and ends all processes of a chaos run."""

from __future__ import annotations

import contextlib
import signal
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import redis

from chaos.ledger import Ledger, Reader
from chaos.plan import WORKERS
from chaos.servers import Bucket, Model, Process, Proxy, Redis, Worker, worker_settings
from chaos.watch import Watcher

QUEUE = "chaos"
INPUT = "uploads/cells.npy"
#: How long after a fault of Redis the clients may still pause.
SETTLING_S = 6.0


class Scene:
    """Redis with its proxy (or replica and Sentinel), the model server, the bucket and the workers.

    Args:
        folder: an empty folder for logs, data and the ledger.
        is_sentinel: whether Redis is a master, a replica and a Sentinel.
    """

    def __init__(self, folder: Path, *, is_sentinel: bool) -> None:
        self.folder = folder
        self.is_sentinel = is_sentinel
        self.ledger = Ledger(folder / "ledger.jsonl")
        self.reader = Reader(folder / "ledger.jsonl")
        self.watcher = Watcher(QUEUE, self.ledger, confirms=is_sentinel)
        self.bucket = Bucket(folder / "bucket")
        self.model = Model(folder / "model.log")
        self.servers = [Redis(folder / "redis-1", "redis")]
        self.proxy: Proxy | None = None
        self.sentinel: Redis | None = None
        self.workers: list[Worker] = []
        self._client: Any = None
        self._master = self.servers[0]
        self._disturbed_until = 0.0

    def __enter__(self) -> Scene:
        try:
            self._start()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def _start(self) -> None:
        np.save(self.bucket.folder / INPUT, np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16, 1))
        self.model.start()
        self._master.start()
        self._master.await_ready()
        port = self._start_sentinel() if self.is_sentinel else self._start_proxy()
        settings = worker_settings(self.folder, redis_port=port, model_port=self.model.read_port(), queue=QUEUE)
        if self.is_sentinel:
            settings["REDIS_WAIT_REPLICAS"] = "1"
        for number in range(WORKERS):
            self.workers.append(Worker(self.folder, number, settings))
            self.workers[-1].start_again(False)

    def _start_proxy(self) -> int:
        self.proxy = Proxy(self.folder / "proxy.log")
        return self.proxy.start(self._master.port)

    def _start_sentinel(self) -> int:
        replica = Redis(self.folder / "redis-2", "redis")
        self.servers.append(replica)
        replica.start(replica_of=self._master.port)
        replica.await_ready()
        self.sentinel = Redis(self.folder / "sentinel", "sentinel")
        self.sentinel.start_sentinel(self._master.port)
        self.sentinel.await_ready()
        return self.sentinel.port

    @property
    def processes(self) -> list[Process]:
        """All of them, in the order in which they are ended."""
        others: list[Process | None] = [self.model, self.proxy, self.sentinel, *self.servers]
        return [*self.workers, *(process for process in others if process is not None)]

    @property
    def client(self) -> Any:
        """A plain client of the master; `redis.RedisError` where there is none."""
        if self._client is None:
            if self.is_sentinel and self.find_master() is None:
                raise redis.ConnectionError("there is no master")
            self._client = self._master.connect()
        return self._client

    @property
    def master(self) -> Redis:
        """The server that took the last writes."""
        return self._master

    def find_master(self) -> Redis | None:
        """The server that is the master now."""
        for server in self.servers:
            with contextlib.suppress(redis.RedisError):
                client = server.connect()
                role = client.role()[0]
                client.close()
                if role == "master":
                    self._master = server
                    return server
        return None

    def look(self) -> bool:
        """Read the state of the jobs; False if Redis is unavailable."""
        self.watcher.listen(self.reader.new())
        if time.monotonic() < self._disturbed_until:
            self.watcher.disturb(kinds=("slot",))
        try:
            self.watcher.look(self.client)
        except redis.RedisError:
            self.disconnect()
            self.begin_redis_fault(is_down=True)
            return False
        return True

    def disconnect(self) -> None:
        """Forget the connection, and with it which server is the master."""
        if self._client is not None:
            self._client.close()
        self._client = None

    def begin_redis_fault(self, *, is_down: bool) -> None:
        """Say that Redis is down, or the way to it broken; recoveries meanwhile are counted apart."""
        self._disturbed_until = time.monotonic() + SETTLING_S
        self.watcher.disturb(kinds=("slot", "worker") if is_down else ("slot",))

    def end(self) -> None:
        """End every process by its id."""
        self.bucket.mend()
        for worker in self.workers:
            worker.send(signal.SIGCONT)
            worker.send(signal.SIGTERM)
        for process in self.processes:
            process.end()
        self.disconnect()
        self.reader.close()
