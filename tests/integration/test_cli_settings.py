"""Workers read the settings that `redis-consumer settings` lists for their consumer."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from redis_consumer.cli.workers.settings import NOT_BY_WORKERS, READ_BY
from redis_consumer.settings import Settings
from redis_consumer.tracking import write_track_file
from support import linking_models, movies, onnx_models
from support.documents import ROOT
from support.redis_server import RedisServer
from support.worker import environment

#: Runs the command line, and notes the name of each setting that a process of it reads, but for the job's record.
RECORDER = """
import os, sys
from redis_consumer.cli import main
from redis_consumer.consumers import defaults
from redis_consumer.settings import Settings

names = frozenset(Settings.model_fields)
file = os.open(sys.argv.pop(1), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
plain, source, write_record = Settings.__getattribute__, Settings.source, defaults.recorded_settings
muted = []

def note(name):
    if name in names and not muted:
        os.write(file, f"{name.upper()}\\n".encode())

def read(settings, name):
    note(name)
    return plain(settings, name)

def read_source(settings, name):
    note(name.lower())
    return source(settings, name)

def record():
    muted.append(True)
    try:
        return write_record()
    finally:
        muted.pop()

Settings.__getattribute__, Settings.source, defaults.recorded_settings = read, read_source, record
main()
"""
#: They decide the values of other settings while the settings are loaded.
READ_WHEN_LOADED = {"DEBUG", "CLOUD_PROVIDER", "AWS_S3_BUCKET", "GKE_BUCKET", "TF_HOST", "TF_PORT"}
#: Read together with others, without effect for a consumer that has no models or no tiles.
WITHOUT_EFFECT = {
    "MODEL_CACHE", "MODEL_SERVER", "CALLS_IN_FLIGHT", "MAX_CALL_BYTES", "TF_MIN_MODEL_SIZE", "TF_TENSOR_NAME",
}  # fmt: skip
CLASSES = {"image": "ImageFileConsumer", "zip": "ZipFileConsumer", "tracking": "TrackingConsumer"}
QUEUES = {"image": "predict", "zip": "predict", "tracking": "track"}


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    """A bucket with an image, archives of it, a movie, and models that link cells."""
    uploads = tmp_path / "bucket" / "uploads"
    movies.write_tiff(movies.small_movie(), uploads / "movie.tif")
    image = (ROOT / "data" / "nuclei.tif").read_bytes()
    (uploads / "nuclei.tif").write_bytes(image)
    with zipfile.ZipFile(uploads / "plate.zip", "w") as archive:
        archive.writestr("nuclei.tif", image)
    with zipfile.ZipFile(uploads / "movie.zip", "w") as archive:
        for frame in range(2):
            archive.writestr(f"{frame}.tif", image)
    labels = [np.pad(np.ones((9, 9), np.uint16), 10) for _ in range(2)]
    write_track_file(uploads / "labels.trk", labels, labels, [], shape=(2, 29, 29))
    makers = {"Pairing": linking_models.pairing, "Encoding": linking_models.encoding}
    makers["Embedding"] = linking_models.embedding
    for name, make in makers.items():
        onnx_models.save(tmp_path / "bucket" / "models", name, 1, make())
    return tmp_path / "bucket"


def submit(db: Any, queue: str, name: str, **fields: str) -> str:
    job_id = f"{queue}:{name}:{len(db.keys(f'{queue}:*'))}"
    known = {"status": "new", "input_file_name": f"uploads/{name}", "original_name": name}
    db.hset(job_id, mapping={**known, **fields})
    db.lpush(queue, job_id)
    return job_id


def test_the_lists_have_all_settings() -> None:
    listed = [*frozenset().union(*READ_BY.values()), *NOT_BY_WORKERS]
    assert sorted(listed) == sorted(name.upper() for name in Settings.model_fields)


@pytest.mark.timeout(300)
@pytest.mark.slow
def test_workers_read_what_is_listed(redis_server: RedisServer, redis_db: Any, bucket: Path, tmp_path: Path) -> None:
    (tmp_path / "recorder.py").write_text(RECORDER)

    def work(consumer: str, **settings: str) -> None:
        """Run a worker until its queue is empty."""
        settings |= {"CONSUMER_TYPE": consumer, "QUEUE": QUEUES[consumer]}
        variables = environment(redis_server, bucket.as_uri(), NUCLEAR_MODEL="NuclearSegmentation:1", **settings)
        command = [sys.executable, "recorder.py", consumer, "run", "--burst"]
        subprocess.run(command, cwd=tmp_path, env={**os.environ, **variables}, check=True, timeout=200)

    submit(redis_db, "predict", "nuclei.tif", scale="0.5")
    submit(redis_db, "predict-zip", "plate.zip", scale="0.5")
    submit(redis_db, "track", "movie.tif", scale="1", model_name="Pairing", model_version="1")
    submit(redis_db, "track", "movie.zip", scale="0.5")
    tracking = {
        "TRACKING_MODEL": "Embedding:1",
        "NEIGHBORHOOD_ENCODER": "Encoding:1",
        "TRACKING_SEGMENT_MODEL": "NuclearSegmentation:1",
    }
    for consumer, settings in (("zip", {}), ("tracking", tracking), ("image", {}), ("zip", {}), ("tracking", tracking)):
        work(consumer, **settings)
    submit(redis_db, "track", "labels.trk")
    work("tracking")
    assert {redis_db.hget(job, "status") for job in redis_db.keys("*:[0-9]")} == {"done"}
    submit(redis_db, "predict", "nuclei.tif", label="0")
    submit(redis_db, "predict", "nuclei.tif", scale="1")
    work("image", SCALE_DETECT_ENABLED="yes", LABEL_DETECT_ENABLED="yes")
    for detection in ("SCALE_DETECT_ENABLED", "LABEL_DETECT_ENABLED"):
        submit(redis_db, "track", "movie.tif")
        work("tracking", **{detection: "yes"})
    for consumer, name in CLASSES.items():
        read = set((tmp_path / consumer).read_text().split())
        assert read - READ_BY[name] <= WITHOUT_EFFECT
        assert READ_BY[name] - read <= READ_WHEN_LOADED
