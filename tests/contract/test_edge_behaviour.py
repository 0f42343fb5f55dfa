"""What older consumers and their tests see at the edges (contract, section 6.1)."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from redis_consumer import consumers, utils
from redis_consumer.consumers import Consumer
from redis_consumer.redis import RedisClient
from redis_consumer.storage import GoogleStorage, Storage

JOB = "predict:a.tif:1"
KINDS = (
    consumers.Consumer,
    consumers.TensorFlowServingConsumer,
    consumers.ImageFileConsumer,
    consumers.ZipFileConsumer,
    consumers.TrackingConsumer,
)


@pytest.mark.parametrize("kind", KINDS)
def test_no_job_is_valid_for_the_base_class_alone(redis_client: RedisClient, kind: type[Consumer]) -> None:
    assert kind(redis_client, None, "predict").is_valid_hash(None) is (kind is Consumer)


@pytest.mark.parametrize(
    ("kind", "name", "is_valid"),
    [
        (consumers.ImageFileConsumer, "a.ZIp", False),
        (consumers.ImageFileConsumer, "a.TIf", True),
        (consumers.ZipFileConsumer, "a.ZIp", True),
        (consumers.ZipFileConsumer, "a.tif", False),
        (consumers.TrackingConsumer, "a.TRk", True),
        (consumers.TrackingConsumer, "a.TrkS", True),
        (consumers.TrackingConsumer, "a.PNg", False),
    ],
)
def test_suffixes_are_in_any_case(
    redis_client: RedisClient, redis_db: Any, kind: type[Consumer], name: str, is_valid: bool
) -> None:
    redis_db.hset(JOB, "input_file_name", f"uploads/{name}")
    assert kind(redis_client, None, "predict").is_valid_hash(JOB) is is_valid


class StaleReplica(RedisClient):
    """Says that a job waits when none does."""

    def llen(self, _: str) -> int:
        return 1


def test_a_stale_replica_gives_no_job(redis_db: Any) -> None:
    address = redis_db.connection_pool.connection_kwargs
    client = StaleReplica("127.0.0.1", address["port"], 0.05, deadline_s=20)
    assert Consumer(client, None, "predict").get_redis_hash() is None
    client.close()


def test_putting_back_what_is_not_there_is_an_error_in_the_log(
    redis_client: RedisClient, redis_db: Any, caplog: pytest.LogCaptureFixture
) -> None:
    consumer = Consumer(redis_client, None, "predict")
    redis_db.lpush(consumer.processing_queue, "another")
    with caplog.at_level(logging.ERROR):
        consumer._put_back_hash(JOB)
    assert JOB in caplog.text
    assert redis_db.lrange(consumer.processing_queue, 0, -1) == ["another"]
    assert redis_db.llen("predict") == 0


@pytest.mark.parametrize("kind", KINDS[2:])
@pytest.mark.parametrize("status", ["done", "failed"])
def test_a_job_that_has_ended_is_left_alone(
    redis_client: RedisClient, redis_db: Any, kind: type[Consumer], status: str
) -> None:
    fields = {"status": status, "input_file_name": "uploads/a.tif"}
    redis_db.hset(JOB, mapping=fields)
    assert kind(redis_client, Storage("memory://"), "predict")._consume(JOB) == status
    assert redis_db.hgetall(JOB) == fields


def test_a_base_class_has_no_work_of_its_own(redis_client: RedisClient) -> None:
    with pytest.raises(NotImplementedError):
        Consumer(redis_client, None, "predict")._consume(JOB)


def test_an_unknown_command_is_an_attribute_error(redis_client: RedisClient) -> None:
    with pytest.raises(AttributeError):
        redis_client.unknown_function()


@pytest.mark.parametrize("data", ["text", ["a"], 1])
def test_fields_are_a_dictionary(redis_client: RedisClient, data: Any) -> None:
    with pytest.raises(ValueError, match="update_key"):
        Consumer(redis_client, None, "predict").update_key(JOB, data)


def test_squares_of_an_image() -> None:
    images, labels = utils.reshape_matrix(np.ones((2, 5, 7, 3)), np.ones((2, 5, 7, 1), np.int64), 3)
    assert (images.shape, labels.shape) == ((12 * 1, 3, 3, 3), (12, 3, 3, 1))
    assert (images.dtype, labels.dtype) == (np.dtype(np.float32), np.dtype(np.int32))
    first, _ = utils.reshape_matrix(np.ones((2, 3, 5, 7)), np.ones((2, 1, 5, 7)), 3, True)
    assert first.shape == (12, 3, 3, 3)


@pytest.mark.parametrize(("shape", "size"), [((1, 5, 7, 1), 6), ((5, 7, 1), 3), ((1, 1, 5, 7, 1), 3)])
def test_squares_that_do_not_fit_are_a_value_error(shape: tuple[int, ...], size: int) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        utils.reshape_matrix(np.ones(shape), np.ones(shape), size)


@pytest.mark.parametrize("shape", [(80, 90, 1), (2, 80, 90, 3)])
def test_a_padded_image_grows_by_60(shape: tuple[int, ...]) -> None:
    padded = utils.pad_image(np.ones(shape), 61)
    assert padded.shape == (*shape[:-3], 140, 150, shape[-1])


def test_files_of_a_result(tmp_path: Path) -> None:
    assert [Path(path).name for path in utils.save_numpy_array(np.ones((4, 4)), "a", "/deep/er", tmp_path)] == [
        "a_feature_0.tif"
    ]
    assert (tmp_path / "deep" / "er" / "a_feature_0.tif").is_file()
    (tmp_path / "file").write_text("no folder")
    assert utils.save_numpy_array(np.ones((4, 4, 1)), "a", "", tmp_path / "file") == []


def test_images_of_an_archive(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("a.tif", "in/b.png", "in/", "readme", "__MACOSX/a.tif"):
            archive.writestr(name, "x" if not name.endswith("/") else "")
    paths = list(utils.iter_image_archive(tmp_path / "a.zip", tmp_path / "out"))
    assert sorted(Path(path).name for path in paths) == ["a.tif", "b.png"]
    assert (tmp_path / "out" / "readme").is_file()


@pytest.mark.parametrize("name", ["a.tif", "missing.trk"])
def test_what_is_no_track_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.tif").write_text("x")
    with pytest.raises(Exception, match=r"\S"):
        utils.load_track_file(str(tmp_path / name))


@pytest.mark.parametrize(
    "call",
    [
        lambda storage, folder: storage.upload(str(folder / "missing.zip")),
        lambda storage, folder: storage.download("uploads/missing.tif", str(folder)),
    ],
)
def test_a_missing_file_or_object_is_raised_at_once(
    gcs_storage: Storage, tmp_path: Path, call: Callable[[Storage, Path], object]
) -> None:
    assert isinstance(GoogleStorage("a"), Storage)
    with pytest.raises(FileNotFoundError):
        call(gcs_storage, tmp_path)
