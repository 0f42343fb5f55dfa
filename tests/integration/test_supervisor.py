"""What keeps slots alive and honest: real processes, real crashes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from redis_consumer.client.workers import WorkerView, read_facts
from support.queues import counted_runs
from support.redis_server import RedisServer, free_port
from support.scraping import ask
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
    reason = redis_db.hget(JOB, "reason") or ""
    assert reason.startswith("AttemptsExhausted")
    assert "in each of 3 attempts (the last time: killed by SIGSEGV); look" in reason
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
    wait_for(lambda: not any(map(is_alive, slots)), "the end of the slots")


def is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process whose interpreter is held")
def test_a_slot_whose_interpreter_is_held_ends_with_its_supervisor(
    redis_server: RedisServer, redis_db: Any, tmp_path: Path
) -> None:
    with running_worker(tmp_path, variables(redis_server, tmp_path, "Stubborn")) as process:
        submit(redis_db, seconds="600")
        wait_for(status_is(redis_db, "started"), "the job's start", tmp_path)
        slots = slots_of(process)
        process.kill()
        process.wait()
    wait_for(lambda: not any(map(is_alive, slots)), "the end of the slot")


def test_a_slot_ends_with_its_supervisor_where_the_system_has_no_signal_for_that() -> None:
    code = """
import os, sys, threading
from redis_consumer.worker.slot_process import die_with_parent
sys.platform = "darwin"
read, write = os.pipe()
die_with_parent(read)
os.close(write)
threading.Event().wait(60)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL


def test_slots_run_jobs_side_by_side(redis_server: RedisServer, redis_db: Any, tmp_path: Path) -> None:
    with running_worker(
        tmp_path, variables(redis_server, tmp_path, CONCURRENCY="2", GRACE_PERIOD="0.2", RENEW_INTERVAL="0.2")
    ):
        ids = [submit(redis_db, f"predict:{name}.tif:1", seconds="60") for name in "ab"]
        wait_for(lambda: all(redis_db.hget(job_id, "status") == "started" for job_id in ids), "both starts", tmp_path)
        assert sorted(redis_db.lrange("processing-predict:pod-1", 0, -1)) == sorted(ids)

        def published() -> list[WorkerView]:
            [facts] = read_facts(redis_db, ["predict"])
            return [worker for worker in facts.workers if len(worker.tasks) == 2]

        [worker] = wait_for(published, "what the worker publishes", tmp_path)
        assert {task.job for task in worker.tasks} == set(ids)
        assert (worker.name, worker.waits_for, worker.idle, worker.is_stopping) == ("pod-1", "", 0, False)
        assert worker.memory_mb > 0
    assert not redis_db.exists("redis-consumer:activities:predict")


def test_leases_are_renewed_while_a_job_runs(redis_server: RedisServer, redis_db: Any, tmp_path: Path) -> None:
    with running_worker(tmp_path, variables(redis_server, tmp_path, LEASE_TIMEOUT="1", GRACE_PERIOD="0.2")):
        submit(redis_db, seconds="60")
        wait_for(status_is(redis_db, "started"), "the job's start", tmp_path)
        first = redis_db.zscore("redis-consumer:leases:predict", JOB)
        wait_for(
            lambda: redis_db.zscore("redis-consumer:leases:predict", JOB) > first + 2000, "two seconds more", tmp_path
        )
        assert redis_db.hget("redis-consumer:holders:predict", JOB) == "1 processing-predict:pod-1"


def test_native_code_that_holds_the_interpreter_costs_no_lease(
    redis_server: RedisServer, redis_db: Any, tmp_path: Path
) -> None:
    settings = {"LEASE_TIMEOUT": "1", "SWEEP_INTERVAL": "0.2"}
    with running_worker(tmp_path, variables(redis_server, tmp_path, "Stubborn", **settings)):
        submit(redis_db, seconds="3")
        wait_for(status_is(redis_db, "done"), "the job's end", tmp_path)
    assert (tmp_path / "worker.log").read_text().count("Started job") == 1


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


