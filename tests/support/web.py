"""API v1 on the test's Redis and a bucket in a folder, without a server process."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from redis_consumer.settings import Settings
from redis_consumer.storage import Storage
from redis_consumer.web.access import User
from redis_consumer.web.context import WebContext, WebOptions, WebRedis
from redis_consumer.web.v1.api import build_api

with warnings.catch_warnings():
    # Starlette wants a client that few have yet.
    warnings.simplefilter("ignore")
    from starlette.testclient import TestClient

WebClient = TestClient

#: What the process that imports the consumers has said: the same for each test of a process.
_forms: list[Any] = []


def make_context(port: int, folder: Path, **options: Any) -> WebContext:
    """A context with a bucket in a folder."""
    (folder / "bucket").mkdir(exist_ok=True)
    (folder / "cache").mkdir(exist_ok=True)
    bucket = f"file://{folder}/bucket"
    settings = Settings(redis_host="127.0.0.1", redis_port=port, storage_bucket=bucket)
    client = WebRedis("127.0.0.1", port, 0.02, deadline_s=0.2)
    context = WebContext(settings, WebOptions(**options), client, Storage(bucket), folder / "cache")
    if _forms:
        context.cache["forms"] = _forms[0]
    return context


class AsUser:
    """Lets the header ``X-User: name/role`` say who asks, in place of a login."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name: value.decode() for name, value in scope.get("headers", [])}
        if text := headers.get(b"x-user"):
            name, _, role = text.partition("/")
            scope.setdefault("state", {})["user"] = User(name, role or "user")
        await self.app(scope, receive, send)


@cache
def app_of_process() -> FastAPI:
    """The application. Its routes take longest to make, and are the same for each context."""
    return build_api(make_context(1, Path(tempfile.mkdtemp())))


class Api:
    """Sends requests to API v1. There is one context at a time."""

    def __init__(self, context: WebContext) -> None:
        self.context = app_of_process().state.context = context
        app = AsUser(Starlette(routes=[Mount("/api/v1", app_of_process())]))
        self.http = TestClient(app, raise_server_exceptions=True)

    def ask(self, method: str, path: str, status: int = 200, *, user: str = "", **kwargs: Any) -> Any:
        """Send a request, check its status, and return the body as data."""
        headers = {**kwargs.pop("headers", {}), **({"X-User": user} if user else {})}
        reply = self.http.request(method, f"/api/v1{path}", headers=headers, **kwargs)
        if "forms" in self.context.cache and not _forms:
            _forms.append(self.context.cache["forms"])
        assert reply.status_code == status, f"{method} {path}: {reply.status_code} {reply.text[:500]}"
        if status >= 400:
            assert reply.headers["content-type"] == "application/problem+json"
            assert reply.json().keys() == {"type", "title", "status", "detail", "field", "hint"}
        return reply.json() if reply.headers.get("content-type", "").endswith("json") else reply

    def upload(self, name: str = "cells.tif", data: bytes = b"pixels", owner: str = "") -> str:
        """Put a file into the bucket as an upload does, and return the id of the upload."""
        upload, key = f"up-{owner}-{name}", f"uploads/{name}"
        self.context.storage.write_bytes(key, data)
        fields = {"name": name, "key": key, "size": str(len(data)), "state": "ready", "owner": owner}
        self.context.client.hset(f"redis-consumer:upload:{upload}", mapping=fields)
        return upload

    def submit(self, user: str = "", **body: Any) -> dict[str, Any]:
        """Create a job for a new upload."""
        owner = user.partition("/")[0]
        given = {"upload": self.upload(owner=owner), **body}
        job: dict[str, Any] = self.ask("POST", "/jobs", 201, user=user, json=given)
        return job


def problem(reply: Mapping[str, Any]) -> tuple[str, str]:
    """Field and detail of a problem."""
    return reply["field"], json.dumps(reply["detail"])
