"""The size of a compressed tile is read from its own header, before it is decoded."""

from __future__ import annotations

import struct
from collections.abc import Callable
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

ENCODERS: dict[str, Callable[[Any], Any]] = {
    "jpeg": imagecodecs.jpeg8_encode,
    "codestream": lambda pixels: imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="j2k"),
    "boxes": lambda pixels: imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="jp2"),
    "png": imagecodecs.png_encode,
    "lerc": imagecodecs.lerc_encode,
    "webp": lambda pixels: imagecodecs.webp_encode(pixels, lossless=True),
    "lossy webp": lambda pixels: imagecodecs.webp_encode(pixels, level=50),
    "jpeg xr": lambda pixels: imagecodecs.jpegxr_encode(pixels, level=1.0),
    "jpeg xl": lambda pixels: imagecodecs.jpegxl_encode(pixels, lossless=True),
    "jpeg xl in boxes": lambda pixels: imagecodecs.jpegxl_encode(pixels, lossless=True, usecontainer=True),
}
#: Their headers are read as pixels, not as samples.
OF_PIXELS = ("webp", "lossy webp", "jpeg xr", "jpeg xl", "jpeg xl in boxes")


def encoded(kind: str, *shape: int) -> bytes:
    return bytes(ENCODERS[kind](np.zeros(shape, np.uint8)))


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize("shape", [(30, 40), (30, 40, 3), (256, 256, 3), (300, 700, 3)])
def test_samples_are_those_of_the_header(kind: str, shape: tuple[int, ...]) -> None:
    shape = (*shape, 3) if "webp" in kind and len(shape) == 2 else shape  # it has no grey
    expected = np.prod(shape[:2] if kind in OF_PIXELS else shape)
    assert decoded_samples(encoded(kind, *shape)) == expected


@pytest.mark.parametrize("version", [1, 2, 3])
def test_older_lerc(version: int) -> None:
    numbers = {1: (), 2: (30, 40, 1200, 8, 62), 3: (0, 30, 40, 1200, 8, 66)}[version]
    if version == 1:
        with pytest.raises(ValueError, match="first version"):
            decoded_samples(b"CntZImage " + bytes(40))
        return
    assert decoded_samples(b"Lerc2 " + struct.pack(f"<i{len(numbers)}i", version, *numbers)) == 1200


@pytest.mark.parametrize(
    "data",
    [
        b"Lerc2 " + struct.pack("<i7i", 4, 0, 30, 40, 1, 1200, 8, 0),
        b"II\xbc\x01" + struct.pack("<IH", 8, 0) + bytes(30),
        ENCODERS["jpeg xl in boxes"](np.zeros((9, 9), np.uint8))[:32],
    ],
    ids=["LERC", "JPEG XR", "JPEG XL"],
)
def test_malformed_headers_are_told(data: bytes) -> None:
    with pytest.raises(ValueError, match="has no"):
        decoded_samples(data)


@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff\xd9", b"no image"])
def test_what_has_no_header_has_no_samples(data: bytes) -> None:
    assert decoded_samples(data) == 0


def test_a_header_that_is_cut_off_is_told(tmp_path: Path) -> None:
    with pytest.raises(struct.error):
        decoded_samples(encoded("codestream", 30, 40)[:20])


LYING = [("jpeg", 7), ("codestream", 34712), ("png", 34933), ("lerc", 34887), ("jpeg xr", 34934), ("jpeg xl", 50002)]


@pytest.fixture(params=LYING, ids=[kind for kind, _ in LYING])
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
@pytest.mark.parametrize("compression", ["jpeg", "jpeg2000", "png", "webp", "jpegxr", "jpegxl", "lerc"])
def test_honest_ones_are_read_in_memory(tmp_path: Path, compression: str, layout: dict[str, Any]) -> None:
    pixels = np.full((2, 100, 130, 3), 7, np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, compression=compression, photometric="rgb", **layout)
    np.testing.assert_allclose(read_image(tmp_path / "a.tif").array, pixels, atol=2)


def test_a_tile_that_unpacks_to_more_than_it_may_is_refused(lying: Path) -> None:
    with open_windowed(lying, name="a.tif") as image, pytest.raises(InvalidImage, match=r"a\.tif"):
        image.read(0, (slice(0, 256), slice(0, 256)))
