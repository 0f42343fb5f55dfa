"""What a consumer finds in an image becomes files and fields, and its calls of models are stages of the job."""

from __future__ import annotations

import csv
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from redis_consumer import testing
from redis_consumer.consumers import Analysis, ImageFileConsumer
from redis_consumer.job import Job, ModelId
from redis_consumer.segmentation import frames, segmentation
from redis_consumer.segmentation.results import count_objects, write_analysis
from support import ome_zarr

LABELS = np.array([[0, 3], [7, 7]], np.int32).reshape(1, 2, 2, 1)


def names(files: list[Path]) -> list[str]:
    return [file.name for file in files]


def test_images_are_named_and_labels_as_every_client_knows_them(tmp_path: Path) -> None:
    found: Analysis = {"labels": LABELS, "depth": [LABELS / 2, np.zeros((1, 2, 2, 2))]}
    files, fields = write_analysis(found, tmp_path / "results", "plate/cells.tif")
    assert names(files) == ["cells_feature_0.tif", "cells_depth_0.tif", "cells_depth_1.tif", "cells_depth_2.tif"]
    assert {file.parent for file in files} == {tmp_path / "results" / "plate"}
    np.testing.assert_array_equal(tifffile.imread(files[0]), LABELS[0, ..., 0])
    assert fields == {"objects": 2}


def test_bytes_are_files(tmp_path: Path) -> None:
    files, fields = write_analysis({"table.csv": b"a,b\n"}, tmp_path, "cells.tif")
    assert (names(files), files[0].read_bytes(), fields) == (["cells_table.csv"], b"a,b\n", {})


def test_numbers_and_texts_are_fields_and_lines_of_a_table(tmp_path: Path) -> None:
    found: Analysis = {"sharpness": np.float32(0.5), "count": 3, "kind": "a,b", "is_sharp": np.bool_(True)}
    (table,), fields = write_analysis(found, tmp_path, "cells.tif")
    assert fields == found
    with table.open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["name", "value"],
            ["sharpness", "0.5"],
            ["count", "3"],
            ["kind", "a,b"],
            ["is_sharp", "True"],
        ]


def test_no_group_of_frames_is_held_while_the_next_one_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[weakref.ref[Any]] = []

    def restored(result: Any, shape_yx: tuple[int, int], postprocess: Any) -> Any:
        assert [ref() for ref in made] == [None] * len(made)
        labels = np.array(restore(result, shape_yx, postprocess))
        made.append(weakref.ref(labels))
        return labels

    restore = segmentation.restore
    monkeypatch.setattr(segmentation, "restore", restored)
    monkeypatch.setattr(frames, "GROUP_BYTES", 4 * 64 * 64)
    tifffile.imwrite(
        tmp_path / "frames.tif", np.zeros((3, 64, 64), np.uint8), photometric="minisblack", metadata={"axes": "TYX"}
    )
    done = testing.run(ImageFileConsumer, tmp_path / "frames.tif", model_name="NuclearSegmentation", model_version="1")
    assert (done.status, done.reason, len(made)) == ("done", "", 3)


