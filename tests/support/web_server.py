"""API v1 over real HTTP: one server for a process, whose context is another one for each test."""

from __future__ import annotations

import socket
import threading
from functools import cache
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount

from redis_consumer.web.context import WebContext
from support.web import AsUser, app_of_process


class WebServer:
    """A server on loopback. Its thread ends with the process."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.socket.getsockname()[1]
        app = AsUser(Starlette(routes=[Mount("/api/v1", app_of_process())]))
        config = uvicorn.Config(app, lifespan="off", log_level="warning", ws="none")
        server = uvicorn.Server(config)
        threading.Thread(target=server.run, kwargs={"sockets": [self.socket]}, name="web", daemon=True).start()

    @property
    def url(self) -> str:
        """Address of API v1."""
        return f"http://127.0.0.1:{self.port}/api/v1"


@cache
def web_server() -> WebServer:
    """The server of this process."""
    return WebServer()


class Web:
    """Sends requests to API v1 over HTTP. There is one context at a time."""

    def __init__(self, context: WebContext) -> None:
        self.context = app_of_process().state.context = context
        context.cache["forms"] = []
        self.url = web_server().url
        self.http = httpx.Client(timeout=60)

    def restart(self) -> None:
        """Forget what the process remembers, as after a new start of the server."""
        self.context.cache.clear()
        self.context.cache["forms"] = []

    def ask(self, method: str, path: str, status: int = 200, *, user: str = "", **kwargs: Any) -> httpx.Response:
        """Send a request, and check its status."""
        headers = {**kwargs.pop("headers", {}), **({"X-User": user} if user else {})}
        reply = self.http.request(method, f"{self.url}{path}", headers=headers, **kwargs)
        assert reply.status_code == status, f"{method} {path}: {reply.status_code} {reply.text[:500]}"
        if status >= 400 and method != "HEAD":
            assert reply.headers["content-type"] == "application/problem+json"
            assert reply.json().keys() == {"type", "title", "status", "detail", "field", "hint"}
        return reply

    def until(self, path: str, key: str, *values: Any) -> dict[str, Any]:
        """Read something until a value of it is one of those wanted."""
        while True:
            found: dict[str, Any] = self.ask("GET", path).json()
            if found[key] in values:
                return found

    def put(self, name: str, data: bytes, **kwargs: Any) -> dict[str, Any]:
        """Upload a file at once, and wait until it is read."""
        upload = self.ask("PUT", f"/uploads/{name}", 201, content=data, **kwargs).json()
        return self.until(f"/uploads/{upload['id']}", "state", "ready", "unreadable")
