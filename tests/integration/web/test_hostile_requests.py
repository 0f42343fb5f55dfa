"""Hostile and wrong requests, each with its answer: never an error of the server, and nothing is created."""

from __future__ import annotations

from typing import Any

import pytest

from support.web import Api

NUL, LONG = "\0", "x" * 300
DEEP: Any = []
for _ in range(50):
    DEEP = [DEEP]


def job(**body: Any) -> dict[str, Any]:
    return {"json": {"upload": "{upload}", **body}}


def option(name: str, value: Any) -> dict[str, Any]:
    return job(options={name: value})


def ops(*given: Any, base: Any = 0) -> dict[str, Any]:
    return {"json": {"base": base, "ops": list(given)}}


#: Method, path, arguments, status, and the field or a word of the detail.
REQUESTS: dict[str, tuple[str, str, dict[str, Any], int, str]] = {
    "no body": ("POST", "/jobs", {}, 422, ""),
    "no JSON": ("POST", "/jobs", {"content": b"{", "headers": {"content-type": "application/json"}}, 422, ""),
    "not UTF-8": ("POST", "/jobs", {"content": b'{"upload": "\xff"}', "headers": {"content-type": "application/json"}},
        400, ""),
    "a list": ("POST", "/jobs", {"json": []}, 422, ""),
    "a form": ("POST", "/jobs", {"data": {"upload": "{upload}"}}, 422, ""),
    "nothing": ("POST", "/jobs", {"json": {}}, 422, "upload"),
    "upload and key": ("POST", "/jobs", job(key="uploads/cells.tif"), 422, "upload"),
    "unknown upload": ("POST", "/jobs", {"json": {"upload": "none"}}, 404, "upload"),
    "upload is another key": ("POST", "/jobs", {"json": {"upload": "../jobs:"}}, 404, "upload"),
    "upload with NUL": ("POST", "/jobs", {"json": {"upload": NUL}}, 404, "upload"),
    "upload too long": ("POST", "/jobs", {"json": {"upload": LONG}}, 422, "upload"),
    "upload is a number": ("POST", "/jobs", {"json": {"upload": 7}}, 422, "upload"),
    "key leads out": ("POST", "/jobs", {"json": {"key": "../../etc/passwd"}}, 422, "input_file_name"),
    "key with NUL": ("POST", "/jobs", {"json": {"key": f"a{NUL}b"}}, 422, "input_file_name"),
    "key of another bucket": ("POST", "/jobs", {"json": {"key": "https://example.org/a.tif"}}, 422, ""),
    "key of a file": ("POST", "/jobs", {"json": {"key": "file:///etc/passwd"}}, 422, ""),
    "key of nothing": ("POST", "/jobs", {"json": {"key": "uploads/none.tif"}}, 404, "key"),
    "unknown name": ("POST", "/jobs", job(start=True), 422, "start"),
    "status of its own": ("POST", "/jobs", job(status="done"), 422, "status"),
    "unknown kind": ("POST", "/jobs", job(kind="os:system"), 422, "kind"),
    "kind with a slash": ("POST", "/jobs", job(kind="../x"), 422, "kind"),
    "unknown option": ("POST", "/jobs", option("skale", 1), 422, "options.skale"),
    "option of workers": ("POST", "/jobs", option("status", "done"), 422, "options.status"),
    "owner by an option": ("POST", "/jobs", option("owner", "ann"), 422, "options.owner"),
    "input by an option": ("POST", "/jobs", option("input_file_name", "x"), 422, "options.input_file_name"),
    "output by an option": ("POST", "/jobs", option("output_file_name", "x"), 422, "options.output_file_name"),
    "setting by an option": ("POST", "/jobs", option("REDIS_HOST", "x"), 422, "options.REDIS_HOST"),
    "option with NUL": ("POST", "/jobs", option(f"a{NUL}", "x"), 422, f"options.a{NUL}"),
    "option is an object": ("POST", "/jobs", option("channels", {"a": 1}), 422, ""),
    "deep option": ("POST", "/jobs", option("channels", DEEP), 422, ""),
    "scale 0": ("POST", "/jobs", option("scale", 0), 422, "options.scale"),
    "scale negative": ("POST", "/jobs", option("scale", -1), 422, "options.scale"),
    "scale as a word": ("POST", "/jobs", option("scale", "large"), 422, "options.scale"),
    "scale not finite": ("POST", "/jobs", option("scale", "1e999"), 422, "options.scale"),
    "scale NaN": ("POST", "/jobs", option("scale", "NaN"), 422, "options.scale"),
    "scale huge": ("POST", "/jobs", option("scale", 1e9), 422, "options.scale"),
    "scale of digits": ("POST", "/jobs", option("scale", "1" * 5000), 422, "options.scale"),
    "scale true": ("POST", "/jobs", option("scale", True), 422, "options.scale"),
    "scale a list": ("POST", "/jobs", option("scale", [1, 2]), 422, "options.scale"),
    "scale other digits": ("POST", "/jobs", option("scale", "\uff11"), 422, "options.scale"),
    "axes unknown": ("POST", "/jobs", option("dimension_order", "QQ"), 422, "options.dimension_order"),
    "axes twice": ("POST", "/jobs", option("dimension_order", "XXYY"), 422, "options.dimension_order"),
    "z unknown": ("POST", "/jobs", option("z", "sum"), 422, "options.z"),
    "many channels": ("POST", "/jobs", option("channels", ",".join("0" * 100)), 422, "options.channels"),
    "long channels": ("POST", "/jobs", option("channels", "x" * 2000), 422, "options.channels"),
    "channels with NUL": ("POST", "/jobs", option("channels", NUL), 422, "options.channels"),
    "function option with a newline": ("POST", "/jobs", option("a.b\n", "x"), 422, "options.a.b\n"),
    "many options": ("POST", "/jobs", job(options={f"a{n}": n for n in range(300)}), 422, "options"),
    "label unknown": ("POST", "/jobs", option("label", "7"), 422, "options.label"),
    "model leads out": ("POST", "/jobs", job(model="../../x:1"), 422, "model"),
    "model version": ("POST", "/jobs", job(model="Nuclear:one two"), 422, "model"),
    "model version huge": ("POST", "/jobs", job(model=f"Nuclear:{10**30}"), 422, "model"),
    "unknown output": ("POST", "/jobs", job(outputs=["exe"]), 422, "outputs"),
    "outputs a text": ("POST", "/jobs", job(outputs="rois"), 422, "outputs"),
    "region negative": ("POST", "/jobs", job(region={"x": -1, "y": 0, "width": 9, "height": 9}), 422, "region.x"),
    "region empty": ("POST", "/jobs", job(region={"x": 0, "y": 0, "width": 0, "height": 9}), 422, "region.width"),
    "region huge": ("POST", "/jobs", job(region={"x": 0, "y": 0, "width": 10**12, "height": 9}), 422, "region.width"),
    "region half": ("POST", "/jobs", job(region={"x": 0}), 422, "region.y"),
    "idempotency key too long": ("POST", "/jobs", {**job(), "headers": {"Idempotency-Key": LONG}}, 422, ""),
    "unknown job": ("GET", "/jobs/predict:x:1", {}, 404, "no job"),
    "job without a queue": ("GET", "/jobs/x", {}, 404, "no job"),
    "own key as a job": ("GET", "/jobs/redis-consumer:upload:{upload}", {}, 404, "no job"),
    "list as a job": ("GET", "/jobs/predict", {}, 404, "no job"),
    "history as a job": ("DELETE", "/jobs/redis-consumer:jobs:", {}, 404, "no job"),
    "job with NUL": ("GET", "/jobs/predict:%00", {}, 404, "no job"),
    "job not UTF-8": ("GET", "/jobs/predict:%ff%fe", {}, 404, "no job"),
    "empty job": ("GET", "/jobs/", {}, 404, "no job"),
    "hash that is no job": ("GET", "/jobs/strange:hash:1", {}, 404, "no job"),
    "cancel unknown": ("DELETE", "/jobs/predict:x:1", {}, 404, "no job"),
    "again unknown": ("POST", "/jobs/predict:x:1/again", {"json": {}}, 404, "no job"),
    "again with an operator's option": ("POST", "/jobs/{job}/again", {"json": {"options": {"parent": "x"}}}, 422,
        "options.parent"),
    "again with an upload": ("POST", "/jobs/{job}/again", {"json": {"upload": "{upload}"}}, 422, "upload"),
    "cursor as a word": ("GET", "/jobs?cursor=x", {}, 422, "cursor"),
    "cursor negative": ("GET", "/jobs?cursor=-1", {}, 422, "cursor"),
    "status unknown": ("GET", "/jobs?status=dead", {}, 422, "status"),
    "unknown batch": ("GET", "/batches/none", {}, 404, "no batch"),
    "batch of nothing": ("POST", "/batches", {"json": {"name": "x", "uploads": []}}, 422, "uploads"),
    "batch of too many": ("POST", "/batches", {"json": {"name": "x", "uploads": ["a"] * 10_001}}, 422, "uploads"),
    "batch of a number": ("POST", "/batches", {"json": {"name": "x", "uploads": 3}}, 422, "uploads"),
    "batch without a name": ("POST", "/batches", {"json": {"uploads": ["{upload}"]}}, 422, "name"),
    "batch leads out": ("GET", "/batches/..%2f..%2fjobs", {}, 404, ""),
    "events of nothing": ("GET", "/events", {}, 422, "jobs"),
    "events of many": ("GET", "/events?jobs=" + ",".join(map(str, range(300))), {}, 422, "jobs"),
    "events of no batch": ("GET", "/events?batch=none", {}, 404, "no batch"),
    "file unknown": ("GET", "/jobs/{job}/files/passwd", {}, 422, "name"),
    "file leads out": ("GET", "/jobs/{job}/files/..%2f..%2fpasswd", {}, 404, ""),
    "file before the end": ("GET", "/jobs/{job}/files/labels.tif", {}, 404, "no result"),
    "objects before the end": ("GET", "/jobs/{job}/objects", {}, 404, "no result"),
    "objects as XML": ("GET", "/jobs/{job}/objects?format=xml", {}, 422, "format"),
    "objects of a frame that is a word": ("GET", "/jobs/{job}/objects?t=x", {}, 422, "t"),
    "labels without operations": ("PATCH", "/jobs/{job}/labels", ops(), 422, "ops"),
    "labels of no operation": ("PATCH", "/jobs/{job}/labels", ops({"op": "drop"}), 422, "ops.0"),
    "labels of label 0": ("PATCH", "/jobs/{job}/labels", ops({"op": "delete", "label": 0}), 422, "ops.0.delete.label"),
    "labels merge one": ("PATCH", "/jobs/{job}/labels", ops({"op": "merge", "labels": [1]}), 422, "ops.0.merge.labels"),
    "labels base": ("PATCH", "/jobs/{job}/labels", ops({"op": "delete", "label": 1}, base=-1), 422, "base"),
    "labels before the end": ("PATCH", "/jobs/{job}/labels", ops({"op": "delete", "label": 1}), 404, "no result"),
    "letter unknown": ("POST", "/dead/predict:x:1/again", {}, 404, "no dead letter"),
    "letter that is none": ("DELETE", "/dead/{job}", {}, 404, "no dead letter"),
    "letter of an own key": ("DELETE", "/dead/redis-consumer:jobs:", {}, 404, "no dead letter"),
    "no route": ("GET", "/nothing", {}, 404, ""),
    "no method": ("PUT", "/queues", {}, 405, ""),
    "Swagger": ("GET", "/docs", {}, 404, ""),
}  # fmt: skip


