"""The kiosk's ten releases: their variables start ready workers, and each finishes a job, beside TensorFlow Serving."""

from __future__ import annotations

import io
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tifffile
import yaml

from fixtures_serving import serve_models
from support import linking_models, movies, onnx_models
from support.polaris import CELLS, IMAGE, NUCLEI, known_rows, spots, table
from support.redis_server import RedisServer, free_port
from support.worker import environment, running_worker, wait_for

VALUES = Path(__file__).parent / "kiosk_values"
QUEUES = ("segmentation", "caliban", "mesmer", "polaris", "spot")
RELEASES = [f"{queue}{kind}" for queue in QUEUES for kind in ("", "-zip")]
#: Image of a job of each queue, its axes, and what the kiosk's page says of it.
IMAGES: dict[str, tuple[Any, str, dict[str, str]]] = {
    "segmentation": (NUCLEI, "YX", {"channels": "0,", "dimension_order": "XYB", "scale": "1"}),
    "caliban": (np.stack([movies.small_movie().image(number) for number in range(3)]), "TYX", {"scale": "1"}),
    "mesmer": (np.stack([NUCLEI, CELLS]), "CYX", {"channels": "0,1", "scale": "1"}),
    "polaris": (IMAGE, "CYX", {"channels": "0,1,2", "segmentation_type": "cell culture"}),
    "spot": (spots([(30, 40)]), "YX", {}),
}
MEMBERS = {
    "segmentation": ["image_batch_0_feature_0.tif"],
    "caliban": ["image_feature_0.tif", "lineage.json"],
    "mesmer": ["image_feature_0.tif", "image_feature_1.tif"],
    "polaris": ["image_0.csv", "image_batch_0_feature_0.tif", "image_batch_0_feature_1.tif"],
    "spot": ["image_0.npy", "image_0.tif"],
}
TYPES = ("cell culture", "tissue", "none")


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    """The uploads of all queues: an image, and an archive of it."""
    uploads = tmp_path / "bucket" / "uploads"
    for queue, (image, axes, _) in IMAGES.items():
        (uploads / queue).mkdir(parents=True)
        path = uploads / queue / "image.tif"
        tifffile.imwrite(path, image, photometric="minisblack", metadata={"axes": axes})
        with zipfile.ZipFile(uploads / queue / "image.zip", "w") as archive:
            archive.write(path, "image.tif")
    return tmp_path / "bucket"


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Variables of a model server that has the models which the kiosk's releases name."""
    with model_server(tmp_path) as variables:
        yield variables


@contextmanager
def model_server(folder: Path, *options: str) -> Iterator[dict[str, str]]:
    makers: dict[tuple[str, int], Callable[[], Any]] = {
        ("NuclearSegmentation", 75): onnx_models.blurring,
        ("CytoplasmSegmentation", 5): onnx_models.blurring,
        ("MultiplexSegmentation", 9): onnx_models.multiplexing,
        ("SpotDetection", 3): onnx_models.spotting,
        ("SpotDetection", 7): onnx_models.spotting,
        ("NuclearTrackingInf", 75): linking_models.embedding,
        ("NuclearTrackingNE", 75): linking_models.encoding,
    }
    for (name, version), make in makers.items():
        onnx_models.save(folder / "models", name, version, make())
    with serve_models(folder / "models", *options) as address:
        host, _, port = address.partition(":")
        yield {"MODEL_SERVER": "", "TF_HOST": host, "TF_PORT": port}


def variables_of(release: str, server: RedisServer, bucket: Path, serving: dict[str, str]) -> dict[str, str]:
    """The variables of a release, but for the addresses of this machine."""
    values = yaml.safe_load((VALUES / f"{release}-consumer.yaml").read_text(encoding="utf-8"))
    given = {name: str(value) for name, value in values["env"].items() if value}
    here = environment(server, bucket.as_uri(), HOSTNAME=f"{release}-consumer-0", **serving)
    return {**given, **here, "HEALTH_ADDRESS": f"127.0.0.1:{free_port()}"}


def submit(db: Any, queue: str, number: int, suffix: str = ".tif", **fields: str) -> str:
    """Submit a job as the kiosk's page does."""
    job_id = f"{queue}:image{suffix}:{number}"
    given = {
        "original_name": f"image{suffix}",
        "input_file_name": f"uploads/{queue.removesuffix('-zip')}/image{suffix}",
    }
    db.hset(job_id, mapping={"status": "new", "scale": "", **given, **fields})
    db.lpush(queue, job_id)
    return job_id


def is_ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/ready", timeout=5) as reply:
            return bool(reply.status == 200)
    except urllib.error.URLError:
        return False


def is_over(db: Any, job_id: str) -> bool:
    return db.hget(job_id, "status") in ("done", "failed")


