from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from PIL import Image as Pillow

from redis_consumer.errors import InvalidImage
from redis_consumer.images import read_image, to_batch
from redis_consumer.images.shown_values import inverted
from redis_consumer.images.windows import open_windowed

Array = npt.NDArray[Any]

GREY = np.random.default_rng(3).integers(0, 256, (48, 40)).astype(np.uint8)
RAMP = np.arange(256, dtype=np.uint16)
COLOUR = np.random.default_rng(4).integers(0, 256, (48, 40, 3)).astype(np.uint8)
LAYOUTS: dict[str, dict[str, Any]] = {
    "raw": {},
    "strips": {"compression": "zlib", "rowsperstrip": 7},
    "tiles": {"compression": "lzw", "tile": (16, 16)},
}


def shown(path: Path) -> Array:
    """The image as a batch (B, Y, X, C), which is the same whole and by window if it can be read so."""
    batch = to_batch(read_image(path))
    if path.suffix != ".tif":
        return batch
    with open_windowed(path, name=path.name) as opened:
        assert opened.shape == batch.shape
        for frame in range(batch.shape[0]):
            whole = opened.read(frame, (slice(0, batch.shape[1]), slice(0, batch.shape[2])))
            np.testing.assert_array_equal(whole[0], batch[frame])
            part = opened.read(frame, (slice(5, 30), slice(17, 23)))
            np.testing.assert_array_equal(part[0], batch[frame, 5:30, 17:23])
    return batch


def write(path: Path, array: Array, **options: Any) -> Path:
    tifffile.imwrite(path, array, **{"metadata": None, **options})
    return path


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("dtype", "stored"),
    [
        ("uint8", lambda grey: 255 - grey),
        ("uint16", lambda grey: 65535 - grey.astype(np.uint16)),
        ("uint32", lambda grey: np.uint32(2**32 - 1) - grey),
        ("int16", lambda grey: -1 - grey.astype(np.int16)),
        ("float32", lambda grey: -grey.astype(np.float32)),
    ],
)
def test_min_is_white(tmp_path: Path, layout: str, dtype: str, stored: Callable[[Array], Array]) -> None:
    array = stored(GREY).astype(dtype)
    path = write(tmp_path / "a.tif", array, photometric="miniswhite", **LAYOUTS[layout])
    np.testing.assert_array_equal(shown(path)[0, ..., 0], GREY)


@pytest.mark.parametrize(("bits", "most"), [(1, 1), (4, 15), (12, 4095)])
def test_min_is_white_of_fewer_bits(tmp_path: Path, bits: int, most: int) -> None:
    grey = (GREY.astype(np.uint16) * 17 % (most + 1)).astype(np.uint16 if bits > 8 else np.uint8)
    array = (grey == 0) if bits == 1 else most - grey
    path = write(tmp_path / "a.tif", array, photometric="miniswhite", bitspersample=bits, rowsperstrip=5)
    np.testing.assert_array_equal(shown(path)[0, ..., 0], grey)


