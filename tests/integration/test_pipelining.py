"""While one slot is busy or waits, the other slot works and leases are renewed. Real workers with two slots."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fixtures_serving import serve_models
from support import onnx_models
from support.redis_server import RedisServer
from support.worker import environment, running_worker, status_is, submit, wait_for

FIRST, SECOND = "predict:a.npy:1", "predict:b.npy:2"
LEASES = "redis-consumer:leases:predict"
FIELDS = {
    "input_file_name": "uploads/a.npy",
    "original_name": "a.npy",
    "model_name": "Scaling",
    "model_version": "1",
    "scale": "1",
}


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    """A bucket's folder with an image and a model."""
    folder = tmp_path / "bucket"
    (folder / "uploads").mkdir(parents=True)
    np.save(folder / "uploads/a.npy", np.ones((24, 32), np.float32))
    onnx_models.save(folder / "models", "Scaling", 1, onnx_models.scaling(2.0))
    return folder


def test_post_processing_stalls_neither_its_lease_nor_other_slots(
    redis_server: RedisServer, redis_db: Any, bucket: Path, tmp_path: Path
) -> None:
    settings = {"CONSUMER_TYPE": "support.holding:Holding", "CONCURRENCY": "2", "LEASE_TIMEOUT": "1"}
    with (tmp_path / "gate").open("wb") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        with running_worker(tmp_path, environment(redis_server, bucket.as_uri(), **settings)):
            submit(redis_db, FIRST, **FIELDS, postprocess_function="hold")
            wait_for(status_is(redis_db, "post-processing", FIRST), "the first job's post-processing", tmp_path)
            first_lease = redis_db.zscore(LEASES, FIRST)
            submit(redis_db, SECOND, **FIELDS)
            wait_for(status_is(redis_db, "done", SECOND), "the second job", tmp_path)
            wait_for(lambda: redis_db.zscore(LEASES, FIRST) > first_lease + 1000, "the lease's renewal", tmp_path)
            assert redis_db.hget(FIRST, "status") == "post-processing"
            fcntl.flock(gate, fcntl.LOCK_UN)
            wait_for(status_is(redis_db, "done", FIRST), "the first job", tmp_path)
    assert (tmp_path / "worker.log").read_text().count(f"Started job {FIRST}") == 1


def test_a_slot_downloads_reads_and_prepares_while_another_waits_for_the_model(
    redis_server: RedisServer, redis_db: Any, bucket: Path, tmp_path: Path
) -> None:
    settings = {"CONCURRENCY": "2", "GRACE_PERIOD": "0", "GRPC_TIMEOUT": "300"}
    with (
        serve_models(bucket / "models", "--hold-s", "300") as address,
        running_worker(
            tmp_path, environment(redis_server, bucket.as_uri(), MODEL_SERVER=f"tfs://{address}", **settings)
        ),
    ):
        for job_id in (FIRST, SECOND):
            submit(redis_db, job_id, **FIELDS)
            wait_for(status_is(redis_db, "predicting", job_id), f"the prediction of {job_id}", tmp_path)
        assert redis_db.hget(FIRST, "status") == "predicting"
