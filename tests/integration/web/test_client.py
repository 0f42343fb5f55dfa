"""The Python client: with a web server and without one, against a worker with the packaged model."""

from __future__ import annotations

import asyncio
import runpy
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile

from redis_consumer import settings
from redis_consumer.client import AsyncClient, Client, ImageResult, server_jobs
from redis_consumer.consumers.registry import make_consumer
from redis_consumer.errors import PermanentError, RetryableError, SettingsError
from redis_consumer.redis import RedisClient
from redis_consumer.settings import Settings
from support.documents import DOCS
from support.redis_server import RedisServer
from support.web_server import Web

FORM = {
    "name": "image", "class": "ImageFileConsumer", "title": "Image", "description": "", "outputs": ["table", "rois"],
    "roles": [], "options_schema": {"type": "object", "properties": {"scale": {"type": "number"}}},
}  # fmt: skip


def nuclei_image() -> npt.NDArray[Any]:
    """Six bright discs, (Y, X) uint16."""
    y, x = np.mgrid[:120, :160]
    image = np.full((120, 160), 200.0)
    for row, column in ((30, 30), (30, 80), (30, 130), (90, 30), (90, 80), (90, 130)):
        image += 4000 * np.exp(-((((y - row) ** 2 + (x - column) ** 2) / 160) ** 2))
    return np.random.default_rng(1).poisson(image).astype(np.uint16)


@pytest.fixture
def worker(redis_server: RedisServer, web: Web) -> Iterator[None]:
    """A worker in a thread that runs the jobs of the queue ``predict``."""
    bucket = web.context.storage.url
    web.context.cache["forms"] = [FORM]
    chosen = Settings(
        model_server="onnx://", storage_bucket=bucket, redis_port=redis_server.port, empty_queue_timeout=0.05
    )
    settings.use(chosen)
    client = RedisClient("127.0.0.1", redis_server.port, 0.05, deadline_s=20)
    consumer = make_consumer("image", redis_client=client, storage_client=web.context.storage, queue="predict")
    is_over = threading.Event()

    def run() -> None:
        while not is_over.is_set():
            consumer.consume()

    thread = threading.Thread(target=run)
    thread.start()
    yield
    is_over.set()
    thread.join()
    client.close()


@pytest.fixture(params=["server", "direct"])
def client(request: pytest.FixtureRequest, web: Web, redis_server: RedisServer, tmp_path: Path) -> Client:
    folder = tmp_path / "results"
    if request.param == "server":
        return Client(web.url.removesuffix("/api/v1"), folder=folder)
    return Client(redis=f"127.0.0.1:{redis_server.port}", bucket=web.context.storage.url, folder=folder)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    tifffile.imwrite(tmp_path / "nuclei.tif", nuclei_image())
    return tmp_path / "nuclei.tif"


@pytest.mark.usefixtures("worker")
def test_an_image_has_labels_table_and_quality(client: Client, image: Path, tmp_path: Path) -> None:
    seen: list[tuple[str, float]] = []
    result = client.segment(image, scale=1.0, progress=lambda stage, percent: seen.append((stage, percent)))
    assert result.labels.shape == nuclei_image().shape
    assert result.objects == result.labels.max() == len(result.table["label"]) > 0
    assert result.quality is not None
    assert 0 <= result.quality <= 1
    assert seen[-1] == ("done", 100)
    assert result.save(tmp_path / "copy").is_file()
    assert f"<td>{result.objects}</td>" in result._repr_html_()


@pytest.mark.usefixtures("worker")
def test_a_batch_goes_on_after_an_image_that_fails(client: Client, image: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.tif").write_bytes(b"II*\0" + bytes(50))
    found = list(client.batch([image, tmp_path / "bad.tif"], scale=1.0))
    good = [result for result in found if isinstance(result, ImageResult)]
    bad = [error for error in found if isinstance(error, PermanentError)]
    assert [result.name for result in good] == ["nuclei.tif"]
    assert len(bad) == 1
    assert "bad.tif" in str(bad[0])


@pytest.mark.usefixtures("worker")
def test_the_twin_for_an_event_loop(web: Web, image: Path) -> None:
    client = AsyncClient(web.url.removesuffix("/api/v1"))

    async def run() -> list[Any]:
        return [await client.segment(image, scale=1.0), *[result async for result in client.batch(image, scale=1.0)]]

    one, two = asyncio.run(run())
    np.testing.assert_array_equal(one.labels, two.labels)


def test_what_the_server_refuses_is_said_in_words(web: Web, image: Path) -> None:
    web.context.cache["forms"] = [FORM]
    client = Client(web.url.removesuffix("/api/v1"))
    with pytest.raises(PermanentError, match="scael.*Did you mean scale"):
        client.segment(image, scael=2)
    with pytest.raises(RetryableError, match="has not ended within 0.01 s; it continues"):
        client.segment(image, timeout_s=0.01)


def test_an_upload_of_the_client_goes_on_after_a_broken_piece(
    web: Web, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    web.context.cache["forms"] = [FORM]
    monkeypatch.setattr(server_jobs, "_PIECE_BYTES", 1000)
    once = server_jobs.ServerJobs._once
    broken: list[str] = []

    def breaking(self: Any, method: str, path: str, body: Any = None, headers: Any = None) -> Any:
        if method == "PATCH" and headers["Upload-Offset"] == "3000" and not broken:
            broken.append(path)
            once(self, method, path, body, headers).close()  # it came, but the reply was lost
            raise RetryableError("the connection broke")
        return once(self, method, path, body, headers)

    monkeypatch.setattr(server_jobs.ServerJobs, "_once", breaking)
    jobs = server_jobs.ServerJobs(web.url.removesuffix("/api/v1"))
    job = jobs.submit(image, {"kind": "", "model": "", "outputs": [], "options": {}})
    key = web.context.client.hget(job, "input_file_name")
    assert web.context.storage.read_bytes(key) == image.read_bytes()
    assert broken


def test_a_server_that_is_away_is_said_in_words(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_jobs, "OUTAGE_S", 0.0)
    with pytest.raises(RetryableError, match=r"server 127\.0\.0\.1:1: can't be reached"):
        Client("127.0.0.1:1").segment(image)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"url": "ftp://host"},
        {"url": "http://a", "redis": "b", "bucket": "memory://"},
        {"redis": "localhost"},
        {"redis": "rediss://host", "bucket": "memory://"},
    ],
)
def test_wrong_addresses(arguments: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="give"):
        Client(**arguments)


def test_a_folder_without_images(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="there are no images"):
        next(Client("http://127.0.0.1:1").batch(tmp_path))


@pytest.mark.usefixtures("worker")
def test_the_script_of_the_page_prints_what_the_page_shows(
    web: Web, image: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (image.parent / "plate").mkdir()
    shutil.copy(image, image.parent / "plate" / "A01.tif")
    (image.parent / "plate" / "A02.tif").write_bytes(b"II*\0" + bytes(50))
    monkeypatch.setattr("sys.argv", ["segment_images.py", web.url.removesuffix("/api/v1")])
    runpy.run_path(str(DOCS / "examples" / "segment_images.py"))
    first, areas, *rest = capsys.readouterr().out.splitlines()
    page = (DOCS / "client.rst").read_text(encoding="utf-8")
    assert areas.startswith("areas: [")  # they differ by some pixels from one CPU to another
    for line in (first, *rest):
        assert f"   {line}\n" in page
    assert len(rest) == 2
