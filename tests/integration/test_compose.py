"""The Redis of compose.yaml starts with the options given there."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import redis
import yaml

from redis_consumer.cli.embedded import find_redis_server
from support.documents import ROOT
from support.redis_server import free_port
from support.worker import wait_for

#: What the shell or the file of Redis could take for something else.
PASSWORD = r"""3f"9\b$0d' \"%s"""


def test_the_redis_asks_for_a_password_and_keeps_its_jobs(tmp_path: Path) -> None:
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())
    shell, option, script = compose["services"]["redis"]["command"]
    port = free_port()
    here = script.replace("$$", "$").replace("dir /data", f"dir {tmp_path}\nbind 127.0.0.1\nport {port}")
    path = f"{Path(find_redis_server()).parent}:{os.environ['PATH']}"
    with subprocess.Popen([shell, option, here], env={"PATH": path, "REDIS_PASSWORD": PASSWORD}) as server:
        try:
            client = redis.Redis("127.0.0.1", port, password=PASSWORD, decode_responses=True)
            wait_for(lambda: is_up(port), "the Redis")
            assert client.config_get("appendonly")["appendonly"] == "yes"
            assert client.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"
            client.close()
        finally:
            server.terminate()
    assert server.returncode == 0, "the signal reached the shell, not Redis"


def is_up(port: int) -> bool:
    """Whether it answers, if only that it wants a password."""
    with redis.Redis("127.0.0.1", port) as stranger:
        try:
            stranger.ping()
        except redis.AuthenticationError:
            return True
        except redis.ConnectionError:
            return False
    raise AssertionError("it let a stranger in")
