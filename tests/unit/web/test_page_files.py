"""The files of the page over HTTP."""

from __future__ import annotations

import warnings

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from redis_consumer.web.page_files import page_app

with warnings.catch_warnings():
    # Starlette wants a client that few have yet.
    warnings.simplefilter("ignore")
    from starlette.testclient import TestClient


@pytest.fixture
def client() -> TestClient:
    return TestClient(Starlette(routes=[Mount("/", page_app())]))


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/", "text/html"), ("/app.js", "javascript"), ("/page.css", "text/css"), ("/viewer/viewer.js", "javascript")],
)  # fmt: skip
def test_files_are_compressed_and_of_their_type(client: TestClient, path: str, kind: str) -> None:
    reply = client.get(path)
    assert reply.status_code == 200
    assert kind in reply.headers["content-type"]
    assert reply.headers["content-encoding"] == "gzip"


def test_a_known_file_is_not_sent_again(client: TestClient) -> None:
    first = client.get("/app.js")
    assert first.headers["cache-control"] == "no-cache"
    again = client.get("/app.js", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("path", ["/nothing.js", "/../page_files.py", "/%2e%2e/app.py", "/viewer/../../context.py"])
def test_nothing_else_is_served(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404
