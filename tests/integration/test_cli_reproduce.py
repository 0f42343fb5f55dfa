"""``redis-consumer reproduce`` on results of real jobs."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from typer.testing import CliRunner, Result

from fixtures_serving import serve_models
from fixtures_storage import BucketForTests
from redis_consumer import settings
from redis_consumer.cli.app import app
from redis_consumer.models.store import PACKAGED
from redis_consumer.redis import RedisClient
from support import movies, onnx_models
from support.provenance import IMAGE, MODEL, Site, new_version, write_crop
from support.redis_server import RedisServer
from support.worker import ROOT

JOB = "predict:a.tif:1"
Reproduce = Callable[..., Result]


@pytest.fixture
def bucket(request: pytest.FixtureRequest) -> BucketForTests:
    """A folder, or the bucket that a test asks for."""
    bucket: BucketForTests = request.getfixturevalue(getattr(request, "param", "file_bucket"))
    return bucket


@pytest.fixture
def site(
    redis_server: RedisServer,
    redis_client: RedisClient,
    redis_db: Any,
    bucket: BucketForTests,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Site]:
    """A bucket with an image and the second version of a model, and settings by the environment."""
    variables = {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(redis_server.port), "MODEL_SERVER": "onnx://"}
    for name, text in {**variables, **bucket.environment}.items():
        monkeypatch.setenv(name, text)
    settings.use(None)
    site = Site(redis_client, redis_db, bucket.open())
    write_crop(tmp_path / "a.tif")
    site.storage.upload_file(tmp_path / "a.tif", IMAGE)
    yield site
    site.close()


@pytest.fixture
def reproduce() -> Reproduce:
    return lambda *arguments: CliRunner().invoke(app, ["reproduce", *map(str, arguments)])


def found(result: Result, exit_code: int) -> dict[str, Any]:
    assert result.exit_code == exit_code, result.output
    data: dict[str, Any] = json.loads(result.stdout)
    return data


def changed(data: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {each["field"]: (each["recorded"], each["now"]) for each in data["differences"]}


def objects(site: Site) -> list[str]:
    return sorted(path.as_posix() for path in Path(site.storage.bucket).rglob("*") if path.is_file())


def test_a_finished_job_gives_identical_labels_and_nothing_is_touched(site: Site, reproduce: Reproduce) -> None:
    site.consumer()
    before = site.run()
    keys, there = sorted(site.db.keys()), objects(site)
    result = reproduce(JOB)
    assert result.exit_code == 0, result.output
    assert f"identical: {JOB}" in result.stdout
    assert f"a_feature_0.tif: identical, {before['objects']} objects" in result.stdout
    assert "All recorded conditions are the same now." in result.stdout
    assert (site.db.hgetall(JOB), sorted(site.db.keys()), objects(site)) == (before, keys, there)


@pytest.mark.parametrize("bucket", ["s3_bucket"], indirect=True)
def test_a_bucket_in_a_cloud_serves_as_well(site: Site, reproduce: Reproduce) -> None:
    site.consumer()
    site.run()
    assert found(reproduce(JOB, "--json"), 0)["identical"]


def test_another_version_of_the_model_is_named_with_what_it_changes(
    site: Site, reproduce: Reproduce, tmp_path: Path
) -> None:
    new_version(Path(site.storage.bucket) / "models" / MODEL)
    site.consumer()
    before = site.run()
    data = found(reproduce(JOB, "--model", f"{MODEL}:3", "--json", "--keep", tmp_path / "kept"), 1)
    [file] = data["files"]
    assert file["pixels"] > 0
    assert file["objects"][0] == int(before["objects"]) != file["objects"][1]
    names = changed(data)
    assert names["models[0].model"] == (f"{MODEL}:1", f"{MODEL}:3")
    assert names["models[0].sha256"][0] != names["models[0].sha256"][1]
    assert not [name for name in names if not name.startswith(("models[0].", "job.fields.model_version"))]
    kept = tmp_path / "kept"
    with Image.open(kept / "difference-a_feature_0.png") as picture:
        red = np.all(np.asarray(picture) == (255, 40, 40), axis=-1)
    old, new = (
        tifffile.imread(BytesIO(zipfile.ZipFile(kept / f"{name}.zip").read("a_feature_0.tif")))
        for name in ("recorded", "reproduced")
    )
    np.testing.assert_array_equal(red, old != new)
    assert json.loads((kept / "reproduced.json").read_text())["models"][0]["version_served"] == 3


def test_the_latest_version_is_the_one_of_then(site: Site, reproduce: Reproduce) -> None:
    site.consumer()
    site.run(model_version="0")
    new_version(Path(site.storage.bucket) / "models" / MODEL)
    data = found(reproduce(JOB, "--json"), 0)
    assert (data["identical"], data["differences"]) == (True, [])


def test_recorded_settings_hold_and_todays_do_not(
    site: Site, reproduce: Reproduce, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAX_IMAGE_HEIGHT", "128")
    settings.use(None)
    site.consumer()
    assert site.run()["status"] == "done"  # in windows
    monkeypatch.setenv("MAX_IMAGE_HEIGHT", "90000")
    monkeypatch.setenv("MAX_IMAGE_WIDTH", "10")
    settings.use(None)
    data = found(reproduce(JOB, "--json"), 0)
    assert data["differences"] == []


def test_a_changed_input_is_noticed_before_any_work(site: Site, reproduce: Reproduce, tmp_path: Path) -> None:
    site.consumer()
    site.run()
    write_crop(tmp_path / "other.tif", corner=(200, 0))
    site.storage.upload_file(tmp_path / "other.tif", IMAGE)
    result = reproduce(JOB)
    assert result.exit_code == 2
    assert f"cannot reproduce: input {IMAGE}: has changed: its SHA-256 is" in result.stderr
    assert "predicting" not in result.stderr


@pytest.mark.parametrize(
    ("spoil", "arguments", "words"),
    [
        (lambda site: site.storage.delete(IMAGE), [], f"input {IMAGE}: not found in the bucket"),
        (lambda site: None, ["--model", f"{MODEL}:9"], "fails now: ModelNotFound: model NuclearSegmentation:9"),
        (lambda site: site.db.delete(JOB), [], f"{JOB}: no such job, or it has expired; name its record"),
        (lambda site: site.db.delete(JOB) and site.db.set(JOB, "a text"), [], f"{JOB}: no such job"),
        (lambda site: site.db.hdel(JOB, "provenance_file_name"), [], f"{JOB}: has no provenance record"),
        (lambda site: site.db.hset(JOB, "status", "predicting"), [], f"{JOB}: is predicting; wait for its result"),
    ],
)
def test_what_can_not_be_run_says_why(
    site: Site, reproduce: Reproduce, spoil: Callable[[Site], Any], arguments: list[str], words: str
) -> None:
    site.consumer()
    site.run()
    spoil(site)
    result = reproduce(JOB, *arguments)
    assert result.exit_code == 2
    assert words in result.stderr


def test_a_record_serves_where_hash_and_result_are_gone(site: Site, reproduce: Reproduce, tmp_path: Path) -> None:
    site.consumer()
    after = site.run()
    site.db.delete(JOB)
    key, result = after["provenance_file_name"], after["output_file_name"]
    shutil.copy(Path(site.storage.bucket) / key, tmp_path / "record.json")
    for name in (key, result, tmp_path / "record.json"):
        assert found(reproduce(name, "--json"), 0)["note"] == ""
    site.storage.delete(result)
    data = found(reproduce(key, "--json"), 0)
    assert "the recorded result no longer exists; the checksums of its files were compared" in data["note"]


def test_a_result_that_was_changed_is_told(site: Site, reproduce: Reproduce, tmp_path: Path) -> None:
    site.consumer()
    after = site.run()
    tifffile.imwrite(tmp_path / "zero.tif", np.zeros((200, 240), np.float32))
    with zipfile.ZipFile(Path(site.storage.bucket) / after["output_file_name"], "w") as archive:
        archive.write(tmp_path / "zero.tif", "a_feature_0.tif")
    data = found(reproduce(JOB, "--json"), 1)
    assert data["files"][0]["objects"] == [0, int(after["objects"])]
    assert "has changed since it was recorded" in data["note"]


def test_a_remote_model_server_is_asked_again(
    site: Site, reproduce: Reproduce, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve_models(PACKAGED) as address:
        monkeypatch.setenv("MODEL_SERVER", f"tfs://{address}")
        settings.use(None)
        site.consumer()
        site.run()
        assert found(reproduce(JOB, "--json"), 0)["differences"] == []
        data = found(reproduce(JOB, "--json", "--model-server", "onnx://"), 0)
    assert changed(data)["model_server"] == ("tfs", "onnx")


def test_an_archive_is_run_with_all_its_images(site: Site, reproduce: Reproduce, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "plate.zip", "w") as archive:
        archive.write(tmp_path / "a.tif", "well/a.tif")
        archive.writestr("bad.tif", b"no image")
    site.storage.upload_file(tmp_path / "plate.zip", "uploads/plate.zip")
    site.consumer("zip", "predict-zip")
    site.consumer()
    job = "predict-zip:plate.zip:1"
    site.run(job, "uploads/plate.zip", original_name="plate.zip", model_version="0")
    new_version(Path(site.storage.bucket) / "models" / MODEL)
    keys = sorted(site.db.keys())
    data = found(reproduce(job, "--json"), 0)
    assert [each["name"] for each in data["files"]] == ["well/a_feature_0.tif"]
    assert sorted(site.db.keys()) == keys
    assert not found(reproduce(job, "--json", "--model", f"{MODEL}:3"), 1)["identical"]


def test_of_an_archive_it_is_said_that_its_images_met_another_model(
    site: Site, reproduce: Reproduce, tmp_path: Path
) -> None:
    folder = Path(site.storage.bucket) / "models" / MODEL
    new_version(folder)
    with zipfile.ZipFile(tmp_path / "plate.zip", "w") as archive:
        archive.write(tmp_path / "a.tif", "a.tif")
    site.storage.upload_file(tmp_path / "plate.zip", "uploads/plate.zip")
    site.consumer("zip", "predict-zip")
    site.consumer()
    job = "predict-zip:plate.zip:1"
    site.run(job, "uploads/plate.zip", original_name="plate.zip", model_version="3")
    assert found(reproduce(job, "--json"), 0)["differences"] == []
    shutil.rmtree(folder / "3")
    new_version(folder, factor=0.6)
    assert list(changed(json.loads(reproduce(job, "--json").stdout))) == ["children.models[0].sha256"]


def test_a_movie_is_run_with_all_its_frames(
    site: Site, reproduce: Reproduce, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUCLEAR_MODEL", f"{MODEL}:1")
    settings.use(None)
    movies.write_tiff(movies.small_movie(), tmp_path / "movie.tif")
    site.storage.upload_file(tmp_path / "movie.tif", "uploads/movie.tif")
    site.consumer("tracking", "track")
    site.consumer()
    after = site.run("track:movie.tif:1", "uploads/movie.tif", model_name="", model_version="", scale="1")
    assert len(site.record(after)["children"]) == 1
    data = found(reproduce("track:movie.tif:1", "--json"), 0)
    assert sorted(each["name"] for each in data["files"]) == ["a_feature_0.tif", "lineage.json"]


def test_a_consumer_that_is_not_installed_is_not_imported_by_itself(
    site: Site, reproduce: Reproduce, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs" / "examples")
    onnx_models.save(Path(site.storage.bucket) / "models", "Scaling", 1, onnx_models.scaling(2.0))
    np.save(tmp_path / "one.npy", np.arange(72, dtype=np.float32).reshape(8, 9, 1))
    site.storage.upload_file(tmp_path / "one.npy", "uploads/one.npy")
    site.consumer("my_consumer:MyConsumer")
    site.run(key="uploads/one.npy", model_name="Scaling")
    result = reproduce(JOB)
    assert result.exit_code == 2
    assert "if you trust the record, add --consumer my_consumer:MyConsumer" in result.stderr
    assert found(reproduce(JOB, "--json", "--consumer", "my_consumer:MyConsumer"), 0)["identical"]
    monkeypatch.setenv("CONSUMER_TYPE", "my_consumer:MyConsumer")
    settings.use(None)
    assert found(reproduce(JOB, "--json"), 0)["identical"]


COUNTING = """
from typing import Annotated

