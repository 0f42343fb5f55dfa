"""Is the size of a compressed tile read from its own header, before it is decoded?"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile

from redis_consumer.errors import InvalidImage
from redis_consumer.images.compressed_sides import decoded_samples
from redis_consumer.images.regions import open_regions


def encoded(kind: str, *shape: int) -> bytes:
    pixels = np.zeros(shape, np.uint8)
    if kind == "jpeg":
        return bytes(imagecodecs.jpeg8_encode(pixels))
    return bytes(imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="j2k" if kind == "codestream" else "jp2"))


@pytest.mark.parametrize("kind", ["jpeg", "codestream", "boxes"])
@pytest.mark.parametrize("shape", [(30, 40), (30, 40, 3)])
def test_samples_are_those_of_the_header(kind: str, shape: tuple[int, ...]) -> None:
    assert decoded_samples(encoded(kind, *shape)) == np.prod(shape)


@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff\xd9", b"no image"])
def test_what_has_no_header_has_no_samples(data: bytes) -> None:
    assert decoded_samples(data) == 0


def test_a_header_that_is_cut_off_is_told(tmp_path: Path) -> None:
    with pytest.raises(struct.error):
        decoded_samples(encoded("codestream", 30, 40)[:20])


@pytest.mark.parametrize(("kind", "compression"), [("jpeg", 7), ("codestream", 34712)])
def test_a_tile_that_unpacks_to_more_than_it_may_is_refused(tmp_path: Path, kind: str, compression: int) -> None:
    path = tmp_path / "a.tif"
    tile = encoded(kind, 2000, 2000)
    options: dict[str, Any] = {"shape": (256, 256), "dtype": np.uint8, "tile": (256, 256)}
    tifffile.imwrite(path, iter([tile]), compression=compression, photometric="minisblack", **options)
    with (
        open_regions(path, name="a.tif") as image,
        pytest.raises(InvalidImage, match=r"a\.tif"),
    ):
        image.read(0, (slice(0, 256), slice(0, 256)))
