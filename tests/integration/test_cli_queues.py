"""`redis-consumer queues` shows the length and state of the queues."""

from __future__ import annotations

import json
import signal
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from redis_consumer.cli.app import app
from redis_consumer.queue import JobQueue, upkeep
from redis_consumer.redis import RedisClient
from support.cli import CommandLine
from support.queues import claimed, give_up, submit
from support.redis_server import RedisServer, free_port


@pytest.fixture
def queue(redis_client: RedisClient) -> JobQueue:
    return JobQueue(redis_client, "predict", "pod-1")


@pytest.fixture
def queues(redis_server: RedisServer, redis_db: Any, tmp_path: Path) -> Any:
    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["queues", "--redis", f"127.0.0.1:{redis_server.port}", *arguments])

    return run


def shown(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    return {each["queue"]: each for each in json.loads(result.stdout)["queues"]}


def test_all_figures(queues: Any, queue: JobQueue, redis_db: Any) -> None:
    upkeep.register(queue)
    give_up(redis_db, queue, "dead")
    for name in "abc":
        submit(redis_db, name, created_at=(datetime.now(timezone.utc) - timedelta(hours=1)).isoformat())
    claimed(queue)
    found = shown(queues("--json"))["predict"]
    assert {name: found[name] for name in ("waiting", "running", "dead", "workers", "completed")} == {
        "waiting": 2,
        "running": 1,
        "dead": 1,
        "workers": 1,
        "completed": 1,
    }
    assert found["oldest_waiting_s"] == pytest.approx(3600, abs=60)
    assert 0 < found["jobs_per_minute"] <= 1


def test_empty_queues_have_no_oldest_job(queues: Any) -> None:
    found = shown(queues("--json"))
    assert list(found) == ["predict", "predict-zip"]
    assert found["predict"]["oldest_waiting_s"] is None


def test_oldest_job_may_be_at_either_end(queues: Any, redis_db: Any) -> None:
    now = datetime.now(timezone.utc)
    submit(redis_db, "young", created_at=now.isoformat())
    submit(redis_db, "given-back", created_at=(now - timedelta(days=1)).isoformat())
    assert shown(queues("--json"))["predict"]["oldest_waiting_s"] == pytest.approx(86400, abs=60)


def test_waiting_keys_without_a_job_do_no_harm(queues: Any, redis_db: Any) -> None:
    redis_db.set("text", "x")
    redis_db.lpush("predict", "gone", "text")
    found = shown(queues("--json"))["predict"]
    assert (found["waiting"], found["oldest_waiting_s"]) == (2, None)


def test_worker_whose_registration_ended_is_not_alive(queues: Any, redis_db: Any) -> None:
    redis_db.zadd("redis-consumer:workers:predict", {"pod-1": 1})
    assert shown(queues("--json"))["predict"]["workers"] == 0


def test_entry_without_lease_of_a_registered_worker_runs(queues: Any, queue: JobQueue, redis_db: Any) -> None:
    upkeep.register(queue)
    redis_db.lpush(queue.processing, "predict:a.tif:1")
    assert shown(queues("--json"))["predict"]["running"] == 1


def test_jobs_of_other_software_are_counted_when_asked_for(queues: Any, redis_db: Any) -> None:
    redis_db.lpush("processing-predict:old-pod", "predict:a.tif:1")
    redis_db.lpush("processing-predict-zip:old-pod", "predict-zip:a.zip:1")
    assert [each["running"] for each in shown(queues("--json")).values()] == [0, 0]
    assert [each["running"] for each in shown(queues("--json", "--foreign")).values()] == [1, 1]


def test_rate_of_completed_jobs(queues: Any, queue: JobQueue, redis_db: Any) -> None:
    submit(redis_db)
    queue.complete(claimed(queue), {"status": "done"}, is_success=True)
    assert 0 < shown(queues("--json"))["predict"]["jobs_per_minute"] <= 1


def test_table(queues: Any, redis_db: Any) -> None:
    submit(redis_db, queue="track")
    lines = queues("--queue", "Track").stdout.splitlines()
    assert lines[0].split() == [
        "Queue",
        "Waiting",
        "Running",
        "Dead",
        "letters",
        "Longest",
        "wait",
        "Workers",
        "Jobs/min",
    ]
    assert [line.split()[:2] for line in lines[1:3]] == [["track", "1"], ["track-zip", "0"]]
    assert " ".join(lines[3:]).startswith("No worker takes jobs from track. Start one with `redis-consumer run --serve")


def test_each_queue_says_why_its_jobs_wait(queues: Any, redis_db: Any) -> None:
    submit(redis_db)
    redis_db.zadd("redis-consumer:workers:predict", {"pod-1": 1})
    found = shown(queues("--json"))
    assert (found["predict"]["cause"], found["predict"]["level"]) == ("no_worker", "bad")
    assert "since 1970-01-01 00:00 UTC; the last one, pod-1, was lost" in found["predict"]["sentence"]
    assert found["predict-zip"]["cause"] == "idle"


def test_one_look_is_one_command_and_one_for_the_reasons(queues: Any, redis_db: Any) -> None:
    before = redis_db.info("commandstats").get("cmdstat_eval", {"calls": 0})["calls"]
    shown(queues("--json", "--queue", "a", "--queue", "b"))
    assert redis_db.info("commandstats")["cmdstat_eval"]["calls"] - before == 2


def test_key_that_is_no_queue(queues: Any, redis_db: Any) -> None:
    result = queues("--queue", submit(redis_db))
    assert result.exit_code == 2
    assert "holds a hash, not a queue" in result.stderr


def test_absent_redis(queues: Any) -> None:
    assert queues("--redis", f"127.0.0.1:{free_port()}").exit_code == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_watch_goes_on_until_it_is_interrupted(
    redis_server: RedisServer, redis_db: Any, tmp_path: Path, number: signal.Signals
) -> None:
    cli = CommandLine.make(tmp_path, redis_server.port)
    watch = cli.start("queues", "--watch", "--interval", "0.1", "--json")
    assert watch.stdout is not None
    first = json.loads(watch.stdout.readline())
    submit(redis_db)
    while (line := watch.stdout.readline()) and json.loads(line)["queues"][0]["waiting"] == 0:
        pass
    watch.send_signal(number)
    _, errors = watch.communicate(timeout=20)
    assert first["queues"][0]["jobs_per_minute"] == 0
    assert json.loads(line)["queues"][0]["jobs_per_minute"] == 0
    assert (watch.returncode, errors) == (0, "")
