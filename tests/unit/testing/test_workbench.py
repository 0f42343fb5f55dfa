"""A job runs in one process as it does in a worker."""

from __future__ import annotations

import io
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
from pydantic import Field

from redis_consumer import settings, testing
from redis_consumer.consumers import (
    Child,
    Consumer,
    ConsumerOptions,
    ImageFileConsumer,
    TensorFlowServingConsumer,
    per_job,
    second_phase,
)
from redis_consumer.consumers.claimed_job import Outcome
from redis_consumer.errors import ModelServerUnavailable, SettingsError
from redis_consumer.job import ModelId
from support import onnx_models

STAGES = ("new", "started", "pre-processing", "predicting", "post-processing", "saving-results", "done")


class Asking(TensorFlowServingConsumer):
    """Adds up what models answer."""

    class Options(ConsumerOptions):
        factor: Annotated[float, per_job] = Field(default=1.0, gt=0)

    def _consume(self, redis_hash: str) -> str:
        answers = [self.grpc_image(np.full((2, 2, 1), self.options.factor, np.float32), name, 1) for name in ("A", "B")]
        self.update_key(redis_hash, {"sum": float(sum(np.sum(answer) for answer in answers))})
        return self.final_status


class Dividing(Consumer):
    """Has a child in its own queue and one in another."""

    def _consume(self, redis_hash: str) -> str:
        job = self.job
        assert job is not None
        if job.get("part"):
            return self.final_status
        where = {"input_file_name": job.input_file_name}
        children = [Child(self.queue, "own", fields={**where, "part": "1"}), Child("others", "other", fields=where)]
        return self.fan_out(children, then="gather")

    @second_phase
    def gather(self, redis_hash: str) -> str:
        self.update_key(redis_hash, {"found": ",".join(child.status for child in self.child_jobs())})
        return self.final_status


class Kind(Enum):
    LIVE = "live"
    FIXED = "fixed"


class Other(Consumer):
    """Fails."""

    def _consume(self, redis_hash: str) -> str:
        return self.failed_status


def test_an_array_goes_through_all_stages(run_consumer: Callable[..., testing.JobRun], example_image: Any) -> None:
    run = run_consumer(ImageFileConsumer, example_image, model=testing.fake_model)
    assert (run.status, run.reason, run.statuses, run.outcome) == ("done", "", STAGES, Outcome.SETTLED)
    labels = run.outputs["image_feature_0.tif"]
    np.testing.assert_array_equal(labels > 0, testing.fake_model(example_image[np.newaxis])[0, ..., 0] > 0)
    assert labels.max() == 9
    assert {"download_time", "prediction_time", "upload_time"} <= run.timings.keys()
    assert run.elapsed_s >= run.timings["total_time"] > 0


def test_without_a_model_the_packaged_one_answers() -> None:
    run = testing.run("image", testing.example_image())
    assert (run.status, run.fields["model_name"], run.fields["objects"]) == ("done", "NuclearSegmentation", "9")


@pytest.mark.parametrize("kind", ["path", "bytes"])
def test_an_onnx_model_of_the_authors_answers(tmp_path: Path, kind: str) -> None:
    onnx_models.save(tmp_path, "Scaling", 1, onnx_models.scaling(2.0))
    path = tmp_path / "Scaling" / "1" / "model.onnx"
    image = np.full((8, 9, 1), 3, np.float32)
    run = testing.run("image", image, model=path if kind == "path" else path.read_bytes(), scale=1)
    assert run.status == "done", run.reason
    np.testing.assert_array_equal(run.outputs["image_feature_0.tif"], np.full((8, 9), 6))


def test_a_card_beside_a_model_holds(tmp_path: Path) -> None:
    onnx_models.save(tmp_path, "Scaling", 1, onnx_models.scaling(2.0))
    folder = tmp_path / "Scaling" / "1"
    (folder / "card.toml").write_text("schema = 1\n[processing]\npost = []\n")
    with testing.Workbench("image", model=folder / "model.onnx") as bench:
        assert bench.storage.exists("models/Fake/1/card.toml")


def test_several_models_and_options() -> None:
    models: dict[str, Any] = {"A": lambda batch: batch, "B": lambda batch: {"x": batch * 2}}
    run = testing.run(Asking, b"", model=models, factor=0.5)
    assert run.fields["sum"] == "6.0"
    assert run.fields["model_name"] == "A"
    assert testing.run(Asking, b"", model=models, factor=0).reason.startswith("InvalidJob: field factor: '0': must be")


