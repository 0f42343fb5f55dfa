"""What the client sends and takes where the bucket is on S3: URLs treated as paths, and links that are signed."""

from __future__ import annotations

import io
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from fixtures_storage import BucketForTests
from support.neighbours import Frontend, client_names, saved_name
from support.redis_server import RedisServer
from support.worker import environment, running_worker, status_is, wait_for


@pytest.mark.parametrize("prefix", ["uploads", "uploads/plate 1"])
def test_a_job_of_the_client_is_done(
    redis_server: RedisServer,
    redis_db: Any,
    s3_bucket: BucketForTests,
    onnx_model_dir: Path,
    tmp_path: Path,
    prefix: str,
) -> None:
    """The names are paths made of a URL; the link has to end with a name that a file can have."""
    storage, image = s3_bucket.open(), io.BytesIO()
    model = onnx_model_dir / "Scaling" / "1" / "model.onnx"
    storage.write_bytes("models/Scaling/1/model.onnx", model.read_bytes())
    tifffile.imwrite(image, np.full((24, 30), 7, np.uint8))
    storage.write_bytes(f"{prefix}/HeLa 1.tif", image.getvalue())
    names = client_names(storage.get_public_url(f"{prefix}/HeLa 1.tif"), prefix)
    assert "/../http:/" in names["uploadedName"]
    body = {"jobType": "predict", "modelName": "Scaling", "modelVersion": "1", **names}
    variables = environment(redis_server, "", **{**s3_bucket.environment, "RESULT_URLS": "signed"})
    with running_worker(tmp_path, variables):
        key = Frontend(redis_db).predict(body)
        wait_for(
            lambda: status_is(redis_db, "done", key)() or status_is(redis_db, "failed", key)(), "the end", tmp_path
        )
    job = redis_db.hgetall(key)
    assert job["status"] == "done", job.get("reason")
    assert saved_name(job["output_url"]) == job["output_file_name"].rpartition("/")[2]
    with urllib.request.urlopen(job["output_url"]) as reply:
        archive = zipfile.ZipFile(io.BytesIO(reply.read()))
    assert archive.namelist() == ["HeLa 1_feature_0.tif"]
