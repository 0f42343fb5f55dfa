"""Checks of host and origin, headers of the page, a proxy that ends TLS, and a Redis that goes and returns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from redis_consumer.settings import Settings
from redis_consumer.web.app import build_app
from redis_consumer.web.context import WebContext, WebOptions
from redis_consumer.web.request_check import host_name, is_within
from support.redis_server import RedisServer
from support.web import WebClient, make_context


def client_of(context: WebContext, address: str = "127.0.0.1") -> WebClient:
    return WebClient(build_app(context), base_url="http://localhost", client=(address, 50000))


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost", 200), ("127.0.0.1:8080", 200), ("[::1]:8080", 200), ("LOCALHOST:1", 200), ("evil.example", 421),
     ("localhost.evil.example", 421), ("", 421), ("127.0.0.1.nip.io:8080", 421)],
)  # fmt: skip
def test_the_host_is_checked(tmp_path: Path, host: str, status: int) -> None:
    context = make_context(1, tmp_path)
    context.options = WebOptions.of(Settings())
    http = client_of(context)
    assert http.get("/", headers={"Host": host}).status_code == status
    assert http.get("/live", headers={"Host": host}).status_code == 200
    assert host_name("cells.example.org:443") == "cells.example.org"


def test_other_pages_change_nothing(redis_server: RedisServer, redis_db: Any, tmp_path: Path) -> None:
    context = make_context(redis_server.port, tmp_path)
    foreign, own = {"Origin": "https://evil.example"}, {"Origin": "http://localhost"}
    http = client_of(context)
    assert http.post("/api/v1/dead/x/again", headers=foreign).status_code == 403
    assert http.post("/api/v1/dead/x/again", headers={"Origin": "null"}).status_code == 403
    assert http.post("/api/v1/dead/x/again", headers=own).status_code == 404
    assert http.post("/api/status", json={}, headers=foreign).status_code == 200
    context.options = replace(context.options, origins=frozenset({"https://lab.example"}))
    http = client_of(context)
    allowed = http.post("/api/v1/dead/x/again", headers={"Origin": "https://lab.example"})
    assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (404, "https://lab.example")
    assert http.post("/api/v1/dead/x/again", headers=foreign).status_code == 403


def test_headers_of_the_page(tmp_path: Path) -> None:
    found = client_of(make_context(1, tmp_path)).get("/")
    policy = found.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert found.headers["x-content-type-options"] == "nosniff"
    assert "server" not in found.headers


@pytest.mark.parametrize(
    ("address", "scheme"), [("10.0.0.7", "https"), ("192.168.0.1", "http"), ("testclient", "http")]
)
def test_a_trusted_proxy_names_the_scheme(tmp_path: Path, address: str, scheme: str) -> None:
    context = make_context(1, tmp_path, trusted_proxies=("10.0.0.0/8",))
    body = {"file": ("a.tif", b"pixels")}
    found = client_of(context, address).post("/api/upload", files=body, headers={"X-Forwarded-Proto": "https"})
    assert found.json()["imageURL"].startswith(f"{scheme}://localhost/results/")
    assert not is_within("10.0.0.7", [])


def test_options_of_the_settings() -> None:
    assert WebOptions.of(Settings()).kiosk_api
    assert WebOptions.of(Settings()).hosts == {"localhost", "127.0.0.1", "[::1]"}
    guarded = WebOptions.of(Settings(web_auth="token", public_url="https://cells.example.org/"), is_loopback=False)
    assert (guarded.kiosk_api, guarded.hosts, guarded.public_url) == (False, frozenset(), "https://cells.example.org")
    assert WebOptions.of(Settings(web_auth="token", web_kiosk_api="on")).kiosk_api
    given = WebOptions.of(Settings(job_types="a, b,", model_prefix="/models/", upload_prefix="up/"))
    assert (given.job_types, given.model_prefix, given.upload_prefix) == (("a", "b"), "models", "up")


def test_redis_is_unavailable_and_returns(tmp_path: Path) -> None:
    server = RedisServer(tmp_path).start()
    context = make_context(server.port, tmp_path)
    http = client_of(context)
    assert http.get("/ready").status_code == 200
    server.stop()
    for path in ("/ready", "/api/v1/jobs", "/api/v1/queues"):
        found = http.get(path)
        assert (found.status_code, found.headers["content-type"]) == (503, "application/problem+json"), path
        assert "Redis at 127.0.0.1" in found.json()["detail"]
        assert found.headers["retry-after"]
    # No JSON: the kiosk's client takes any JSON for an answer, and repeats its request after a text.
    found = http.post("/api/status", json={"hash": "predict:a.tif:1"})
    assert (found.status_code, found.headers["content-type"]) == (503, "text/plain; charset=utf-8")
    assert found.headers["retry-after"]
    assert http.get("/live").status_code == 200
    server.start()
    for path in ("/ready", "/api/v1/jobs", "/api/v1/queues"):
        assert http.get(path).status_code == 200, path
    assert http.post("/api/status", json={"hash": "predict:a.tif:1"}).json() == {"status": None}
    context.client.close()
    server.stop()