def test_fields_are_written_as_producers_do() -> None:
    fields: dict[str, Any] = {
        "channels": [0],
        "scale": None,
        "frames": {3},
        "kind": Kind.LIVE,
        "kinds": [Kind.LIVE, Kind.FIXED],
    }
    run = testing.run("image", testing.example_image(), model=testing.fake_model, **fields)
    assert (run.status, run.fields["channels"], run.fields["scale"]) == ("done", "0", "1")
    assert [run.fields[name] for name in ("frames", "kind", "kinds")] == ["3", "live", "live,fixed"]


def test_variables_are_read_anew_by_each_run(monkeypatch: pytest.MonkeyPatch) -> None:
    models: dict[str, Any] = {"A": lambda batch: batch, "B": lambda batch: batch}
    before = settings.current()
    assert testing.run(Asking, b"", model=models).fields["sum"] == "8.0"
    monkeypatch.setenv("FACTOR", "2")
    assert testing.run(Asking, b"", model=models).fields["sum"] == "16.0"
    assert settings.current() is before
    monkeypatch.setenv("FACTOR", "two")
    with pytest.raises(SettingsError, match="FACTOR = 'two'"):
        testing.run(Asking, b"", model=models)


def test_a_folder_is_a_job_for_each_file(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", testing.example_image())
    (tmp_path / "b.txt").write_text("no image")
    (tmp_path / ".hidden").touch()
    run = testing.run("image", tmp_path, model=testing.fake_model)
    assert run.status == "failed"
    assert run.reason.startswith("b.txt: InvalidImage: b.txt: isn't an image")
    assert [child.status for child in run.children] == ["done", "failed"]
    assert list(run.outputs) == ["a.npy/a_feature_0.tif"]


def test_an_archives_consumer_gets_a_folder_as_an_archive(tmp_path: Path) -> None:
    (tmp_path / "plate").mkdir()
    np.save(tmp_path / "plate" / "a.npy", testing.example_image())
    run = testing.run("zip", str(tmp_path), model=testing.fake_model)
    assert run.statuses == ("new", "started", "waiting", "saving-results", "done")
    assert sorted(run.files) == ["plate/a_feature_0.tif", "summary.csv"]
    assert [child.statuses for child in run.children] == [STAGES]


def test_an_ome_zarr_is_one_input(tmp_path: Path) -> None:
    class Counting(Consumer):
        def _consume(self, redis_hash: str) -> str:
            assert self.job is not None
            folder = Path(self.storage.download_folder(self.job.input_file_name, str(tmp_path / "work")))
            self.update_key(redis_hash, {"files": len([path for path in folder.rglob("*") if path.is_file()])})
            return self.final_status

    (tmp_path / "cells.zarr" / "0").mkdir(parents=True)
    (tmp_path / "cells.zarr" / "zarr.json").write_text("{}")
    (tmp_path / "cells.zarr" / "0" / "zarr.json").write_text("{}")
    assert testing.run(Counting, tmp_path / "cells.zarr").fields["files"] == "2"


@pytest.mark.parametrize("name", ["../cells.npy", "/plate.1/cells.npy", "cells\n.npy", "c" * 300 + ".npy"])
def test_a_name_that_is_no_key_is_that_of_an_input_all_the_same(name: str) -> None:
    run = testing.run(ImageFileConsumer, testing.example_image(), model=testing.fake_model, original_name=name)
    assert run.status == "done", run.reason
    assert run.fields["original_name"] == name
    assert run.fields["input_file_name"].endswith(".npy")


def test_a_job_of_another_bench_is_not_run_again() -> None:
    run = testing.run(Other, b"cells", original_name="cells.txt")
    with (
        testing.Workbench(Other) as bench,
        pytest.raises(ValueError, match="test:cells.txt:1: not a job of this workbench"),
    ):
        bench.run_again(run)


def test_children_run_in_the_consumers_that_are_named() -> None:
    run = testing.run(Dividing, b"x", children={"others": Other})
    assert run.fields["found"] == "done,failed"
    assert [child.status for child in run.children] == ["done", "failed"]


class Fixed(Consumer):
    """Ends its job at once."""

    def _consume(self, redis_hash: str) -> str:
        return self.final_status


@pytest.mark.parametrize(("variable", "queue"), [(None, "predict"), ("Cells", "cells")])
def test_images_of_an_archive_go_where_those_of_a_worker_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str | None, queue: str
) -> None:
    if variable:
        monkeypatch.setenv("QUEUE", variable)
    np.save(tmp_path / "a.npy", testing.example_image())
    run = testing.run("zip", tmp_path, model=testing.fake_model, children={queue: Fixed})
    (child,) = run.children
    assert child.job.id.startswith(f"{queue}:a.npy:")
    assert child.statuses == ("new", "done")


