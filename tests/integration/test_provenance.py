"""What is written down about each result: real Redis, real buckets, real models."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import redis_consumer
from fixtures_serving import serve_models
from fixtures_storage import BucketForTests
from redis_consumer import settings
from redis_consumer.consumers.claimed_job import Outcome
from redis_consumer.errors import ModelServerUnavailable
from redis_consumer.models.store import PACKAGED
from redis_consumer.provenance import record as provenance
from redis_consumer.queue import upkeep
from redis_consumer.redis import RedisClient
from redis_consumer.storage import Storage
from support import onnx_models
from support.provenance import IMAGE, MODEL, Site, write_crop
from support.queues import claimed
from support.worker import ROOT

#: A value for each setting that is a secret, whichever there are.
_FORMS = {"model_server_headers": "authorization=s3cret", "redis_url": "redis://jobs:s3cret@127.0.0.1:6379"}
SECRETS = {
    name.upper(): _FORMS.get(name, "s3cret")
    for name, setting in settings.Settings.model_fields.items()
    if "SecretStr" in str(setting.annotation)
}
MakeSite = Callable[..., Site]


@pytest.fixture
def make_site(
    redis_client: RedisClient, redis_db: Any, file_bucket: BucketForTests, monkeypatch: pytest.MonkeyPatch
) -> Iterator[MakeSite]:
    """Makes a site on a bucket, with settings by the environment."""
    made: list[Site] = []

    def make(bucket: BucketForTests = file_bucket, **variables: str) -> Site:
        for name, text in {"MODEL_SERVER": "onnx://", **variables}.items():
            monkeypatch.setenv(name, text)
        settings.use(None)
        made.append(Site(redis_client, redis_db, bucket.open()))
        return made[0]

    yield make
    for site in made:
        site.close()


def put_crop(storage: Storage, folder: Path, key: str = IMAGE) -> bytes:
    write_crop(folder / "crop.tif")
    storage.upload_file(folder / "crop.tif", key)
    return (folder / "crop.tif").read_bytes()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("kind", ["file_bucket", "s3_bucket"])
def test_a_record_says_what_made_a_result(
    make_site: MakeSite, kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    site = make_site(request.getfixturevalue(kind), MAX_IMAGE_HEIGHT="4000")
    content = put_crop(site.storage, tmp_path)
    site.consumer()
    after = site.run(model_version="0")
    record = site.record(after)
    assert after["provenance_file_name"] == after["output_file_name"].removesuffix(".zip") + ".provenance.json"
    assert (record["format"], record["job"]["id"], record["job"]["attempt"]) == (1, "predict:a.tif:1", 1)
    assert record["job"]["fields"]["scale"] == "0.5"
    assert record["consumer"]["origin"] == "redis_consumer.consumers.image:ImageFileConsumer"
    assert record["software"]["version"] == redis_consumer.__version__
    assert record["software"]["libraries"]["numpy"] == np.__version__
    assert (record["settings"]["MAX_IMAGE_HEIGHT"], record["settings"]["given"]) == (4000, ["MAX_IMAGE_HEIGHT"])
    [model] = record["models"]
    file = PACKAGED / MODEL / "2" / "model.onnx"
    assert (model["model"], model["version_served"]) == (f"{MODEL}:0", 2)
    assert (model["sha256"], model["digest_of"]) == (sha256(file.read_bytes()), "model file")
    assert [each["name"] for each in record["functions"]] == [
        "percentile_normalize",
        "deep_watershed",
        "fill_holes",
    ]
    assert record["functions"][0]["options"] == {"low": 1.0, "high": 99.8}
    assert record["inputs"] == [{"key": IMAGE, "bytes": len(content), "sha256": sha256(content)}]
    result = site.storage.read_bytes(after["output_file_name"])
    [output] = record["outputs"]
    assert (output["key"], output["sha256"]) == (after["output_file_name"], sha256(result))
    assert [each["name"] for each in output["files"]] == zipfile.ZipFile(BytesIO(result)).namelist()
    assert record["started"] < record["finished"]


def test_what_a_run_found_out_is_noted(make_site: MakeSite, tmp_path: Path) -> None:
    site = make_site()
    put_crop(site.storage, tmp_path)
    site.consumer()
    found = site.record(site.run(scale=""))["detected"]
    assert found["scale_from"] == "estimate"
    assert float(found["scale"]) == pytest.approx(30 / float(found["estimated_diameter_px"]), rel=0.01)


def test_a_record_holds_no_secrets(make_site: MakeSite, tmp_path: Path) -> None:
    site = make_site(**SECRETS)
    put_crop(site.storage, tmp_path)
    site.consumer()
    link = f"{site.storage.get_public_url(IMAGE)}?X-Amz-Signature=s3cret-signature"
    after = site.run(url=link, mask="https://own:s3cret@example.org/a?x=1&sig=s3cret")
    text = site.storage.read_bytes(after["provenance_file_name"]).decode()
    assert len(SECRETS) >= 5
    assert "s3cret" not in text
    assert not [name for name in SECRETS if name in text]


def test_a_remote_server_tells_its_version_and_metadata_only(make_site: MakeSite, tmp_path: Path) -> None:
    with serve_models(PACKAGED) as address:
        site = make_site(MODEL_SERVER=f"tfs://{address}")
        put_crop(site.storage, tmp_path)
        site.consumer()
        record = site.record(site.run(model_version=""))
    [model] = record["models"]
    assert record["model_server"] == "tfs"
    assert (model["model"], model["version_served"], model["digest_of"]) == (f"{MODEL}:0", 2, "metadata")
    assert re.fullmatch(r"[0-9a-f]{64}", model["sha256"])
    assert address not in json.dumps(record)


def test_a_server_that_does_not_say_costs_no_result_and_its_address_stays_out(
    make_site: MakeSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise ModelServerUnavailable("model server 10.0.0.9:8500: doesn't answer")

    site = make_site()
    put_crop(site.storage, tmp_path)
    site.consumer()
    monkeypatch.setattr("redis_consumer.segmentation.predictor.identify", refuse)
    [model] = site.record(site.run())["models"]
    assert model["digest_of"] == "unknown: ModelServerUnavailable"


def test_an_image_in_windows_has_one_too(make_site: MakeSite, tmp_path: Path) -> None:
    site = make_site(MAX_IMAGE_HEIGHT="128", MAX_IMAGE_WIDTH="128")
    content = put_crop(site.storage, tmp_path)
    site.consumer()
    record = site.record(site.run())
    assert record["inputs"][0]["sha256"] == sha256(content)
    assert [(each["kind"], each["name"]) for each in record["functions"]] == [
        ("pre", "percentile_normalize"),
        ("post", "deep_watershed"),
        ("post", "fill_holes"),
    ]


def test_a_consumer_that_uploads_by_itself_has_one_too(
    make_site: MakeSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs" / "examples")
    site = make_site()
    onnx_models.save(Path(site.storage.bucket) / "models", "Scaling", 1, onnx_models.scaling(2.0))
    np.save(tmp_path / "one.npy", np.arange(72, dtype=np.float32).reshape(8, 9, 1))
    site.storage.upload_file(tmp_path / "one.npy", "uploads/one.npy")
    site.consumer("my_consumer:MyConsumer")
    after = site.run(key="uploads/one.npy", model_name="Scaling")
    record = site.record(after)
    assert record["consumer"]["origin"] == "my_consumer:MyConsumer"
    source = (ROOT / "docs" / "examples" / "my_consumer.py").read_bytes()
    assert record["consumer"]["source_sha256"] == sha256(source)
    assert [each["model"] for each in record["models"]] == ["Scaling:1"]
    [output] = record["outputs"]
    assert output["key"] == after["output_file_name"]
    assert output["sha256"] == sha256(site.storage.read_bytes(after["output_file_name"]))


EARLY = """
from redis_consumer.consumers import Consumer


