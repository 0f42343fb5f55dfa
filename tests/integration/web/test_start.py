"""`redis-consumer start`: what is kept when it ends or is killed, and what it refuses."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from redis_consumer.cli.embedded import guard_of
from redis_consumer.cli.server import start as start_command
from redis_consumer.cli.server.serve import check_login, is_of_this_machine, listen
from redis_consumer.errors import SettingsError
from redis_consumer.settings import Settings
from support.cli import CommandLine

WAIT_S = 60.0
#: Runs a Redis in a folder, and says its address and process id.
RUN_REDIS = """
import sys, time
from pathlib import Path
from redis_consumer.cli.embedded import run_redis
from redis_consumer.cli.server.start import _locked
with _locked(Path(sys.argv[1])) as lock, run_redis(kept_in=Path(sys.argv[1]), inherited=[lock]) as redis:
    print(redis.port, redis.password, redis.pid, flush=True)
    time.sleep(600)
"""


def wait_until(is_so: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + WAIT_S
    while not (found := is_so()):
        assert time.monotonic() < deadline, f"no {what} within {WAIT_S} s"
        time.sleep(0.02)
    return found


def all_gone(processes: list[psutil.Process]) -> bool:
    return all(not each.is_running() or each.status() == psutil.STATUS_ZOMBIE for each in processes)


def start_redis(folder: Path) -> tuple[subprocess.Popen[str], Any, psutil.Process]:
    import redis

    command = [sys.executable, "-c", RUN_REDIS, str(folder)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
    assert parent.stdout is not None
    port, password, pid = parent.stdout.readline().split()
    client = redis.Redis("127.0.0.1", int(port), password=password, decode_responses=True)
    return parent, client, psutil.Process(int(pid))


def test_a_killed_redis_keeps_its_data_and_ends(tmp_path: Path) -> None:
    """It holds the lock of the folder until it has ended, so two of them never write to the same files."""
    for round_number in range(2):
        parent, client, server = start_redis(tmp_path)
        with parent:
            assert client.lrange("predict", 0, -1) == [str(number) for number in reversed(range(round_number))]
            client.lpush("predict", str(round_number))
            client.close()
            parent.kill()
        wait_until(partial(all_gone, [server]), "end of Redis")


def test_the_guard_of_other_systems() -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    guard = guard_of(process.pid)
    assert guard.stdin is not None
    guard.stdin.close()  # as the kernel does when this process ends
    assert process.wait(WAIT_S) == -signal.SIGKILL
    guard.wait(WAIT_S)


def test_a_second_start_on_the_same_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start_command, "_LOCK_WAIT_S", 0.0)
    with start_command._locked(tmp_path) as lock:
        os.pwrite(lock, b"http://127.0.0.1:8080", 0)
        with (
            pytest.raises(SettingsError, match="already runs there, at http://127.0.0.1:8080; open"),
            start_command._locked(tmp_path),
        ):
            pass
    with start_command._locked(tmp_path):
        pass


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(SettingsError, match="--folder .*; name another folder"),
        start_command._locked(tmp_path / "file"),
    ):
        pass


def test_a_port_in_use() -> None:
    with listen("127.0.0.1", 0) as first, pytest.raises(SettingsError, match="Address already in use.*choose another"):
        listen("127.0.0.1", first.getsockname()[1])
    for host in ("127.0.0.1", "localhost", "::1", "[::1]"):
        assert is_of_this_machine(host)
    with pytest.raises(SettingsError, match="can't listen on 203"):
        listen("203.0.113.5", 0)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_without_login_only_this_machine_is_served(host: str) -> None:
    assert not is_of_this_machine(host)
    with pytest.raises(SettingsError, match="WEB_AUTH=none lets everybody in"):
        check_login(Settings(), host, is_open=False)
    check_login(Settings(), host, is_open=True)
    check_login(Settings(web_auth="token"), host, is_open=False)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_killed_at_any_moment(tmp_path: Path, seed: int) -> None:
    """No process is left and no job is lost, whenever the command is killed."""
    dice = random.Random(seed)
    folder, sent = tmp_path / "work", []
    for round_number in range(4):
        process = CommandLine(tmp_path).start("start", "--no-browser", "--port", "0", "--folder", folder)
        parent = psutil.Process(process.pid)
        is_early = dice.random() < 0.4
        if is_early:
            time.sleep(dice.uniform(0.2, 6.0))
        else:
            address = _address_of(process)
            body = {"jobType": "predict", "imageName": f"image-{round_number}.tif", "uploadedName": "uploads/none.tif"}
            with httpx.Client(base_url=address, timeout=30) as http:
                for number in range(5):
                    sent.append(http.post("/api/predict", json={**body, "cuts": number}).json()["hash"])
            time.sleep(dice.uniform(0.0, 2.0))
        family = [parent, *parent.children(recursive=True)] if parent.is_running() else []
        process.send_signal(dice.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
        process.communicate(timeout=WAIT_S)
        wait_until(partial(all_gone, family), "end of all processes")
    process = CommandLine(tmp_path).start("start", "--no-browser", "--port", "0", "--folder", folder)
    with httpx.Client(base_url=_address_of(process), timeout=30) as http:

        def statuses() -> list[str]:
            return [http.post("/api/status", json={"hash": key}).json()["status"] for key in sent]

        # The image does not exist, so each job ends with the reason.
        wait_until(lambda: set(statuses()) <= {"failed"}, "end of all jobs")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=WAIT_S)


def _address_of(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(r"Serving (http://[\d.:]+)", line):
            return found[1]
    raise AssertionError(f"the command ended with {process.wait()}")
