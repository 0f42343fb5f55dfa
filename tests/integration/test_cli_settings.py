"""Workers read the settings that `redis-consumer settings` lists for their consumer."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from redis_consumer.cli.workers.settings import NOT_BY_WORKERS, READ_BY
from redis_consumer.settings import Settings
from redis_consumer.tracking import write_track_file
from support import linking_models, movies, onnx_models, polaris
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
READ_WHEN_LOADED = {"DEBUG", "CLOUD_PROVIDER", "AWS_S3_BUCKET", "GKE_BUCKET", "TF_HOST", "TF_PORT", "MULTIPLEX_MODEL"}
#: Read together with others, without effect for a consumer that has no models or no tiles.
WITHOUT_EFFECT = {
    "MODEL_CACHE", "MODEL_SERVER", "CALLS_IN_FLIGHT", "MAX_CALL_BYTES", "TF_MIN_MODEL_SIZE", "TF_TENSOR_NAME",
}  # fmt: skip
CLASSES = {"image": "ImageFileConsumer", "zip": "ZipFileConsumer", "tracking": "TrackingConsumer"}
QUEUES = {"image": "predict", "zip": "predict", "tracking": "track"}
KIOSK = {
    "segmentation": "SegmentationConsumer",
    "mesmer": "MesmerConsumer",
    "spot": "SpotConsumer",
    "polaris": "PolarisConsumer",
}


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


def recorded(server: RedisServer, bucket: Path, folder: Path, consumer: str, **settings: str) -> None:
    """Run a worker until its queue is empty, and add the settings that it reads to a file with its name."""
    (folder / "recorder.py").write_text(RECORDER)
    variables = environment(server, bucket.as_uri(), CONSUMER_TYPE=consumer, **settings)
    command = [sys.executable, "recorder.py", consumer, "run", "--burst"]
    subprocess.run(command, cwd=folder, env={**os.environ, **variables}, check=True, timeout=200)


def check_lists(folder: Path, classes: Mapping[str, str]) -> None:
    faults = {}
    for consumer, name in classes.items():
        read = set((folder / consumer).read_text().split())
        # Those of images are read together. A consumer that replaces some of them has its own instead.
        together = READ_BY["ImageFileConsumer"] if consumer in KIOSK else frozenset()
        unlisted = read - READ_BY[name] - WITHOUT_EFFECT - together
        unread = READ_BY[name] - read - READ_WHEN_LOADED
        if unlisted or unread:
            faults[consumer] = {"unlisted": sorted(unlisted), "unread": sorted(unread)}
    assert faults == {}


@pytest.mark.timeout(300)
@pytest.mark.slow
def test_workers_read_what_is_listed(redis_server: RedisServer, redis_db: Any, bucket: Path, tmp_path: Path) -> None:
    def work(consumer: str, **settings: str) -> None:
        settings = {"QUEUE": QUEUES[consumer], "NUCLEAR_MODEL": "NuclearSegmentation:1", **settings}
        recorded(redis_server, bucket, tmp_path, consumer, **settings)

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
    check_lists(tmp_path, CLASSES)


@pytest.mark.timeout(300)
@pytest.mark.slow
def test_workers_of_the_kiosk_read_what_is_listed(
    redis_server: RedisServer, redis_db: Any, bucket: Path, tmp_path: Path
) -> None:
    makers: dict[str, Callable[[], Any]] = {
        "Spots": onnx_models.spotting,
        "Multiplex": onnx_models.multiplexing,
        "Distances": onnx_models.blurring,
    }
    for name, make in makers.items():
        onnx_models.save(bucket / "models", name, 1, make())
    for name, image in (("stains.tif", polaris.IMAGE), ("tissue.tif", polaris.IMAGE[1:])):
        tifffile.imwrite(bucket / "uploads" / name, image, photometric="minisblack", metadata={"axes": "CYX"})

    def work(consumer: str, **settings: str) -> None:
        recorded(redis_server, bucket, tmp_path, consumer, QUEUE=consumer, **{**polaris.MODELS, **settings})

    detecting = {"SCALE_DETECT_ENABLED": "yes", "NUCLEAR_MODEL": "NuclearSegmentation:1"}
    submit(redis_db, "polaris", "stains.tif", channels="0,1,2")
    for consumer in ("polaris", "segmentation", "spot", "polaris"):
        work(consumer)
    submit(redis_db, "mesmer", "tissue.tif", channels="0,1", scale="1")
    work("mesmer")
    assert {redis_db.hget(job, "status") for job in redis_db.keys("*:[0-9]")} == {"done"}
    for consumer, name in (("segmentation", "nuclei.tif"), ("mesmer", "tissue.tif"), ("spot", "stains.tif")):
        submit(redis_db, consumer, name)
        work(consumer, **detecting)
    submit(redis_db, "segmentation", "nuclei.tif")
    work("segmentation", LABEL_DETECT_ENABLED="yes", **detecting)
    submit(redis_db, "mesmer", "tissue.tif")
    work("mesmer", BUILT_IN_WHOLE_CELL="yes", MESMER_MODEL="Gone:1", NUCLEAR_MODEL="NuclearSegmentation:1")
    check_lists(tmp_path, KIOSK)
