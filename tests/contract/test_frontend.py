"""What the web server and its page send and read: jobs, the poll of every 3 s, expiry, keys that are pushed twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.neighbours import PAGE_FIELDS, Frontend
from support.redis_server import RedisServer
from support.worker import environment, running_worker, wait_for

FORM = {"scale": "1", "selectedChannels": "0,", "dimensionOrder": "XYB", "segmentationType": "cell culture"}
BODY = {
    "jobType": "predict",
    "imageName": "day 1: HeLa µ.tif",
    "uploadedName": "uploads/0a1b.tif",
    "imageUrl": "https://storage.googleapis.com/b/uploads/0a1b.tif",
    "modelName": "Scaling",
    "modelVersion": "1",
    "jobForm": FORM,
}
Gated = Callable[..., dict[str, str]]
#: All that an image job may show (contract, section 1.4).
STATUSES = {"new", "started", "pre-processing", "predicting", "post-processing", "saving-results", "done"}


def poll(frontend: Frontend, key: str, folder: Path) -> list[dict[str, str | None]]:
    """What the page sees until the job's end."""
    seen = []

    def has_ended() -> bool:
        seen.append(frontend.read(key, *PAGE_FIELDS))
        return seen[-1]["status"] in ("done", "failed")

    wait_for(has_ended, f"the end of {key}", folder)
    return seen


def test_the_page_follows_an_image_to_its_result(
    redis_server: RedisServer, frontend: Frontend, bucket: Path, tmp_path: Path
) -> None:
    with running_worker(tmp_path, environment(redis_server, bucket.as_uri())):
        key = frontend.predict(BODY)
        seen = poll(frontend, key, tmp_path)
    # It replaces "-" in the status without a look whether there is one.
    assert {page["status"] for page in seen} <= STATUSES
    assert (seen[-1]["status"], seen[-1]["reason"], seen[-1]["failures"]) == ("done", None, None)
    assert (seen[-1]["output_url"] or "").endswith(".zip")
    sent = {"original_name": BODY["imageName"], "url": BODY["imageUrl"], "scale": "1", "channels": "0,"}
    assert frontend.read(key, *sent) == sent


def test_the_page_shows_the_last_line_of_a_reason(
    redis_server: RedisServer, frontend: Frontend, bucket: Path, tmp_path: Path
) -> None:
    with running_worker(tmp_path, environment(redis_server, bucket.as_uri())):
        key = frontend.predict({**BODY, "uploadedName": "uploads/missing.tif"})
        last = poll(frontend, key, tmp_path)[-1]
    assert last["status"] == "failed"
    assert (last["reason"] or "").splitlines()[-1].startswith("ObjectNotFound: ")


def test_archives_stay_in_their_own_queue(
    redis_server: RedisServer, redis_db: Any, frontend: Frontend, bucket: Path, tmp_path: Path
) -> None:
    archive = frontend.predict({**BODY, "imageName": "all.ZIP"})
    with running_worker(tmp_path, environment(redis_server, bucket.as_uri())):
        poll(frontend, frontend.predict(BODY), tmp_path)
    assert redis_db.lrange("predict-zip", 0, -1) == [archive]
    assert frontend.read(archive, "status") == {"status": "new"}


def test_the_expiry_of_a_running_job_outlives_its_end(
    redis_db: Any, frontend: Frontend, gated: Gated, tmp_path: Path
) -> None:
    with running_worker(tmp_path, gated()):
        key = frontend.predict(BODY)
        wait_for(lambda: redis_db.hget(key, "status") == "started", "the job's start", tmp_path)
        assert frontend.expire(key) == 1
        redis_db.hset(key, "gate", "open")
        poll(frontend, key, tmp_path)
    assert 0 < redis_db.ttl(key) <= 3600
    assert frontend.expire("predict:unknown:1") == 0


def wait_for_drops(folder: Path, key: str, count: int) -> None:
    log = folder / "worker.log"
    wait_for(lambda: log.read_text().count(f"Dropped job {key}") == count, f"delivery {count + 1}", folder)


def test_a_key_that_is_pushed_twice_runs_once(redis_db: Any, frontend: Frontend, gated: Gated, tmp_path: Path) -> None:
    key = frontend.predict(BODY)
    redis_db.lpush("predict", key)
    redis_db.hset(key, "gate", "open")
    with running_worker(tmp_path, gated()):
        wait_for_drops(tmp_path, key, 1)
        ended = redis_db.hgetall(key)
        redis_db.lpush("predict", key)
        wait_for_drops(tmp_path, key, 2)
    assert ended["status"] == "done"
    assert redis_db.hgetall(key) == ended
    assert redis_db.lrange("runs", 0, -1) == [f"pod-1 1 {key}"]
    assert redis_db.keys("processing-*") == []


def test_a_key_that_is_pushed_again_while_it_runs_runs_once(
    redis_db: Any, frontend: Frontend, gated: Gated, tmp_path: Path
) -> None:
    with running_worker(tmp_path, gated(CONCURRENCY="2")):
        key = frontend.predict(BODY)
        wait_for(lambda: redis_db.hget(key, "status") == "started", "the job's start", tmp_path)
        redis_db.lpush("predict", key)
        wait_for_drops(tmp_path, key, 1)
        assert redis_db.lrange("processing-predict:pod-1", 0, -1) == [key]
        redis_db.hset(key, "gate", "open")
        poll(frontend, key, tmp_path)
    assert redis_db.lrange("runs", 0, -1) == [f"pod-1 1 {key}"]
    assert redis_db.keys("processing-*") == []
