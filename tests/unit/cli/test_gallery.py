"""Do label image, overlay and page come out of a result zip?"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile

from redis_consumer.cli.gallery import read_labels, write_gallery, write_labels
from redis_consumer.cli.producer import Submission
from redis_consumer.cli.results import Result
from redis_consumer.cli.watch import JobState
from redis_consumer.errors import InvalidImage


@pytest.fixture
def result(tmp_path: Path) -> Result:
    labels = np.zeros((20, 30), np.float32)
    labels[2:6, 2:6], labels[10:15, 10:20] = 1, 3
    tifffile.imwrite(tmp_path / "labels.tif", labels)
    with zipfile.ZipFile(tmp_path / "a-result.zip", "w") as archive:
        archive.write(tmp_path / "labels.tif", "folder/a_feature_0.tif")
    (tmp_path / "labels.tif").unlink()
    state = JobState("predict:a.tif:1", "done", 100)
    return Result(Submission("predict:a.tif:1", tmp_path / "a.tif"), state, tmp_path / "a-result.zip")


def test_gallery_is_written(tmp_path: Path, result: Result) -> None:
    image = tmp_path / "a.tif"
    tifffile.imwrite(image, np.arange(600, dtype=np.uint16).reshape(20, 30))
    found = write_gallery(tmp_path, image, result, {"status": "done"}, 1.0)
    assert found == "2 objects in a.tif"
    labels = tifffile.imread(tmp_path / "labels.tif")
    assert (str(labels.dtype), labels.shape) == ("uint16", (20, 30))
    assert np.unique(labels).tolist() == [0, 1, 3]
    assert (tmp_path / "overlay.png").read_bytes().startswith(b"\x89PNG")
    assert "2 objects in a.tif" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_stack_is_said_to_be_one(tmp_path: Path, result: Result) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((5, 20, 30), np.uint8), photometric="minisblack")
    found = write_gallery(tmp_path, tmp_path / "a.tif", result, {}, 1.0)
    assert found == "2 objects in the first of the 5 planes of a.tif"
    assert f"<title>{found}" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_zip_without_label_image(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("readme.txt", "nothing")
    with pytest.raises(InvalidImage, match=r"a\.zip"):
        read_labels(tmp_path / "a.zip")


def test_many_labels_need_a_wider_type(tmp_path: Path) -> None:
    write_labels(tmp_path / "labels.tif", np.array([[0, 70_000]], np.int32))
    assert tifffile.imread(tmp_path / "labels.tif").tolist() == [[0, 70_000]]
