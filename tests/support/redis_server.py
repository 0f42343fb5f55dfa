"""A real redis-server (or Sentinel) of a test's own, on loopback, that can be stopped, restarted and killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis

from redis_consumer.cli.embedded import find_redis_server

START_TIMEOUT_S = 20.0


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


TOOLS = Path(__file__).parents[2] / ".tools" / "redis-servers"


def other_server(name: str) -> str:
    """Program of another server: ``redis-server``, with TLS, or ``valkey-server``; skips the test without it.

    REDIS_TLS_SERVER or VALKEY_SERVER name it; `make redis-servers` brings both.
    """
    variable = {"redis-server": "REDIS_TLS_SERVER", "valkey-server": "VALKEY_SERVER"}[name]
    named = os.environ.get(variable) or str(TOOLS / name)
    if not os.access(named, os.X_OK):
        pytest.skip(f"there is no {name} for this test; name one in {variable}, or run `make redis-servers`")
    return named


class RedisServer:
    """One redis-server process; its data outlive a restart where `is_durable`.

    Args:
        folder: for its files.
        replica_of: port of its master.
        is_durable: whether its data outlive a restart.
        program: in place of the server of all tests.
        options: more arguments for it, which win.
        connect: how the client connects, such as user and certificates.
    """

    def __init__(
        self,
        folder: Path,
        *,
        replica_of: int | None = None,
        is_durable: bool = False,
        program: str = "",
        options: Sequence[str] = (),
        connect: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder = folder
        self.program = program
        self.options = options
        self.connect = connect or {}
        self.port = free_port()
        self.replica_of = replica_of
        self.is_durable = is_durable
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def client(self) -> Any:
        """A plain client, as a stranger would use it."""
        return redis.Redis("127.0.0.1", self.port, decode_responses=True, socket_timeout=5, **self.connect)

    def start(self) -> RedisServer:
        options = ["--save", "", "--appendonly", "yes" if self.is_durable else "no", "--appendfsync", "always"]
        if self.replica_of is not None:
            options += ["--replicaof", "127.0.0.1", str(self.replica_of), "--repl-diskless-sync-delay", "0"]
        self._launch(options)
        return self

    def start_sentinel(self, master_port: int, *others: str) -> RedisServer:
        config = self.folder / f"sentinel-{self.port}.conf"
        lines = [
            f"sentinel monitor mymaster 127.0.0.1 {master_port} 1",
            "sentinel down-after-milliseconds mymaster 500",
            "sentinel failover-timeout mymaster 3000",
            *others,
        ]
        config.write_text("\n".join(lines) + "\n")
        self._launch([], config=config, arguments=["--sentinel"])
        return self

    def _launch(self, options: list[str], *, config: Path | None = None, arguments: list[str] | None = None) -> None:
        command = [self.program or str(find_redis_server()), *([str(config)] if config else [])]
        command += ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), *options, *self.options]
        with (self.folder / f"redis-{self.port}.log").open("ab") as log:
            self.process = subprocess.Popen([*command, *(arguments or [])], stdout=log)
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                self.client.ping()
                return
            except redis.ConnectionError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self.process is not None:
            os.kill(self.process.pid, number)
            self.process.wait(START_TIMEOUT_S)
            self.process = None
