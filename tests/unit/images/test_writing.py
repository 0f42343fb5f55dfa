from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image as Pillow

from redis_consumer.errors import InvalidJob, PermanentError
from redis_consumer.images import read_image, save_numpy_array, write_channels

BATCH = np.arange(2 * 5 * 4 * 3, dtype=np.int32).reshape(2, 5, 4, 3)


def test_writes_one_float32_tiff_a_channel(tmp_path: Path) -> None:
    paths = write_channels(BATCH, tmp_path / "deep" / "cells")
    assert [path.name for path in paths] == [f"cells_feature_{channel}.tif" for channel in range(3)]
    for channel, path in enumerate(paths):
        pixels = tifffile.imread(path)
        assert pixels.dtype == np.float32
        assert np.array_equal(pixels, BATCH[..., channel])


def test_rank_2_is_one_channel(tmp_path: Path) -> None:
    (path,) = write_channels(BATCH[0, ..., 0], tmp_path / "a")
    assert np.array_equal(tifffile.imread(path), BATCH[0, ..., 0])


@pytest.mark.parametrize("shape", [(5, 4, 1), (1, 5, 4, 1), (3, 5, 4, 1), (5, 3, 1), (3, 4, 4, 2)])
def test_written_files_are_grey_for_our_own_reader(tmp_path: Path, shape: tuple[int, ...]) -> None:
    image = read_image(write_channels(np.ones(shape, bool), tmp_path / "a")[0])
    assert "S" not in image.axes
    assert image.array.size == np.prod(shape[:-1])


def test_another_library_opens_the_files(tmp_path: Path) -> None:
    (path,) = write_channels(BATCH[0, ..., :1], tmp_path / "a")
    with Pillow.open(path) as picture:
        assert picture.mode == "F"
        assert np.array_equal(np.asarray(picture), BATCH[0, ..., 0])


def test_names_with_dots_stay_whole(tmp_path: Path) -> None:
    assert write_channels(BATCH[0, ..., 0], tmp_path / "a.b.c")[0].name == "a.b.c_feature_0.tif"


def test_labels_that_float32_cannot_hold_are_refused(tmp_path: Path) -> None:
    labels = np.zeros((3, 3), np.int64)
    labels[0, 0] = 2**24
    assert write_channels(labels, tmp_path / "a")
    labels[0, 0] += 1
    with pytest.raises(PermanentError, match=r"16777217.*split the image"):
        write_channels(labels, tmp_path / "b")


def test_an_array_without_a_plane_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match="no image plane"):
        write_channels(np.zeros(3), tmp_path / "a")


def test_strict_writer_raises_what_the_disk_says(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        write_channels(BATCH, tmp_path / "file" / "a")


def test_save_numpy_array_names_and_folders(tmp_path: Path) -> None:
    paths = save_numpy_array(BATCH, name="cells", subdir="/day 1/well", output_dir=tmp_path)
    assert paths == [str(tmp_path / "day 1" / "well" / f"cells_feature_{channel}.tif") for channel in range(3)]
    assert all(Path(path).is_file() for path in paths)


def test_save_numpy_array_numbers_the_channels_of_a_list_onward(tmp_path: Path) -> None:
    paths = save_numpy_array([BATCH[..., :1], BATCH[..., 1:]], name="a", output_dir=str(tmp_path))
    assert [Path(path).name for path in paths] == [f"a_feature_{channel}.tif" for channel in range(3)]
    assert np.array_equal(tifffile.imread(paths[2]), BATCH[..., 2])


def test_save_numpy_array_without_arguments_writes_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert save_numpy_array(BATCH[0, ..., 0]) == ["_feature_0.tif"]
    assert (tmp_path / "_feature_0.tif").is_file()


def test_save_numpy_array_leaves_out_the_folders_of_a_url(tmp_path: Path) -> None:
    """A consumer of 2020 takes the folder from ``original_name``, in which the kiosk's client puts a URL."""
    subdir = "../http:/minio:9000/bucket/uploads"
    (path,) = save_numpy_array(BATCH[0, ..., 0], "HeLa", subdir, tmp_path)
    assert Path(path) == tmp_path / "HeLa_feature_0.tif"


def test_save_numpy_array_logs_write_errors(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    with caplog.at_level(logging.ERROR):
        assert save_numpy_array(BATCH, name="a", subdir="file", output_dir=tmp_path) == []
    assert "Could not write the result a" in caplog.text


@pytest.mark.parametrize(("name", "subdir"), [("a", "../out"), ("../a", ""), ("a", "b/../../c"), ("a\0", "")])
def test_save_numpy_array_stays_in_its_folder(tmp_path: Path, name: str, subdir: str) -> None:
    with pytest.raises(InvalidJob, match="original_name"):
        save_numpy_array(BATCH, name=name, subdir=subdir, output_dir=tmp_path)