@pytest.mark.parametrize("timed_out", ["", "1 pod-2"], ids=["by the only worker", "by two workers"])
def test_a_job_that_takes_too_long_again_fails(
    redis_server: RedisServer, redis_db: Any, tmp_path: Path, timed_out: str
) -> None:
    with running_worker(tmp_path, variables(redis_server, tmp_path, JOB_TIMEOUT="0.3")):
        submit(redis_db, seconds="60", **({"timed_out": timed_out} if timed_out else {}))
        submit(redis_db, "predict:good.tif:2")
        wait_for(status_is(redis_db, "failed"), "the job's end", tmp_path)
        wait_for(status_is(redis_db, "done", "predict:good.tif:2"), "the other job", tmp_path)
    reason = redis_db.hget(JOB, "reason") or ""
    assert reason.startswith(
        f"JobTimeout: job {JOB}: its job ran for more than JOB_TIMEOUT=0.3 s, as in an earlier run;"
    )
    assert redis_db.lrange("redis-consumer:dead:predict", 0, -1) == [JOB]
    assert (tmp_path / "worker.log").read_text().count("its slot ended in attempt") == (1 if timed_out else 2)


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
            note = "Another worker is registered as pod-1"
            wait_for(lambda: note in log.read_text(), "the note", other)
            asked = evals(redis_db)
            # Both sides, the worker's renewals and the other's questions, go on for several seconds.
            wait_for(lambda: evals(redis_db) > asked + 10, "more questions", other)
            assert "Ready" not in log.read_text()
            first.terminate()
            first.wait(30)
            wait_for(lambda: "Ready" in log.read_text(), "the second worker", other)
            assert second.poll() is None
            assert log.read_text().count(note) == 1


def evals(db: Any) -> int:
    """Scripts that Redis has run."""
    return int(db.info("commandstats")["cmdstat_evalsha"]["calls"])