class Early(Consumer):
    'Names its result before its end.'

    def _consume(self, redis_hash):
        key, url = self.storage.upload(self.storage.download(self.job.input_file_name))
        self.update_key(redis_hash, {"output_file_name": key, "output_url": url})
        return self.final_status
"""


def test_a_consumer_that_names_its_result_before_its_end_has_one_too(
    make_site: MakeSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "early.py").write_text(EARLY)
    site = make_site()
    content = put_crop(site.storage, tmp_path)
    site.consumer("early:Early")
    [output] = site.record(site.run())["outputs"]
    assert (output["key"], output["sha256"]) == ("output/a.tif", sha256(content))


def test_of_a_result_of_many_files_the_first_ones_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "MOST_FILES", 2)
    with zipfile.ZipFile(tmp_path / "result.zip", "w") as archive:
        for name in "abc":
            archive.writestr(name, name)
    output, left_out = provenance._described(tmp_path / "result.zip")
    assert ([each["name"] for each in output["files"]], left_out) == (["a", "b"], 1)


def test_a_record_that_can_not_be_made_costs_no_result(
    make_site: MakeSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_site()
    put_crop(site.storage, tmp_path)
    site.consumer()
    monkeypatch.setattr(provenance.Provenance, "_inputs", lambda *_: {1, 2})
    after = site.run()
    assert (after["status"], after.get("provenance_file_name")) == ("done", None)


def test_an_archive_lists_the_records_of_its_images(make_site: MakeSite, tmp_path: Path) -> None:
    site = make_site()
    write_crop(tmp_path / "a.tif")
    with zipfile.ZipFile(tmp_path / "plate.zip", "w") as archive:
        archive.write(tmp_path / "a.tif", "well/a.tif")
        archive.writestr("bad.tif", b"no image")
    site.storage.upload_file(tmp_path / "plate.zip", "uploads/plate.zip")
    site.consumer("zip", "predict-zip")
    site.consumer()
    after = site.run("predict-zip:plate.zip:1", "uploads/plate.zip", original_name="plate.zip")
    record = site.record(after)
    assert [each["status"] for each in record["children"]] == ["done", "failed"]
    child = json.loads(site.storage.read_bytes(record["children"][0]["record"]))
    assert child["job"]["id"] == record["children"][0]["job"]
    assert "provenance_file_name" not in child["job"]["fields"]
    [own] = record["inputs"]
    assert own["sha256"] == sha256((tmp_path / "plate.zip").read_bytes())
    assert record["left_out"] == {"children": 0, "objects": 0, "files": 0}
    assert site.db.hget(child["job"]["id"], "input_digest") is None


def test_an_archive_without_a_result_of_any_image_keeps_its_record_with_its_table(
    make_site: MakeSite, tmp_path: Path
) -> None:
    site = make_site()
    with zipfile.ZipFile(tmp_path / "plate.zip", "w") as archive:
        archive.writestr("bad.tif", b"no image")
    site.storage.upload_file(tmp_path / "plate.zip", "uploads/plate.zip")
    consumer = site.consumer("zip", "predict-zip")
    site.consumer()
    after = site.run("predict-zip:plate.zip:1", "uploads/plate.zip", original_name="plate.zip")
    assert after["status"] == "failed"
    assert [each["status"] for each in site.record(after)["children"]] == ["failed"]
    leftovers = "redis-consumer:leftovers:predict-zip"
    site.db.zadd(leftovers, dict.fromkeys(site.db.zrange(leftovers, 0, -1), 1))
    consumer._clean_up()
    assert site.storage.exists(after["output_file_name"])
    assert site.storage.exists(after["provenance_file_name"])


def test_the_record_of_a_late_run_goes_and_the_visible_one_stays(make_site: MakeSite, tmp_path: Path) -> None:
    site = make_site()
    put_crop(site.storage, tmp_path)
    consumer: Any = site.consumer()
    site.db.hset("predict:a.tif:1", mapping={"status": "new", "input_file_name": IMAGE, "model_name": MODEL})
    site.db.lpush("predict", "predict:a.tif:1")
    consumer._hold(claimed(consumer.job_queue))
    consumer.save_output(np.zeros((4, 4, 1), np.float32), "cells")
    consumer._hold(None)
    _lose(consumer, site.db)
    winner = claimed(consumer.job_queue)
    assert consumer.run(winner) is Outcome.SETTLED
    assert len(_records(site)) == 2
    upkeep.note_orphaned_result(consumer.job_queue, winner)  # as one that didn't hear of its success
    leftovers = "redis-consumer:leftovers:predict"
    site.db.zadd(leftovers, dict.fromkeys(site.db.zrange(leftovers, 0, -1), 1))
    consumer._clean_up()
    assert _records(site) == [site.db.hget("predict:a.tif:1", "provenance_file_name")]


def _records(site: Site) -> list[str]:
    folder = Path(site.storage.bucket)
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*.provenance.json")]


def _lose(consumer: Any, db: Any) -> None:
    """Let the lease of the running job end, and sweep it."""
    leases = consumer.job_queue.key("leases")
    db.zadd(leases, dict.fromkeys(db.zrange(leases, 0, -1), 1))
    db.delete(consumer.job_queue.key("sweep"))
    assert upkeep.sweep(consumer.job_queue)
