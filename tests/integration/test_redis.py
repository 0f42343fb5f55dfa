from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from redis_consumer.errors import RedisUnavailable, SettingsError
from redis_consumer.redis import RedisClient
from support.redis_server import RedisServer, free_port


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A server of the test's own, with data that outlive a restart."""
    server = RedisServer(tmp_path, is_durable=True).start()
    yield server
    server.stop()


def client_of(server: RedisServer, deadline_s: float = 20.0) -> RedisClient:
    return RedisClient("127.0.0.1", server.port, 0.02, deadline_s=deadline_s)


def test_commands_are_attributes(redis_client: RedisClient) -> None:
    redis_client.hset("key", mapping={"field": "wörd"})
    assert redis_client.hgetall("key") == {"field": "wörd"}


def test_an_unknown_command_raises_when_called(redis_client: RedisClient) -> None:
    command = redis_client.no_such_command
    with pytest.raises(AttributeError):
        command()


def test_a_wrong_command_is_not_repeated(redis_client: RedisClient) -> None:
    redis_client.set("key", "text")
    with pytest.raises(redis.ResponseError):
        redis_client.lpush("key", "x")


def test_nothing_connects_before_the_first_command() -> None:
    RedisClient("127.0.0.1", free_port()).close()


def test_an_absent_server_is_an_error_in_words_after_the_deadline() -> None:
    port = free_port()
    client = RedisClient("127.0.0.1", port, 0.01, deadline_s=0.05)
    with pytest.raises(RedisUnavailable, match=f"Redis at 127.0.0.1:{port}: no reply to PING.*REDIS_HOST"):
        client.ping()


def test_a_server_that_comes_later_is_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    server = RedisServer(tmp_path)
    client = client_of(server)
    starter = threading.Timer(0.2, server.start)
    starter.start()
    with caplog.at_level(logging.INFO):
        assert client.ping()
    starter.join()
    server.stop()
    assert len([record for record in caplog.records if "Cannot reach Redis" in record.message]) == 1
    assert len([record for record in caplog.records if "is available again" in record.message]) == 1


def test_a_restart_is_outlived(server: RedisServer) -> None:
    client = client_of(server)
    client.set("key", "kept")
    server.stop()
    starter = threading.Timer(0.2, server.start)
    starter.start()
    assert client.get("key") == "kept"
    starter.join()


def test_a_move_is_never_repeated(server: RedisServer) -> None:
    """Its connection breaks while it waits; a second one would take the job that comes then."""
    client, plain = client_of(server), server.client

    def cut() -> None:
        while not (waiting := [each for each in plain.client_list() if each["cmd"] == "blmove"]):
            pass
        plain.client_kill(waiting[0]["addr"])
        plain.lpush("a", "job")

    cutter = threading.Thread(target=cut)
    cutter.start()
    with pytest.raises(RedisUnavailable, match="BLMOVE"):
        client.blmove("a", "b", 10, src="RIGHT", dest="LEFT")
    cutter.join()
    assert plain.lrange("a", 0, -1) == ["job"]


def test_stop_waiting_ends_the_wait() -> None:
    client = RedisClient("127.0.0.1", free_port(), 0.02)
    threading.Timer(0.2, client.stop_waiting).start()
    with pytest.raises(RedisUnavailable):
        client.ping()


def test_sentinel_is_asked_for_the_master_and_followed(tmp_path: Path) -> None:
    for name in ("master", "replica"):
        (tmp_path / name).mkdir()
    master = RedisServer(tmp_path / "master").start()
    replica = RedisServer(tmp_path / "replica", replica_of=master.port).start()
    sentinel = RedisServer(tmp_path).start_sentinel(master.port)
    try:
        client = RedisClient("127.0.0.1", sentinel.port, 0.05, deadline_s=60)
        assert f"master 127.0.0.1:{master.port}" in client.describe()
        client.set("key", "kept")
        client.wait(1, 10_000)
        _wait_until_sentinel_knows_the_replica(sentinel)
        master.stop()
        assert client.get("key") == "kept"
        client.set("key", "written after the failover")
        assert replica.client.get("key") == "written after the failover"
    finally:
        for server in (sentinel, replica, master):
            server.stop()


def _wait_until_sentinel_knows_the_replica(sentinel: RedisServer) -> None:
    deadline = time.monotonic() + 30
    while not sentinel.client.sentinel_slaves("mymaster"):
        assert time.monotonic() < deadline, "sentinel found no replica"
        time.sleep(0.05)


def test_unblock_ends_a_blocking_command_of_this_client_only(
    redis_server: RedisServer, redis_client: RedisClient
) -> None:
    other = client_of(redis_server)
    other.ping()
    waiting = threading.Thread(target=other.blmove, args=("a", "b", 0), kwargs={"src": "LEFT", "dest": "RIGHT"})
    waiting.start()
    while not any("b" in client["flags"] for client in redis_client.client_list()):
        pass
    redis_client.unblock()
    assert waiting.is_alive()
    other.unblock()
    waiting.join(30)
    assert not waiting.is_alive()


def test_a_missing_or_wrong_password_is_said_in_words(server: RedisServer) -> None:
    server.client.config_set("requirepass", "right")
    for password in (None, "wrong"):
        client = RedisClient("127.0.0.1", server.port, 0.02, password=password, deadline_s=20)
        with pytest.raises(SettingsError, match="set REDIS_PASSWORD"):
            client.get("key")
        client.close()
    client = RedisClient("127.0.0.1", server.port, 0.02, password="right")
    assert client.ping()
    client.config_set("requirepass", "")
    client.close()


def test_full_memory_is_waited_for(server: RedisServer) -> None:
    client = client_of(server)
    server.client.config_set("maxmemory", "1")
    relief = threading.Timer(0.2, server.client.config_set, ["maxmemory", "0"])
    relief.start()
    assert client.set("key", "text")
    relief.join()


@pytest.mark.parametrize(
    ("option", "refusing", "taking"), [("maxmemory", "1", "0"), ("min-replicas-to-write", "1", "0")]
)
def test_a_script_that_is_refused_is_waited_for(server: RedisServer, option: str, refusing: str, taking: str) -> None:
    client = client_of(server)
    server.client.config_set(option, refusing)
    relief = threading.Timer(0.2, server.client.config_set, [option, taking])
    relief.start()
    assert client.eval("return redis.call('SET', KEYS[1], 'text')", 1, "key") == "OK"
    relief.join()


def test_too_few_replicas_are_waited_for(server: RedisServer) -> None:
    client = client_of(server)
    server.client.config_set("min-replicas-to-write", "1")
    relief = threading.Timer(0.2, server.client.config_set, ["min-replicas-to-write", "0"])
    relief.start()
    assert client.set("key", "text")
    relief.join()
