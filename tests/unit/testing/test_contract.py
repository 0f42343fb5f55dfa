"""Our own consumers pass the contract, and it tells an author what is wrong with a bad one."""

from __future__ import annotations

import io
import os
import random
import shutil
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import pytest
import tifffile
from pydantic import Field

from redis_consumer import testing, utils
from redis_consumer.consumers import (
    Child,
    Consumer,
    ConsumerOptions,
    ImageFileConsumer,
    SegmentationConsumer,
    TensorFlowServingConsumer,
    TrackingConsumer,
    ZipFileConsumer,
    per_job,
    second_phase,
)
from redis_consumer.errors import InvalidImage
from redis_consumer.testing.inputs import packed

IMAGE = testing.example_image()


def movie(*frames: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, np.stack(frames), metadata={"axes": "TYX"})
    return file.getvalue()


class TestImageFileConsumer(testing.ConsumerContract):
    consumer = ImageFileConsumer


class TestZipFileConsumer(testing.ConsumerContract):
    consumer = ZipFileConsumer
    varying_files = ("summary.csv",)

    @pytest.fixture(autouse=True)
    def _archive(self, tmp_path: Path) -> None:
        (tmp_path / "folder").mkdir()
        np.save(tmp_path / "folder" / "a.npy", IMAGE)
        # The archive holds the time of its files, and each test is given the same archive.
        os.utime(tmp_path / "folder" / "a.npy", (1e9, 1e9))
        type(self).image = packed(tmp_path / "folder")
        type(self).job_fields = {"original_name": "archive.zip"}


