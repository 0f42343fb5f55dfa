"""Fixtures that most tests share: a real Redis, and no way for a setting of the machine to leak in."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from redis_consumer import settings
from redis_consumer.cli.embedded import SERVER_VARIABLE, find_redis_server
from redis_consumer.logs import HANDLER_NAME
from redis_consumer.redis import RedisClient
from support.cli import end_started
from support.redis_server import RedisServer

# They hold no tests, and some need what only another environment has.
collect_ignore_glob = ["support/*", "chaos/[!t]*"]

pytest_plugins = ["fixtures_charts", "fixtures_serving", "fixtures_storage", "redis_consumer.testing.fixtures"]

# Found while the working directory still is the repository's root.
os.environ[SERVER_VARIABLE] = find_redis_server()

# No test is timed: another load on the machine is no fault of the code. pytest-timeout ends what hangs.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

# A shell starts what runs in its background with SIGINT ignored, and so would be the commands that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

KEPT = (
    "PATH",
    "HOME",
    "TMPDIR",
    "LANG",
    "LC_ALL",
    "REDIS_SERVER",
    "REDIS_TLS_SERVER",
    "VALKEY_SERVER",
    "VIRTUAL_ENV",
    "CI",
    "ORT_DISABLE_TELEMETRY",
)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Each test starts in an empty folder with no variable of ours, and with settings not yet read."""
    for name in list(os.environ):
        if name not in KEPT and not name.startswith(("PYTEST", "COV", "OPENBLAS", "PYTHON")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    settings.use(None)
    yield
    settings.use(None)


@pytest.fixture(autouse=True)
def _ended_commands() -> Iterator[None]:
    """No command that a test started outlives it."""
    yield
    end_started()


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    """What a test does to the logs of the process ends with it."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    root.setLevel(level)
    for handler in root.handlers[:]:
        if handler.get_name() == HANDLER_NAME and handler not in handlers:
            root.removeHandler(handler)
    logging.captureWarnings(False)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One server for the whole run; take `redis_db` to find it empty."""
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.stop()


@pytest.fixture
def redis_db(redis_server: RedisServer) -> Iterator[Any]:
    """A plain client of an empty Redis, as a stranger would use it."""
    client = redis_server.client
    client.flushall()
    yield client
    client.close()


@pytest.fixture
def redis_client(redis_server: RedisServer, redis_db: Any) -> Iterator[RedisClient]:
    """Our own client of the same, empty Redis."""
    client = RedisClient("127.0.0.1", redis_server.port, 0.05, deadline_s=20)
    yield client
    client.close()