@pytest.mark.parametrize(
    ("found", "error", "words"),
    [
        ({"a/b": b""}, ValueError, "'a/b' can't be part of a file's name"),
        ({"status": "done"}, ValueError, "'status' is a field that workers write; call it otherwise"),
        ({"labels": None}, TypeError, "'labels' is a NoneType; give an array"),
        ({"labels": [1, 2]}, TypeError, "'labels' is a list"),
        (None, TypeError, "it returned a NoneType; return a dictionary"),
        (LABELS, TypeError, "it returned a ndarray; return a dictionary"),
        ({}, ValueError, "it returned nothing to write"),
        ({"labels": []}, ValueError, "it returned nothing to write"),
        ({3: LABELS}, ValueError, "3 can't be part of a file's name"),
        ({"spectrum": LABELS * 1j}, TypeError, "'spectrum' is an array of complex128; give whole or real numbers"),
        ({"names": np.array([["a"]])}, TypeError, "'names' is an array of <U1"),
        ({"a": np.zeros(3)}, ValueError, r"analyze: 'a' is an array of shape \(3,\), which is no image"),
        ({"a": np.array(3)}, ValueError, r"analyze: 'a' is an array of shape \(\), which is no image"),
        ({"a": [np.zeros((0, 3))]}, ValueError, r"analyze: 'a' is an array of shape \(0, 3\), which is no image"),
        ({"a": np.full((4, 4), 2**40)}, ValueError, "analyze: 'a': result: holds labels up to 1099511627776"),
        ({"labels": LABELS, "feature": LABELS}, ValueError, "it gave file cells_feature_0.tif twice"),
        ({"values.csv": b"", "count": 3}, ValueError, "it gave file cells_values.csv twice"),
        ({"depth": LABELS, "Depth": LABELS}, ValueError, "it gave file cells_Depth_0.tif twice"),
    ],
)
def test_what_it_cannot_write_is_refused_in_words(
    tmp_path: Path, found: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        write_analysis(found, tmp_path, "cells.tif")


class Twice(ImageFileConsumer):
    """Asks two models, one of them item by item."""

    def analyze(self, image: Any, job: Job) -> Analysis:
        labels = self.segment(image, job)
        (again,) = self.predict(image, ModelId("Second"))
        (scores,) = self.predict_batch(np.stack([image[0]] * 70), ModelId("Third"))
        return {"labels": labels, "second": again, "items": len(scores)}


def two_channels(batch: Any) -> Any:
    return np.concatenate([batch > 0.5, batch <= 0.5], axis=-1).astype(np.float32)


def square() -> Any:
    image = np.zeros((32, 32, 1), np.float32)
    image[4:20, 4:20] = 1
    return image


def test_stages_go_forward_however_many_models_are_asked() -> None:
    batches: list[int] = []

    def third(batch: Any) -> Any:
        batches.append(len(batch))
        return batch.mean(axis=(1, 2))

    models = {"First": two_channels, "Second": testing.fake_model, "Third": third}
    run = testing.run(Twice, square(), model=models, postprocess_function="pixelwise")
    stages = ("new", "started", "pre-processing", "predicting", "post-processing", "saving-results", "done")
    assert run.statuses == stages, run.reason
    assert {"download_time", "preprocess_time", "prediction_time", "postprocess_time", "upload_time"} <= set(
        run.timings
    )
    assert (run.fields["items"], run.fields["objects"]) == ("70", "1")
    assert batches == [64, 6]
    assert set(run.outputs) == {"image_feature_0.tif", "image_second_0.tif"}


def test_what_is_no_label_image_fails_in_words() -> None:
    run = testing.run(Twice, square(), model={"First": lambda batch: batch})
    assert "which is no label image; name a function that makes one in postprocess_function" in run.reason


class Calling(ImageFileConsumer):
    """Names a model as its options do, as a text."""

    def analyze(self, image: Any, job: Job) -> Analysis:
        (whole,) = self.predict(image, "First:1")
        (scores,) = self.predict_batch([image[0], image[0]], "First:1")
        return {"same": bool((scores == whole).all()), "items": len(scores)}


def test_a_model_may_be_a_text_and_items_a_list() -> None:
    run = testing.run(Calling, square(), model={"First": testing.fake_model})
    assert (run.status, run.fields.get("same"), run.fields.get("items")) == ("done", "True", "2"), run.reason


class Whole(ImageFileConsumer):
    """Sees images whole."""

    def analyze(self, image: Any, job: Job) -> Analysis:
        return {"mean": float(image.mean())}


def test_an_image_beyond_memory_is_not_taken_apart_for_a_class_that_wants_it_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAX_IMAGE_HEIGHT", "64")
    tifffile.imwrite(tmp_path / "cells.tif", np.zeros((256, 64), np.uint8), tile=(64, 64))
    run = testing.run(Whole, tmp_path / "cells.tif")
    assert (run.status, "MAX_IMAGE_HEIGHT" in run.reason) == ("failed", True)
    with testing.Workbench(ImageFileConsumer) as bench:
        bench.consumer.analyze = lambda image, job: {"mean": 0.0}  # type: ignore[attr-defined]
        run = bench.run(tmp_path / "cells.tif")
    assert (run.status, "MAX_IMAGE_HEIGHT" in run.reason) == ("failed", True)


def test_an_ome_zarr_is_refused_in_words_by_such_a_class(tmp_path: Path) -> None:
    ome_zarr.write(tmp_path / "cells.zarr", np.zeros((32, 32), np.uint8), "YX")
    run = testing.run(Whole, tmp_path / "cells.zarr")
    assert "cells.zarr: is an OME-Zarr, which this consumer can't take; save it as TIFF" in run.reason


@pytest.mark.parametrize("label", [5, 1 << 40, (1 << 64) - 1])
def test_labels_are_counted_however_high_they_are(label: int) -> None:
    labels = np.zeros((1, 2, 2, 1), np.uint64)
    labels[0, 0, :, 0] = label
    assert count_objects(labels) == {"objects": 1}
