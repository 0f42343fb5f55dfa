"""A job that is cancelled while its input is read ends soon, although the reading goes on."""

from __future__ import annotations

import http.server
import io
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile

from redis_consumer import wanted
from redis_consumer.archives import iter_image_archive, iter_members
from redis_consumer.consumers import claimed_job
from redis_consumer.consumers.base import Consumer
from redis_consumer.consumers.claimed_job import Outcome
from redis_consumer.consumers.image import ImageFileConsumer
from redis_consumer.errors import JobCancelled
from redis_consumer.images import read_image
from redis_consumer.images.windows import open_windowed
from redis_consumer.models import ModelStore
from redis_consumer.queue import admin
from redis_consumer.redis import RedisClient
from redis_consumer.serving.onnx.server import OnnxServer
from redis_consumer.storage import Storage
from support import ome_zarr

JOB = "predict:a.tif:1"
MODEL = {"model_name": "Scaling", "model_version": "1"}


class Stalling(http.server.BaseHTTPRequestHandler):
    """A bucket whose answers stop: at once, or in the middle of an object."""

    begun: threading.Event
    gate: threading.Event
    first: bytes

    def do_GET(self) -> None:
        if self.first:
            self.send_response(200)
            for name, value in (("Content-Length", "1000000"), ("ETag", '"1"')):
                self.send_header(name, value)
            self.send_header("Last-Modified", "Wed, 21 Oct 2015 07:28:00 GMT")
            self.end_headers()
            self.wfile.write(self.first)
            self.wfile.flush()
        self.begun.set()
        self.gate.wait(30)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        pass


@pytest.fixture(params=[b"", b"II*\0"], ids=["no answer", "half an object"])
def stalled(request: pytest.FixtureRequest) -> Iterator[tuple[Storage, threading.Event]]:
    gate, begun = threading.Event(), threading.Event()
    handler = type("Handler", (Stalling,), {"begun": begun, "gate": gate, "first": request.param})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    keys = {"access_key_id": "a", "secret_access_key": "b"}
    yield Storage("s3://bucket", region="us-east-1", endpoint=endpoint, retry_s=0, **keys), begun
    gate.set()
    server.shutdown()
    server.server_close()


def ended_by_cancel(consumer: Consumer, begun: threading.Event, redis_db: Any, **fields: str) -> dict[str, str]:
    """Run a job, cancel it once its input is being read, and give what became of it."""
    redis_db.hset(JOB, mapping={"status": "new", "input_file_name": "uploads/a.tif", **MODEL, **fields})
    redis_db.lpush("predict", JOB)
    job = consumer.job_queue.claim()
    assert job is not None
    answers = []

    def cancel() -> None:
        assert begun.wait(60)
        answers.append(admin.cancel(consumer.job_queue, JOB))

    thread = threading.Thread(target=cancel)
    thread.start()
    assert consumer.run(job) is Outcome.SETTLED
    thread.join()
    assert answers == ["stopping"]
    after: dict[str, str] = redis_db.hgetall(JOB)
    return after


@pytest.fixture(autouse=True)
def _is_asked_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claimed_job, "PROGRESS_S", 0.0)
    monkeypatch.setattr(wanted, "EVERY_S", 0.05)


Make = Callable[[Storage], ImageFileConsumer]


@pytest.fixture
def make(redis_client: RedisClient, onnx_server: OnnxServer) -> Make:
    return lambda storage: ImageFileConsumer(
        redis_client, storage, "predict", model_server=onnx_server, models=ModelStore(None)
    )


def test_a_job_whose_download_stands_still_is_cancelled(
    make: Make, stalled: tuple[Storage, threading.Event], redis_db: Any
) -> None:
    storage, begun = stalled
    after = ended_by_cancel(make(storage), begun, redis_db)
    assert after["status"] == "failed"
    assert after["reason"].startswith("JobCancelled: "), after["reason"]


@pytest.mark.parametrize("side", [64, 3000], ids=["whole", "in parts"])
def test_a_job_whose_image_is_being_decoded_is_cancelled(
    make: Make, redis_db: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: int
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((side, side), np.uint8), compression="zlib", rowsperstrip=16)
    storage = Storage("memory://")
    storage.upload_file(tmp_path / "a.tif", "uploads/a.tif")
    gate, begun, late = threading.Event(), threading.Event(), threading.Event()

    # No small file makes a decoder take its time, so this one waits.
    def slow(*args: Any, **kwargs: Any) -> Any:
        begun.set()
        if not gate.wait(30):
            late.set()
        return imagecodecs.zlib_decode(*args, **kwargs)

    monkeypatch.setattr(type(tifffile.TIFF.DECOMPRESSORS), "__getitem__", lambda *_: slow)
    after = ended_by_cancel(make(storage), begun, redis_db)
    gate.set()
    assert after["reason"].startswith("JobCancelled: "), after["reason"]
    assert not late.is_set(), "the job ended no sooner than its decoder"


class Counting:
    """Wants the work up to a number of questions."""

    def __init__(self, most: int) -> None:
        self.left = most

    def __call__(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise JobCancelled("job j: cancelled; submit it again")


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_unpacking_stops_in_the_middle_of_a_member(tmp_path: Path, kind: str) -> None:
    content = bytes(8 << 20)
    path = tmp_path / f"a.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.tif", content)
    else:
        with tarfile.open(path, "w:gz" if kind == "tar.gz" else "w") as tar:
            entry = tarfile.TarInfo("a.tif")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    with wanted.asking(Counting(4)), pytest.raises(JobCancelled):
        next(iter_members(path, tmp_path, label=path.name, why_skipped=lambda _: ""))
    written = sum(file.stat().st_size for file in tmp_path.rglob("a.tif"))
    assert written < len(content)


def test_the_seeds_way_of_unpacking_stops_too(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.tif", bytes(8 << 20))
    with wanted.asking(Counting(4)), pytest.raises(JobCancelled):
        next(iter_image_archive(tmp_path / "a.zip", tmp_path / "out"))


def test_reading_what_is_wanted_gives_the_same(tmp_path: Path) -> None:
    image = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
    tifffile.imwrite(tmp_path / "a.tif", image)
    ome_zarr.write(tmp_path / "a.zarr", image, "yx")
    with wanted.asking(lambda: None):
        assert (read_image(tmp_path / "a.tif").array == image).all()
        for name in ("a.tif", "a.zarr"):
            with open_windowed(tmp_path / name, name=name) as opened:
                assert (opened.read(0, (slice(0, 64), slice(0, 64)))[0, ..., 0] == image).all()
