"""Batches of API v1: counts, summary, one zip, failed jobs again, the rest cancelled."""

from __future__ import annotations

import csv
import io
import zipfile
from pathlib import Path
from typing import Any

import pytest

from redis_consumer.queue import JobQueue
from support.queues import claimed
from support.redis_server import RedisServer
from support.web import Api, make_context


def create(api: Api, names: str = "abc", **body: Any) -> dict[str, Any]:
    uploads = [api.upload(f"{name}.tif") for name in names]
    batch: dict[str, Any] = api.ask("POST", "/batches", 201, json={"name": "plate 3", "uploads": uploads, **body})
    return batch


def run(api: Api, outcomes: str) -> None:
    """Run the next jobs: d is done, f fails, r still runs."""
    queue = JobQueue(api.context.client, "predict", "pod-1")
    for number, outcome in enumerate(outcomes):
        job = claimed(queue)
        key = f"output/{number}.zip"
        if outcome == "d":
            data = io.BytesIO()
            with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr(f"{job.original_name}_feature_0.tif", bytes(10_000))
                archive.writestr("empty.txt", b"")
            api.context.storage.write_bytes(key, data.getvalue())
            queue.complete(job, {"status": "done", "output_file_name": key, "objects": 2}, is_success=True)
        elif outcome == "f":
            queue.complete(job, {"status": "failed", "reason": "InvalidImage: =b.tif: is no image; export it again"})
        else:
            queue.update(job, {"status": "predicting"})


def test_a_batch_counts_its_jobs(api: Api) -> None:
    batch = create(api, "abcd", options={"scale": 0.5})
    assert batch["counts"] == {"waiting": 4, "running": 0, "done": 0, "failed": 0, "cancelled": 0}
    run(api, "dfr")
    found = api.ask("GET", f"/batches/{batch['id']}")
    assert found["counts"] == {"waiting": 1, "running": 1, "done": 1, "failed": 1, "cancelled": 0}
    assert (found["objects"], found["options"]) == (2, {"scale": "0.5"})
    assert [each["id"] for each in api.ask("GET", "/batches")["items"]] == [batch["id"]]
    names = [job["input"]["name"] for job in api.ask("GET", f"/jobs?batch={batch['id']}")["items"]]
    assert names == ["d.tif", "c.tif", "b.tif", "a.tif"]


def test_a_batch_goes_on_while_the_server_restarts(api: Api, redis_server: RedisServer, tmp_path: Path) -> None:
    uploads = [api.upload(f"{name}.tif") for name in "abcd"]
    request: dict[str, Any] = {
        "json": {"name": "plate 3", "uploads": uploads},
        "headers": {"Idempotency-Key": "plate-3"},
    }
    batch = api.ask("POST", "/batches", 201, **request)
    run(api, "d")
    api.context.client.close()
    # Workers go on while there is no server.
    api.context = make_context(redis_server.port, tmp_path)
    run(api, "d")
    started = Api(api.context)
    assert started.ask("GET", f"/batches/{batch['id']}")["counts"]["done"] == 2
    again = started.ask("POST", "/batches", 201, **request)
    assert again["id"] == batch["id"], "a client that lost the reply repeats its request"
    assert api.context.client.llen("predict") == 2
    run(started, "dd")
    counts = started.ask("GET", f"/batches/{batch['id']}")["counts"]
    assert counts == {"waiting": 0, "running": 0, "done": 4, "failed": 0, "cancelled": 0}


def test_the_failed_ones_run_again_in_their_place(api: Api) -> None:
    batch = create(api)
    run(api, "dff")
    found = api.ask("POST", f"/batches/{batch['id']}/again?failed=1", 201)
    assert found["counts"] == {"waiting": 2, "running": 0, "done": 1, "failed": 0, "cancelled": 0}
    jobs = api.ask("GET", f"/jobs?batch={batch['id']}&status=new")["items"]
    assert {job["input"]["name"] for job in jobs} == {"b.tif", "c.tif"}
    assert all(job["again_of"] for job in jobs)
    api.ask("POST", f"/batches/{batch['id']}/again?failed=1", 409)


def test_the_rest_is_cancelled(api: Api) -> None:
    batch = create(api)
    run(api, "d")
    assert api.ask("DELETE", f"/batches/{batch['id']}")["counts"]["cancelled"] == 2


def test_summary(api: Api) -> None:
    batch = create(api)
    run(api, "df")
    reply = api.ask("GET", f"/batches/{batch['id']}/summary.csv")
    rows = list(csv.DictReader(io.StringIO(reply.text)))
    assert [(row["image"], row["status"], row["objects"]) for row in rows] == [
        ("a.tif", "done", "2"), ("b.tif", "failed", ""), ("c.tif", "new", ""),
    ]  # fmt: skip
    assert rows[1]["reason"] == "InvalidImage: =b.tif: is no image; export it again"


def test_the_results_so_far_in_one_zip(api: Api) -> None:
    batch = create(api, "aab")
    api.ask("GET", f"/batches/{batch['id']}/result.zip", 409)
    run(api, "ddd")
    api.context.storage.delete("output/2.zip")
    reply = api.ask("GET", f"/batches/{batch['id']}/result.zip")
    with zipfile.ZipFile(io.BytesIO(reply.content)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [
            "summary.csv", "a/a.tif_feature_0.tif", "a/empty.txt", "a-2/a.tif_feature_0.tif", "a-2/empty.txt",
            "missing.csv",
        ]  # fmt: skip
        assert archive.read("a-2/a.tif_feature_0.tif") == bytes(10_000)
        assert b"b.tif" in archive.read("missing.csv")
    assert len(reply.content) < 2000  # members keep their compression


def test_an_upload_that_is_missing_is_named_and_nothing_is_created(api: Api, redis_db: Any) -> None:
    found = api.ask("POST", "/batches", 404, json={"name": "x", "uploads": [api.upload(), "none"]})
    assert found["field"] == "uploads.1"
    assert redis_db.llen("predict") == 0


def test_nobody_sees_batches_of_others(api: Api) -> None:
    body = {"name": "x", "uploads": [api.upload(owner="ann")]}
    batch = api.ask("POST", "/batches", 201, user="ann", json=body)["id"]
    assert api.ask("GET", "/batches", user="bob")["items"] == []
    for path in ("", "/summary.csv", "/result.zip"):
        api.ask("GET", f"/batches/{batch}{path}", 404, user="bob")
    api.ask("DELETE", f"/batches/{batch}", 404, user="bob")
    api.ask("POST", f"/batches/{batch}/again", 404, user="bob")
    api.ask("GET", f"/jobs?batch={batch}", 404, user="bob")
    api.ask("GET", f"/events?batch={batch}", 404, user="bob")


@pytest.mark.parametrize("name", ["../../etc", "\r\nX-Evil: 1", "β\"'", ""])
def test_any_name_is_safe_in_headers(api: Api, name: str) -> None:
    batch = create(api, "a", name=name)
    reply = api.ask("GET", f"/batches/{batch['id']}/summary.csv")
    assert "x-evil" not in reply.headers
    assert reply.headers["content-disposition"].startswith("attachment; filename*=UTF-8''")
