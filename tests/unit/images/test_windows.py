from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile

from redis_consumer.errors import InvalidImage
from redis_consumer.images import ImageLimits, read_image, to_batch
from redis_consumer.images.windows import is_large, open_windowed

Array = npt.NDArray[Any]

WINDOWS = [(slice(0, 5), slice(0, 7)), (slice(20, 75), slice(31, 100)), (slice(99, 100), slice(0, 130))]


def pixels(*shape: int, dtype: str = "uint16") -> Array:
    return np.random.default_rng(3).integers(0, 250, shape).astype(dtype)


def assert_windows_are_the_image(path: Path, order: str = "") -> None:
    """Every window of every frame is what the whole image has there."""
    whole = to_batch(read_image(path), order)
    with open_windowed(path, name="a.tif", dimension_order=order) as image:
        assert image.shape == whole.shape
        for frame in range(len(whole)):
            for rows, columns in WINDOWS:
                part = image.read(frame, (rows, columns))
                assert part.dtype == np.float32
                np.testing.assert_array_equal(part, whole[frame : frame + 1, rows, columns])


TILES: dict[str, Any] = {"tile": (32, 48)}
LAYOUTS: dict[str, dict[str, Any]] = {
    "one strip": {},
    "strips": {"rowsperstrip": 7},
    "compressed strips": {"rowsperstrip": 7, "compression": "lzw"},
    "one compressed strip": {"compression": "zlib"},
    "tiles": TILES,
    "compressed tiles": {**TILES, "compression": "zlib"},
    "zstd tiles with predictor": {**TILES, "compression": "zstd", "predictor": True},
    "big": {**TILES, "bigtiff": True, "compression": "lzma"},
    "big-endian": {"byteorder": ">"},
    "big-endian tiles": {**TILES, "byteorder": ">"},
}


@pytest.mark.parametrize("options", LAYOUTS.values(), ids=list(LAYOUTS))
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32"])
def test_a_plane_of_any_layout(tmp_path: Path, options: dict[str, Any], dtype: str) -> None:
    tifffile.imwrite(tmp_path / "a.tif", pixels(100, 130, dtype=dtype), photometric="minisblack", **options)
    assert_windows_are_the_image(tmp_path / "a.tif")


@pytest.mark.parametrize("options", LAYOUTS.values(), ids=list(LAYOUTS))
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_colours_become_channels(tmp_path: Path, options: dict[str, Any], planar: str) -> None:
    shape = (100, 130, 3) if planar == "contig" else (3, 100, 130)
    tifffile.imwrite(tmp_path / "a.tif", pixels(*shape), photometric="rgb", planarconfig=planar, **options)
    assert_windows_are_the_image(tmp_path / "a.tif")


@pytest.mark.parametrize("options", LAYOUTS.values(), ids=list(LAYOUTS))
@pytest.mark.parametrize("axes", ["TCYX", "CTYX", "ZCYX"])
def test_stacks_of_ome_files(tmp_path: Path, options: dict[str, Any], axes: str) -> None:
    tifffile.imwrite(tmp_path / "a.ome.tif", pixels(3, 2, 100, 130), metadata={"axes": axes}, **options)
    assert_windows_are_the_image(tmp_path / "a.ome.tif")


