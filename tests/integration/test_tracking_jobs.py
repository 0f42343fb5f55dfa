"""Movies by real workers: many at once, few workers, and one that is killed."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tifffile

from support import movies
from support.redis_server import RedisServer
from support.worker import environment, wait_for

SERVE = ["run", "--serve", "tracking=track", "--serve", "image=predict"]
MOVIE = movies.small_movie()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bucket's folder with the movie in it."""
    movies.write_tiff(MOVIE, tmp_path / "uploads" / "cells.tif")
    return tmp_path


@contextmanager
def worker(server: RedisServer, folder: Path, name: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker that serves both queues."""
    settings = {"HOSTNAME": name, "NUCLEAR_MODEL": "NuclearSegmentation:1", "LEASE_TIMEOUT": "2", "SWEEP_INTERVAL": "1"}
    variables = environment(server, folder.as_uri(), **settings)
    with (folder / "worker.log").open("ab") as log:
        command = [sys.executable, "-m", "redis_consumer", *SERVE]
        process = subprocess.Popen(command, cwd=folder, env=variables, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(90)


def submit(db: Any, number: int) -> str:
    job_id = f"track:cells.tif:{number}"
    fields = {"status": "new", "input_file_name": "uploads/cells.tif", "original_name": "cells.tif", "scale": "1"}
    db.hset(job_id, mapping=fields)
    db.lpush("track", job_id)
    return job_id


def labels_of(db: Any, folder: Path, job_id: str) -> Any:
    fields = db.hgetall(job_id)
    assert fields["status"] == "done", fields.get("reason")
    archive = zipfile.ZipFile(folder / fields["output_file_name"])
    assert sorted(archive.namelist()) == ["cells_feature_0.tif", "lineage.json"]
    return tifffile.imread(io.BytesIO(archive.read("cells_feature_0.tif")))


def are_over(db: Any, job_ids: list[str]) -> bool:
    return all(db.hget(job_id, "status") in {"done", "failed"} for job_id in job_ids)


@pytest.mark.parametrize("jobs", [5, pytest.param(20, marks=pytest.mark.slow)])
def test_movies_at_once_end_with_two_workers(redis_server: RedisServer, redis_db: Any, folder: Path, jobs: int) -> None:
    job_ids = [submit(redis_db, number) for number in range(jobs)]
    with worker(redis_server, folder, "pod-1"), worker(redis_server, folder, "pod-2"):
        wait_for(lambda: are_over(redis_db, job_ids), "the end of all jobs", folder)
    first, *others = [labels_of(redis_db, folder, job_id) for job_id in job_ids]
    assert first.shape == (len(MOVIE.cells), 160, 160)
    for labels in others:
        np.testing.assert_array_equal(labels, first)
    assert redis_db.keys("processing-*") == []


@pytest.mark.parametrize("moment", ["started", "waiting", "predicting"])
def test_a_worker_that_is_killed_costs_no_movie(
    redis_server: RedisServer, redis_db: Any, folder: Path, moment: str
) -> None:
    job_id = submit(redis_db, 1)
    with worker(redis_server, folder, "pod-1") as process:
        seen = {moment, "done"}
        wait_for(lambda: redis_db.hget(job_id, "status") in seen, f"a job that is {moment}", folder)
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children()]
        for each in family:
            os.kill(each.pid, signal.SIGKILL)
    with worker(redis_server, folder, "pod-2"):
        wait_for(lambda: are_over(redis_db, [job_id]), "the end of the job", folder)
    assert labels_of(redis_db, folder, job_id).max() >= len(MOVIE.cells[0]) - 1
    assert redis_db.keys("processing-*") == []
