"""The consumer of the page on external programs does what the page says."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import pytest

from redis_consumer import settings, testing
from redis_consumer.job import Job
from support.documents import ROOT

COPY = 'echo working >&2\necho "$1" > "$3"\ncat "$2" >> "$3"\n'


@pytest.fixture(autouse=True)
def _examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs" / "examples")


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Makes a script the operator's program; gives its path."""

    def write(text: str) -> Path:
        path = tmp_path / "tool"
        path.write_text(f"#!/bin/sh\n{text}")
        path.chmod(0o755)
        monkeypatch.setenv("PROGRAM", str(path))
        settings.use(None)
        return path

    return write


def run(**fields: Any) -> testing.JobRun:
    return testing.run("external_program:ExternalProgram", b"pixels", original_name="cells.tif", **fields)


def is_alive(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return not Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
    return False


def pid_in(path: Path) -> int:
    deadline = time.monotonic() + 60
    while not (path.exists() and path.read_text().strip()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return int(path.read_text())


def ends(pid: int) -> bool:
    deadline = time.monotonic() + 60
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not is_alive(pid)


class TestExternalProgram(testing.ConsumerContract):
    consumer = "external_program:ExternalProgram"
    bad_inputs: ClassVar[dict[str, bytes]] = {"cut.tif": b"II*\0", "notes.txt": b"This is no image.\n"}

    @pytest.fixture(autouse=True)
    def _tool(self, program: Callable[[str], Path]) -> None:
        program(
            'case "$(head -c 4 "$2" | tr -d "\\000")" in "II*" | This) echo "no image: $2" >&2; exit 3;; esac\n' + COPY
        )


def test_what_the_program_writes_is_the_result(program: Callable[[str], Path]) -> None:
    program(COPY)
    done = run(sensitivity=7)
    assert done.status == "done", done.reason
    assert done.files["result.csv"] == b"-s7\npixels"


def test_its_error_is_the_reason_without_paths(program: Callable[[str], Path]) -> None:
    path = program('echo starting >&2\necho "cannot read $2: see $0" >&2\nexit 3\n')
    done = run()
    assert done.status == "failed"
    assert done.reason == "InvalidImage: cells.tif: cannot read cells.tif: see tool"
    assert str(path.parent) not in done.reason


def test_without_a_word_the_exit_code_is_the_reason(program: Callable[[str], Path]) -> None:
    program("exit 9\n")
    assert run().reason == "InvalidImage: cells.tif: exit code 9"


def test_the_time_limit_ends_the_program_and_its_children(
    program: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(f"sleep 600 &\necho $! > {tmp_path}/child\nwait\n")
    monkeypatch.setenv("PROGRAM_TIMEOUT_S", "2")
    done = run()
    assert done.reason == "InvalidImage: cells.tif: the program took more than 2 s; submit a smaller image"
    assert ends(pid_in(tmp_path / "child"))


def test_a_cancelled_job_ends_the_program_and_its_children(program: Callable[[str], Path], tmp_path: Path) -> None:
    program(f"sleep 600 &\necho $! > {tmp_path}/child\nwait\n")
    with testing.Workbench("external_program:ExternalProgram") as bench:
        results: list[Any] = []
        thread = Thread(target=lambda: results.append(bench.run(b"pixels", original_name="cells.tif")))
        thread.start()
        child = pid_in(tmp_path / "child")
        bench.cancel(Job("test:cells.tif:1"))
        thread.join(60)
    assert "JobCancelled" in results[0].reason
    assert ends(child)


def test_a_job_cannot_choose_the_program(program: Callable[[str], Path]) -> None:
    program(COPY)
    assert "field program: only the operator sets this option" in run(program="/bin/true").reason
