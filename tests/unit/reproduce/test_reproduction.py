"""Results are compared, and kept if a folder is given."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile

from redis_consumer.errors import PermanentError
from redis_consumer.reproduce import reproduction
from redis_consumer.reproduce.comparison import compare_zips
from redis_consumer.reproduce.record import Record
from redis_consumer.storage import Storage


def pack(path: Path, label: int) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for well in ("A1", "B2"):
            image = io.BytesIO()
            tifffile.imwrite(image, np.full((8, 8), label, np.float32))
            archive.writestr(f"{well}/cells_feature_0.tif", image.getvalue())
    return path


def test_images_of_one_name_in_two_folders_have_a_picture_each(tmp_path: Path) -> None:
    files = compare_zips(pack(tmp_path / "recorded.zip", 1), pack(tmp_path / "reproduced.zip", 2))
    found = reproduction.Reproduction("predict-zip:plate.zip:1", files)
    reproduction._keep(tmp_path / "kept", found, {}, tmp_path, None)
    pictures = sorted(path.relative_to(tmp_path / "kept").as_posix() for path in (tmp_path / "kept").rglob("*.png"))
    assert pictures == ["A1/difference-cells_feature_0.png", "B2/difference-cells_feature_0.png"]


@pytest.mark.parametrize("packed_by", [8, 99])
def test_a_result_that_is_no_sound_zip_is_said_in_words(tmp_path: Path, packed_by: int) -> None:
    content = bytearray(pack(tmp_path / "recorded.zip", 1).read_bytes())
    content[content.find(b"PK\x01\x02") + 10] = packed_by
    bucket = Storage("memory://")
    bucket.write_bytes("output/a.zip", bytes(content))
    record = Record("a", {"outputs": [{"key": "output/a.zip"}]}, "output/a.zip")
    with pytest.raises(PermanentError, match=r"result output/a\.zip: not a zip file, or damaged"):
        reproduction._compare(record, bucket, tmp_path / "before.zip", pack(tmp_path / "after.zip", 1))