from pydantic import Field, SecretStr
from redis_consumer.consumers import ConsumerOptions, ImageFileConsumer, per_job


class Threshold(ImageFileConsumer):
    '''Finds what is bright.'''

    class Options(ConsumerOptions):
        level: Annotated[int, per_job] = Field(default=0, description="Least brightness")
        password: Annotated[SecretStr, per_job] = Field(default="", description="Of something")

    def analyze(self, image, job):
        return {"labels": (image > self.options.level).astype("int32")}
"""


def test_options_of_a_consumer_are_those_of_then(
    site: Site, reproduce: Reproduce, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "bright.py").write_text(COUNTING)
    monkeypatch.setenv("LEVEL", "900")
    monkeypatch.setenv("PASSWORD", "s3cret")
    monkeypatch.setenv("CONSUMER_TYPE", "bright:Threshold")
    settings.use(None)
    site.consumer("bright:Threshold")
    record = site.record(site.run(password="s3cret too"))
    assert record["options"] == {"level": "900"}
    assert "s3cret" not in json.dumps(record)
    monkeypatch.setenv("LEVEL", "1")
    assert found(reproduce(JOB, "--json"), 0)["differences"] == []


def test_an_operators_option_is_that_of_this_machine_and_not_of_a_record(
    site: Site, reproduce: Reproduce, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    source = COUNTING.replace("Annotated[int, per_job]", "int")
    assert source != COUNTING
    (tmp_path / "darker.py").write_text(source)
    monkeypatch.setenv("LEVEL", "900")
    monkeypatch.setenv("CONSUMER_TYPE", "darker:Threshold")
    settings.use(None)
    site.consumer("darker:Threshold")
    site.run()
    monkeypatch.setenv("LEVEL", "901")
    differences = json.loads(reproduce(JOB, "--json").stdout)["differences"]
    assert differences == [{"field": "options.level", "recorded": "900", "now": "901"}]
