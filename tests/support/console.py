"""Runs the commands of a page, in order, in one shell, on a real Redis."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from code_blocks import Block
from support.documents import ROOT

#: What a reader has who has read the start page; a page that names its bucket itself has to name all of it.
GIVEN = {"REDIS_HOST": "localhost", "MODEL_SERVER": "onnx://", "NUCLEAR_MODEL": "NuclearSegmentation:1"}
#: Commands that go on until somebody ends them: they run beside those that follow.
_ENDLESS = re.compile(r"redis-consumer (.* )?(run|metrics)\b(?!.*--burst)|--watch|consume-redis-events\.py")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_STEP = "@@ step"
_LOG = "endless"
#: At the end, and where a command fails, nothing goes on; what was to go on until now must not have failed before.
_LEAVE = """leave() {
  code=$?
  set +e
  for each in "${endless[@]}"; do
    kill -TERM $each
    wait $each
    ended=$?
    [ $ended = 0 ] || [ $ended = 143 ] || code=$ended
  done
  exit $code
}
trap leave EXIT"""


@dataclass(frozen=True)
class Step:
    """One command, and the lines that the page shows below it."""

    command: str
    shown: tuple[str, ...] = ()


def steps_of(block: Block) -> Iterator[Step]:
    """The commands of a block: lines behind a ``$``, with those that go on in the next line."""
    text = re.sub(r"\\\n\s*", " ", block.text)
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, *shown = part.strip().splitlines()
        yield Step(command, tuple(line for line in shown if line.strip()))


def run_page(blocks: list[Block], folder: Path, redis_port: int) -> None:
    """Run the commands of a page; AssertionError where one fails or a line that the page shows isn't written.

    Numbers may differ, and ``…`` stands for anything.
    """
    steps = [step for block in blocks for step in steps_of(block)]
    _furnish(folder)
    names_its_bucket = any("STORAGE_BUCKET=" in step.command for step in steps)
    given = {} if names_its_bucket else {**GIVEN, "STORAGE_BUCKET": (folder / "bucket").as_uri()}
    path = f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, **given, "REDIS_PORT": str(redis_port), "PATH": path}
    code, output = _run(_script(steps, folder), folder, environment)
    logs = "".join(log.read_text() for log in folder.glob(f"{_LOG}-*.log"))
    assert code == 0, output + logs
    for step, written in zip(steps, output.split(f"{_STEP}\n")[1:], strict=True):
        lines = [_comparable(line) for line in written.splitlines()]
        for shown in step.shown:
            pattern = ".*".join(re.escape(part) for part in _comparable(shown).split("…"))
            assert any(re.fullmatch(pattern, line) for line in lines), (
                f"{shown!r} isn't in what was written:\n{written}"
            )


def _run(script: str, folder: Path, environment: dict[str, str]) -> tuple[int, str]:
    """Run a script to its end; where that takes too long, nothing that it started goes on."""
    with subprocess.Popen(
        ["bash", "-c", script],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as shell:
        try:
            output, _ = shell.communicate()
        except BaseException:  # the time limit of the test
            os.killpg(shell.pid, signal.SIGKILL)
            raise
    return shell.returncode, output


def _furnish(folder: Path) -> None:
    """Make the folder what a clone of the project is after ``make setup``, with an image of the reader's own."""
    for name in ("data", "docs/examples", "examples"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "data" / "nuclei.tif", folder / "cells.tif")
    shutil.copy(ROOT / "consume-redis-events.py", folder)
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / "bin").mkdir()
    client = folder / "bin" / "redis-cli"
    client.write_text(
        f'#!/bin/sh\nexec {Path(os.environ["REDIS_SERVER"]).with_name("redis-cli")} -p "$REDIS_PORT" "$@"\n'
    )
    client.chmod(0o755)
    (folder / "bucket").mkdir()


def _script(steps: list[Step], folder: Path) -> str:
    lines = ["set -e", "endless=()", _LEAVE]
    for number, step in enumerate(steps):
        lines.append(f"echo '{_STEP}'")
        if _ENDLESS.search(step.command):
            log = folder / f"{_LOG}-{number}.log"
            lines += [f'{step.command} >"{log}" 2>&1 &', "endless+=($!)"]
            sign = "." if "--watch" in step.command else "Ready:"
            lines.append(f'until grep -q "{sign}" "{log}" || ! kill -0 $! 2>/dev/null; do sleep 0.05; done')
        else:
            lines.append(step.command)
    return "\n".join(lines)


def _comparable(line: str) -> str:
    """A line without what differs from run to run: numbers, and how far it is indented."""
    return _NUMBER.sub("0", " ".join(line.split()))
