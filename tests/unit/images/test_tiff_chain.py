from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from redis_consumer.images.tiff_chain import is_whole


@pytest.mark.parametrize("options", [{}, {"bigtiff": True}, {"byteorder": ">"}, {"bigtiff": True, "byteorder": ">"}])
def test_every_variant_is_walked(tmp_path: Path, options: dict[str, Any]) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((3, 8, 8), np.uint8), photometric="minisblack", **options)
    assert is_whole(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size - 100 - 3 * 64])
    assert not is_whole(path)


def test_a_circle_of_directories_ends(tmp_path: Path) -> None:
    directory = struct.pack("<H", 0) + struct.pack("<I", 8)
    (tmp_path / "a.tif").write_bytes(b"II*\0" + struct.pack("<I", 8) + directory)
    assert is_whole(tmp_path / "a.tif")


def test_a_directory_that_claims_more_tags_than_the_file_holds_is_cut_off(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 2**63))
    assert not is_whole(tmp_path / "a.tif")


def test_a_directory_behind_the_end_is_cut_off(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"II*\0" + struct.pack("<I", 10_000))
    assert not is_whole(tmp_path / "a.tif")
