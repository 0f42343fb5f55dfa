"""Uploads over HTTP: by tus (with its Python client), by one PUT and by a link to the bucket; and what may go wrong."""

from __future__ import annotations

import io
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
import tifffile
from PIL import Image as Pillow
from tusclient.client import TusClient

from fixtures_storage import BucketForTests
from redis_consumer.settings import Settings
from redis_consumer.web import uploads as uploads_module
from redis_consumer.web.context import WebContext, WebOptions, WebRedis
from redis_consumer.web.uploads import clean_name
from support.redis_server import RedisServer
from support.web import make_context
from support.web_server import Web, web_server

TUS = {"Tus-Resumable": "1.0.0"}
PATCH = {**TUS, "Content-Type": "application/offset+octet-stream"}


def tiff(*shape: int) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, np.random.default_rng(1).integers(0, 4000, shape or (60, 80)).astype(np.uint16))
    return file.getvalue()


def begun(web: Web, size: int, name: str = "cells.tif", **kwargs: Any) -> str:
    upload: str = web.ask("POST", "/uploads", 201, json={"name": name, "size": size}, **kwargs).json()["id"]
    return upload


def send(web: Web, upload: str, offset: int, data: bytes, status: int = 204) -> httpx.Response:
    headers = {**PATCH, "Upload-Offset": str(offset)}
    return web.ask("PATCH", f"/uploads/{upload}", status, headers=headers, content=data)


def offset_of(web: Web, upload: str) -> int:
    return int(web.ask("HEAD", f"/uploads/{upload}", headers=TUS).headers["Upload-Offset"])


def stored(web: Web, upload: str) -> bytes:
    key = web.context.client.hget(f"redis-consumer:upload:{upload}", "key")
    return web.context.storage.read_bytes(key)


def spool(web: Web) -> list[Path]:
    return list((web.context.folder / "uploads").iterdir())


def test_the_client_of_tus_uploads_a_file_and_its_facts_are_read(web: Web) -> None:
    uploader = TusClient(f"{web.url}/uploads").uploader(
        file_stream=io.BytesIO(tiff(600, 700)), chunk_size=100_000, metadata={"filename": "cells.tif"}
    )
    uploader.upload()
    upload = str(uploader.url).rpartition("/")[2]
    read = web.until(f"/uploads/{upload}", "state", "ready")
    assert (read["name"], read["size"], read["offset"], read["problem"]) == ("cells.tif",) + 2 * (
        len(tiff(600, 700)),
    ) + (None,)
    assert (read["facts"]["width"], read["facts"]["height"]) == (700, 600)
    assert read["facts"]["suggestions"]["kind"] == "image"
    assert stored(web, upload) == tiff(600, 700)
    assert spool(web) == []


def test_an_upload_goes_on_after_the_server_was_restarted(web: Web) -> None:
    data = tiff()
    client = TusClient(f"{web.url}/uploads")
    first = client.uploader(file_stream=io.BytesIO(data), chunk_size=1000, metadata={"filename": "a.tif"})
    first.upload(stop_at=3000)
    web.restart()
    again = client.uploader(file_stream=io.BytesIO(data), chunk_size=4000, url=first.url)
    assert again.offset == 3000
    again.upload()
    upload = str(first.url).rpartition("/")[2]
    web.until(f"/uploads/{upload}", "state", "ready")
    assert stored(web, upload) == data


