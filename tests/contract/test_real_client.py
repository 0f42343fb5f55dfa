"""The kiosk's own client, unchanged, against our worker: it uploads an image, waits for the job and saves the result.

It is installed in an environment of its own by ``make kiosk-client``, since it may not be used commercially.
"""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from fixtures_storage import BucketForTests
from support.frontend_server import serving_frontend
from support.neighbours import Frontend, client_names, saved_name
from support.redis_server import RedisServer
from support.worker import ROOT, environment, running_worker

CLIENT = ROOT / ".tools" / "kiosk-client" / "bin" / "python"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CLIENT.exists(), reason="the kiosk's client is not installed: make kiosk-client"),
]


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
    for path in (onnx_model_dir / "Scaling").rglob("model.onnx"):
        storage.write_bytes(f"models/{path.relative_to(onnx_model_dir)}", path.read_bytes())
    tifffile.imwrite(tmp_path / "HeLa.tif", np.full((24, 30), 7, np.uint8))
    variables = environment(redis_server, "", **{**s3_bucket.environment, "RESULT_URLS": links})
    saved = tmp_path / "saved"
    saved.mkdir()
    with (
        serving_frontend(frontend, storage) as (address, bodies),
        running_worker(tmp_path, variables),
        (tmp_path / "client.log").open("wb") as log,
    ):
        intervals = ["--update-interval", "0.5", "--refresh-rate", "0.5", "--start-delay", "0.1"]
        command = [str(CLIENT), "-m", "kiosk_client", "HeLa.tif", "-j", "predict", "-t", address, "-m", "Scaling:1"]
        subprocess.run(
            [*command, *intervals, "--output-dir", str(saved)],
            cwd=tmp_path,
            check=True,
            timeout=100,
            stdout=log,
            stderr=log,
        )
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