@pytest.mark.parametrize("name", REQUESTS)
def test_answer(api: Api, redis_db: Any, name: str) -> None:
    method, path, given, status, word = REQUESTS[name]
    redis_db.hset("strange:hash:1", mapping={"a": "b"})
    names = {"{job}": api.submit()["id"], "{upload}": "up--cells.tif"}
    before = sorted(redis_db.keys("*"))

    def filled(value: Any) -> Any:
        if isinstance(value, str):
            for mark, text in names.items():
                value = value.replace(mark, text)
            return value
        if isinstance(value, dict):
            return {key: filled(each) for key, each in value.items()}
        return [filled(each) for each in value] if type(value) is list else value

    found = api.ask(method, filled(path), status, **filled(given))
    assert found["status"] == status
    assert found["detail"]
    assert word in (found["field"], "") or word in found["detail"], found
    assert sorted(redis_db.keys("*")) == before


@pytest.mark.parametrize("path", ["/workers", "/dead"])
def test_only_operators_see_workers_and_dead_letters(api: Api, path: str) -> None:
    api.ask("GET", path, 403, user="ann")


def test_users_change_no_dead_letters(api: Api) -> None:
    api.ask("POST", "/dead/predict:x:1/again", 403, user="ann")
    api.ask("DELETE", "/dead/predict:x:1", 403, user="ann")
