"""The commands of the page about the API, run by curl against a real server."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from redis_consumer.queue import JobQueue
from redis_consumer.web.app import build_app
from support.documents import DOCS
from support.queues import claimed, give_up
from support.redis_server import free_port
from support.web import Api
from support.worker import wait_for

TEXT = (DOCS / "api.rst").read_text(encoding="utf-8")
#: Exit codes of curl: an error that the page shows, and the end of a stream after the given time.
SHOWN_ERROR, TIMED_OUT = 22, 28


def commands() -> list[str]:
    blocks = re.findall(r"\.\. code-block:: console\n\n((?:   .*\n|\n)+)", TEXT)
    return [command.strip() for block in blocks for command in re.split(r"^   \$ ", block, flags=re.MULTILINE)[1:]]


@pytest.fixture
def address(api: Api) -> Iterator[str]:
    """A server in a thread, with the context of `api`."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(build_app(api.context), port=port, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_for(lambda: server.started, "the start of the server")
    yield f"localhost:{port}"
    server.should_exit = True
    thread.join()


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_the_commands_of_the_page(api: Api, address: str, done: str, redis_db: Any, tmp_path: Path) -> None:
    queue = JobQueue(api.context.client, "predict", "pod-1")
    uploads = [api.upload(name) for name in ("cells.tif", "b.tif", "c.tif")]
    batch = api.ask("POST", "/batches", 201, json={"name": "x", "uploads": uploads[:2]})["id"]
    result = {"status": "done", "output_file_name": redis_db.hget(done, "output_file_name")}
    queue.complete(claimed(queue), result, is_success=True)
    queue.complete(claimed(queue), {"status": "failed", "reason": "InvalidImage: no image"})
    dead = give_up(redis_db, queue)
    names = {"JOB": done, "UPLOAD": uploads[0], "BATCH": batch, "DEAD": dead, "WAITING": api.submit()["id"]}
    assert len(commands()) > 20
    for command in commands():
        line = command.replace("localhost:8080", address).replace("curl ", "curl --silent --show-error --fail ", 1)
        code = subprocess.run(["bash", "-c", line], cwd=tmp_path, env={**os.environ, **names}, check=False).returncode
        wanted = SHOWN_ERROR if "skale" in command else TIMED_OUT if "/events" in command else 0
        assert code == wanted, command
    assert {"result.zip", "rois.zip", "plate3.zip"} <= {path.name for path in tmp_path.iterdir()}
    assert api.ask("GET", f"/jobs/{done}")["version"] == 1
