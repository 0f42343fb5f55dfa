"""The kiosk's API: replies as its web server gives them, and the requests of the Fiji plug-in and of ark-analysis."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from fixtures_storage import BucketForTests
from redis_consumer.web.app import build_app
from redis_consumer.web.context import WebContext
from redis_consumer.web.form_file import upload_name
from redis_consumer.web.kiosk import answer_kiosk
from support.neighbours import CLIENT_FIELDS
from support.redis_server import RedisServer
from support.web import WebClient, make_context

REPLIES: list[dict[str, Any]] = json.loads((Path(__file__).parents[2] / "contract/kiosk_replies.json").read_text())


@pytest.fixture
def context(redis_server: RedisServer, redis_db: Any, tmp_path: Path) -> Iterator[WebContext]:
    """A server's context, with models and a running job."""
    context = make_context(redis_server.port, tmp_path)
    for path in ("Nuclei/1", "Nuclei/12", "Tissue/3"):
        context.storage.write_bytes(f"models/{path}/model.onnx", b"model")
    redis_db.hset("predict:a.tif:1", mapping={"status": "predicting", "progress": "50", "failures": ""})
    redis_db.hset("predict:owned.tif:1", mapping={"status": "done", "owner": "ann"})
    redis_db.hset("other:a.tif:1", mapping={"status": "done"})
    redis_db.hset("redis-consumer:secret:1", mapping={"value": "secret"})
    redis_db.set("predict:text:1", "text")
    redis_db.lpush("predict", "predict:a.tif:1")
    yield context
    context.client.close()


@pytest.fixture
def http(context: WebContext) -> WebClient:
    """A client of the whole application."""
    return WebClient(build_app(context), base_url="http://localhost")


@pytest.mark.parametrize("reply", REPLIES, ids=[reply["what"] for reply in REPLIES])
def test_golden_replies(http: WebClient, reply: dict[str, Any]) -> None:
    content = reply.get("content")
    content = "[" * 100_000 if content == "DEEP" else content
    headers = {"Content-Type": reply["type"]} if "type" in reply else {}
    found = http.request(reply["method"], reply["path"], json=reply.get("json"), content=content, headers=headers)
    assert (found.status_code, found.text) == (reply["status"], reply["body"])
    kind = "text/plain" if found.text == "Bad Request" else "application/json"
    assert found.headers["content-type"] == f"{kind}; charset=utf-8"
    assert found.headers["access-control-allow-origin"] == "*"


def test_a_browser_may_ask_from_any_page(http: WebClient) -> None:
    asked = {"Origin": "https://example.org", "Access-Control-Request-Headers": "content-type"}
    found = http.options("/api/predict", headers=asked)
    assert (found.status_code, found.content) == (204, b"")
    assert found.headers["access-control-allow-methods"] == "GET,HEAD,PUT,PATCH,POST,DELETE"
    assert found.headers["access-control-allow-headers"] == "content-type"
    assert http.post("/api/status", json={}, headers=asked).status_code == 200


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, {"input_file_name": "b/HeLa.tif", "cuts": "0", "scale": "", "label": "", "channels": ""}),
        ({"uploadedName": "uploads/1.tif", "imageUrl": "http://x"}, {"input_file_name": "uploads/1.tif", "url": "http://x"}),
        ({"dataLabel": 0, "cuts": 0, "modelVersion": 0}, {"label": "", "cuts": "0", "model_version": ""}),
        ({"dataLabel": "0", "cuts": 2, "modelVersion": 3.0}, {"label": "0", "cuts": "2", "model_version": "3"}),
        ({"jobForm": {"scale": 1.0, "selectedChannels": "0,"}}, {"scale": "1", "channels": "0,"}),
        ({"jobForm": {"scale": 0, "selectedChannels": [0, 1]}}, {"scale": "", "channels": "0,1"}),
        ({"jobForm": {"scale": 0.65}, "dataRescale": "2"}, {"scale": "0.65"}),
        ({"jobForm": {"segmentationType": "tissue", "dimensionOrder": "CXY"}, "dataRescale": "0.5"},
         {"segmentation_type": "tissue", "dimension_order": "CXY", "scale": "0.5"}),
        ({"jobForm": "none", "preprocessFunction": "normalize", "postprocessFunction": None},
         {"preprocess_function": "normalize", "postprocess_function": ""}),
    ],
)  # fmt: skip
def test_fields_of_a_job(http: WebClient, redis_db: Any, body: dict[str, Any], fields: dict[str, str]) -> None:
    found = http.post("/api/predict/", json={"jobType": "predict", "imageName": "b/HeLa.tif", **body}).json()
    key = found["hash"]
    assert re.fullmatch(r"predict:b/HeLa\.tif:[0-9a-f-]{36}", key)
    assert redis_db.lindex("predict", 0) == key
    job = redis_db.hgetall(key)
    assert fields.items() <= job.items()
    assert (job["status"], job["original_name"]) == ("new", "b/HeLa.tif")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", job["created_at"])
    assert job["updated_at"] == job["created_at"]


