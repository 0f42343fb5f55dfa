"""What the autoscaler and the exporter of metrics count: list lengths and processing lists, by their names."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from support.neighbours import Frontend, autoscaler_count, exporter_count
from support.worker import is_idle, running_worker, wait_for

BODY = {"jobType": "predict", "imageName": "a.tif"}
Gated = Callable[..., dict[str, str]]


def wait_until_running(db: Any, count: int, folder: Path) -> None:
    wait_for(lambda: db.llen("runs") == count, f"{count} running jobs", folder)


def open_gates(db: Any, keys: list[str], folder: Path) -> None:
    for key in keys:
        db.hset(key, "gate", "open")
    wait_for(lambda: {db.hget(key, "status") for key in keys} == {"done"}, "the end of all jobs", folder)


def test_an_idle_worker_needs_no_pod(redis_db: Any, gated: Gated, tmp_path: Path) -> None:
    with running_worker(tmp_path, gated()):
        wait_for(lambda: is_idle(redis_db), "the idle worker", tmp_path)
        assert (autoscaler_count(redis_db), exporter_count(redis_db)) == (0, 0)
        assert redis_db.keys("processing-*") == []


def test_waiting_and_running_jobs_are_counted_once_each(
    redis_db: Any, frontend: Frontend, gated: Gated, tmp_path: Path
) -> None:
    keys = [frontend.predict(BODY) for _ in range(5)]
    assert autoscaler_count(redis_db) == 5
    with ExitStack() as stack:
        for number in range(2):
            stack.enter_context(running_worker(tmp_path, gated(HOSTNAME=f"pod-{number}")))
        wait_until_running(redis_db, 2, tmp_path)
        assert (redis_db.llen("predict"), autoscaler_count(redis_db), exporter_count(redis_db)) == (3, 5, 5)
        open_gates(redis_db, keys, tmp_path)
        assert (autoscaler_count(redis_db), exporter_count(redis_db)) == (0, 0)


def test_slots_share_the_list_of_their_pod(redis_db: Any, frontend: Frontend, gated: Gated, tmp_path: Path) -> None:
    keys = [frontend.predict(BODY) for _ in range(5)]
    with running_worker(tmp_path, gated(CONCURRENCY="2")):
        wait_until_running(redis_db, 2, tmp_path)
        # One pod is busy: the autoscaler counts pods, the exporter counts jobs.
        assert (autoscaler_count(redis_db), exporter_count(redis_db)) == (4, 5)
        open_gates(redis_db, keys, tmp_path)


def test_keys_of_our_own_look_like_nothing_that_is_counted(
    redis_db: Any, frontend: Frontend, gated: Gated, tmp_path: Path
) -> None:
    with running_worker(tmp_path, gated()):
        key = frontend.predict(BODY)
        wait_until_running(redis_db, 1, tmp_path)
        ours = set(redis_db.keys("*")) - {key, "runs", "processing-predict:pod-1"}
        open_gates(redis_db, [key], tmp_path)
    assert all(name.startswith("redis-consumer:") for name in ours)
    assert {"redis-consumer:leases:predict", "redis-consumer:holders:predict"} <= ours
    assert not any(fnmatchcase(name, "processing-*") or ":" not in name for name in ours)
