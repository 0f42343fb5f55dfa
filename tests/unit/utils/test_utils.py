from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from redis_consumer import utils

NUCLEI = Path(__file__).parents[3] / "data" / "nuclei.tif"
HEAVY = ("PIL", "grpc", "imagecodecs", "scipy", "skimage", "tifffile")


def test_every_promised_name_is_there() -> None:
    assert sorted(utils.__all__) == utils.__all__
    assert all(callable(getattr(utils, name)) for name in utils.__all__)


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="load_model"):
        utils.load_model  # noqa: B018


def test_import_loads_no_heavy_library() -> None:
    code = f"import sys, redis_consumer.utils; print([name for name in {HEAVY} if name in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


@pytest.mark.parametrize(("path", "expected"), [("//a///b/", "a/b"), ("a", "a"), ("/", ""), ("", "")])
def test_strip_bucket_path(path: str, expected: str) -> None:
    assert utils.strip_bucket_path(path) == expected


def test_the_documented_way_from_image_to_archive() -> None:
    with utils.get_tempdir() as tempdir:
        image = utils.get_image(NUCLEI)
        paths = utils.save_numpy_array([image, image > 50], name="nuclei", subdir="day 1", output_dir=tempdir)
        archive = utils.zip_files(paths, tempdir)
        with utils.get_tempdir() as other:
            images = [utils.get_image(path) for path in utils.iter_image_archive(archive, other)]
    assert [Path(path).name for path in paths] == ["nuclei_feature_0.tif", "nuclei_feature_1.tif"]
    assert np.array_equal(images[0], image)
    assert np.array_equal(images[1], image > 50)
