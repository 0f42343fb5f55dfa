"""What the client on a scientist's machine sends and reads, and what it takes for granted."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from support.neighbours import CLIENT_FIELDS, Frontend, saved_name
from support.redis_server import RedisServer
from support.worker import environment, running_worker, wait_for

#: It never sends a form.
BODY = {
    "jobType": "predict",
    "imageName": "HeLa.tif",
    "uploadedName": "uploads/0a1b.tif",
    "modelName": "Scaling",
    "modelVersion": "1",
    "preprocessFunction": "",
    "postprocessFunction": "",
    "dataRescale": "",
    "dataLabel": "",
}
ALWAYS = ("created_at", "finished_at", "output_url")
TEXTS = (*ALWAYS, "reason")


@pytest.fixture
def _worker(redis_server: RedisServer, redis_db: Any, bucket: Path, tmp_path: Path) -> Iterator[None]:
    with running_worker(tmp_path, environment(redis_server, bucket.as_uri())):
        yield


pytestmark = pytest.mark.usefixtures("_worker")


def end_of(frontend: Frontend, key: str, folder: Path) -> dict[str, str | None]:
    """Poll the status, then read one field after the other."""
    wait_for(lambda: frontend.read(key, "status")["status"] in ("done", "failed"), f"the end of {key}", folder)
    return {name: frontend.read(key, name)[name] for name in ("status", *CLIENT_FIELDS)}


def test_a_done_job_has_what_the_summary_needs(frontend: Frontend, bucket: Path, tmp_path: Path) -> None:
    key = frontend.predict(BODY)
    fields = end_of(frontend, key, tmp_path)
    assert fields["status"] == "done", fields["reason"]
    created, finished, url = (fields[name] or "" for name in ALWAYS)
    took = datetime.fromisoformat(finished) - datetime.fromisoformat(created.replace("Z", "+00:00"))
    assert took.total_seconds() > 0
    assert all(float(part) >= 0 for part in numbers(fields))
    # It saves what it downloads under the last part of the path.
    assert (bucket / "output" / saved_name(url)).is_file()
    assert frontend.expire(key) == 1


def numbers(fields: dict[str, str | None]) -> list[str]:
    """Its way with all that is a number: divided by commas, absent ones left out."""
    texts = [text for name, text in fields.items() if text is not None and name not in ("status", *TEXTS)]
    return [part for text in texts for part in text.split(",")]


def test_a_failed_job_has_a_reason_and_may_expire(frontend: Frontend, tmp_path: Path) -> None:
    key = frontend.predict({**BODY, "modelName": "NoSuchModel"})
    fields = end_of(frontend, key, tmp_path)
    assert (fields["status"], fields["output_url"]) == ("failed", None)
    assert (fields["reason"] or "").startswith("ModelNotFound: ")
    assert frontend.expire(key) == 1
