"""The embedded Redis starts, requires its password, and ends."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
import redis

from redis_consumer.cli.embedded import run_redis
from redis_consumer.errors import RedisUnavailable


def test_redis_runs_within_its_block() -> None:
    with run_redis() as server:
        client = redis.Redis(server.host, server.port, password=server.password)
        assert client.ping()
        client.close()
    assert not psutil.pid_exists(server.pid)


def test_redis_asks_for_its_password() -> None:
    with run_redis() as server:
        client = redis.Redis(server.host, server.port)
        with pytest.raises(redis.AuthenticationError):
            client.ping()
        client.close()


def test_password_is_in_no_command_line() -> None:
    with run_redis() as server:
        assert server.password not in " ".join(psutil.Process(server.pid).cmdline())


def test_program_that_is_no_redis_is_named(tmp_path: Path) -> None:
    program = tmp_path / "redis-server"
    program.write_text("#!/bin/sh\necho I am no Redis\n")
    program.chmod(0o755)
    with pytest.raises(RedisUnavailable, match="I am no Redis"), run_redis(str(program)):
        pass