def test_archives_and_batches(http: WebClient, redis_db: Any) -> None:
    jobs = [{"jobType": "predict", "imageName": name} for name in ("all.ZIP", "a.tar.gz")]
    hashes = http.post("/api/batch/predict", json={"jobs": jobs}).json()["hashes"]
    assert redis_db.lrange("predict-zip", 0, -1) == hashes[:1]
    assert redis_db.lindex("predict", 0) == hashes[1]
    assert http.post("/api/batch/predict", json={"jobs": jobs * 51}).status_code == 413
    assert http.post("/api/track", json={"imageName": "m.trk"}).json()["hash"].startswith("track:m.trk:")


def test_without_the_kiosk_api(context: WebContext) -> None:
    context.options = replace(context.options, kiosk_api=False)
    found = WebClient(build_app(context), base_url="http://localhost").get("/api/health-check")
    assert (found.status_code, found.text) == (404, "{}")


def test_an_upload_of_the_kiosk_client(http: WebClient, context: WebContext) -> None:
    """Its parts hold a Content-Length."""
    body = (
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="C:\\data\\H\xc3\xa9La.tar.gz"\r\n'
        b"Content-Type: application/gzip\r\nContent-Length: 6\r\n\r\npixels\r\n--x--\r\n"
    )
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    found = http.post("/api/upload/", content=body, headers=headers).json()
    assert re.fullmatch(r"uploads/[0-9a-f]{32}\.gz", found["uploadedName"])
    assert context.storage.read_bytes(found["uploadedName"]) == b"pixels"
    assert http.get(urlsplit(found["imageURL"]).path).content == b"pixels"
    assert list((context.folder / "forms").iterdir()) == []