def test_children_that_no_job_has_are_told(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", testing.example_image())
    with pytest.raises(ValueError, match="children: no child went to queue test; children went to .*: predict"):
        testing.run("zip", tmp_path, model=testing.fake_model, children={"test": Fixed})
    with pytest.raises(ValueError, match=r"no child went to queue predict; .* besides the consumer's own 'test': none"):
        testing.run(Fixed, b"x", children={"predict": Fixed})
    with pytest.raises(TypeError, match="children: is of type type; give a consumer by its queue"):
        testing.run(Fixed, b"x", children=Fixed)  # type: ignore[arg-type]


def test_a_job_that_failed_before_it_had_children_says_so_itself() -> None:
    run = testing.run("zip", b"no archive", original_name="a.zip", children={"predict": Fixed})
    assert (run.status, run.children) == ("failed", ())


@pytest.mark.parametrize("name", ["status", "output_url", "next_phase", "objects"])
def test_fields_that_workers_write_are_refused(name: str) -> None:
    fields: dict[str, Any] = {name: "done"}
    with pytest.raises(ValueError, match=f"field {name}: is written by workers; leave it out"):
        testing.run("image", testing.example_image(), model=testing.fake_model, **fields)


@pytest.mark.parametrize("image", [None, io.BytesIO(b"x"), {"a": 1}, [[1], [1, 2]], 3, np.array(["a"])])
def test_what_is_no_image_is_refused(image: Any) -> None:
    with pytest.raises(TypeError, match="image: is .*; give a path, an array of numbers, or the bytes of a file"):
        testing.run("image", image, model=testing.fake_model)


def test_no_path_is_not_the_working_directory() -> None:
    with pytest.raises(ValueError, match="image: is an empty text"):
        testing.run("image", "", model=testing.fake_model)


@pytest.mark.parametrize(
    ("model", "error", "text"),
    [
        (3, TypeError, "model: is of type int; give a function"),
        (np.zeros(3), TypeError, "model: is of type ndarray; give a function"),
        ({"A": 3}, TypeError, "model 'A': is of type int; give a function"),
        ({3: testing.fake_model}, TypeError, "model: the name 3 is not a text"),
        ("no.onnx", FileNotFoundError, "model: there is no file 'no.onnx'"),
    ],
)
def test_what_is_no_model_is_refused(model: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        testing.run("image", testing.example_image(), model=model)


def test_a_model_that_is_not_there_is_told_with_those_that_are() -> None:
    run = testing.run("image", testing.example_image(), model={"A": testing.fake_model}, model_name="B")
    assert run.status == "failed"
    assert run.reason.endswith("; this test has functions for A")


def test_no_original_name_is_none() -> None:
    run = testing.run("image", testing.example_image(), model=testing.fake_model, original_name=None)
    assert (run.job.original_name, list(run.outputs)) == ("image.npy", ["image_feature_0.tif"])


def test_an_outage_gives_the_job_back_and_the_bench_goes_on() -> None:
    answers = iter([ModelServerUnavailable("away"), None])

    def model(batch: Any) -> Any:
        error = next(answers)
        if error is not None:
            raise error
        return batch

    with testing.Workbench(ImageFileConsumer, model=model) as bench:
        away = bench.run(testing.example_image())
        assert (away.outcome, away.status) == (Outcome.GIVEN_BACK, "predicting")
        assert bench.run_again(away).status == "done"


def test_a_second_run_has_the_next_number_and_the_same_key(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", testing.example_image())
    with testing.Workbench(ImageFileConsumer, model=testing.fake_model) as bench:
        first = bench.run(tmp_path)
        again = bench.run_again(first)
    assert [run.children[0].job.attempt for run in (first, again)] == [1, 2]
    assert first.children[0].job.id == again.children[0].job.id
    assert list(first.outputs) == list(again.outputs)


def test_a_class_that_no_worker_can_run_is_refused() -> None:
    with pytest.raises(SettingsError, match="Consumer has no method _consume"):
        testing.run(Consumer, b"")


@pytest.mark.parametrize("missing", ["no.tif", "empty"])
def test_inputs_that_are_missing_are_the_tests_own_fault(tmp_path: Path, missing: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError):
        testing.run("image", tmp_path / missing, model=testing.fake_model)


def test_the_model_store_looks_into_the_bucket() -> None:
    with testing.Workbench(ImageFileConsumer, model=b"no model") as bench, pytest.raises(ValueError, match="ONNX"):
        bench.consumer.model_server.metadata(ModelId("Fake", 1))  # type: ignore[attr-defined]
