"""Links to results: of a folder and of a private bucket, parts of them, and those that have expired or were changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from starlette.requests import Request

from fixtures_storage import BucketForTests
from redis_consumer.web.app import build_app
from redis_consumer.web.context import WebContext
from redis_consumer.web.links import object_link
from support.web import WebClient, make_context

KEY, DATA = "output/0a1b.zip", bytes(range(256)) * 40
Link = Callable[..., str]


def link_of(context: WebContext, name: str = "cells µ-result.zip", host: bytes = b"localhost:8080") -> str:
    app = build_app(context)
    scope = {"type": "http", "app": app, "headers": [(b"host", host)], "scheme": "http", "path": "/", "method": "GET"}
    return object_link(Request({**scope, "server": ("127.0.0.1", 80), "query_string": b""}), KEY, name)[0]


def client_of(context: WebContext) -> WebClient:
    return WebClient(build_app(context), base_url="http://localhost")


@pytest.fixture(params=["folder", "private bucket"])
def context(request: pytest.FixtureRequest, tmp_path: Path) -> WebContext:
    """A server without Redis, which links don't need."""
    context = make_context(1, tmp_path)
    if request.param != "folder":
        bucket: BucketForTests = request.getfixturevalue("s3_bucket")
        context.storage = bucket.open()
    context.storage.write_bytes(KEY, DATA)
    return context


@pytest.mark.parametrize(
    ("asked", "status", "part"),
    [
        ("", 200, slice(None)), ("bytes=0-9", 206, slice(0, 10)), ("bytes=10000-", 206, slice(10000, None)),
        ("bytes=-5", 206, slice(-5, None)), ("bytes=5-99999999", 206, slice(5, None)),
    ],
)  # fmt: skip
def test_a_result_and_parts_of_it(context: WebContext, asked: str, status: int, part: slice) -> None:
    link = link_of(context)
    parts = urlsplit(link)
    assert (parts.netloc, parts.query, parts.path.endswith(".zip")) == ("localhost:8080", "", True)
    reply = client_of(context).get(parts.path, headers={"Range": asked} if asked else {})
    assert (reply.status_code, reply.content) == (status, DATA[part])
    assert reply.headers["content-type"] == "application/zip"
    assert "cells%20%C2%B5-result.zip" in reply.headers["content-disposition"]
    assert reply.headers["etag"]


def test_a_part_that_is_not_there(context: WebContext) -> None:
    assert client_of(context).get(urlsplit(link_of(context)).path, headers={"Range": "bytes=20000-"}).status_code == 416


def test_a_link_is_steady_and_of_one_server(context: WebContext, tmp_path: Path) -> None:
    assert link_of(context) == link_of(context)
    other = make_context(1, tmp_path)
    assert link_of(other) == link_of(context), "the secret is kept in the folder"
    other.folder = tmp_path / "other"
    other.folder.mkdir()
    assert (context.folder / "secret").stat().st_mode & 0o77 == 0
    other.cache.clear()
    reply = client_of(other).get(urlsplit(link_of(context)).path)
    assert (reply.status_code, reply.json()["title"]) == (404, "Not found")


@pytest.mark.parametrize("change", ["", "A", "token", "AAAA" * 10, "%00", "é" * 30, "x" * 3000])
def test_links_cannot_be_guessed(context: WebContext, change: str) -> None:
    token = urlsplit(link_of(context)).path.split("/")[2]
    changed = f"{token[:-1]}{'A' if token[-1] != 'A' else 'Q'}" if change == "" else change
    reply = client_of(context).get(f"/results/{changed}/a.zip")
    assert reply.status_code == 404


def test_expired_and_removed(context: WebContext, monkeypatch: pytest.MonkeyPatch) -> None:
    path, client = urlsplit(link_of(context)).path, client_of(context)
    context.storage.delete(KEY)
    reply = client.get(path)
    assert (reply.status_code, reply.json()["detail"]) == (410, "The result was removed.")
    monkeypatch.setattr("redis_consumer.web.links.time.time", lambda: 1e11)
    reply = client.get(path)
    assert (reply.status_code, reply.json()["detail"]) == (410, "The link has expired.")
    assert reply.json()["hint"]


def test_the_address_of_the_server(tmp_path: Path) -> None:
    context: Any = make_context(1, tmp_path)
    context.options = replace(context.options, public_url="https://cells.example.org")
    assert link_of(context).startswith("https://cells.example.org/results/")