@pytest.mark.parametrize("cut", [20, 90, 130, 140], ids=str)
def test_an_upload_that_breaks_off_leaves_nothing(http: WebClient, context: WebContext, cut: int) -> None:
    body = (
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.tif"\r\nContent-Type: image/tiff\r\n\r\n'
        + bytes(40)
    )
    body = (body + b"\r\n--x--\r\n")[:cut]
    found = http.post("/api/upload", content=body, headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert (found.status_code, found.text) == (400, "Bad Request")
    assert not (context.folder / "forms").exists() or list((context.folder / "forms").iterdir()) == []


def test_an_upload_that_is_too_large(context: WebContext) -> None:
    context.options = replace(context.options, upload_bytes=10)
    http = WebClient(build_app(context), base_url="http://localhost")
    found = http.post("/api/upload", files={"file": ("a.tif", bytes(20_000))})
    assert (found.status_code, found.json()) == (413, {"message": "the file is larger than 10 bytes; split it"})


def test_names_of_uploads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("redis_consumer.web.form_file._last_ms", 99_999_999_999_999)
    digest = hashlib.md5(b"x.tar.gz_100000000000000", usedforsecurity=False).hexdigest()
    assert upload_name("x.tar.gz") == f"{digest}.gz"
    assert [upload_name(name)[32:] for name in (".bashrc", "a", "a.b/c", "a.TIF", "a.t/../f")] == [
        "",
        "",
        "",
        ".TIF",
        "",
    ]


def finish(redis_db: Any, context: WebContext, key: str, **fields: str) -> None:
    """End a job as a worker does."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("HeLa_feature_0.tif", "labels")
    context.storage.write_bytes("output/0a1b.zip", data.getvalue())
    moment = "2026-01-01T00:00:00.123456+00:00"
    url = "file:///bucket/output/0a1b.zip"
    done = {"status": "done", "output_file_name": "output/0a1b.zip", "output_url": url, "finished_at": moment}
    redis_db.hset(key, mapping={**done, **fields})


def test_the_fiji_plug_in(http: WebClient, context: WebContext, redis_db: Any) -> None:
    """It ends paths with a slash, takes only replies of success, and opens a link whose path ends with .zip."""

    def ask(path: str, **body: Any) -> Any:
        found = http.post(path, json=body)
        assert 200 <= found.status_code < 300
        return found.json()

    assert "predict" in http.get("/api/jobtypes/").json()["jobTypes"]
    uploaded = http.post("/api/upload/", files={"file": ("HeLa.tif", b"pixels", "image/tiff")}).json()
    body = {
        "jobType": "predict",
        "imageName": uploaded["uploadedName"].rpartition("/")[2],
        "imageUrl": uploaded["imageURL"],
    }
    key = ask("/api/predict/", uploadedName=uploaded["uploadedName"], jobForm={"scale": 1}, **body)["hash"]
    assert ask("/api/status/", hash=key)["status"] == "new"
    finish(redis_db, context, key)
    assert ask("/api/status/", hash=key)["status"] == "done"
    link = ask("/api/redis/", hash=key, key="output_url")["value"]
    parts = urlsplit(link)
    assert (parts.scheme, parts.query, parts.path.endswith("/0a1b.zip")) == ("http", "", True)
    assert zipfile.ZipFile(io.BytesIO(http.get(parts.path).content)).namelist() == ["HeLa_feature_0.tif"]
    assert ask("/api/redis/expire/", hash=key, expireIn=3600)["value"] == 1


def test_ark_analysis(http: WebClient, context: WebContext, redis_db: Any) -> None:
    """It computes with `progress` while the archive waits, and with `failures` at the end."""
    http.post("/api/upload", files={"file": ("fovs.zip", b"PK", "application/zip")})
    body = {"jobType": "predict", "imageName": "fovs.zip", "jobForm": {"scale": 1.0}}
    key = http.post("/api/predict", json=body).json()["hash"]
    asked = {"hash": key, "key": ["status", "progress", "output_url", "reason", "failures"]}
    redis_db.hset(key, mapping={"status": "waiting", "progress": "40"})
    status, progress, *_ = http.post("/api/redis", json=asked).json()["value"]
    assert (status, int(progress)) == ("waiting", 40)
    finish(redis_db, context, key, failures="")
    status, _, link, _, failures = http.post("/api/redis", json=asked).json()["value"]
    assert (status, len(failures)) == ("done", 0)
    assert http.get(urlsplit(link).path).status_code == 200


def test_the_kiosk_client_reads_fields_one_by_one(http: WebClient, context: WebContext, redis_db: Any) -> None:
    key = http.post("/api/predict", json={"jobType": "predict", "imageName": "a.tif"}).json()["hash"]
    finish(redis_db, context, key)
    found = {name: http.post("/api/redis", json={"hash": key, "key": name}).json()["value"] for name in CLIENT_FIELDS}
    assert {name for name, value in found.items() if value} == {"created_at", "finished_at", "output_url"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("1", "1"), ("1.0", "1"), ("0", ""), ("-0.0", ""), ("-0.5", "-0.5"), ("true", "true"), ("false", ""),
        ("null", ""), ('""', ""), ("1e21", "1e+21"), ("1e20", "100000000000000000000"), ("0.000001", "0.000001"),
        ("1.5e-7", "1.5e-7"), ("-0.00001234", "-0.00001234"), ("1e999", "Infinity"), ('"0,"', "0,"),
        ("[0, null, 2]", "0,,2"), ("12345678901234567", "12345678901234567"), ("1.25e300", "1.25e+300"),
    ],
)  # fmt: skip
def test_values_are_written_as_javascript_writes_them(
    context: WebContext, redis_db: Any, value: str, text: str
) -> None:
    assert kiosk_fields(context, redis_db, value)["model_name"] == text


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_what_only_python_reads_is_no_json(context: WebContext, redis_db: Any, value: str) -> None:
    with pytest.raises(KeyError, match="hash"):
        kiosk_fields(context, redis_db, value)


def kiosk_fields(context: WebContext, db: Any, value: str) -> dict[str, str]:
    """Submit a job with this name of a model, as text of JSON, and return its fields."""
    body = f'{{"jobType": "predict", "imageName": "a.tif", "modelName": {value}}}'
    reply = asked(context, "predict", body)
    fields: dict[str, str] = db.hgetall(reply["hash"])
    return fields


def asked(context: WebContext, path: str, body: str) -> dict[str, Any]:
    """Send the text of JSON and return the reply."""
    with WebClient(kiosk_app(context)) as http:
        reply = http.post(f"/api/{path}", content=body.encode(), headers={"Content-Type": "application/json"})
    data: dict[str, Any] = reply.json()
    return data


def kiosk_app(context: WebContext) -> Starlette:
    """The kiosk's API without the rest of the server."""
    app = Starlette(routes=[Route("/api/{path:path}", answer_kiosk, methods=["POST"])])
    app.state.context = context
    return app


def test_a_key_that_is_no_text_is_no_job(context: WebContext) -> None:
    body = '{"hash": "predict:\\ud800:1", "key": ["status", "\\ud800"]}'
    assert asked(context, "redis", body) == {"value": [None, None]}
    assert asked(context, "redis/expire", body) == {"value": 0}


def test_an_upload_on_s3_keeps_its_name(context: WebContext, s3_bucket: BucketForTests) -> None:
    storage = context.storage = s3_bucket.open()
    with WebClient(kiosk_app(context)) as http:
        reply = http.post("/api/upload", files={"file": ("../../day 1.tif", b"pixels")})
    link = storage.get_public_url("uploads/day 1.tif")
    assert reply.json() == {"imageURL": link, "uploadedName": link}
    assert storage.read_bytes("uploads/day 1.tif") == b"pixels"


def test_what_a_killed_server_left_is_removed(context: WebContext) -> None:
    folder = context.folder / "forms"
    folder.mkdir()
    for name, age_s in (("old", 25 * 3600), ("new", 60)):
        (folder / name).touch()
        os.utime(folder / name, (time.time() - age_s,) * 2)
    with WebClient(kiosk_app(context)) as http:
        assert http.post("/api/upload", files={"file": ("a.tif", b"pixels")}).status_code == 200
    assert [path.name for path in folder.iterdir()] == ["new"]
