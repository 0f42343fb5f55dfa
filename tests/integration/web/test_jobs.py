"""Jobs of API v1: created, listed, read, cancelled and repeated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from redis_consumer.queue import JobQueue, upkeep
from redis_consumer.worker.activity import activity_of
from support.queues import claimed
from support.redis_server import RedisServer
from support.web import Api, make_context


def queue_of(api: Api, name: str = "predict") -> JobQueue:
    return JobQueue(api.context.client, name, "pod-1")


def finish(api: Api, **fields: str) -> str:
    """Run the next job as a worker does."""
    queue = queue_of(api)
    job = claimed(queue)
    done = {"status": "done", "output_file_name": "output/a.zip", "objects": "3", **fields}
    queue.complete(job, done, is_success=done["status"] == "done")
    return job.id


def test_a_job_is_what_the_contract_says(api: Api, redis_db: Any) -> None:
    job = api.submit(
        options={"scale": 0.5, "channels": "0,1"}, model="NuclearSegmentation:1", outputs=["rois", "table"]
    )
    assert (job["status"], job["kind"], job["model"]) == ("new", "image", "NuclearSegmentation:1")
    assert job["options"] == {"channels": "0,1", "scale": "0.5"}
    assert (job["queue"]["place"], job["queue"]["waiting"]) == (1, 1)
    assert redis_db.lrange("predict", 0, -1) == [job["id"]]
    fields = redis_db.hgetall(job["id"])
    assert fields["input_file_name"] == "uploads/cells.tif"
    assert (fields["status"], fields["original_name"], fields["outputs"]) == ("new", "cells.tif", "rois,table")
    assert "owner" not in fields


def test_an_archive_goes_to_the_queue_for_archives(api: Api, redis_db: Any) -> None:
    job = api.ask("POST", "/jobs", 201, json={"upload": api.upload("plate.zip")})
    assert redis_db.lrange("predict-zip", 0, -1) == [job["id"]]


def test_the_address_of_a_job_is_in_the_reply(api: Api) -> None:
    reply = api.http.post("/api/v1/jobs", json={"upload": api.upload("a b.tif")})
    assert api.http.get(reply.headers["location"]).json()["id"] == reply.json()["id"]


def test_a_job_of_an_object_in_the_bucket(api: Api) -> None:
    api.upload("x.tif")
    assert api.ask("POST", "/jobs", 201, json={"key": "uploads/x.tif"})["input"]["name"] == "x.tif"
    assert api.ask("POST", "/jobs", 404, json={"key": "uploads/y.tif"})["field"] == "key"
    assert api.ask("POST", "/jobs", 403, user="ann", json={"key": "uploads/x.tif"})["field"] == "key"


def test_jobs_are_listed_in_pages_the_latest_first(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("redis_consumer.web.v1.jobs.PAGE", 2)
    ids = [api.submit()["id"] for _ in range(5)]
    seen, cursor = [], ""
    while True:
        page = api.ask("GET", "/jobs", params={"cursor": cursor})
        seen += [job["id"] for job in page["items"]]
        if not (cursor := page["next"]):
            break
    assert seen == ids[::-1]


def test_jobs_are_listed_by_status(api: Api) -> None:
    first, second = api.submit()["id"], api.submit()["id"]
    assert finish(api) == first
    assert [job["id"] for job in api.ask("GET", "/jobs?status=done")["items"]] == [first]
    assert [job["id"] for job in api.ask("GET", "/jobs?status=new")["items"]] == [second]


def test_a_done_job_has_files_until_its_result_expires(api: Api) -> None:
    job_id = api.submit()["id"]
    api.context.storage.write_bytes("output/a.zip", b"zip")
    finish(api)
    job = api.ask("GET", f"/jobs/{job_id}")
    assert (job["status"], job["objects"], job["progress"]) == ("done", 3, 100.0)
    assert job["result"]["size"] == 3
    assert {"labels.tif", "rois.zip", "objects.csv", "result.zip"} <= {file["name"] for file in job["files"]}
    api.context.storage.delete("output/a.zip")
    job = api.ask("GET", f"/jobs/{job_id}")
    assert (job["status"], job["result"], job["files"]) == ("expired", None, [])


def test_a_failed_job_says_which_field_and_what_to_do(api: Api) -> None:
    job_id = api.submit()["id"]
    reason = "Traceback\n  at x\nInvalidJob: field scale: '9' can't be read; give a number above 0, e.g. 0.5"
    finish(api, status="failed", reason=reason, output_file_name="")
    job = api.ask("GET", f"/jobs/{job_id}")
    assert job["status"] == "failed"
    assert job["problem"] == {
        "title": "InvalidJob",
        "detail": "'9' can't be read",
        "field": "scale",
        "hint": "give a number above 0, e.g. 0.5",
    }


def test_cancelled_is_told_apart_from_failed(api: Api) -> None:
    job_id = api.submit()["id"]
    assert api.ask("DELETE", f"/jobs/{job_id}")["status"] == "cancelled"
    assert api.ask("GET", "/jobs?status=failed")["items"] == []
    assert api.ask("DELETE", f"/jobs/{job_id}", 409)["detail"] == "The job has ended already."


def test_a_running_job_is_cancelling_until_its_next_step(api: Api, redis_db: Any) -> None:
    job_id = api.submit()["id"]
    claimed(queue_of(api))
    redis_db.hset(job_id, mapping={"status": "predicting", "progress": "40"})
    job = api.ask("GET", f"/jobs/{job_id}")
    assert (job["status"], job["stage"], job["progress"], job["attempt"]) == ("running", "predicting", 40.0, 1)
    assert api.ask("DELETE", f"/jobs/{job_id}")["status"] == "cancelling"


def test_a_claimed_job_without_a_step_runs(api: Api) -> None:
    job_id = api.submit()["id"]
    claimed(queue_of(api))
    assert api.ask("GET", f"/jobs/{job_id}")["status"] == "running"


def test_a_job_runs_again_with_changes_and_no_second_upload(api: Api, redis_db: Any) -> None:
    first = api.submit(options={"scale": 0.5, "channels": "0"}, outputs=["rois"])
    finish(api, scale_from="job", axes_read="YX (file)")
    again = api.ask("POST", f"/jobs/{first['id']}/again", 201, json={"options": {"scale": 1, "channels": None}})
    assert again["again_of"] == first["id"]
    assert again["options"] == {"scale": "1"}
    assert (again["outputs"], again["input"]) == (["rois"], first["input"])
    assert "axes_read" not in redis_db.hgetall(again["id"])


def test_a_scale_that_the_worker_found_is_found_again(api: Api) -> None:
    first = api.submit()
    finish(api, scale="0.71", scale_from="estimate")
    assert api.ask("POST", f"/jobs/{first['id']}/again", 201, json={})["options"] == {}


def test_nobody_sees_jobs_of_others(api: Api) -> None:
    job = api.submit(user="ann")
    assert job["owner"] == "ann"
    for method, path, body in (
        ("GET", "", None), ("DELETE", "", None), ("POST", "/again", {}),
    ):  # fmt: skip
        api.ask(method, f"/jobs/{job['id']}{path}", 404, user="bob", json=body)
    assert api.ask("GET", "/jobs", user="bob")["items"] == []
    assert api.ask("GET", f"/jobs/{job['id']}", user="eve/operator")["id"] == job["id"]
    ownerless = api.submit()
    api.ask("GET", f"/jobs/{ownerless['id']}", 404, user="bob")


def test_nobody_uses_uploads_of_others(api: Api) -> None:
    assert api.ask("POST", "/jobs", 404, user="bob", json={"upload": api.upload(owner="ann")})["field"] == "upload"


def test_a_repeated_request_makes_one_job(api: Api, redis_db: Any) -> None:
    body, key = {"upload": api.upload()}, {"Idempotency-Key": "k1"}
    first = api.ask("POST", "/jobs", 201, json=body, headers=key)
    assert api.ask("POST", "/jobs", 201, json=body, headers=key)["id"] == first["id"]
    assert redis_db.llen("predict") == 1
    assert api.ask("POST", "/jobs", 422, json={**body, "model": "M:1"}, headers=key)["field"] == "Idempotency-Key"
    assert (
        api.ask("POST", "/jobs", 422, json={**body, "kind": "x"}, headers={"Idempotency-Key": "k2"})["field"] == "kind"
    )
    api.ask("POST", "/jobs", 201, json=body, headers={"Idempotency-Key": "k2"})


def test_a_request_that_has_not_ended_is_not_repeated(api: Api, redis_db: Any) -> None:
    body = {"upload": api.upload()}
    api.ask("POST", "/jobs", 201, json=body, headers={"Idempotency-Key": "k"})
    [name] = redis_db.keys("redis-consumer:once:*")
    digest = json.loads(redis_db.get(name))[0]
    redis_db.set(name, json.dumps([digest, "pending", "other"]))
    api.ask("POST", "/jobs", 409, json=body, headers={"Idempotency-Key": "k"})


def test_a_user_has_so_many_waiting_jobs(redis_server: RedisServer, redis_db: Any, tmp_path: Path) -> None:
    api = Api(make_context(redis_server.port, tmp_path, waiting_jobs=1))
    api.submit(user="ann")
    found = api.ask("POST", "/jobs", 429, user="ann", json={"upload": api.upload(owner="ann")})
    assert "1 are allowed" in found["detail"]
    api.submit(user="bob")


def test_a_job_goes_where_its_consumer_is(api: Api, redis_db: Any) -> None:
    queue = queue_of(api, "movies")
    upkeep.register(queue)
    told = json.loads(activity_of([], since="2026-01-01T00:00:00+00:00", memory_mb=12))
    queue.renew(activity=json.dumps({**told, "consumer": "TrackingConsumer"}))
    api.context.cache.pop("served", None)
    job = api.submit(kind="tracking")
    assert redis_db.lrange("movies", 0, -1) == [job["id"]]
    assert job["kind"] == "tracking"


def test_redis_unavailable_is_said_in_words_and_recovers(tmp_path: Path) -> None:
    server = RedisServer(tmp_path).start()
    try:
        api = Api(make_context(server.port, tmp_path))
        upload = api.upload()
        api.ask("GET", "/kinds")
        server.stop()
        found = api.ask("GET", "/jobs", 503)
        assert "no reply" in found["detail"]
        server.start()
        assert api.ask("GET", "/jobs")["items"] == []
        api.ask("POST", "/jobs", 404, json={"upload": upload})
    finally:
        server.stop()
