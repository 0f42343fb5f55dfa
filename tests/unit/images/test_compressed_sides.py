"""The size of a compressed tile is read from its own header, before it is decoded."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile

from redis_consumer.errors import InvalidImage
from redis_consumer.images import read_image
from redis_consumer.images.compressed_sides import decoded_samples
from redis_consumer.images.windows import open_windowed


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


@pytest.fixture(params=[("jpeg", 7), ("codestream", 34712)], ids=["jpeg", "jpeg2000"])
def lying(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A TIFF of one tile of 256 x 256 px, whose data say 2000 x 2000."""
    kind, compression = request.param
    path = tmp_path / "a.tif"
    tile = encoded(kind, 2000, 2000)
    options: dict[str, Any] = {"shape": (256, 256), "dtype": np.uint8, "tile": (256, 256)}
    tifffile.imwrite(path, iter([tile]), compression=compression, photometric="minisblack", **options)
    return path


def test_it_is_refused_in_memory_before_it_is_decoded(lying: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[Any] = []
    monkeypatch.setattr(tifffile.TiffPageSeries, "asarray", lambda *args, **_: decoded.append(args))
    with pytest.raises(InvalidImage, match=r"a\.tif"):
        read_image(lying)
    assert decoded == []


@pytest.mark.parametrize("layout", [{"tile": (64, 64)}, {"rowsperstrip": 48}, {}])
@pytest.mark.parametrize("compression", ["jpeg", "jpeg2000"])
def test_honest_ones_are_read_in_memory(tmp_path: Path, compression: str, layout: dict[str, Any]) -> None:
    pixels = np.full((2, 100, 130, 3), 7, np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, compression=compression, photometric="rgb", **layout)
    np.testing.assert_allclose(read_image(tmp_path / "a.tif").array, pixels, atol=2)


def test_a_tile_that_unpacks_to_more_than_it_may_is_refused(lying: Path) -> None:
    with open_windowed(lying, name="a.tif") as image, pytest.raises(InvalidImage, match=r"a\.tif"):
        image.read(0, (slice(0, 256), slice(0, 256)))