def test_a_worker_that_stops_before_its_start_is_not_ready(
    redis_server: RedisServer, redis_db: Any, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with running_worker(tmp_path, variables(redis_server, tmp_path)):
        wait_for(lambda: is_idle(redis_db), "the first worker", tmp_path)
        with running_worker(other, variables(redis_server, tmp_path)) as second:
            log = other / "worker.log"
            wait_for(lambda: "Another worker is registered as pod-1" in log.read_text(), "the note", other)
            second.terminate()
            assert second.wait(60) == 0
            assert "Stopped" in log.read_text()
            assert "Ready" not in log.read_text()


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
    # A sweep asks several times in one burst, and one or two sweeps fall into this time.
    assert asked <= 2 * elapsed_s


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
    assert counted_runs(redis_db, JOB) == 0


def test_a_slot_that_hears_no_signal_is_killed_and_no_attempt_counts(
    redis_server: RedisServer, redis_db: Any, tmp_path: Path
) -> None:
    with running_worker(tmp_path, variables(redis_server, tmp_path, "Stubborn", GRACE_PERIOD="600")) as process:
        submit(redis_db, seconds="600")
        submit(redis_db, "predict:later.tif:2")
        wait_for(status_is(redis_db, "started"), "the job's start", tmp_path)
        for word in ("within 600 s", "at once"):
            os.kill(process.pid, signal.SIGTERM)
            wait_for(partial(_is_logged, tmp_path, word), "the log line", tmp_path)
        wait_for(lambda: process.poll() is not None, "the worker's end", tmp_path)
        assert process.returncode == 0
    assert redis_db.lrange("predict", 0, -1) == ["predict:later.tif:2", JOB]
    assert counted_runs(redis_db, JOB) == 0


def _is_logged(folder: Path, text: str) -> bool:
    return text in (folder / "worker.log").read_text()


def test_threads_run_jobs_side_by_side_and_end_with_their_process(
    redis_server: RedisServer, redis_db: Any, tmp_path: Path
) -> None:
    with running_worker(tmp_path, variables(redis_server, tmp_path, THREADS="3", GRACE_PERIOD="0.2")) as process:
        ids = [submit(redis_db, f"predict:{name}.tif:1", seconds="60") for name in "abc"]
        wait_for(lambda: all(redis_db.hget(job_id, "status") == "started" for job_id in ids), "all starts", tmp_path)
        assert len(slots_of(process)) == 1
        process.terminate()
        assert process.wait(30) == 0
    assert sorted(redis_db.lrange("predict", 0, -1)) == sorted(ids)
    assert redis_db.keys("processing-*") == []
    assert [counted_runs(redis_db, job_id) for job_id in ids] == [0, 0, 0]


def test_jobs_of_threads_may_end_within_the_grace_period(
    redis_server: RedisServer, redis_db: Any, tmp_path: Path
) -> None:
    with running_worker(tmp_path, variables(redis_server, tmp_path, THREADS="2")) as process:
        ids = [submit(redis_db, f"predict:{name}.tif:1", seconds="0.5") for name in "ab"]
        wait_for(lambda: all(redis_db.hget(job_id, "status") == "started" for job_id in ids), "both starts", tmp_path)
        process.terminate()
        assert process.wait(30) == 0
    assert [redis_db.hget(job_id, "status") for job_id in ids] == ["done", "done"]


def test_threads_stop_at_once_at_a_second_signal(redis_server: RedisServer, redis_db: Any, tmp_path: Path) -> None:
    with running_worker(tmp_path, variables(redis_server, tmp_path, THREADS="2")) as process:
        submit(redis_db, seconds="60")
        wait_for(status_is(redis_db, "started"), "the job's start", tmp_path)
        process.terminate()
        wait_for(lambda: "stopping within" in (tmp_path / "worker.log").read_text(), "the first signal's log line")
        process.terminate()
        assert process.wait(30) == 0
    assert redis_db.lrange("predict", 0, -1) == [JOB]


def test_a_burst_of_threads_ends_with_the_queue(redis_server: RedisServer, redis_db: Any, tmp_path: Path) -> None:
    ids = [submit(redis_db, f"predict:{number}.tif:1") for number in range(10)]
    assert burst(tmp_path, variables(redis_server, tmp_path), "--threads", "3") == 0
    assert {redis_db.hget(job_id, "status") for job_id in ids} == {"done"}


def test_settings_that_no_thread_can_run_with_end_the_worker(
    redis_server: RedisServer, redis_db: Any, tmp_path: Path
) -> None:
    missing = variables(redis_server, tmp_path, THREADS="2", STORAGE_BUCKET=(tmp_path / "missing").as_uri())
    with running_worker(tmp_path, missing) as process:
        assert process.wait(60) == 2


def test_a_job_past_its_time_costs_its_neighbours_no_attempt(
    redis_server: RedisServer, redis_db: Any, tmp_path: Path
) -> None:
    settings = {"THREADS": "2", "STALL_TIMEOUT": "2", "MAX_ATTEMPTS": "1"}
    with running_worker(tmp_path, variables(redis_server, tmp_path, "Stalling", **settings)):
        submit(redis_db, stalls="yes")
        submit(redis_db, "predict:busy.tif:2")
        wait_for(status_is(redis_db, "failed"), "the stalled job's end", tmp_path)
        wait_for(status_is(redis_db, "done", "predict:busy.tif:2"), "the other's end", tmp_path)
    assert int(redis_db.hget("predict:busy.tif:2", "runs")) > 1


def test_temporary_files_of_a_killed_slot_go(redis_server: RedisServer, redis_db: Any, tmp_path: Path) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    with running_worker(tmp_path, variables(redis_server, tmp_path, "Littering", TMPDIR=str(temporary))):
        submit(redis_db)
        first = wait_for(lambda: redis_db.hget(JOB, "folder"), "the first run", tmp_path)
        wait_for(status_is(redis_db, "done"), "the second run", tmp_path)
        assert Path(first).is_relative_to(temporary)
        assert not Path(first).parent.exists()
    assert list(temporary.iterdir()) == []


def test_temporary_files_of_a_killed_worker_go_with_the_next_start(
    redis_server: RedisServer, redis_db: Any, tmp_path: Path
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    settings = variables(redis_server, tmp_path, TMPDIR=str(temporary), HOSTNAME="pod-2")
    with running_worker(tmp_path, settings) as process:
        wait_for(lambda: is_idle(redis_db), "the worker", tmp_path)
        process.kill()
        process.wait()
    [left] = temporary.iterdir()
    os.utime(left, (1, 1))
    with running_worker(tmp_path, {**settings, "HOSTNAME": "pod-1"}):
        wait_for(lambda: not left.exists(), "the removal", tmp_path)


def test_probes_tell_whether_the_worker_lives_and_takes_jobs(
    redis_server: RedisServer, redis_db: Any, tmp_path: Path
) -> None:
    port = free_port()
    settings = variables(redis_server, tmp_path, HEALTH_ADDRESS=f"127.0.0.1:{port}", CONCURRENCY="2")
    with running_worker(tmp_path, settings) as process:
        wait_for(lambda: ask(port, "/ready")[0] == 200, "a ready worker", tmp_path)
        assert ask(port, "/live")[0] == 200
        assert ask(port, "/")[0] == 404
        submit(redis_db, seconds="60")
        wait_for(lambda: ask(port, "/ready")[1].get("running") == 1, "the running job", tmp_path)
        process.terminate()
        wait_for(lambda: ask(port, "/ready")[0] == 503, "the worker that stops", tmp_path)
        assert ask(port, "/live")[1]["stopping"] is True
        process.terminate()
        process.wait(30)


def test_a_worker_without_redis_lives_but_is_not_ready(tmp_path: Path) -> None:
    port, server = free_port(), RedisServer(tmp_path)
    with running_worker(tmp_path, variables(server, tmp_path, HEALTH_ADDRESS=f"127.0.0.1:{port}")):
        wait_for(lambda: ask(port, "/live")[0] == 200, "the worker", tmp_path)
        assert ask(port, "/ready") == (
            503,
            {**ask(port, "/live")[1], "ready": False, "redis": False, "worker": "pod-1"},
        )


def test_silent_callers_do_not_stop_the_probes(redis_server: RedisServer, redis_db: Any, tmp_path: Path) -> None:
    port = free_port()
    with running_worker(tmp_path, variables(redis_server, tmp_path, HEALTH_ADDRESS=f"127.0.0.1:{port}")):
        wait_for(lambda: ask(port, "/ready")[0] == 200, "a ready worker", tmp_path)
        silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(100)]
        assert ask(port, "/ready")[0] == 200
        for caller in silent:
            caller.close()


def test_an_address_that_is_taken_is_said_in_words(redis_server: RedisServer, redis_db: Any, tmp_path: Path) -> None:
    taken = variables(redis_server, tmp_path, HEALTH_ADDRESS=f"127.0.0.1:{redis_server.port}")
    with running_worker(tmp_path, taken) as process:
        assert process.wait(60) == 2
    assert "can't listen there" in (tmp_path / "worker.log").read_text()


def burst(folder: Path, variables: dict[str, str], *options: str) -> int:
    command = [sys.executable, "-m", "redis_consumer", "run", "--burst", *options]
    return subprocess.run(command, cwd=folder, env=variables, timeout=90, check=False).returncode


def test_a_burst_whose_slots_cannot_run_says_so(redis_server: RedisServer, redis_db: Any, tmp_path: Path) -> None:
    assert burst(tmp_path, variables(redis_server, tmp_path, "Broken")) == 1


def test_a_burst_goes_on_where_slots_are_replaced(redis_server: RedisServer, redis_db: Any, tmp_path: Path) -> None:
    ids = [submit(redis_db, f"predict:{number}.tif:1") for number in range(3)]
    assert burst(tmp_path, variables(redis_server, tmp_path, "Greedy", MAX_RSS_MB="150")) == 0
    assert [redis_db.hget(job_id, "status") for job_id in ids] == ["done"] * 3


def test_the_job_of_a_plugin_that_quits_is_claimable_at_once(
    redis_server: RedisServer, redis_db: Any, tmp_path: Path
) -> None:
    with running_worker(tmp_path, variables(redis_server, tmp_path, "Quitting", LEASE_TIMEOUT="600")):
        submit(redis_db)
        wait_for(status_is(redis_db, "done"), "the second run", tmp_path)