def test_what_has_come_of_a_piece_counts_when_the_connection_breaks(web: Web) -> None:
    size = 4 << 20
    upload = begun(web, size)
    head = f"PATCH /api/v1/uploads/{upload} HTTP/1.1\r\nHost: x\r\nUpload-Offset: 0\r\nContent-Length: {size}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in PATCH.items())
    with socket.create_connection(("127.0.0.1", web_server().port)) as connection:
        connection.sendall(head.encode() + b"\r\n" + bytes(size // 2))
        while not offset_of(web, upload):
            pass
        # Another request can't send the same bytes meanwhile.
        assert send(web, upload, offset_of(web, upload), b"x", 423).json()["title"] == "In use"
    have = offset_of(web, upload)
    assert 0 < have <= size // 2
    assert web.ask("GET", f"/uploads/{upload}").json()["state"] == "uploading"
    headers = {**PATCH, "Upload-Offset": str(have)}
    while (status := web.http.patch(f"{web.url}/uploads/{upload}", headers=headers, content=b"x").status_code) != 204:
        assert status in (409, 423)  # until the server has seen that the connection broke
        headers["Upload-Offset"] = str(offset_of(web, upload))
    send(web, upload, offset_of(web, upload), bytes(size - offset_of(web, upload)))
    assert web.ask("GET", f"/uploads/{upload}").json()["offset"] == size


def test_offsets_and_sizes_are_checked(web: Web) -> None:
    upload = begun(web, 10)
    assert "has 0 bytes, the request begins at 5" in send(web, upload, 5, b"12345", 409).json()["detail"]
    send(web, upload, 0, bytes(11), 413)
    assert offset_of(web, upload) == 0
    assert send(web, upload, 0, bytes(4)).headers["Upload-Offset"] == "4"
    send(web, upload, 0, bytes(4), 409)

    def pieces() -> Iterator[bytes]:  # without a length that the server could check before
        yield from [bytes(4)] * 3

    headers = {**PATCH, "Upload-Offset": "4"}
    web.ask("PATCH", f"/uploads/{upload}", 413, headers=headers, content=pieces())
    assert offset_of(web, upload) == 10


@pytest.mark.parametrize(
    ("method", "headers", "status", "field"),
    [
        ("POST", {"Tus-Resumable": "0.2"}, 412, "Tus-Resumable"),
        ("POST", {**TUS}, 400, "Upload-Length"),
        ("POST", {**TUS, "Upload-Length": "-1"}, 400, "Upload-Length"),
        ("POST", {**TUS, "Upload-Length": "1e9"}, 400, "Upload-Length"),
        ("POST", {**TUS, "Upload-Defer-Length": "1"}, 400, "Upload-Defer-Length"),
        ("POST", {**TUS, "Upload-Length": "1", "Upload-Metadata": "filename *"}, 400, "Upload-Metadata"),
        ("POST", {}, 422, "body"),
        ("PATCH", {"Tus-Resumable": "2.0"}, 412, "Tus-Resumable"),
        ("PATCH", {**TUS, "Content-Type": "text/plain"}, 415, "Content-Type"),
        ("PATCH", PATCH, 400, "Upload-Offset"),
        ("DELETE", {"Tus-Resumable": "2.0"}, 412, "Tus-Resumable"),
    ],
)
def test_malformed_requests_are_refused_in_words(
    web: Web, method: str, headers: dict[str, str], status: int, field: str
) -> None:
    path = "/uploads" if method == "POST" else f"/uploads/{begun(web, 5)}"
    problem = web.ask(method, path, status, headers=headers).json()
    assert problem["field"] == field
    assert problem["detail"]


def test_what_the_server_can_of_tus(web: Web) -> None:
    headers = web.ask("OPTIONS", "/uploads", 204).headers
    assert headers["Tus-Version"] == "1.0.0"
    assert headers["Tus-Extension"] == "creation,expiration,termination"
    assert web.ask("POST", "/uploads", 201, headers={**TUS, "Upload-Length": "3"}).headers["Upload-Expires"]


def test_one_put_uploads_a_file(web: Web) -> None:
    read = web.put("plate%201/cells.tif", tiff())
    assert (read["state"], read["name"]) == ("ready", "plate 1/cells.tif")
    with Pillow.open(io.BytesIO(web.ask("GET", f"/uploads/{read['id']}/thumbnail").content)) as picture:
        assert (picture.format, picture.size) == ("PNG", (80, 60))


def test_one_put_of_unknown_size_uploads_a_file(web: Web) -> None:
    data = tiff(900, 900)
    reply = web.ask("PUT", "/uploads/a.tif", 201, content=(data[at : at + 9999] for at in range(0, len(data), 9999)))
    assert reply.json()["size"] == len(data)
    assert stored(web, reply.json()["id"]) == data


def test_half_of_a_put_leaves_nothing(web: Web) -> None:
    with socket.create_connection(("127.0.0.1", web_server().port)) as connection:
        connection.sendall(b"PUT /api/v1/uploads/a.tif HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n" + bytes(10))
        while not web.context.client.keys("redis-consumer:upload:*"):
            pass
    while web.context.client.keys("redis-consumer:upload:*"):
        pass
    assert spool(web) == []


def test_an_empty_file_says_what_to_do(web: Web) -> None:
    read = web.put("a.tif", b"")
    assert (read["state"], read["facts"]) == ("unreadable", None)
    assert "the file is empty" in read["problem"]["detail"]
    assert "upload it again" in read["problem"]["hint"]
    upload = web.ask("POST", "/uploads", 201, headers={**TUS, "Upload-Length": "0"}).headers["Location"]
    web.until(upload.removeprefix("/api/v1"), "state", "unreadable")


def test_a_file_that_is_no_image_says_what_to_do(web: Web) -> None:
    problem = web.put("a.czi", b"\x89HDF\r\n\x1a\n" + bytes(600))["problem"]
    assert "HDF5" in problem["detail"]
    assert problem["hint"] == "export it as OME-TIFF"


def test_more_than_allowed_is_refused_before_a_byte_is_sent(
    redis_server: RedisServer, redis_db: Any, tmp_path: Path
) -> None:
    web = Web(make_context(redis_server.port, tmp_path, upload_bytes=1000))
    problem = web.ask("POST", "/uploads", 413, json={"name": "a.tif", "size": 1001}).json()
    assert "1001 bytes, allowed are 1000" in problem["detail"]
    web.ask("PUT", "/uploads/a.tif", 413, content=bytes(1001))
    web.ask("PUT", "/uploads/a.tif", 413, content=(bytes(500) for _ in range(4)))
    assert spool(web) == []
    web.http.close()


def test_14_gb_are_refused_before_the_disk_is_full(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    free = SimpleNamespace(total=30 << 30, used=10 << 30, free=14 << 30)
    monkeypatch.setattr(uploads_module, "shutil", SimpleNamespace(**{**vars(shutil), "disk_usage": lambda _: free}))
    problem = web.ask("POST", "/uploads", 507, json={"name": "a.tif", "size": 14 << 30}).json()
    assert problem["title"] == "No room"
    begun(web, 8 << 30)
    # What was promised to the first upload is taken.
    assert "has room for" in web.ask("POST", "/uploads", 507, json={"name": "b.tif", "size": 8 << 30}).json()["detail"]


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("../../etc/passwd", "etc/passwd"),
        ("C:\\plates\\a.tif", "C:/plates/a.tif"),
        ("a\x00\n\x1b[2J.tif", "a[2J.tif"),
        ("...", "image"),
        ("/", "image"),
        ("x" * 1000 + ".tif", "x" * 196 + ".tif"),
        ("zellen µm 5.tif", "zellen µm 5.tif"),
    ],
)
def test_hostile_names_are_made_harmless(web: Web, name: str, kept: str) -> None:
    assert clean_name(name) == kept
    upload = begun(web, 3, name)
    fields = web.context.client.hgetall(f"redis-consumer:upload:{upload}")
    assert fields["name"] == kept
    assert fields["target"].startswith("uploads/")
    assert set(fields["target"]) <= set("abcdefghijklmnopqrstuvwxyz0123456789/.")


def test_another_user_sees_nothing_of_an_upload(web: Web) -> None:
    upload = begun(web, 3, user="ann")
    web.ask("GET", f"/uploads/{upload}", user="ann")
    web.ask("GET", f"/uploads/{upload}", 404, user="ben")
    web.ask("HEAD", f"/uploads/{upload}", 404, user="ben", headers=TUS)
    web.ask("GET", f"/uploads/{upload}/view", 404, user="ben")
    web.ask("DELETE", f"/uploads/{upload}", 404, user="ben", headers=TUS)


def test_bytes_of_a_user_are_limited(redis_server: RedisServer, redis_db: Any, tmp_path: Path) -> None:
    web = Web(make_context(redis_server.port, tmp_path, user_bytes=1000))
    begun(web, 600, user="ann")
    reply = web.ask("POST", "/uploads", 429, user="ann", json={"name": "a.tif", "size": 500})
    assert "600 bytes today" in reply.json()["detail"]
    assert reply.headers["Retry-After"]
    begun(web, 500, user="ben")
    web.http.close()


def test_an_upload_can_be_ended(web: Web) -> None:
    upload = begun(web, 10)
    web.ask("DELETE", f"/uploads/{upload}", 204, headers=TUS)
    web.ask("HEAD", f"/uploads/{upload}", 404, headers=TUS)
    assert spool(web) == []


def test_the_same_request_begins_one_upload(web: Web) -> None:
    headers = {"Idempotency-Key": "k1"}
    assert begun(web, 10, headers=headers) == begun(web, 10, headers=headers)


def test_redis_that_is_away_is_said_in_words(web: Web, tmp_path: Path) -> None:
    upload = begun(web, 10)
    client = web.context.client
    web.context.client = WebRedis("127.0.0.1", 1, 0.01, deadline_s=0.05)
    assert "Redis" in web.ask("GET", f"/uploads/{upload}", 503).json()["detail"]
    web.context.client.close()
    web.context.client = client
    send(web, upload, 0, bytes(10))


def test_a_file_goes_straight_to_a_cloud(
    s3_bucket: BucketForTests, redis_server: RedisServer, redis_db: Any, tmp_path: Path
) -> None:
    settings = Settings(redis_host="127.0.0.1", redis_port=redis_server.port, storage_bucket=s3_bucket.url)
    client = WebRedis("127.0.0.1", redis_server.port, 0.02, deadline_s=2)
    web = Web(WebContext(settings, WebOptions(), client, s3_bucket.open(), tmp_path))
    data = tiff()
    # By a link to the bucket,
    begun_upload = web.ask("POST", "/uploads", 201, json={"name": "a.tif", "size": len(data), "direct": True}).json()
    assert web.ask("GET", f"/uploads/{begun_upload['id']}").json()["state"] == "uploading"
    assert httpx.put(begun_upload["direct"]["put"], content=data).status_code == 200
    assert web.until(f"/uploads/{begun_upload['id']}", "state", "ready")["facts"]["width"] == 80
    # and by the server, which sends it on.
    read = web.put("b.tif", data)
    assert read["state"] == "ready"
    assert stored(web, read["id"]) == data
    while spool(web):
        pass
    client.close()
    web.http.close()
