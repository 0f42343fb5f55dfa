"""Runs a Redis and a worker as processes of a command, and stops them when it ends, also when it is killed."""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from redis_consumer.errors import RedisUnavailable, SettingsError
from redis_consumer.redis import RedisClient
from redis_consumer.redis_servers import Access
from redis_consumer.settings import Settings

SERVER_VARIABLE = "REDIS_SERVER"
#: Where `make setup` installs the program, in the clone that contains this file.
FETCHED_SERVER = Path(__file__).resolve().parents[3] / ".tools" / "redis" / "redis-server"
START_S, STOP_S = 10.0, 10.0


@dataclass(frozen=True)
class RedisServer:
    """A Redis that a command has started, on the loopback address only.

    Attributes:
        host: its address.
        port: its port.
        password: its password.
        pid: its process id.
    """

    host: str
    port: int
    password: str
    pid: int


def find_redis_server() -> str:
    """Find redis-server: named by REDIS_SERVER, on the PATH, or installed by `make` in ``.tools``.

    Raises:
        SettingsError: it was not found; the message says how to install it.
    """
    named = os.environ.get(SERVER_VARIABLE, "")
    for candidate in (named, shutil.which("redis-server"), str(FETCHED_SERVER)):
        if candidate and os.access(candidate, os.X_OK) and Path(candidate).is_file():
            return str(Path(candidate).resolve())
        if named:
            raise SettingsError(f"{SERVER_VARIABLE} = {named!r}: not a program; set it to the path of redis-server")
    raise SettingsError(
        "no redis-server found; install Redis (apt install redis-server, brew install redis), run `make setup`, "
        f"or name the program in {SERVER_VARIABLE}"
    )


@contextmanager
def run_redis(
    program: str | None = None, *, kept_in: Path | None = None, inherited: Sequence[int] = ()
) -> Iterator[RedisServer]:
    """Run a Redis, and stop it at the end of the block.

    Args:
        program: path of redis-server; None for the one that is found.
        kept_in: folder in which its data stay; None for an empty Redis that stores nothing.
        inherited: open files that it keeps open as long as it lives.

    Raises:
        SettingsError: redis-server was not found.
        RedisUnavailable: it does not start.
    """
    program = program or find_redis_server()
    password = secrets.token_urlsafe(24)
    with contextlib.ExitStack() as stack:
        if kept_in is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="redis-consumer-"))
        else:
            folder = str(kept_in)
        port = _free_port()
        config = Path(folder) / "redis.conf"
        # In a file, since all users of the machine can read the command line and so the password.
        config.touch(mode=0o600)
        config.write_text(
            f'bind 127.0.0.1\nport {port}\nrequirepass {password}\nsave ""\n'
            f'appendonly {"no" if kept_in is None else "yes"}\ndir "{folder}"\n',
            encoding="utf-8",
        )
        log = Path(folder) / "redis.log"
        with run_process([program, str(config)], log=log, inherited=inherited) as process:
            _wait_for_redis(process, port, password, log)
            yield RedisServer("127.0.0.1", port, password, process.pid)


@contextmanager
def run_worker(
    environment: Mapping[str, str], *, log: Path, arguments: Sequence[str] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``redis-consumer run`` in a separate process, and stop it at the end of the block.

    Args:
        environment: settings of the worker. It reads no settings of this process and no settings files.
        log: file for its output.
        arguments: further arguments of the command.
    """
    ours = {field.upper() for field in Settings.model_fields} | {"REDIS_CONSUMER_CONFIG"}
    inherited = {name: value for name, value in os.environ.items() if name not in ours}
    command = [sys.executable, "-m", "redis_consumer", "run", *arguments]
    with (
        tempfile.TemporaryDirectory(prefix="redis-consumer-") as folder,
        run_process(command, log=log, environment={**inherited, **environment}, folder=folder) as process,
    ):
        yield process


@contextmanager
def run_process(
    command: list[str],
    *,
    log: Path,
    environment: Mapping[str, str] | None = None,
    folder: str | None = None,
    inherited: Sequence[int] = (),
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program in its own process group, so that Ctrl-C reaches only this process. Stop it after the block.

    If this process is killed, the program is killed too.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - the commands are ours
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=folder,
            start_new_session=True,
            pass_fds=inherited,
            preexec_fn=_die_with(os.getpid()) if sys.platform == "linux" else None,
        )
    guard = None if sys.platform == "linux" else guard_of(process.pid)
    try:
        yield process
    finally:
        if guard is not None:
            _end(guard)
        _end(process)


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """Make SIGTERM and SIGHUP end the block as Ctrl-C does, so that the processes it started are stopped."""

    def interrupt(number: int, _frame: object) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    previous = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _die_with(parent: int) -> Callable[[], None]:
    """Return a function that lets the process that calls it end with its parent (Linux)."""
    prctl, pr_set_pdeathsig = ctypes.CDLL(None).prctl, 1

    def tie() -> None:
        prctl(pr_set_pdeathsig, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return tie


def guard_of(pid: int) -> subprocess.Popen[bytes]:
    """Start a shell that kills a process group when this process ends, for systems that cannot do that themselves."""
    return subprocess.Popen(  # noqa: S603 - the command is ours
        ["/bin/sh", "-c", f"cat >/dev/null; kill -KILL -{pid}"], stdin=subprocess.PIPE, start_new_session=True
    )


def tail(log: Path, lines: int = 20) -> str:
    """Return the last lines of a log."""
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]) if log.exists() else ""


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for_redis(process: subprocess.Popen[bytes], port: int, password: str, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        with socket.socket() as probe:
            probe.settimeout(1.0)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                client = RedisClient("127.0.0.1", port, 0.05, access=Access(password=password), deadline_s=START_S)
                client.ping()
                client.close()
                return
        time.sleep(0.01)
    raise RedisUnavailable(f"the embedded redis-server does not start. Its log ends with: {tail(log, 3) or 'nothing'}")
