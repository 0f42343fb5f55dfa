"""The kiosk's own client, unchanged, against our worker and our server: it uploads an image and saves the result.

It is installed in an environment of its own by ``make kiosk-client``, since it may not be used commercially.
"""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
import tifffile

from fixtures_storage import BucketForTests
from redis_consumer.storage import Storage
from support.frontend_server import serving_frontend
from support.neighbours import Frontend, client_names, saved_name
from support.redis_server import RedisServer
from support.worker import ROOT, environment, running_worker

CLIENT = ROOT / ".tools" / "kiosk-client" / "bin" / "python"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CLIENT.exists(), reason="the kiosk's client is not installed: make kiosk-client"),
]


def run_client(address: str, folder: Path, saved: Path, log: IO[bytes]) -> None:
    """Segment HeLa.tif of a folder."""
    intervals = ["--update-interval", "0.5", "--refresh-rate", "0.5", "--start-delay", "0.1"]
    command = [str(CLIENT), "-m", "kiosk_client", "HeLa.tif", "-j", "predict", "-t", address, "-m", "Scaling:1"]
    command += [*intervals, "--output-dir", str(saved)]
    subprocess.run(command, cwd=folder, check=True, timeout=100, stdout=log, stderr=log)


def put_input(storage: Storage, models: Path, folder: Path) -> None:
    """Put a model into a bucket, and an image into a local folder."""
    for path in (models / "Scaling").rglob("model.onnx"):
        storage.write_bytes(f"models/{path.relative_to(models)}", path.read_bytes())
    tifffile.imwrite(folder / "HeLa.tif", np.full((24, 30), 7, np.uint8))


@pytest.mark.parametrize("links", ["public", "signed"])
def test_it_saves_the_result(
    redis_server: RedisServer,
    redis_db: Any,
    s3_bucket: BucketForTests,
    onnx_model_dir: Path,
    tmp_path: Path,
    links: str,
) -> None:
    storage, frontend = s3_bucket.open(), Frontend(redis_db)
    put_input(storage, onnx_model_dir, tmp_path)
    variables = environment(redis_server, "", **{**s3_bucket.environment, "RESULT_URLS": links})
    saved = tmp_path / "saved"
    saved.mkdir()
    with (
        serving_frontend(frontend, storage) as (address, bodies),
        running_worker(tmp_path, variables),
        (tmp_path / "client.log").open("wb") as log,
    ):
        run_client(address, tmp_path, saved, log)
    (body,), (key,) = bodies, redis_db.keys("predict:*")
    job = redis_db.hgetall(key)
    assert job["status"] == "done", job.get("reason")
    assert client_names(storage.get_public_url("uploads/HeLa.tif")).items() <= body.items()
    (result,) = saved.glob("*.zip")
    assert result.name == saved_name(job["output_url"]) == job["output_file_name"].rpartition("/")[2]
    if links == "signed":
        assert zipfile.ZipFile(result).namelist() == ["HeLa_feature_0.tif"]
    else:  # the bucket is private
        assert result.stat().st_size == 0


@pytest.mark.parametrize("links", ["folder", "public", "signed"])
def test_it_saves_the_result_of_our_server(
    redis_server: RedisServer,
    redis_db: Any,
    s3_bucket: BucketForTests,
    onnx_model_dir: Path,
    tmp_path: Path,
    links: str,
) -> None:
    """Its links open also where the bucket is a folder, or private."""
    folder, saved = tmp_path / "bucket", tmp_path / "saved"
    for path in (folder, saved):
        path.mkdir()
    given = (
        {"STORAGE_BUCKET": folder.as_uri()} if links == "folder" else {**s3_bucket.environment, "RESULT_URLS": links}
    )
    storage = Storage(folder.as_uri()) if links == "folder" else s3_bucket.open()
    put_input(storage, onnx_model_dir, tmp_path)
    variables = environment(redis_server, "", **{**given, "WEB_FOLDER": str(tmp_path / "web")})
    with (
        serving(variables, tmp_path) as address,
        running_worker(tmp_path, variables),
        (tmp_path / "client.log").open("wb") as log,
    ):
        run_client(address, tmp_path, saved, log)
    (key,) = redis_db.keys("predict:*")
    job = redis_db.hgetall(key)
    assert job["status"] == "done", job.get("reason")
    (result,) = saved.glob("*.zip")
    assert result.name == job["output_file_name"].rpartition("/")[2]
    # Only on S3 an upload keeps its name, and the client submits that of the upload.
    stem = "HeLa" if links != "folder" else "[0-9a-f]{32}"
    (member,) = zipfile.ZipFile(result).namelist()
    assert re.fullmatch(rf"{stem}_feature_0\.tif", member)
    assert 0 < redis_db.ttl(key) <= 3600


@contextmanager
def serving(variables: dict[str, str], folder: Path) -> Iterator[str]:
    """Run our server until the block ends, and give its address."""
    command = [sys.executable, "-m", "redis_consumer", "serve", "--port", "0"]
    with subprocess.Popen(command, cwd=folder, env=variables, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines = iter(process.stderr.readline, "")
        yield next(line.split()[-1] for line in lines if line.startswith("Serving"))
        process.terminate()
