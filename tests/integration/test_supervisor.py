"""What keeps slots alive and honest: real processes, real crashes."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from support.redis_server import RedisServer
from support.worker import JOB, is_idle, running_worker, status_is, submit, variables, wait_for


def slots_of(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children()


def test_a_poison_job_fails_after_its_attempts_and_others_go_on(
    redis_server: RedisServer, redis_db: Any, tmp_path: Path
) -> None:
    with running_worker(tmp_path, variables(redis_server, tmp_path, "Crashing", MAX_ATTEMPTS="3")):
        submit(redis_db, crash="yes")
        submit(redis_db, "predict:good.tif:2")
        wait_for(status_is(redis_db, "failed"), "the poison job's end", tmp_path)
        wait_for(status_is(redis_db, "done", "predict:good.tif:2"), "the other job", tmp_path)
    assert redis_db.hget(JOB, "crashes") == "3"
    assert (redis_db.hget(JOB, "reason") or "").startswith("AttemptsExhausted")
    assert redis_db.lrange("redis-consumer:dead:predict", 0, -1) == [JOB]


def test_a_killed_slots_job_is_claimable_at_once(redis_server: RedisServer, redis_db: Any, tmp_path: Path) -> None:
    with running_worker(tmp_path, variables(redis_server, tmp_path, LEASE_TIMEOUT="600")) as process:
        submit(redis_db, seconds="60")
        wait_for(status_is(redis_db, "started"), "the job's start", tmp_path)
        redis_db.hset(JOB, "seconds", "0")
        slots_of(process)[0].kill()
        wait_for(status_is(redis_db, "done"), "the run in another slot", tmp_path)
        assert process.poll() is None


def test_a_killed_workers_job_is_run_by_another_one(redis_server: RedisServer, redis_db: Any, tmp_path: Path) -> None:
    settings = {"LEASE_TIMEOUT": "1.5", "SWEEP_INTERVAL": "0.5"}
    with running_worker(tmp_path, variables(redis_server, tmp_path, HOSTNAME="pod-2", **settings)) as process:
        submit(redis_db, seconds="60")
        wait_for(status_is(redis_db, "started"), "the job's start", tmp_path)
        redis_db.hset(JOB, "seconds", "0")
        process.kill()
        process.wait()
        with running_worker(tmp_path, variables(redis_server, tmp_path, **settings)):
            wait_for(status_is(redis_db, "done"), "the run by the other worker", tmp_path)
    assert redis_db.hget(JOB, "updated_by") == "pod-1"
    assert redis_db.keys("processing-*") == []


def test_no_slot_outlives_its_supervisor(redis_server: RedisServer, redis_db: Any, tmp_path: Path) -> None:
    with running_worker(tmp_path, variables(redis_server, tmp_path, CONCURRENCY="3")) as process:
        slots = wait_for(lambda: slots_of(process) if len(slots_of(process)) == 3 else None, "three slots", tmp_path)
        submit(redis_db, seconds="60")
        wait_for(status_is(redis_db, "started"), "the job's start", tmp_path)
        process.kill()
        process.wait()
    psutil.wait_procs(slots, timeout=30)
    assert not any(slot.is_running() and slot.status() != psutil.STATUS_ZOMBIE for slot in slots)


def test_slots_run_jobs_side_by_side(redis_server: RedisServer, redis_db: Any, tmp_path: Path) -> None:
    with running_worker(tmp_path, variables(redis_server, tmp_path, CONCURRENCY="2", GRACE_PERIOD="0.2")):
        ids = [submit(redis_db, f"predict:{name}.tif:1", seconds="60") for name in "ab"]
        wait_for(lambda: all(redis_db.hget(job_id, "status") == "started" for job_id in ids), "both starts", tmp_path)
        assert sorted(redis_db.lrange("processing-predict:pod-1", 0, -1)) == sorted(ids)


def test_leases_are_renewed_while_a_job_runs(redis_server: RedisServer, redis_db: Any, tmp_path: Path) -> None:
    with running_worker(tmp_path, variables(redis_server, tmp_path, LEASE_TIMEOUT="1", GRACE_PERIOD="0.2")):
        submit(redis_db, seconds="60")
        wait_for(status_is(redis_db, "started"), "the job's start", tmp_path)
        first = redis_db.zscore("redis-consumer:leases:predict", JOB)
        wait_for(
            lambda: redis_db.zscore("redis-consumer:leases:predict", JOB) > first + 2000, "two seconds more", tmp_path
        )
        assert redis_db.hget("redis-consumer:holders:predict", JOB) == "1 processing-predict:pod-1"


@pytest.mark.parametrize(
    ("settings", "text"),
    [({"JOB_TIMEOUT": "0.3"}, "more than JOB_TIMEOUT=0.3 s"), ({"STALL_TIMEOUT": "0.3"}, "for STALL_TIMEOUT=0.3 s")],
)
def test_a_job_past_its_time_is_ended_for_real(
    redis_server: RedisServer, redis_db: Any, tmp_path: Path, settings: dict[str, str], text: str
) -> None:
    with running_worker(tmp_path, variables(redis_server, tmp_path, MAX_ATTEMPTS="1", **settings)):
        submit(redis_db, seconds="60")
        wait_for(status_is(redis_db, "failed"), "the job's end", tmp_path)
    assert text in (tmp_path / "worker.log").read_text()


def test_a_slot_that_takes_too_much_memory_is_replaced_after_its_job(
    redis_server: RedisServer, redis_db: Any, tmp_path: Path
) -> None:
    with running_worker(tmp_path, variables(redis_server, tmp_path, "Greedy", MAX_RSS_MB="200")):
        for number in range(2):
            submit(redis_db, f"predict:a.tif:{number}")
            wait_for(status_is(redis_db, "done", f"predict:a.tif:{number}"), "the job", tmp_path)
            wait_for(lambda: "replacing it" in (tmp_path / "worker.log").read_text(), "the replacement", tmp_path)
    pids = {redis_db.hget(f"predict:a.tif:{number}", "pid") for number in range(2)}
    assert len(pids) == 2


def test_the_second_worker_of_one_name_waits(redis_server: RedisServer, redis_db: Any, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with running_worker(tmp_path, variables(redis_server, tmp_path)) as first:
        wait_for(lambda: is_idle(redis_db), "the first worker", tmp_path)
        with running_worker(other, variables(redis_server, tmp_path)) as second:
            log = other / "worker.log"
            wait_for(lambda: "Another worker is registered as pod-1" in log.read_text(), "the note", other)
            assert "Ready" not in log.read_text()
            first.terminate()
            first.wait(30)
            wait_for(lambda: "Ready" in log.read_text(), "the second worker", other)
            assert second.poll() is None


def test_a_stopped_workers_late_result_is_not_seen(redis_server: RedisServer, redis_db: Any, tmp_path: Path) -> None:
    """SIGSTOP for longer than a lease: another worker runs the job; the first one goes on and is fenced."""
    settings = {"LEASE_TIMEOUT": "1", "SWEEP_INTERVAL": "0.3"}
    with running_worker(tmp_path, variables(redis_server, tmp_path, HOSTNAME="pod-2", **settings)) as frozen:
        submit(redis_db, seconds="1")
        wait_for(status_is(redis_db, "started"), "the job's start", tmp_path)
        processes = [psutil.Process(frozen.pid), *slots_of(frozen)]
        for process in processes:
            process.suspend()
        other = tmp_path / "other"
        other.mkdir()
        with running_worker(other, variables(redis_server, tmp_path, **settings)):
            wait_for(status_is(redis_db, "done"), "the run by the other worker", other)
            result = redis_db.hgetall(JOB)
            for process in processes:
                process.resume()
            wait_for(lambda: "Lost job" in (tmp_path / "worker.log").read_text(), "the late finisher", tmp_path)
            assert redis_db.hgetall(JOB) == result
    assert result["updated_by"] == "pod-1"


def test_an_idle_worker_hardly_asks_redis_anything(redis_server: RedisServer, redis_db: Any, tmp_path: Path) -> None:
    with running_worker(tmp_path, variables(redis_server, tmp_path)):
        wait_for(lambda: is_idle(redis_db), "the idle worker", tmp_path)
        redis_db.config_resetstat()
        started = time.monotonic()
        time.sleep(6)  # what is counted is a rate over time
        calls = {name[8:]: stats["calls"] for name, stats in redis_db.info("commandstats").items()}
        elapsed_s = time.monotonic() - started
    asked = sum(calls.get(name, 0) for name in ("evalsha", "eval", "blmove", "llen", "ping", "hget"))
    assert asked <= elapsed_s


def test_two_signals_end_a_worker_with_its_slots(redis_server: RedisServer, redis_db: Any, tmp_path: Path) -> None:
    with running_worker(tmp_path, variables(redis_server, tmp_path, CONCURRENCY="2")) as process:
        submit(redis_db, seconds="60")
        wait_for(status_is(redis_db, "started"), "the job's start", tmp_path)
        slots = slots_of(process)
        for word in ("within 25 s", "at once"):
            os.kill(process.pid, signal.SIGTERM)
            wait_for(partial(_is_logged, tmp_path, word), "the log line", tmp_path)
        assert process.wait(60) == 0
        assert not any(slot.is_running() for slot in slots)
    assert redis_db.lrange("predict", 0, -1) == [JOB]
    assert redis_db.hget("redis-consumer:attempts:predict", JOB) == "0"


def _is_logged(folder: Path, text: str) -> bool:
    return text in (folder / "worker.log").read_text()
