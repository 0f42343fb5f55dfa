"""The server with a worker, as processes of their own, for tests of the page."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from support.redis_server import RedisServer

TIMEOUT_S = 60.0
#: What the processes see of the environment, besides their own settings.
_KEPT = ("PATH", "HOME", "TMPDIR", "LANG", "VIRTUAL_ENV", "ORT_DISABLE_TELEMETRY", "COV", "PYTHON", "OPENBLAS")


@dataclass
class PageServer:
    """``redis-consumer serve`` and a worker for images, on a Redis and a bucket of their own.

    Attributes:
        folder: for all files.
        redis: of both.
        settings: more environment variables of both.
        address: of the page.
    """

    folder: Path
    redis: RedisServer
    settings: dict[str, str] = field(default_factory=dict)
    address: str = ""
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @classmethod
    def make(cls, folder: Path, **settings: str) -> PageServer:
        (folder / "bucket").mkdir()
        return cls(folder, RedisServer(folder).start(), settings)

    def serve(self, port: int = 0) -> PageServer:
        """Start the server, and wait for its address."""
        self._start("serve", "--port", str(port))
        deadline = time.monotonic() + TIMEOUT_S
        while not (found := re.search(r"http://127\.0\.0\.1:\d+", self.log_of("serve"))):
            assert self.processes["serve"].poll() is None, self.log_of("serve")
            assert time.monotonic() < deadline
            time.sleep(0.02)
        self.address = found[0]
        return self

    def work(self) -> PageServer:
        """Start the worker. Jobs wait until it is ready."""
        self._start("run")
        return self

    def stop(self, name: str) -> None:
        """Stop ``serve`` or ``run``."""
        process = self.processes.pop(name, None)
        if process is not None:
            process.send_signal(signal.SIGTERM)
            process.wait(TIMEOUT_S)

    def close(self) -> None:
        """Stop all of it."""
        for name in list(self.processes):
            self.stop(name)
        self.redis.stop()

    def log_of(self, name: str) -> str:
        """What a process has written."""
        return (self.folder / f"{name}.log").read_text(encoding="utf-8")

    def _start(self, *arguments: str) -> None:
        environment = {name: value for name, value in os.environ.items() if name.startswith(_KEPT)}
        environment |= {
            "REDIS_HOST": "127.0.0.1",
            "REDIS_PORT": str(self.redis.port),
            "STORAGE_BUCKET": (self.folder / "bucket").as_uri(),
            "MODEL_SERVER": "onnx://",
            "WEB_FOLDER": str(self.folder / "web"),
            "PYTHONUNBUFFERED": "1",
            **self.settings,
        }
        with (self.folder / f"{arguments[0]}.log").open("wb") as log:
            command = [sys.executable, "-m", "redis_consumer", *arguments]
            self.processes[arguments[0]] = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=log, stderr=subprocess.STDOUT
            )
