"""A redis-server is found, and processes end with their block."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from redis_consumer.cli import embedded
from redis_consumer.cli.embedded import find_redis_server, run_process, stop_on_signals, tail
from redis_consumer.errors import SettingsError


def program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_named_program_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    named = program(tmp_path / "mine")
    monkeypatch.setenv("REDIS_SERVER", str(named))
    assert find_redis_server() == str(named)


def test_program_on_the_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = program(tmp_path / "bin" / "redis-server")
    monkeypatch.delenv("REDIS_SERVER", raising=False)
    monkeypatch.setenv("PATH", str(found.parent))
    assert find_redis_server() == str(found)


def test_fetched_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fetched = program(tmp_path / ".tools" / "redis-server")
    monkeypatch.delenv("REDIS_SERVER", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(embedded, "FETCHED_SERVER", fetched)
    assert find_redis_server() == str(fetched)


def test_no_program_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("REDIS_SERVER", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(embedded, "FETCHED_SERVER", tmp_path / "nothing")
    with pytest.raises(SettingsError, match="apt install redis-server"):
        find_redis_server()


def test_named_program_that_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REDIS_SERVER", str(tmp_path))
    with pytest.raises(SettingsError, match="REDIS_SERVER"):
        find_redis_server()


def test_process_ends_with_its_block(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    with pytest.raises(ValueError, match="inside"), run_process(command, log=tmp_path / "log") as process:
        raise ValueError("inside")
    assert process.returncode == -signal.SIGTERM


def test_process_that_does_not_listen_is_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(embedded, "STOP_S", 0.2)
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    )
    log = tmp_path / "log"
    with run_process([sys.executable, "-c", code], log=log) as process:
        while not tail(log) and process.poll() is None:
            pass
    assert process.returncode == -signal.SIGKILL


def test_signal_ends_the_block_as_an_interrupt() -> None:
    with pytest.raises(KeyboardInterrupt), stop_on_signals():
        signal.raise_signal(signal.SIGTERM)


def test_tail_gives_the_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("1\n2\n3\n")
    assert tail(log, 2) == "2\n3"


def test_tail_of_no_log(tmp_path: Path) -> None:
    assert tail(tmp_path / "log") == ""