def result_of(db: Any, bucket: Path, job_id: str) -> dict[str, bytes]:
    fields = db.hgetall(job_id)
    assert fields["status"] == "done", (job_id, fields.get("reason"), fields.get("failures"))
    with zipfile.ZipFile(bucket / fields["output_file_name"]) as archive:
        return {name: archive.read(name) for name in sorted(archive.namelist())}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_each_release_finishes_a_job(
    redis_server: RedisServer, redis_db: Any, bucket: Path, serving: dict[str, str], tmp_path: Path
) -> None:
    with ExitStack() as workers:
        for release in RELEASES:
            variables = variables_of(release, redis_server, bucket, serving)
            workers.enter_context(running_worker(tmp_path, variables))
            wait_for(partial(is_ready, variables["HEALTH_ADDRESS"]), f"{release} to be ready", tmp_path)
        jobs = {}
        for queue in QUEUES:
            fields = IMAGES[queue][2]
            jobs[submit(redis_db, queue, 1, **fields)] = MEMBERS[queue]
            members = [*MEMBERS[queue], "summary.csv"]
            jobs[submit(redis_db, f"{queue}-zip", 1, ".zip", **fields)] = members
        for job_id in jobs:
            wait_for(partial(is_over, redis_db, job_id), f"the end of {job_id}", tmp_path)
    assert {job_id: sorted(result_of(redis_db, bucket, job_id)) for job_id in jobs} == jobs
    assert redis_db.keys("processing-*") == []


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_spots_in_cells_hold_no_worker(
    redis_server: RedisServer, redis_db: Any, bucket: Path, serving: dict[str, str], tmp_path: Path
) -> None:
    jobs = {
        kind: submit(redis_db, "polaris", number, channels="0,1,2", segmentation_type=kind)
        for number, kind in enumerate(TYPES)
    }
    seen: dict[str, dict[str, None]] = {job_id: {} for job_id in jobs.values()}

    def are(*statuses: str) -> bool:
        now = {job_id: redis_db.hget(job_id, "status") for job_id in jobs.values()}
        for job_id, status in now.items():
            seen[job_id][status] = None
        return set(now.values()) <= set(statuses)

    with ExitStack() as workers:
        workers.enter_context(running_worker(tmp_path, variables_of("polaris", redis_server, bucket, serving)))
        # One slot divides all of them, while nobody works on their child jobs.
        wait_for(lambda: are("waiting"), "all jobs to wait", tmp_path)
        assert redis_db.keys("processing-*") == []
        assert [redis_db.llen(queue) for queue in ("spot", "segmentation", "mesmer")] == [3, 2, 1]
        for release in ("spot", "segmentation", "mesmer"):
            workers.enter_context(running_worker(tmp_path, variables_of(release, redis_server, bucket, serving)))
        wait_for(lambda: are("done", "failed"), "the end of all jobs", tmp_path)
    order = ["new", "started", "predicting", "waiting", "saving-results", "done"]
    for statuses in seen.values():
        assert list(statuses) == [status for status in order if status in statuses]
    for kind, job_id in jobs.items():
        files = result_of(redis_db, bucket, job_id)
        assert list(files) == (["image_0.csv"] if kind == "none" else MEMBERS["polaris"])
        labels = [tifffile.imread(io.BytesIO(data)) for name, data in files.items() if name.endswith(".tif")]
        assert table(files["image_0.csv"]) == known_rows(*labels)
        fields = redis_db.hgetall(job_id)
        assert (fields["total_jobs"], fields["warning"]) == ("1", "")
        assert float(fields["total_time"]) > float(fields["prediction_time"]) > 0
    names = sorted(
        redis_db.hget(key, "original_name")[33:] for queue in ("spot", "mesmer") for key in redis_db.keys(f"{queue}:*")
    )
    assert names == ["image.tif-mesmer-image.tif", *["image.tif-spot-image.tif"] * 3]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_killed_child_runs_again(redis_server: RedisServer, redis_db: Any, bucket: Path, tmp_path: Path) -> None:
    quick = {"LEASE_TIMEOUT": "2", "RENEW_INTERVAL": "0.5", "SWEEP_INTERVAL": "1"}

    def status_of_spots() -> str:
        return str(redis_db.hget(redis_db.keys("spot:*")[0], "status"))

    with model_server(tmp_path, "--hold-s", "3") as serving, ExitStack() as workers:
        polaris = {**variables_of("polaris", redis_server, bucket, serving), **quick}
        spot = {**variables_of("spot", redis_server, bucket, serving), **quick}
        workers.enter_context(running_worker(tmp_path, polaris))
        job_id = submit(redis_db, "polaris", 1, channels="0", segmentation_type="none")
        wait_for(lambda: redis_db.keys("spot:*"), "the child job", tmp_path)
        with running_worker(tmp_path, spot) as worker:
            wait_for(lambda: status_of_spots() == "predicting", "the child job to run", tmp_path)
            children = psutil.Process(worker.pid).children(recursive=True)
            for process in (psutil.Process(worker.pid), *children):
                process.kill()
        assert not is_over(redis_db, job_id)
        workers.enter_context(running_worker(tmp_path, {**spot, "HOSTNAME": "spot-consumer-1"}))
        wait_for(partial(is_over, redis_db, job_id), "the end of the job", tmp_path)
    assert list(result_of(redis_db, bucket, job_id)) == ["image_0.csv"]