class TestSegmentationConsumer(testing.ConsumerContract):
    consumer = SegmentationConsumer
    image = IMAGE
    model = None
    job_fields: ClassVar = {"scale": "1", "channels": "0,"}

    @pytest.fixture(autouse=True)
    def _packaged(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The role asks for the worker's model."""
        monkeypatch.setenv("NUCLEAR_MODEL", "NuclearSegmentation:1")


class TestTrackingConsumer(testing.ConsumerContract):
    consumer = TrackingConsumer
    image = movie(IMAGE[:64, :64, 0], IMAGE[1:65, :64, 0])
    model = None
    job_fields: ClassVar = {"scale": "1", "original_name": "movie.tif"}

    @pytest.fixture(autouse=True)
    def _packaged(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Frames ask for the worker's model."""
        monkeypatch.setenv("NUCLEAR_MODEL", "NuclearSegmentation:1")


def echo(batch: Any) -> Any:
    return batch


class Careful(TensorFlowServingConsumer):
    """What an author writes by the book; the bad ones differ by a line."""

    class Options(ConsumerOptions):
        factor: Annotated[float, per_job] = Field(default=2.0, gt=0, description="What pixels are multiplied by")
        program: str = Field(default="cellfinder", description="Program that is run")

    def _consume(self, redis_hash: str) -> str:
        job = self.redis.hgetall(redis_hash)
        self.update_key(redis_hash, {"status": "started"})
        with utils.get_tempdir() as folder:
            image = self.load(job, folder)
            result = self.grpc_image(image * self.options.factor, job["model_name"], job["model_version"])
            files = self.save(result[0], job["original_name"], folder)
            key, url = self.storage.upload(utils.zip_files(files, folder))
        self.finish(redis_hash, {"status": self.final_status, "output_file_name": key, "output_url": url})
        return self.final_status

    def load(self, job: dict[str, str], folder: str) -> Any:
        return utils.get_image(self.storage.download(job["input_file_name"], folder))

    def save(self, result: Any, name: str, folder: str) -> list[str]:
        return utils.save_numpy_array(result, name=Path(name).stem, output_dir=folder)

    def finish(self, redis_hash: str, fields: dict[str, str]) -> None:
        self.update_key(redis_hash, fields)


class TestCareful(testing.ConsumerContract):
    consumer = Careful


class Failing(Careful):
    def load(self, job: dict[str, str], folder: str) -> Any:
        raise InvalidImage("image: no")


class Backwards(Careful):
    def finish(self, redis_hash: str, fields: dict[str, str]) -> None:
        self.update_key(redis_hash, {"status": "predicting"})
        self.update_key(redis_hash, {"status": "started"})
        super().finish(redis_hash, fields)


class OwnWords(Careful):
    def finish(self, redis_hash: str, fields: dict[str, str]) -> None:
        self.update_key(redis_hash, {"status": "thinking"})
        super().finish(redis_hash, fields)


class Resultless(Careful):
    def finish(self, redis_hash: str, fields: dict[str, str]) -> None:
        super().finish(redis_hash, {"status": self.final_status})


class Unfenced(Careful):
    def finish(self, redis_hash: str, fields: dict[str, str]) -> None:
        self.redis.hset(redis_hash, mapping=fields)


class Writing(Unfenced):
    def _consume(self, redis_hash: str) -> str:
        self.storage.write_bytes("output/result.zip", b"")
        self.finish(redis_hash, {"output_file_name": "output/result.zip", "output_url": "memory://output/result.zip"})
        return self.final_status


class NoZip(Careful):
    def finish(self, redis_hash: str, fields: dict[str, str]) -> None:
        self.storage.write_bytes(fields["output_file_name"], b"no zip")
        super().finish(redis_hash, fields)


class OneName(Careful):
    def finish(self, redis_hash: str, fields: dict[str, str]) -> None:
        key = "output/always.zip"
        self.storage.write_bytes(key, self.storage.read_bytes(fields["output_file_name"]))
        url = self.storage.get_public_url(key)
        super().finish(redis_hash, {**fields, "output_file_name": key, "output_url": url})


class Littering(Careful):
    def load(self, job: dict[str, str], folder: str) -> Any:
        Path(tempfile.mkdtemp(), "left.tif").touch()
        return super().load(job, folder)


class CleaningLast(Careful):
    def load(self, job: dict[str, str], folder: str) -> Any:
        own = tempfile.mkdtemp()
        image = super().load(job, own)
        shutil.rmtree(own)
        return image


class Working(Careful):
    def load(self, job: dict[str, str], folder: str) -> Any:
        Path("download.tif").touch()
        return super().load(job, folder)


class Vanishing(Careful):
    def load(self, job: dict[str, str], folder: str) -> Any:
        os.chdir(folder)
        return super().load(job, folder)


class Moving(Careful):
    def load(self, job: dict[str, str], folder: str) -> Any:
        os.chdir("/")
        return super().load(job, folder)


class Deleting(Careful):
    def load(self, job: dict[str, str], folder: str) -> Any:
        image = super().load(job, folder)
        self.storage.delete(job["input_file_name"])
        return image


class Random(Careful):
    def load(self, job: dict[str, str], folder: str) -> Any:
        return super().load(job, folder) + random.random()


class Remembering(Careful):
    seen = 0

    def load(self, job: dict[str, str], folder: str) -> Any:
        self.seen += 1
        image = super().load(job, folder)
        return image if self.job and self.job.attempt > 1 else image * self.seen


class Guessing(Careful):
    def finish(self, redis_hash: str, fields: dict[str, str]) -> None:
        super().finish(redis_hash, {**fields, "peak": str(random.random())})


class Counting(Careful):
    count = 0

    def finish(self, redis_hash: str, fields: dict[str, str]) -> None:
        self.count += 1
        super().finish(redis_hash, {**fields, "peak": str(self.count)})


class Naming(Careful):
    """Writes what differs from run to run by rights: times, and names made of the job's key and of the result's."""

    def finish(self, redis_hash: str, fields: dict[str, str]) -> None:
        key = fields["output_file_name"]
        own = {"wait_time": str(random.random()), "table": f"{key}.csv", "about": f"job {redis_hash}"}
        super().finish(redis_hash, {**fields, **own, "spent": str(random.random())})


class TestNaming(testing.ConsumerContract):
    consumer = Naming
    model = echo
    varying_fields = ("spent",)


class Licensed(Careful):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError("no licence")


class Abstract(Careful, ABC):
    @abstractmethod
    def measure(self) -> float: ...


class Taking(Careful):
    def load(self, job: dict[str, str], folder: str) -> Any:
        try:
            return super().load(job, folder)
        except InvalidImage:
            return np.zeros((8, 8, 1), np.float32)


class Wordless(Careful):
    def load(self, job: dict[str, str], folder: str) -> Any:
        return np.load(self.storage.download(job["input_file_name"], folder), allow_pickle=False)


class Pathful(Careful):
    def load(self, job: dict[str, str], folder: str) -> Any:
        try:
            return super().load(job, folder)
        except Exception as error:
            raise InvalidImage(f"{folder}/input: no") from error


class Swallowing(Careful):
    def _consume(self, redis_hash: str) -> str:
        try:
            return super()._consume(redis_hash)
        except Exception as error:  # noqa: BLE001 - what it is about
            self._handle_error(InvalidImage(f"image: {type(error).__name__}"), redis_hash)
            return self.failed_status


class Undescribed(Careful):
    class Options(ConsumerOptions):
        factor: Annotated[float, per_job] = 2.0
        program: str = "cellfinder"


class Obedient(Careful):
    """Lets a job choose what its operator should."""

    @property
    def options(self) -> Any:
        return self.Options.model_validate(self.job.fields if self.job else {})


class Slippery(Careful):
    def save(self, result: Any, name: str, folder: str) -> list[str]:
        return super().save(result, "a:b", folder)


@pytest.mark.parametrize(
    ("bad", "check", "text"),
    [
        (Consumer, "test_a_worker_can_run_it", "has no method _consume"),
        (Licensed, "test_a_worker_can_run_it", "Licensed can't be made: .*RuntimeError: no licence"),
        (Abstract, "test_a_worker_can_run_it", "Abstract.* abstract"),
        (Failing, "test_a_job_ends_done", "the job ended 'failed' .*InvalidImage: image: no"),
        (Backwards, "test_its_statuses_are_known_and_in_order", "the statuses go back: .*predicting -> started"),
        (OwnWords, "test_its_statuses_are_known_and_in_order", r"\['thinking'\] are unknown.*own_statuses"),
        (Resultless, "test_it_writes_the_fields_of_a_result", "output_file_name.*update_key"),
        (Resultless, "test_its_result_is_a_zip_that_opens", "upload the result before"),
        (NoZip, "test_its_result_is_a_zip_that_opens", "not a zip archive.*utils.zip_files"),
        (Slippery, "test_names_in_its_result_are_safe", "a:b_feature_0.tif"),
        (Littering, "test_it_removes_its_temporary_files", "left.tif.*utils.get_tempdir"),
        (
            CleaningLast,
            "test_it_removes_its_temporary_files",
            "the bad input garbage.tif leaves temporary files: .*utils.get_tempdir",
        ),
        (Working, "test_it_leaves_the_working_directory_alone", "download.tif.*utils.get_tempdir"),
        (Moving, "test_it_leaves_the_working_directory_alone", "os.chdir"),
        (Vanishing, "test_it_leaves_the_working_directory_alone", "os.chdir"),
        (Deleting, "test_it_leaves_its_input_alone", "uploads/image.npy"),
        (OneName, "test_a_second_run_gives_the_same", "same object.*utils.zip_files"),
        (Random, "test_a_second_run_gives_the_same", "a second run of the same job gave another .*seed"),
        (Guessing, "test_a_second_run_gives_the_same", "a second run .* into the field peak in place of"),
        (Guessing, "test_one_job_leaves_nothing_to_the_next", "a job after others .* into the field peak in place of"),
        (Counting, "test_a_second_run_gives_the_same", "wrote '2' into the field peak in place of '1'"),
        (Counting, "test_one_job_leaves_nothing_to_the_next", "wrote '2' into the field peak in place of '1'"),
        (
            Remembering,
            "test_one_job_leaves_nothing_to_the_next",
            "a job after others gave another .*keep no data on self",
        ),
        (Taking, "test_bad_input_fails_in_words", "garbage.tif: the job ended 'done'.*raise InvalidImage"),
        (Wordless, "test_bad_input_fails_in_words", "garbage.tif: the reason is not one line.*redis_consumer.errors"),
        (Pathful, "test_a_missing_input_fails_in_words", "the reason contains local paths"),
        (Undescribed, "test_wrong_options_are_refused", "option factor has no description"),
        (Undescribed, "test_operator_options_are_refused", "option program has no description"),
        (
            Obedient,
            "test_operator_options_are_refused",
            "a job set the operator's option program, and its statuses were .*done; do not override",
        ),
        (Unfenced, "test_a_cancelled_job_ends", "a cancelled job shows a result"),
        (Writing, "test_a_cancelled_job_ends", "a cancelled job shows a result"),
        (Unfenced, "test_a_lost_job_shows_nothing", "wrote status 'done'.*LeaseLost"),
        (
            Swallowing,
            "test_a_model_server_that_is_away_gives_the_job_back",
            "the job ended 'failed'.*do not catch ModelServerUn",
        ),
    ],
)
def test_a_bad_consumer_is_told_what_to_do(bad: type[Consumer], check: str, text: str) -> None:
    kind = type("Checked", (testing.ConsumerContract,), {"consumer": bad, "model": echo})
    with pytest.raises(Exception, match=text):
        getattr(kind(), check)()


def test_other_tests_do_not_suffer_from_another_working_directory() -> None:
    class Checked(testing.ConsumerContract):
        consumer = Vanishing

    before = Path.cwd()
    assert Checked().good_run().status == "done"
    assert Path.cwd() == before


def test_checks_that_do_not_apply_are_skipped() -> None:
    class Modelless(Careful):
        def grpc_image(self, img: Any, model_name: str, model_version: int | str) -> Any:
            return img[np.newaxis]

    class Checked(testing.ConsumerContract):
        consumer = Modelless
        bad_inputs: ClassVar = {}

    with pytest.raises(pytest.skip.Exception, match="calls no model"):
        Checked().test_a_model_server_that_is_away_gives_the_job_back()
    with pytest.raises(pytest.skip.Exception, match="bad_inputs is empty"):
        Checked().test_bad_input_fails_in_words()


class Forwarding(Consumer):
    """Has children that name the job's own object, so that they upload before it does."""

    def _consume(self, redis_hash: str) -> str:
        assert self.job is not None
        if self.job.get("part"):
            return self.report(redis_hash)
        where = {"input_file_name": self.job.input_file_name}
        children = [Child(queue, "part.npy", fields={**where, "part": "1"}) for queue in ("predict", self.queue)]
        return self.fan_out(children, then="report")

    @second_phase
    def report(self, redis_hash: str) -> str:
        with utils.get_tempdir() as folder:
            report = Path(folder, "report.txt")
            report.write_text("done")
            key, url = self.storage.upload(utils.zip_files([str(report)], folder))
        result = {"status": self.final_status, "output_file_name": key, "output_url": url}
        self.update_key(redis_hash, result)
        return self.final_status


def test_an_image_may_have_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Checked(testing.ConsumerContract):
        consumer = Careful
        image = "cells.npy"

    np.save(tmp_path / "cells.npy", IMAGE)
    monkeypatch.chdir(tmp_path)
    Checked().test_it_leaves_the_working_directory_alone()


def test_a_consumer_without_a_result_is_told_so_once() -> None:
    class Checked(testing.ConsumerContract):
        consumer = Resultless

    with pytest.raises(AssertionError, match="fields .* are missing; write output_file_name"):
        Checked().test_it_writes_the_fields_of_a_result()
    with pytest.raises(pytest.skip.Exception, match="it names no object of its result"):
        Checked().test_a_second_run_gives_the_same()


@pytest.mark.parametrize("check", ["test_a_cancelled_job_ends", "test_a_lost_job_shows_nothing"])
def test_uploads_of_children_are_not_those_of_the_job(check: str) -> None:
    class Checked(testing.ConsumerContract):
        consumer = Forwarding

    getattr(Checked(), check)()


def test_the_checks_name_a_folder_and_several_models() -> None:
    class Checked(testing.ConsumerContract):
        consumer = Careful
        model: ClassVar = {"One": testing.fake_model, "Two": testing.fake_model}

    Checked().test_a_model_server_that_is_away_gives_the_job_back()
    assert Checked().good_run().fields["model_name"] == "One"


def test_a_consumer_may_be_named_by_its_import_path() -> None:
    class Checked(testing.ConsumerContract):
        consumer = "redis_consumer.consumers.image:ImageFileConsumer"

    Checked().test_a_worker_can_run_it()
    Checked().test_wrong_options_are_refused()


@pytest.mark.parametrize(
    ("attributes", "check", "text"),
    [
        ({}, "test_a_worker_can_run_it", "Checked names no consumer; write consumer = MyConsumer"),
        (
            {"bad_inputs": ["a.tif"]},
            "test_bad_input_fails_in_words",
            "bad_inputs: is of type list; give bytes by the name",
        ),
        (
            {"bad_inputs": {"a.tif": "x"}},
            "test_one_job_leaves_nothing_to_the_next",
            "bad_inputs: 'a.tif' is of type str",
        ),
        ({"image": ""}, "test_a_job_ends_done", "image: is an empty text"),
        ({"image": None}, "test_a_job_ends_done", "image: is None; give a path"),
    ],
)
def test_wrong_attributes_are_told(attributes: dict[str, Any], check: str, text: str) -> None:
    given = {"consumer": Careful, "model": echo, **attributes} if attributes else {}
    kind = type("Checked", (testing.ConsumerContract,), given)
    with pytest.raises((TypeError, ValueError), match=text):
        getattr(kind(), check)()


class Segmenting(ImageFileConsumer):
    """Does what the page on first consumers shows."""

    def analyze(self, image: Any, job: Any) -> dict[str, Any]:
        return {"labels": self.segment(image, job)}


class TestSegmenting(testing.ConsumerContract):
    """With the class's own model, which an author doesn't name."""

    consumer = Segmenting

    def test_it_finds_all_nuclei(self) -> None:
        assert self.good_run().fields["objects"] == "9"
