"""The document of API v1, and what Schemathesis finds of the running server by it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.documents import ROOT
from support.redis_server import RedisServer, free_port
from support.web import Api
from support.worker import wait_for

#: Pieces of uploads have a media type of tus.
HOOKS = """
import schemathesis

schemathesis.serializer.alias("application/offset+octet-stream", "application/octet-stream")
"""
SCHEMATHESIS = ROOT / ".tools" / "schemathesis" / "bin" / "st"


def routes(api: Api) -> dict[str, Any]:
    paths = api.ask("GET", "/openapi.json")["paths"]
    return {f"{method.upper()} {path}": each for path, methods in paths.items() for method, each in methods.items()}


def test_each_route_says_what_it_answers(api: Api) -> None:
    for name, route in routes(api).items():
        assert route["description"], name
        replies = route["responses"]
        assert {"400", "403", "422", "503"} <= replies.keys(), name
        for status, reply in replies.items():
            if status >= "400":
                assert list(reply["content"]) == ["application/problem+json"], (name, status)


def test_the_document_names_no_other_host(api: Api) -> None:
    text = api.http.get("/api/v1/openapi.json").text
    assert "http://" not in text
    assert "https://" not in text


def test_other_methods_are_refused(api: Api) -> None:
    for path, methods in api.ask("GET", "/openapi.json")["paths"].items():
        reply = api.http.request("TRACE", "/api/v1" + re.sub(r"{\w+}", "0", path))
        assert reply.status_code == 405, path
        assert {method.upper() for method in methods} == {*reply.headers["allow"].split(", ")} - {"OPTIONS"}, path


@pytest.mark.slow
@pytest.mark.skipif(not SCHEMATHESIS.exists(), reason="Schemathesis is not installed: make schemathesis")
def test_schemathesis_finds_nothing(redis_server: RedisServer, redis_db: Any, tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "redis_consumer", "serve", "--port", str(port)]
    bucket = f"file://{tmp_path}"
    command += ["--redis", f"127.0.0.1:{redis_server.port}", "--bucket", bucket]
    with (tmp_path / "serve.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path)
    address = f"http://127.0.0.1:{port}/api/v1"
    (tmp_path / "hooks.py").write_text(HOOKS)
    try:
        wait_for(lambda: "startup complete" in (tmp_path / "serve.log").read_text(), "the start of the server")
        done = subprocess.run(
            [
                SCHEMATHESIS, "run", f"{address}/openapi.json", "--url", address, "--checks", "all",
                # What is accepted depends on kinds, uploads and jobs, which no schema knows. `PUT /uploads/…` takes any
                # name, also one that looks like another address; see `test_other_methods_are_refused`.
                "--exclude-checks", "positive_data_acceptance,unsupported_method",
                # Its reply does not end.
                "--exclude-path", "/events",
                "--max-examples", "15", "--request-timeout", "60", "--seed", "1",
            ],
            capture_output=True, text=True, cwd=tmp_path,
            env={**os.environ, "NO_COLOR": "1", "SCHEMATHESIS_HOOKS": "hooks"}, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-8000:]
    finally:
        server.terminate()
        server.wait()
