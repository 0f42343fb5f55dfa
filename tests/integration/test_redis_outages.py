"""Whatever keeps Redis from serving a worker that it has served before is waited for, and costs no job."""

from __future__ import annotations

import logging
import os
import signal
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis

from redis_consumer.errors import RedisUnavailable, SettingsError
from redis_consumer.options import QueueOptions
from redis_consumer.queue import JobQueue
from redis_consumer.redis import MAX_PAUSE_S, RedisClient
from support.redis_server import RedisServer, free_port
from support.worker import JOB, is_idle, running_worker, status_is, submit, variables, wait_for

SLOTS = 2
#: The supervisor and its slots each have a connection of their own, and log what befalls it.
PROCESSES = SLOTS + 1
BEGINNINGS = ("refuses commands", "Cannot reach Redis")
END = "is available again after"

Change = Callable[[Any], object]


def _cut_off(db: Any) -> None:
    """Close all connections but this one."""
    db.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


def _set_password(db: Any, password: str) -> None:
    db.config_set("requirepass", password)
    _cut_off(db)


def _refuse_connections(db: Any) -> None:
    db.config_set("maxclients", "1")
    _cut_off(db)


@dataclass(frozen=True)
class Outage:
    """How it is made and ended, and what the worker's log says of it."""

    begin: Change
    end: Change
    said: str
    noticed_by: int = PROCESSES


OUTAGES = {
    "full memory": Outage(
        lambda db: db.config_set("maxmemory", "1"), lambda db: db.config_set("maxmemory", "0"), "its memory is full"
    ),
    "too few replicas": Outage(
        lambda db: db.config_set("min-replicas-to-write", "1"),
        lambda db: db.config_set("min-replicas-to-write", "0"),
        "too few replicas",
        # Redis 6.2 does not look at them before a script.
        noticed_by=SLOTS,
    ),
    "replica": Outage(
        lambda db: db.replicaof("127.0.0.1", free_port()), lambda db: db.replicaof("NO", "ONE"), "it is a replica"
    ),
    "password": Outage(
        lambda db: _set_password(db, "new"),
        lambda db: _set_password(db, "old"),
        "set REDIS_PASSWORD",
    ),
    "permission": Outage(
        lambda db: db.execute_command("ACL", "SETUSER", "default", "-blmove", "-evalsha"),
        lambda db: db.execute_command("ACL", "SETUSER", "default", "+@all"),
        "NOPERM",
    ),
    "connections": Outage(_refuse_connections, lambda db: db.config_set("maxclients", "100"), "max number of clients"),
}


@pytest.fixture(params=OUTAGES)
def outage(request: pytest.FixtureRequest) -> Outage:
    return OUTAGES[request.param]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A server of the test's own, which asks for a password."""
    (tmp_path / "redis").mkdir()
    server = RedisServer(tmp_path / "redis").start()
    server.client.config_set("requirepass", "old")
    yield server
    server.stop()


@pytest.fixture
def db(server: RedisServer) -> Iterator[Any]:
    """The connection of an operator, which outlives every outage."""
    client = redis.Redis("127.0.0.1", server.port, password="old", decode_responses=True, single_connection_client=True)
    client.ping()
    yield client
    client.close()


def is_ready(port: int) -> bool:
    with suppress(OSError):
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5).status == 200  # type: ignore[no-any-return]
    return False


def count_in_log(folder: Path, *texts: str) -> int:
    return sum((folder / "worker.log").read_text().count(text) for text in texts)


def idle_slots(db: Any) -> int:
    return sum(client["cmd"] == "blmove" for client in db.client_list())


def settings_of(server: RedisServer, folder: Path, **others: str) -> dict[str, str]:
    quick = {"RENEW_INTERVAL": "0.2", "SWEEP_INTERVAL": "0.2", "LEASE_TIMEOUT": "120", **others}
    return variables(server, folder, REDIS_PASSWORD="old", **quick)


def test_idle_slots_wait_log_it_once_and_go_on(outage: Outage, server: RedisServer, db: Any, tmp_path: Path) -> None:
    port = free_port()
    settings = settings_of(server, tmp_path, CONCURRENCY=str(SLOTS), HEALTH_ADDRESS=f"127.0.0.1:{port}")
    with running_worker(tmp_path, settings) as process:
        wait_for(lambda: idle_slots(db) == SLOTS and is_ready(port), "idle slots", tmp_path)
        outage.begin(db)
        noticed = outage.noticed_by
        wait_for(lambda: count_in_log(tmp_path, *BEGINNINGS) == noticed, "all to notice the outage", tmp_path)
        wait_for(lambda: not is_ready(port), "the worker not to be ready", tmp_path)
        outage.end(db)
        wait_for(lambda: idle_slots(db) == SLOTS and is_ready(port), "idle slots after the outage", tmp_path)
        submit(db)
        wait_for(status_is(db, "done"), "a job after the outage", tmp_path)
        wait_for(lambda: count_in_log(tmp_path, END) == noticed, "all to note its end", tmp_path)
        assert process.poll() is None
    assert outage.said in (tmp_path / "worker.log").read_text()
    assert count_in_log(tmp_path, *BEGINNINGS) == noticed
    assert count_in_log(tmp_path, "Traceback", "starting another") == 0


