"""What the janitor does to our jobs: it judges ``updated_at`` and the pod, and pushes keys into their queue again."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from redis_consumer import settings
from support.neighbours import JANITOR_STALE_S, Frontend, Janitor
from support.worker import is_idle, running_worker, status_is, wait_for

BODY = {"jobType": "predict", "imageName": "a.tif"}
#: What it sees of a job that was written just now looks stale.
AHEAD_S = 60.0
Gated = Callable[..., dict[str, str]]


def started(db: Any, frontend: Frontend, folder: Path, style: str = "update_key") -> str:
    key = frontend.predict(BODY)
    db.hset(key, "style", style)
    wait_for(status_is(db, "started", key), "the job's start", folder)
    return key


def test_a_long_job_never_looks_stale(redis_db: Any, frontend: Frontend, gated: Gated, tmp_path: Path) -> None:
    with running_worker(tmp_path, gated(RENEW_INTERVAL="0.2")):
        key = started(redis_db, frontend, tmp_path)
        times = {redis_db.hget(key, "updated_at")}
        janitor = Janitor(redis_db)

        def is_renewed() -> bool:
            janitor.clean()
            times.add(redis_db.hget(key, "updated_at"))
            return len(times) > 3

        wait_for(is_renewed, "three renewals of a job that writes nothing", tmp_path)
        assert janitor.removed == []
    assert 2 * settings.get("RENEW_INTERVAL") < JANITOR_STALE_S


def test_a_job_of_a_running_pod_is_left_alone(redis_db: Any, frontend: Frontend, gated: Gated, tmp_path: Path) -> None:
    with running_worker(tmp_path, gated()):
        started(redis_db, frontend, tmp_path)
        janitor = Janitor(redis_db, pods=["pod-1"], ahead_s=AHEAD_S)
        janitor.clean()
        assert janitor.removed == []


@pytest.mark.parametrize("style", ["update_key", "return"])
def test_a_running_job_that_it_pushes_again_stays_with_its_worker(
    redis_db: Any, frontend: Frontend, gated: Gated, tmp_path: Path, style: str
) -> None:
    with ExitStack() as stack:
        stack.enter_context(running_worker(tmp_path, gated()))
        key = started(redis_db, frontend, tmp_path, style=style)
        stack.enter_context(running_worker(tmp_path, gated(HOSTNAME="pod-2")))
        wait_for(lambda: is_idle(redis_db), "the other worker", tmp_path)
        janitor = Janitor(redis_db, ahead_s=AHEAD_S)
        janitor.clean()
        assert janitor.pushed == [key]
        wait_for(lambda: redis_db.lrange("processing-predict:pod-1", 0, -1) == [key], "the move back", tmp_path)
        redis_db.hset(key, "gate", "open")
        wait_for(status_is(redis_db, "done", key), "the job's end", tmp_path)
    assert redis_db.lrange("runs", 0, -1) == [f"pod-1 1 {key}"]
    assert redis_db.hget(key, "output_url") == "by pod-1 in attempt 1"
    assert redis_db.keys("processing-*") + redis_db.lrange("predict", 0, -1) == []


@pytest.mark.parametrize("style", ["update_key", "return"])
def test_a_running_job_that_it_pushes_again_has_one_result_where_nobody_moves_it_back(
    redis_db: Any, frontend: Frontend, gated: Gated, tmp_path: Path, style: str
) -> None:
    with running_worker(tmp_path, gated(LEASE_TIMEOUT="1", SWEEP_INTERVAL="0.3")):
        key = started(redis_db, frontend, tmp_path, style=style)
        Janitor(redis_db, ahead_s=AHEAD_S).clean()
        redis_db.hset(key, "gate", "open")
        wait_for(status_is(redis_db, "done", key), "the job's end", tmp_path)
    # A run that finds its key gone gives up, and the job runs again.
    last = redis_db.lindex("runs", -1).split()
    assert redis_db.hget(key, "output_url") == f"by {last[0]} in attempt {last[1]}"
    assert redis_db.get("redis-consumer:completed:predict") == "1"
    assert redis_db.keys("processing-*") + redis_db.lrange("predict", 0, -1) == []


@pytest.mark.parametrize("lease_s", ["1", "3"])
def test_a_job_of_a_dead_pod_that_it_pushes_again_runs_once_more(
    redis_db: Any, frontend: Frontend, gated: Gated, tmp_path: Path, lease_s: str
) -> None:
    """While its lease lasts, the key waits in the dead pod's list; then the sweep takes it."""
    timing = {"LEASE_TIMEOUT": lease_s, "SWEEP_INTERVAL": "0.3"}
    with running_worker(tmp_path, gated(HOSTNAME="pod-2", **timing)) as dead:
        key = started(redis_db, frontend, tmp_path)
        dead.kill()
        dead.wait()
        redis_db.hset(key, "gate", "open")
        with running_worker(tmp_path, gated(**timing)):
            wait_for(lambda: is_idle(redis_db), "the other worker", tmp_path)
            janitor = Janitor(redis_db, pods=["pod-1"], ahead_s=AHEAD_S)

            def is_done() -> bool:
                janitor.clean()
                return bool(redis_db.hget(key, "status") == "done")

            wait_for(is_done, "the run by the other worker", tmp_path)
    assert redis_db.lrange("runs", 0, -1) == [f"pod-2 1 {key}", f"pod-1 2 {key}"]
    assert redis_db.hget(key, "output_url") == "by pod-1 in attempt 2"
    assert redis_db.get("redis-consumer:completed:predict") == "1"


def test_an_ended_job_leaves_it_nothing_to_do(redis_db: Any, frontend: Frontend, gated: Gated, tmp_path: Path) -> None:
    with running_worker(tmp_path, gated()):
        key = started(redis_db, frontend, tmp_path)
        redis_db.hset(key, "gate", "open")
        wait_for(status_is(redis_db, "done", key), "the job's end", tmp_path)
        janitor = Janitor(redis_db, ahead_s=AHEAD_S)
        janitor.clean()
        assert janitor.removed == []


def test_a_running_job_whose_hash_is_gone_is_forgotten(
    redis_db: Any, frontend: Frontend, gated: Gated, tmp_path: Path
) -> None:
    with running_worker(tmp_path, gated(RENEW_INTERVAL="0.2")):
        key = started(redis_db, frontend, tmp_path)
        redis_db.delete(key)
        janitor = Janitor(redis_db, pods=["pod-1"])
        janitor.clean()
        assert (janitor.removed, janitor.pushed) == ([key], [])
    assert not redis_db.exists(key, "predict", "processing-predict:pod-1")
