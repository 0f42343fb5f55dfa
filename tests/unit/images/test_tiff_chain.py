from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from redis_consumer.errors import InvalidImage
from redis_consumer.images.tiff_chain import read_chain
from support import attacks


@pytest.mark.parametrize("options", [{}, {"bigtiff": True}, {"byteorder": ">"}, {"bigtiff": True, "byteorder": ">"}])
def test_every_variant_is_walked(tmp_path: Path, options: dict[str, Any]) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((3, 8, 8), np.uint8), photometric="minisblack", **options)
    assert read_chain(path, "a.tif").directories == 3
    path.write_bytes(path.read_bytes()[: path.stat().st_size - 100 - 3 * 64])
    with pytest.raises(InvalidImage, match=r"a\.tif: the file is cut off"):
        read_chain(path, "a.tif")


def test_a_circle_of_directories_ends(tmp_path: Path) -> None:
    directory = struct.pack("<H", 0) + struct.pack("<I", 8)
    (tmp_path / "a.tif").write_bytes(b"II*\0" + struct.pack("<I", 8) + directory)
    assert read_chain(tmp_path / "a.tif", "a.tif").directories == 1


def test_a_directory_that_claims_more_tags_than_the_file_holds_is_cut_off(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 2**63))
    with pytest.raises(InvalidImage, match="cut off"):
        read_chain(tmp_path / "a.tif", "a.tif")


def test_a_directory_behind_the_end_is_cut_off(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"II*\0" + struct.pack("<I", 10_000))
    with pytest.raises(InvalidImage, match="cut off"):
        read_chain(tmp_path / "a.tif", "a.tif")


def test_descriptions_that_directories_share_are_given_once(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(attacks.tiff(*[attacks.plane(text=(270, 2, 12, 8))] * 3, pixels=b"first plane\0" + bytes(256)))
    assert list(read_chain(path, "a.tif").descriptions.values()) == [b"first plane\0"]


@pytest.mark.parametrize("is_big", [False, True])
def test_a_description_within_its_tag_is_given(tmp_path: Path, is_big: bool) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((8, 8), np.uint8), description="abc", metadata=None, bigtiff=is_big)
    assert [text.strip(b"\0") for text in read_chain(path, "a.tif").descriptions.values()] == [b"abc"]


def test_directories_below_others_count(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(np.zeros((32, 32), np.uint8), subifds=2)
        writer.write(np.zeros((16, 16), np.uint8), subfiletype=1)
        writer.write(np.zeros((8, 8), np.uint8), subfiletype=1)
    assert read_chain(path, "a.tif").directories == 3