@pytest.mark.slow
def test_a_running_job_keeps_its_result(outage: Outage, server: RedisServer, db: Any, tmp_path: Path) -> None:
    settings = {**settings_of(server, tmp_path), "CONSUMER_TYPE": "support.gated:Gated"}
    with running_worker(tmp_path, settings) as process:
        submit(db, style="return")
        wait_for(status_is(db, "started"), "the job's start", tmp_path)
        # A replica drops what it has, so the gate opens first.
        db.hset(JOB, "gate", "open")
        outage.begin(db)
        wait_for(lambda: count_in_log(tmp_path, *BEGINNINGS), "the outage to be noticed", tmp_path)
        outage.end(db)
        wait_for(status_is(db, "done"), "the job's end", tmp_path)
        assert process.poll() is None
    assert db.lrange("runs", 0, -1) == [f"pod-1 1 {JOB}"]
    assert db.hget(JOB, "output_url") == "by pod-1 in attempt 1"


def test_refused_moves_pause_for_longer_each_time(
    server: RedisServer, db: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = RedisClient("127.0.0.1", server.port, 0.1, password="old")
    pauses: list[float] = []
    monkeypatch.setattr(client._stopping, "wait", pauses.append)
    db.config_set("maxmemory", "1")
    connections = db.info("stats")["total_connections_received"]
    for _ in range(12):
        with pytest.raises(RedisUnavailable, match="refuses BLMOVE .*its memory is full"):
            client.blmove("a", "b", 10, src="RIGHT", dest="LEFT")
        assert client.ping()  # which proves nothing
        assert client.has_outage
    assert db.info("stats")["total_connections_received"] <= connections + 1
    assert len(pauses) == 12
    for number, pause_s in enumerate(pauses):
        longest_s = min(0.1 * 2.0 ** (number - 1), MAX_PAUSE_S) if number else 0.0
        assert longest_s / 2 <= pause_s <= longest_s
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1
    db.config_set("maxmemory", "0")
    db.lpush("a", "job")
    assert client.blmove("a", "b", 10, src="RIGHT", dest="LEFT") == "job"
    assert not client.has_outage
    client.close()


def test_a_full_redis_is_not_taken_for_an_available_one_by_scripts_that_write_nothing(
    server: RedisServer, db: Any
) -> None:
    client = RedisClient("127.0.0.1", server.port, 0.01, password="old", deadline_s=0.05)
    db.config_set("maxmemory", "1")
    with pytest.raises(RedisUnavailable, match="refuses EVAL"):
        client.eval("return redis.call('SET', 'key', '1')", 0)
    assert client.eval("return 1", 0) == 1
    assert client.has_outage
    assert db.keys("*") == []  # nor does a look leave anything
    db.config_set("maxmemory", "0")
    wait_for(lambda: client.get("key") is None and not client.has_outage, "a look at what writes do")
    client.close()


def test_leases_are_renewed_while_memory_is_full(server: RedisServer, db: Any) -> None:
    client = RedisClient("127.0.0.1", server.port, 0.01, password="old", deadline_s=0.05)
    queue = JobQueue(client, "predict", "pod-1", QueueOptions(lease_s=600))
    submit(db)
    job = queue.claim()
    assert job is not None
    db.zadd(queue.key("leases"), {job.id: 1})
    db.config_set("maxmemory", "1")
    assert queue.renew([job]) == []
    assert db.zscore(queue.key("leases"), job.id) > 1
    client.close()


def test_a_worker_that_has_never_connected_stops_at_once(server: RedisServer, tmp_path: Path) -> None:
    for password in ("", "wrong"):
        with running_worker(tmp_path, variables(server, tmp_path, REDIS_PASSWORD=password)) as process:
            assert process.wait(90) == 2
    assert count_in_log(tmp_path, "set REDIS_PASSWORD") >= 2


def test_a_slot_that_starts_while_the_password_is_wrong_waits_as_well(
    server: RedisServer, db: Any, tmp_path: Path
) -> None:
    settings = {**settings_of(server, tmp_path), "CONSUMER_TYPE": "support.consumers:Slow"}
    with running_worker(tmp_path, settings) as process:
        wait_for(lambda: is_idle(db), "an idle slot", tmp_path)
        _set_password(db, "new")
        wait_for(lambda: count_in_log(tmp_path, *BEGINNINGS) == 2, "both to notice the outage", tmp_path)
        slot = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])
        os.kill(slot, signal.SIGKILL)
        wait_for(lambda: count_in_log(tmp_path, *BEGINNINGS) == 3, "another slot to notice it", tmp_path)
        assert process.poll() is None
        _set_password(db, "old")
        submit(db)
        wait_for(status_is(db, "done"), "a job after the outage", tmp_path)


def test_a_refused_password_is_an_outage_once_the_client_was_served(server: RedisServer, db: Any) -> None:
    client = RedisClient("127.0.0.1", server.port, 0.01, password="old", deadline_s=0.05)
    assert client.ping()
    _set_password(db, "new")
    with pytest.raises(RedisUnavailable, match="refuses PING"):
        client.ping()
    _set_password(db, "old")
    assert client.ping()
    stranger = RedisClient("127.0.0.1", server.port, 0.01, password="wrong", deadline_s=0.05)
    with pytest.raises(SettingsError, match="REDIS_PASSWORD"):
        stranger.ping()
    stranger.close()
    client.close()
