"""Runs a model server for a benchmark: a real one in another process, which reports how busy it was."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks.worker import ROOT


@dataclass(frozen=True)
class Activity:
    """What the server did.

    Attributes:
        busy_s: seconds of work.
        span_s: seconds from its first call to its last answer.
        tiles: how many it was given.
        calls: in how many calls.
        cpu_s: seconds of the processor, for calls and replies.
    """

    busy_s: float
    span_s: float
    tiles: int
    calls: int
    cpu_s: float

    @property
    def busy_pct(self) -> float:
        """Part of the span in which it worked, in percent."""
        return round(100 * self.busy_s / self.span_s, 1)


class ModelServer:
    """The running server, which serves the model ``Echo:1``."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.address = f"127.0.0.1:{int(self._line().split()[1])}"

    def activity(self) -> Activity:
        """What it did since it was asked the last time."""
        assert self._process.stdin is not None  # noqa: S101 - opened as a pipe
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return Activity(**json.loads(self._line()))

    def _line(self) -> str:
        assert self._process.stdout is not None  # noqa: S101 - opened as a pipe
        return self._process.stdout.readline()


@contextmanager
def run_model_server(tile_ms: float) -> Iterator[ModelServer]:
    """Run `benchmarks.echo_server` until the block ends; it takes so long for each tile, one at a time."""
    command = [sys.executable, "-m", "benchmarks.echo_server", "--tile-ms", str(tile_ms)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield ModelServer(process)
        finally:
            process.kill()
