"""Files of microscopes' programs are read with the pixels, axes and pixel size that were written."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from redis_consumer import testing
from redis_consumer.errors import InvalidImage
from redis_consumer.images import ImageLimits, open_image, read_image
from redis_consumer.images.fields import SeveralImages
from redis_consumer.images.windows import open_windowed
from support.vendors import CZI_CODECS, Array, nd2_loop, write_czi, write_lif, write_nd2

IMAGE = np.random.default_rng(0).integers(0, 60000, (3, 2, 40, 50)).astype(np.uint16)  # TCYX
COLOUR = np.random.default_rng(1).integers(0, 255, (40, 50, 3)).astype(np.uint8)


def read(path: Path, field: str = "") -> tuple[str, Array, float | None]:
    with open_image(path, limits=ImageLimits(), name=path.name, field=field) as opened:
        image = opened.read()
    # Windows of planes are those of the whole.
    with open_windowed(path, name=path.name, field=field) as windowed:
        part = windowed.read(0, (slice(5, 23), slice(10, 37)))
        assert (part[0] == windowed.read(0, (slice(0, 40), slice(0, 50)))[0, 5:23, 10:37]).all()
    return image.axes, image.array, image.pixel_size_um


def fields(path: Path) -> tuple[str, ...]:
    with pytest.raises(SeveralImages) as caught:
        read_image(path)
    return caught.value.fields


def mosaic(image: Array, scene: Mapping[str, int]) -> list[tuple[dict[str, int], Array]]:
    """Tiles of half of each side, with an overlap of 4 px in which the later one counts, and odd coordinates."""
    tiles = []
    for time, channel in np.ndindex(image.shape[:2]):
        for number, (top, left) in enumerate([(0, 0), (0, 21), (16, 0), (16, 21)]):
            tile = image[time, channel, top : top + 24, left : left + 29].copy()
            tile[20:, :] = tile[20:, :] if top else 1  # hidden by the tile below
            place = {"T": time, "C": channel, "X": left - 7, "Y": top + 3, "M": number, **scene}
            tiles.append((place, tile))
    return tiles


@pytest.mark.parametrize("codec", CZI_CODECS)
def test_a_mosaic_of_czi_is_one_image(tmp_path: Path, codec: str) -> None:
    path = write_czi(tmp_path / "a.czi", mosaic(IMAGE, {}), codec=codec, pixel_size_um=0.65)
    axes, array, size = read(path)
    assert axes == "TCYX"
    np.testing.assert_array_equal(array, IMAGE)
    assert size == pytest.approx(0.65)


def test_scenes_of_czi_are_images_and_pyramids_are_left_out(tmp_path: Path) -> None:
    tiles = [*mosaic(IMAGE, {"S": 0}), *mosaic(IMAGE[::-1], {"S": 1})]
    pyramid = [({"T": 0, "C": 0, "S": 0}, IMAGE[0, 0, ::2, ::2].copy())]
    path = write_czi(tmp_path / "a.czi", tiles, pyramid=pyramid)
    assert fields(path) == ("0", "1")
    np.testing.assert_array_equal(read(path, "0")[1], IMAGE)
    np.testing.assert_array_equal(read(path, "1")[1], IMAGE[::-1])


def test_colours_of_czi(tmp_path: Path) -> None:
    axes, array, _ = read(write_czi(tmp_path / "a.czi", [({}, COLOUR)]))
    assert axes == "YXS"
    np.testing.assert_array_equal(array, COLOUR)


@pytest.mark.parametrize(
    ("tiles", "part"),
    [
        ([({"C": c, "Z": z}, IMAGE[0, 0]) for c, z in ((0, 0), (0, 1), (1, 0))], "3 of the 4"),
        ([({"C": 0}, IMAGE[0, 0]), ({"C": 1}, IMAGE[0, 1].astype(np.uint8))], "pixels of kind 0, 1"),
    ],
)  # fmt: skip
def test_a_czi_of_uneven_planes_is_refused(tmp_path: Path, tiles: Any, part: str) -> None:
    with pytest.raises(InvalidImage, match=part):
        read_image(write_czi(tmp_path / "a.czi", tiles))


def test_images_of_lif(tmp_path: Path) -> None:
    stack = np.ascontiguousarray(IMAGE[:, 0])
    path = write_lif(tmp_path / "a.lif", {"One": ("TCYX", IMAGE), "Two": ("ZYX", stack)}, pixel_size_um=0.5)
    assert fields(path) == ("One", "Two")
    for field, axes, expected in (("One", "TCYX", IMAGE), ("Two", "ZYX", stack)):
        found, array, size = read(path, field)
        assert found == axes
        np.testing.assert_array_equal(array, expected)
        assert size == pytest.approx(0.5)


def test_channels_of_lif_may_lie_between_rows(tmp_path: Path) -> None:
    rows = np.ascontiguousarray(IMAGE[0].transpose(1, 0, 2))
    path = write_lif(tmp_path / "a.lif", {"One": ("YCX", rows)})
    axes, array, _ = read(path)
    assert axes == "CYX"
    np.testing.assert_array_equal(array, IMAGE[0])


@pytest.mark.parametrize("is_packed", [False, True])
def test_loops_of_nd2(tmp_path: Path, is_packed: bool) -> None:
    planes = np.random.default_rng(2).integers(0, 60000, (2, 3, 2, 2, 40, 50)).astype(np.uint16)  # TPZCYX
    frames = [np.ascontiguousarray(np.moveaxis(frame, 0, -1)) for frame in planes.reshape(-1, 2, 40, 50)]
    loops = nd2_loop("T", 2, nd2_loop("P", 3, nd2_loop("Z", 2)))
    path = write_nd2(tmp_path / "a.nd2", frames, loops, is_packed=is_packed)
    assert fields(path) == ("0", "1", "2")
    for position in range(3):
        axes, array, size = read(path, str(position))
        assert (axes, size) == ("TZCYX", 0.25)
        np.testing.assert_array_equal(array, planes[:, position])


def test_an_nd2_of_colours(tmp_path: Path) -> None:
    axes, array, _ = read(write_nd2(tmp_path / "a.nd2", [COLOUR], planes=1))
    assert axes == "YXS"
    np.testing.assert_array_equal(array, COLOUR)


def test_an_nd2_that_was_stopped_has_fewer_times(tmp_path: Path) -> None:
    frames = [np.full((40, 50, 1), number, np.uint16) for number in range(6)]
    axes, array, _ = read(write_nd2(tmp_path / "a.nd2", frames, nd2_loop("T", 10, nd2_loop("Z", 2))))
    assert (axes, array.shape) == ("TZYX", (3, 2, 40, 50))


def test_an_nd2_whose_loops_do_not_fit_is_refused(tmp_path: Path) -> None:
    frames = [np.zeros((40, 50, 1), np.uint16)] * 5
    with pytest.raises(InvalidImage, match="5 frames whose loops are Z=3"):
        read_image(write_nd2(tmp_path / "a.nd2", frames, nd2_loop("Z", 3)))


def test_a_lossy_nd2_is_refused(tmp_path: Path) -> None:
    path = write_nd2(tmp_path / "a.nd2", [np.zeros((40, 50, 1), np.uint16)], changes={"eCompression": 1})
    with pytest.raises(InvalidImage, match="Nikon ND2 with 16 bits and compression 1"):
        read_image(path)


NAMES = ["TL Brightfield", "DAPI"]
NAMED: dict[str, Callable[[Path], Path]] = {
    "czi": lambda path: write_czi(path, [({"C": c}, IMAGE[0, c]) for c in (0, 1)], names=NAMES),
    "lif": lambda path: write_lif(path, {"One": ("CYX", IMAGE[0])}, names=NAMES),
    "nd2": lambda path: write_nd2(path, [np.ascontiguousarray(np.moveaxis(IMAGE[0], 0, -1))], names=NAMES),
}


@pytest.mark.parametrize("kind", NAMED)
@pytest.mark.parametrize(
    ("channels", "text"), [("dapi", "1 DAPI, from channels"), ("", "0 TL Brightfield, 1 DAPI, all")]
)
def test_names_of_channels_reach_the_job_and_the_result(tmp_path: Path, kind: str, channels: str, text: str) -> None:
    path = NAMED[kind](tmp_path / f"a.{kind}")
    run = testing.run("image", path, model=testing.fake_model, channels=channels, scale="1")
    assert run.status == "done", run.reason
    assert run.fields["channels_read"].startswith(text)
    with tifffile.TiffFile(io.BytesIO(run.files["a_feature_0.tif"])) as tif:
        assert tif.imagej_metadata is not None
        assert tif.imagej_metadata["Labels"] == ("DAPI" if channels else "TL Brightfield, DAPI")


WRITERS: dict[str, Callable[[Path], Path]] = {
    "czi": lambda path: write_czi(path, [({}, IMAGE[0, 0])], codec="zstd"),
    "lif": lambda path: write_lif(path, {"One": ("YX", IMAGE[0, 0].copy())}),
    "nd2": lambda path: write_nd2(path, [IMAGE[0, 0, :, :, None].copy()], is_packed=True),
}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("part", [0.002, 0.05, 0.3, 0.6, 0.9, 0.999])
def test_files_that_are_cut_off_are_damaged(tmp_path: Path, kind: str, part: float) -> None:
    path = WRITERS[kind](tmp_path / f"a.{kind}")
    path.write_bytes(path.read_bytes()[: max(int(part * path.stat().st_size), 16)])
    with pytest.raises(InvalidImage, match=rf"looks like {kind.upper()} but is damaged"):
        read_image(path)


@pytest.mark.parametrize("kind", WRITERS)
def test_changed_bytes_give_an_image_or_a_reason(tmp_path: Path, kind: str) -> None:
    path = WRITERS[kind](tmp_path / f"a.{kind}")
    whole, numbers = path.read_bytes(), np.random.default_rng(3)
    for _ in range(150):
        data = bytearray(whole)
        at = int(numbers.integers(0, len(data) - 8))
        huge = struct.pack("<q", int(numbers.choice([-1, 2**31 - 1, 2**62, 1])))
        data[at : at + 8] = huge if numbers.random() < 0.5 else numbers.bytes(8)
        path.write_bytes(data)
        try:
            image = read_image(path, limits=ImageLimits(max_bytes=1 << 26))
        except InvalidImage:
            continue
        assert image.array.nbytes <= 1 << 26
