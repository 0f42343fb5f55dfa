"""Runs the command line on a Redis and a bucket of the test's own: workers in a process each, other commands here."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

from redis_consumer import settings as all_settings
from redis_consumer.cli import main

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

#: A command in a process of its own ends earlier; less than the time limit of a test.
TIMEOUT_S = 110.0
#: Commands that start workers, or handle signals while they run.
_OWN_PROCESS = {"run", "demo", "metrics"}

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

    def run(self, *arguments: str | Path, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, in this process unless it is one of `_OWN_PROCESS`."""
        if arguments and arguments[0] in _OWN_PROCESS:
            return self.run_process(*arguments, **settings)
        return self._run_here([str(each) for each in arguments], self._environment(settings))

    def _run_here(self, arguments: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        output = io.TextIOWrapper(io.BytesIO(), "utf-8", "strict")
        errors = io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace")
        code: object = 0
        with self._entered(arguments, environment), redirect_stdout(output), redirect_stderr(errors):
            try:
                main()
            except SystemExit as end:
                code = end.code
            except Exception:  # noqa: BLE001 - a process shows it and ends with code 1
                traceback.print_exc()
                code = 1
        return subprocess.CompletedProcess(arguments, int(str(code or 0)), _text_of(output), _text_of(errors))

    @contextmanager
    def _entered(self, arguments: list[str], environment: dict[str, str]) -> Iterator[None]:
        """Be what a new process in the folder would be: its variables, and no settings or modules of the folder yet."""
        before, folder = set(sys.modules), Path.cwd()
        paths = mock.patch.object(sys, "path", [str(self.folder), *sys.path])
        named = mock.patch.object(sys, "argv", ["redis-consumer", *arguments])
        with mock.patch.dict(os.environ, environment, clear=True), paths, named:
            os.chdir(self.folder)
            all_settings.use(None)
            try:
                yield
            finally:
                os.chdir(folder)
                all_settings.use(None)
                for name in set(sys.modules) - before:
                    if str(getattr(sys.modules[name], "__file__", "")).startswith(str(self.folder)):
                        del sys.modules[name]

    def run_process(self, *arguments: str | Path, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, in a process of its own."""
        return subprocess.run(
            self._command(arguments),
            cwd=self.folder,
            env=self._environment(settings),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )

    def start(self, *arguments: str | Path, **settings: str) -> subprocess.Popen[str]:
        """Start a command. The caller ends it, or `end_started` where that failed."""
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


def _text_of(stream: io.TextIOWrapper) -> str:
    stream.seek(0)
    return stream.read()