def test_stacks_of_imagej(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", pixels(3, 2, 100, 130), imagej=True, metadata={"axes": "TCYX"})
    assert_windows_are_the_image(tmp_path / "a.tif")


def test_colours_in_frames(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", pixels(2, 100, 130, 3), photometric="rgb", metadata={"axes": "TYXS"}, **TILES)
    assert_windows_are_the_image(tmp_path / "a.tif")


def test_jpeg_tiles(tmp_path: Path) -> None:
    image = pixels(128, 160, 3, dtype="uint8")
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb", compression="jpeg", tile=(64, 64))
    assert_windows_are_the_image(tmp_path / "a.tif")


def test_pyramids_give_their_largest_image(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as writer:
        writer.write(pixels(100, 130), subifds=1, **TILES)
        writer.write(pixels(50, 65), subfiletype=1, **TILES)
    assert_windows_are_the_image(tmp_path / "a.ome.tif")


def test_sparse_tiles_are_background(tmp_path: Path) -> None:
    tiles = iter([np.full((64, 64), 7, np.uint16), None, None, None])
    tifffile.imwrite(
        tmp_path / "a.tif", tiles, shape=(100, 128), dtype="uint16", tile=(64, 64), photometric="minisblack",
        compression="zlib",
    )  # fmt: skip
    with open_windowed(tmp_path / "a.tif", name="a.tif") as image:
        part = image.read(0, (slice(0, 100), slice(60, 70)))[0, ..., 0]
    assert (part[:64, :4] == 7).all()
    assert part.sum() == 64 * 4 * 7


@pytest.mark.parametrize("shape", [(100, 130), (100, 130, 2), (3, 100, 130, 2)])
def test_arrays(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "a.npy", pixels(*shape))
    assert_windows_are_the_image(tmp_path / "a.npy")


@pytest.mark.parametrize("order", ["BXY", "CXY"])
def test_the_job_may_say_what_the_axes_are(tmp_path: Path, order: str) -> None:
    tifffile.imwrite(tmp_path / "a.tif", pixels(3, 100, 130), photometric="minisblack", **TILES)
    assert_windows_are_the_image(tmp_path / "a.tif", order)


def test_an_order_that_contradicts_the_file_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif", pixels(3, 100, 130), photometric="minisblack", metadata={"axes": "ZYX"}, **TILES
    )
    with (
        pytest.raises(InvalidImage, match=r"^a.tif: field dimension_order: XYC makes 1 image.* names its axes ZYX"),
        open_windowed(tmp_path / "a.tif", name="a.tif", dimension_order="XYC"),
    ):
        pass


def test_chosen_channels_are_read_in_their_order(tmp_path: Path) -> None:
    image = pixels(3, 100, 130)
    tifffile.imwrite(tmp_path / "a.ome.tif", image, metadata={"axes": "CYX"}, **TILES)
    with open_windowed(tmp_path / "a.ome.tif", name="a", channels=[2, 0]) as opened:
        part = opened.read(0, (slice(10, 20), slice(10, 20)))
    np.testing.assert_array_equal(part[0], np.moveaxis(image[[2, 0], 10:20, 10:20], 0, -1))


def test_the_pixel_size_is_known(tmp_path: Path) -> None:
    metadata = {"axes": "YX", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25}
    tifffile.imwrite(tmp_path / "a.ome.tif", pixels(100, 130), metadata=metadata, **TILES)
    with open_windowed(tmp_path / "a.ome.tif", name="a") as image:
        assert image.pixel_size_um == 0.25


LIMITS = {"max_frames": (2, "3 frames, allowed are 2"), "max_plane_px": (12_999, "100 x 130 px, allowed are 12999")}


@pytest.mark.parametrize("limit", LIMITS)
def test_limits_hold(tmp_path: Path, limit: str) -> None:
    number, message = LIMITS[limit]
    tifffile.imwrite(
        tmp_path / "a.tif", pixels(3, 100, 130), photometric="minisblack", metadata={"axes": "TYX"}, **TILES
    )
    options: dict[str, Any] = {limit: number}
    with pytest.raises(InvalidImage, match=message), open_windowed(tmp_path / "a.tif", name="a.tif", **options):
        pass


def test_a_strip_too_large_to_be_read_whole_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tifffile.imwrite(tmp_path / "a.tif", pixels(100, 130), compression="zlib")
    monkeypatch.setattr("redis_consumer.images.tiff_planes.MAX_SEGMENT_BYTES", 20_000)
    with pytest.raises(InvalidImage, match="save it with tiles"), open_windowed(tmp_path / "a.tif", name="a.tif"):
        pass


def test_strips_are_forgotten_before_they_take_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tifffile.imwrite(tmp_path / "a.tif", pixels(100, 130), compression="zlib", rowsperstrip=4)
    monkeypatch.setattr("redis_consumer.images.tiff_planes.CACHE_BYTES", 3000)
    assert_windows_are_the_image(tmp_path / "a.tif")


def test_infinite_values_are_refused_where_they_are(tmp_path: Path) -> None:
    image = pixels(100, 130, dtype="float32")
    image[50, 50] = np.inf
    tifffile.imwrite(tmp_path / "a.tif", image, **TILES)
    with open_windowed(tmp_path / "a.tif", name="a.tif") as opened:
        opened.read(0, (slice(0, 50), slice(0, 130)))
        with pytest.raises(InvalidImage, match="infinite"):
            opened.read(0, (slice(0, 51), slice(0, 130)))


def test_a_damaged_tile_is_found_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels(100, 130), compression="zlib", **TILES)
    with tifffile.TiffFile(path) as tif:
        offset = tif.pages.first.dataoffsets[3]
    data = bytearray(path.read_bytes())
    data[offset : offset + 40] = b"\xff" * 40
    path.write_bytes(data)
    with (
        open_windowed(path, name="a.tif") as opened,
        pytest.raises(InvalidImage, match=r"^a.tif: looks like TIFF but is damaged or cut off"),
    ):
        opened.read(0, (slice(0, 100), slice(0, 130)))


@pytest.mark.parametrize("kept", [0.3, 0.9, 0.99])
def test_a_file_that_is_cut_off_is_refused(tmp_path: Path, kept: float) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels(100, 130), compression="zlib", **TILES)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(InvalidImage, match=r"^a.tif: "), open_windowed(path, name="a.tif"):
        pass


def test_pictures_cannot_be_read_in_parts(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("L", (130, 100)).save(tmp_path / "a.png")
    assert not is_large(tmp_path / "a.png", ImageLimits(max_height=10))
    with pytest.raises(InvalidImage, match="can't be read in parts"), open_windowed(tmp_path / "a.png", name="a.png"):
        pass


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        (ImageLimits(max_height=100, max_width=130), False),
        (ImageLimits(max_height=99, max_width=130), True),
        (ImageLimits(max_height=100, max_width=129), True),
        (ImageLimits(max_height=100, max_width=130, max_bytes=20_000), True),
    ],
)
def test_an_image_is_large_by_the_limits_of_what_is_in_memory(
    tmp_path: Path, limits: ImageLimits, expected: bool
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", pixels(100, 130))
    assert is_large(tmp_path / "a.tif", limits) is expected


def test_a_damaged_file_is_not_large(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", pixels(100, 130))
    (tmp_path / "a.tif").write_bytes((tmp_path / "a.tif").read_bytes()[:200])
    assert not is_large(tmp_path / "a.tif", ImageLimits(max_height=1))
    assert not is_large(tmp_path / "absent.tif", ImageLimits(max_height=1))
