"""An archive from the web page to its result, next to all neighbours: by the frontend's own commands."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import numpy as np
import pytest
import tifffile

from support.archives import make_tar, make_zip
from support.neighbours import CLIENT_FIELDS, PAGE_FIELDS, Frontend, OldWorker, autoscaler_count
from support.redis_server import RedisServer
from support.worker import environment, running_worker, wait_for

BODY = {
    "jobType": "predict", "imageName": "plate.zip", "uploadedName": "uploads/plate.zip", "modelName": "Scaling",
    "modelVersion": "1", "jobForm": {"scale": 1},
}  # fmt: skip
#: Either one worker a queue, or one for both.
APART = [["--consumer", "image"], ["--consumer", "zip"]]
TOGETHER = [["--serve", "image=predict", "--serve", "zip=predict-zip"]]
BAD = "plate 2/im13.tif"


def tiff(value: int = 7) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.full((8, 8), value, np.uint16))
    return buffer.getvalue()


def members(count: int, bad: str = "") -> dict[str, bytes]:
    names = [f"plate {number % 3}/im{number}.tif" if number else "im0.tif" for number in range(count)]
    names = [bad if bad.endswith(f"/im{number}.tif") else name for number, name in enumerate(names)]
    return {name: b"no image" if name == bad else tiff(number + 1) for number, name in enumerate(names)}


@pytest.fixture
def upload(bucket: Path) -> Callable[[bytes], None]:
    def upload(data: bytes) -> None:
        (bucket / "uploads" / "plate.zip").write_bytes(data)

    return upload


@pytest.fixture
def workers(redis_server: RedisServer, bucket: Path, tmp_path: Path) -> Callable[..., Any]:
    """Runs workers with these arguments until the block ends."""

    @contextmanager
    def workers(commands: list[list[str]], **settings: str) -> Iterator[list[Any]]:
        with ExitStack() as stack:
            processes = []
            for number, arguments in enumerate(commands):
                variables = environment(redis_server, bucket.as_uri(), HOSTNAME=f"pod-{number}", **settings)
                processes.append(stack.enter_context(running_worker(tmp_path, variables, *arguments)))
            yield processes

    return workers


def ended(db: Any, key: str, folder: Path) -> dict[str, str]:
    wait_for(lambda: db.hget(key, "status") in ("done", "failed"), f"the end of {key}", folder)
    fields: dict[str, str] = db.hgetall(key)
    return fields


def result_of(bucket: Path, fields: dict[str, str]) -> zipfile.ZipFile:
    return zipfile.ZipFile(bucket / fields["output_file_name"])


def table_of(archive: zipfile.ZipFile) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(archive.read("summary.csv").decode())))


Upload = Callable[[bytes], None]
Workers = Callable[..., Any]


@pytest.mark.parametrize("commands", [APART, TOGETHER], ids=["a worker a queue", "one worker for both"])
def test_one_bad_image_of_twenty(
    redis_db: Any, frontend: Frontend, bucket: Path, upload: Upload, workers: Workers, tmp_path: Path,
    commands: list[list[str]],
) -> None:  # fmt: skip
    upload(make_zip({**members(20, BAD), "notes.txt": b"x", "__MACOSX/._im0.tif": b"x"}))
    with workers(commands):
        key = frontend.predict(BODY)
        assert key.startswith("predict-zip:plate.zip:")
        fields = ended(redis_db, key, tmp_path)
    assert fields["status"] == "done", fields.get("reason")
    archive = result_of(bucket, fields)
    images = {name: archive.read(name) for name in archive.namelist() if name != "summary.csv"}
    good = {name: number + 1 for number, name in enumerate(members(20, BAD)) if name != BAD}
    assert set(images) == {f"{name.removesuffix('.tif')}_feature_0.tif" for name in good}
    for name, value in good.items():
        pixels = tifffile.imread(io.BytesIO(images[f"{name.removesuffix('.tif')}_feature_0.tif"]))
        np.testing.assert_array_equal(pixels, np.full((8, 8), 2.0 * value, np.float32))

    rows = {row["image"]: row for row in table_of(archive)}
    assert rows[BAD]["status"] == "failed"
    assert rows[BAD]["reason"].startswith("InvalidImage: im13.tif: ")
    assert rows["notes.txt"]["status"] == "skipped"
    assert {row["status"] for name, row in rows.items() if name in good} == {"done"}
    assert float(rows["im0.tif"]["seconds"]) > 0
    (pair,) = parse_qs(fields["failures"]).items()
    assert pair[0] in fields["children"].split(",")
    assert pair[1][0].startswith("InvalidImage: im13.tif: ")

    page = frontend.read(key, *PAGE_FIELDS)
    assert (page["status"], page["progress"], page["reason"]) == ("done", "100", None)
    client = frontend.read(key, *CLIENT_FIELDS)
    assert client["total_jobs"] == "20"
    for name in ("prediction_time", "postprocess_time", "upload_time", "download_time", "total_time"):
        assert len([float(text) for text in (client[name] or "").split(",")]) == 19
    assert float(client["children_upload_time"] or "") > 0
    assert float(client["cleanup_time"] or "") > 0
    assert frontend.expire(key) == 1
    assert len(fields["children"].split(",")) == 20
    assert len(fields["children:done"].split(",")) == 19
    assert fields["children:failed"] == pair[0]
    child = redis_db.hgetall(fields["children"].split(",")[1])
    assert (child["model_name"], child["original_name"]) == ("Scaling", "plate 1/im1.tif")
    assert 0 < redis_db.ttl(fields["children"].split(",")[1]) <= 3600
    assert autoscaler_count(redis_db) + autoscaler_count(redis_db, "predict-zip") == 0


@pytest.mark.slow
def test_fifty_at_once_with_one_worker_for_both_queues(
    redis_db: Any, frontend: Frontend, bucket: Path, upload: Upload, workers: Workers, tmp_path: Path
) -> None:
    upload(make_zip(members(4)))
    keys = [frontend.predict(BODY) for _ in range(50)]
    with workers(TOGETHER):
        found = [ended(redis_db, key, tmp_path) for key in keys]
    assert {fields["status"] for fields in found} == {"done"}
    assert len({fields["output_file_name"] for fields in found}) == 50
    assert {len(result_of(bucket, fields).namelist()) for fields in found} == {5}
    assert redis_db.keys("processing-*") + redis_db.keys("redis-consumer:family:*") == []


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_tar_is_taken_too(
    redis_db: Any, frontend: Frontend, bucket: Path, workers: Workers, tmp_path: Path, mode: str
) -> None:
    (bucket / "uploads" / "plate.tar.gz").write_bytes(make_tar(members(3), mode))
    key = frontend.predict({**BODY, "imageName": "plate.zip", "uploadedName": "uploads/plate.tar.gz"})
    with workers(TOGETHER):
        fields = ended(redis_db, key, tmp_path)
    assert sorted(result_of(bucket, fields).namelist()) == [
        "im0_feature_0.tif", "plate 1/im1_feature_0.tif", "plate 2/im2_feature_0.tif", "summary.csv",
    ]  # fmt: skip


def test_all_bad_is_failed_and_told_in_a_table(
    redis_db: Any, frontend: Frontend, bucket: Path, upload: Upload, workers: Workers, tmp_path: Path
) -> None:
    upload(make_zip({"a.tif": b"x", "b.tif": b"y"}))
    key = frontend.predict(BODY)
    with workers(TOGETHER):
        fields = ended(redis_db, key, tmp_path)
    assert fields["status"] == "failed"
    assert "none of its 2 images has a result; the first one is a.tif: InvalidImage: a.tif: " in fields["reason"]
    assert len(parse_qs(fields["failures"])) == 2
    archive = result_of(bucket, fields)
    assert archive.namelist() == ["summary.csv"]
    assert [(row["image"], row["status"]) for row in table_of(archive)] == [("a.tif", "failed"), ("b.tif", "failed")]
    assert fields["output_url"].endswith(fields["output_file_name"])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"hello", "UnsafeArchive: plate.zip: isn't a readable archive"),
        (make_zip({"../a.tif": b"x"}), "UnsafeArchive: plate.zip: member '../a.tif' leads out of its folder"),
        (make_zip({}), "InvalidJob: plate.zip: holds no images"),
        (make_zip({"a.txt": b"x"}), "InvalidJob: plate.zip: holds no images"),
    ],
    ids=["no archive", "unsafe", "empty", "no images"],
)
def test_what_is_no_archive_of_images_fails_in_words(
    redis_db: Any, frontend: Frontend, bucket: Path, upload: Upload, workers: Workers, tmp_path: Path, data: bytes,
    reason: str,
) -> None:  # fmt: skip
    upload(data)
    key = frontend.predict(BODY)
    with workers(TOGETHER):
        fields = ended(redis_db, key, tmp_path)
    assert (fields["status"], fields["reason"][: len(reason)]) == ("failed", reason)
    assert redis_db.keys("predict:*") + redis_db.keys("redis-consumer:staged:*") == []


def test_a_parent_that_an_old_zip_worker_left_is_adopted(
    redis_db: Any, frontend: Frontend, bucket: Path, workers: Workers, tmp_path: Path
) -> None:
    """What it leaves in the queue: a parent that waits, and children that it has pushed (contract, section 5.6)."""
    children = [frontend.predict({**BODY, "imageName": f"im{n}.tif", "uploadedName": "uploads/0a1b.tif"})
                for n in range(3)]  # fmt: skip
    key = frontend.predict(BODY)
    redis_db.hset(key, mapping={"status": "waiting", "progress": "0", "children": ",".join(children)})
    with workers(TOGETHER):
        fields = ended(redis_db, key, tmp_path)
    assert fields["status"] == "done", fields.get("reason")
    assert len(result_of(bucket, fields).namelist()) == 4


def test_children_that_an_old_image_worker_ends_are_noticed(
    redis_db: Any, frontend: Frontend, bucket: Path, upload: Upload, workers: Workers, tmp_path: Path
) -> None:
    upload(make_zip(members(3)))
    key = frontend.predict(BODY)
    old = OldWorker(redis_db, "old-1")
    with workers([["--consumer", "zip"]], SWEEP_INTERVAL="0.2"):
        for _ in range(3):
            child = wait_for(old.take, "a child", tmp_path)
            (bucket / "output" / "old.zip").write_bytes(make_zip({"x_feature_0.tif": b"x"}))
            old.finish(child, output_file_name="output/old.zip", output_url="x")
        fields = ended(redis_db, key, tmp_path)
    assert fields["status"] == "done", fields.get("reason")
    # Their names are equal: none is lost.
    assert sorted(result_of(bucket, fields).namelist()) == [
        "summary.csv", "x_feature_0-2.tif", "x_feature_0-3.tif", "x_feature_0.tif",
    ]  # fmt: skip


def test_a_zip_in_the_contracts_own_way(
    redis_db: Any, frontend: Frontend, upload: Upload, redis_server: RedisServer, bucket: Path, tmp_path: Path
) -> None:
    """By the seed's script with the old variables: QUEUE is that of the images."""
    upload(make_zip(members(2)))
    with ExitStack() as stack:
        for kind in ("image", "zip"):
            variables = environment(redis_server, bucket.as_uri(), HOSTNAME=kind, QUEUE="predict", CONSUMER_TYPE=kind)
            stack.enter_context(running_worker(tmp_path, variables))
        fields = ended(redis_db, frontend.predict(BODY), tmp_path)
    assert fields["status"] == "done", fields.get("reason")
