"""``redis-consumer start``: runs everything on one machine: Redis, a worker and the web server."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import threading
import time
import webbrowser
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Annotated

import typer
from pydantic import SecretStr

from redis_consumer.app import read_settings, start_logs
from redis_consumer.cli import options
from redis_consumer.cli.embedded import RedisServer, run_redis, run_worker, stop_on_signals, tail
from redis_consumer.cli.output import fail, notes, say
from redis_consumer.cli.server.serve import Port, listen, run_server
from redis_consumer.errors import EXIT_FAILED, SettingsError
from redis_consumer.settings import Settings, load_settings, revealed

#: Queues that the worker serves, by the consumer of each.
SERVED = {"image": "predict", "zip": "predict-zip", "tracking": "track"}
#: Seconds for running jobs at the end.
_GRACE_S = "5"
#: Seconds in which the processes of a killed command end.
_LOCK_WAIT_S = 5.0
#: Settings that this command decides; the others are those of the environment.
_DECIDED = (
    "REDIS_",
    "STORAGE_BUCKET",
    "CLOUD_PROVIDER",
    "AWS_S3_BUCKET",
    "GKE_BUCKET",
    "QUEUE",
    "CONSUMER_TYPE",
    "WEB_",
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=notes("redis-consumer start", "redis-consumer start --port 8090 --no-browser --folder ~/segmentation")
    )(start)


def start(
    port: Port = 8080,
    folder: Annotated[
        str, typer.Option("--folder", help="Folder for uploads, results and history.", metavar="FOLDER")
    ] = "~/redis-consumer",
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.")] = True,
    model_server: options.ModelServer = None,
) -> None:
    """Run everything on this machine: Redis, a worker and the web server.

    The worker takes images, archives and movies. Only this machine can reach the
    server. The command runs until Ctrl-C, and keeps uploads, results and history in
    its folder for the next start. It needs the extras `web` and `onnx`.
    """
    place = Path(folder).expanduser().absolute()
    with stop_on_signals(), suppress(KeyboardInterrupt), ExitStack() as stack:
        lock = stack.enter_context(_locked(place))
        listener = stack.enter_context(listen("127.0.0.1", port))
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        os.pwrite(lock, address.ljust(80).encode(), 0)
        say(f"Starting; results and history stay in {place}")
        redis = stack.enter_context(run_redis(kept_in=_made(place / "redis"), inherited=[lock]))
        values = _environment(redis, place, model_server)
        arguments = [f"--serve={kind}={queue}" for kind, queue in SERVED.items()]
        log = place / "worker.log"
        worker = stack.enter_context(run_worker(values, log=log, arguments=arguments))
        _watch({"worker": worker.pid, "Redis": redis.pid})
        os.environ.update(values)
        loaded = read_settings()
        start_logs(loaded)
        if browser and _has_display():
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
        run_server(loaded, listener, is_loopback=True)
        if worker.poll() is not None:
            fail(
                f"the worker ended with exit code {worker.returncode}. Its log ends with:\n{tail(log, 5)}", EXIT_FAILED
            )


def _environment(redis: RedisServer, place: Path, model_server: str | None) -> dict[str, str]:
    """Return the settings of worker and server: those of this command, and others that are set."""
    given = load_settings(model_server=model_server)
    kept = {
        name: str(revealed(value) if isinstance(value, SecretStr) else value)
        for name, value in ((field.upper(), getattr(given, field)) for field in Settings.model_fields)
        if given.is_given(name) and not name.startswith(_DECIDED)
    }
    return {
        "MODEL_SERVER": "onnx://",
        "LOG_LEVEL": "INFO",
        "GRACE_PERIOD": _GRACE_S,
        **kept,
        "REDIS_HOST": redis.host,
        "REDIS_PORT": str(redis.port),
        "REDIS_PASSWORD": redis.password,
        "STORAGE_BUCKET": _made(place / "bucket").as_uri(),
        "WEB_FOLDER": str(_made(place / "web")),
        "WEB_AUTH": "none",
        "JOB_TYPES": "predict,track",
    }


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


@contextmanager
def _locked(place: Path) -> Iterator[int]:
    """Hold the lock of a folder, which also Redis holds: no second one may write to the same files.

    Raises:
        SettingsError: the command runs there already, or the folder can't be made.
    """
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(place / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise SettingsError(f"--folder {place}: can't be used ({error.strerror}); name another folder") from error
    try:
        deadline = time.monotonic() + _LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() > deadline:
                    address = os.pread(lock, 200, 0).decode("utf-8", "replace").strip()
                    raise SettingsError(
                        f"--folder {place}: redis-consumer start already runs there, at {address}; open that page, "
                        "stop it, or name another folder"
                    ) from None
                time.sleep(0.05)
        yield lock
    finally:
        os.close(lock)


def _watch(pids: Mapping[str, int]) -> None:
    """End this command when a process ends that it needs."""

    def wait(name: str, pid: int) -> None:
        with suppress(ChildProcessError):
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            say(f"The {name} has ended.")
            os.kill(os.getpid(), signal.SIGTERM)

    for name, pid in pids.items():
        threading.Thread(target=wait, args=(name, pid), daemon=True).start()


def _has_display() -> bool:
    return sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
