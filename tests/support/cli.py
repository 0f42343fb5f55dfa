"""Runs the command line as people do: a process of its own, on a Redis and a bucket of the test's own."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

#: A consumer that needs no model: its result holds the input.
COPYING_CONSUMER = """
import zipfile
from pathlib import Path
from redis_consumer.consumers.base import Consumer
from redis_consumer.errors import InvalidImage


class Copier(Consumer):
    def _consume(self, redis_hash):
        fields = self.redis.hgetall(redis_hash)
        self.update_key(redis_hash, {"status": "predicting", "progress": 50})
        folder = Path("work")
        folder.mkdir(exist_ok=True)
        path = Path(self.storage.download(fields["input_file_name"], str(folder)))
        if not path.stat().st_size:
            raise InvalidImage(f"{fields['original_name']}: the file is empty; upload it again")
        name = folder / f"{path.stem}.zip"
        with zipfile.ZipFile(name, "w") as archive:
            archive.write(path, fields["original_name"])
        key, url = self.storage.upload(str(name))
        self.update_key(redis_hash, {"status": self.final_status, "output_file_name": key, "output_url": url})
        return self.final_status
"""


_started: list[subprocess.Popen[str]] = []


def end_started() -> None:
    """Kill the commands that still run, after a test that failed."""
    while _started:
        with _started.pop() as process:
            process.kill()


@dataclass(frozen=True)
class CommandLine:
    """The command line in a folder, with settings for a Redis and a bucket.

    Attributes:
        folder: working directory.
        settings: environment variables.
    """

    folder: Path
    settings: dict[str, str] = field(default_factory=dict)

    @classmethod
    def make(cls, folder: Path, redis_port: int) -> CommandLine:
        (folder / "bucket").mkdir()
        (folder / "copying.py").write_text(COPYING_CONSUMER)
        settings = {
            "REDIS_HOST": "127.0.0.1",
            "REDIS_PORT": str(redis_port),
            "STORAGE_BUCKET": (folder / "bucket").as_uri(),
            "CONSUMER_TYPE": "copying:Copier",
            "MODEL_SERVER": "onnx://",
        }
        return cls(folder, settings)

    def run(self, *arguments: str | Path, timeout_s: float = 60.0, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            self._command(arguments),
            cwd=self.folder,
            env=self._environment(settings),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def start(self, *arguments: str | Path, **settings: str) -> subprocess.Popen[str]:
        """Start a command; whoever starts it ends it, `end_started` where that failed."""
        process = subprocess.Popen(
            self._command(arguments),
            cwd=self.folder,
            env=self._environment(settings),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        _started.append(process)
        return process

    def _command(self, arguments: tuple[str | Path, ...]) -> list[str]:
        return [sys.executable, "-m", "redis_consumer", *map(str, arguments)]

    def _environment(self, settings: dict[str, str]) -> dict[str, str]:
        return {**os.environ, **self.settings, **settings}