def test_min_is_white_of_several_pages(tmp_path: Path) -> None:
    stack = np.stack([GREY, GREY[::-1], GREY // 2, GREY // 3, GREY // 4])
    path = write(tmp_path / "a.tif", 255 - stack, photometric="miniswhite", compression="zlib")
    np.testing.assert_array_equal(shown(path)[..., 0], stack)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("step", "factor"), [(1, 257), (-1, 257), (1, 256), (-1, 256)])
def test_a_palette_of_greys_in_a_tiff(tmp_path: Path, layout: str, step: int, factor: int) -> None:
    colormap = np.stack([RAMP[::step] * np.uint16(factor)] * 3)
    indices = GREY if step > 0 else 255 - GREY
    path = write(tmp_path / "a.tif", indices, photometric="palette", colormap=colormap, **LAYOUTS[layout])
    np.testing.assert_array_equal(shown(path)[0, ..., 0], GREY)


@pytest.mark.parametrize("suffix", ["png", "gif", "bmp"])
@pytest.mark.parametrize("step", [1, -1])
def test_a_palette_of_greys_in_a_picture(tmp_path: Path, suffix: str, step: int) -> None:
    picture = Pillow.fromarray(GREY if step > 0 else 255 - GREY).convert("P")
    picture.putpalette(np.repeat(np.arange(256, dtype=np.uint8)[::step], 3).tobytes())
    picture.save(tmp_path / f"a.{suffix}")
    image = read_image(tmp_path / f"a.{suffix}")
    assert image.axes == "YX"
    np.testing.assert_array_equal(shown(tmp_path / f"a.{suffix}")[0, ..., 0], GREY)


def test_a_palette_of_colours(tmp_path: Path) -> None:
    table = np.random.default_rng(1).integers(0, 256, (256, 3)).astype(np.uint16)
    path = write(tmp_path / "a.tif", GREY, photometric="palette", colormap=table.T * np.uint16(257), rowsperstrip=9)
    assert read_image(path).axes == "YXS"
    np.testing.assert_array_equal(shown(path)[0], table[GREY])


@pytest.mark.parametrize("is_inverting", [False, True])
def test_a_look_up_table_of_imagej_changes_nothing_unless_it_inverts(tmp_path: Path, is_inverting: bool) -> None:
    cyan = np.stack([0 * RAMP, RAMP, RAMP])[:, :: -1 if is_inverting else 1] * np.uint16(257)
    options = {"photometric": "palette", "colormap": cyan, "description": "ImageJ=1.53t\nimages=1\n", "rowsperstrip": 9}
    path = write(tmp_path / "a.tif", 255 - GREY if is_inverting else GREY, **options)
    np.testing.assert_array_equal(shown(path)[0, ..., 0], GREY)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_alpha_is_no_channel(tmp_path: Path, layout: str) -> None:
    alpha = np.full_like(GREY, 9)
    grey = {"photometric": "minisblack", "planarconfig": "contig", "extrasamples": ["unassalpha"], **LAYOUTS[layout]}
    path = write(tmp_path / "grey.tif", np.stack([GREY, alpha], -1), **grey)
    assert read_image(path).axes == "YX"
    np.testing.assert_array_equal(shown(path)[0, ..., 0], GREY)
    path = write(tmp_path / "rgb.tif", np.dstack([COLOUR, alpha]), photometric="rgb", **LAYOUTS[layout])
    np.testing.assert_array_equal(shown(path)[0], COLOUR)


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_of_a_picture_is_no_channel(tmp_path: Path, mode: str) -> None:
    pixels = GREY if mode == "LA" else COLOUR
    picture = Pillow.fromarray(pixels)
    picture.putalpha(9)
    picture.save(tmp_path / "a.png")
    assert picture.mode == mode
    np.testing.assert_array_equal(shown(tmp_path / "a.png")[0], pixels.reshape(48, 40, -1))


def test_samples_that_no_tag_explains_are_channels(tmp_path: Path) -> None:
    pixels = np.dstack([COLOUR, GREY])
    path = write(tmp_path / "a.tif", pixels, photometric="minisblack", planarconfig="contig")
    assert read_image(path).axes == "YXC"
    np.testing.assert_array_equal(shown(path)[0], pixels)


def test_inks_become_light(tmp_path: Path) -> None:
    inks = np.dstack([255 - COLOUR, np.zeros_like(GREY)])
    path = write(tmp_path / "a.tif", inks, photometric="separated", rowsperstrip=9)
    np.testing.assert_array_equal(shown(path)[0], COLOUR)


def test_inverting_twice_changes_nothing() -> None:
    for dtype, bits in (("uint8", 8), ("uint16", 12), ("int32", 32), ("float64", 64), ("bool", 1)):
        array = np.array([0, 1], dtype)
        np.testing.assert_array_equal(inverted(inverted(array, bits), bits), array)


@pytest.mark.parametrize("dtype", ["uint32", "int32", "uint64", "int64", "float64"])
@pytest.mark.parametrize("offset", [1 << 31, (1 << 40) + 7, -(1 << 31)])
def test_differences_beyond_what_float32_holds_are_kept(tmp_path: Path, dtype: str, offset: int) -> None:
    if (dtype[0] == "u" and offset < 0) or (dtype in {"uint32", "int32"} and not -(1 << 31) <= offset < 1 << 31):
        offset = (1 << 30) + 5
    array = (GREY.astype(np.int64) + offset).astype(dtype)
    path = write(tmp_path / "a.tif", array, photometric="minisblack", compression="zlib", rowsperstrip=9)
    np.testing.assert_array_equal(shown(path)[0, ..., 0], array.astype(np.float64) - float(array.min()))


def test_the_offset_is_that_of_each_channel(tmp_path: Path) -> None:
    pixels = np.stack([GREY.astype(np.uint32), GREY[::-1] + np.uint32(1 << 31)])
    path = write(tmp_path / "a.tif", pixels, photometric="minisblack")
    batch = shown(path)
    np.testing.assert_array_equal(batch[0, ..., 0], GREY)
    np.testing.assert_array_equal(batch[0, ..., 1], GREY[::-1].astype(int) - int(GREY.min()))


def test_nan_gets_the_lowest_value_of_its_channel(tmp_path: Path) -> None:
    mosaic = np.stack([GREY, GREY[::-1].astype(np.float32) + 1000]).astype(np.float32)
    expected = mosaic.copy()
    mosaic[:, 20:, 30:] = np.nan
    for channel in (0, 1):
        expected[channel, 20:, 30:] = np.nanmin(mosaic[channel])
    path = write(tmp_path / "a.tif", mosaic, photometric="minisblack", compression="zlib", rowsperstrip=9)
    np.testing.assert_array_equal(np.moveaxis(shown(path)[0], -1, 0), expected)


def test_a_channel_of_nan_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.full((8, 9), np.nan, np.float32))
    with pytest.raises(InvalidImage, match="pixels are all NaN"):
        read_image(tmp_path / "a.npy")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_the_orientation_of_a_picture_is_applied(tmp_path: Path, orientation: int, suffix: str) -> None:
    from PIL import ImageOps

    picture = Pillow.fromarray(GREY)
    exif = picture.getexif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    picture.save(path, exif=exif)
    expected = ImageOps.exif_transpose(Pillow.open(path))
    np.testing.assert_array_equal(read_image(path).array, np.asarray(expected))


def test_the_orientation_of_a_tiff_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", GREY, photometric="minisblack", extratags=[(274, "H", 1, 6, True)])
    np.testing.assert_array_equal(shown(path)[0, ..., 0], GREY)
    with open_windowed(path, name="a.tif") as opened:
        assert opened.notes == [
            "orientation 6 of the file is not applied; rows and columns of the result are as stored, and its "
            "TIFFs have the same orientation"
        ]
