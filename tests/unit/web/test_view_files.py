"""Views of images and results: every value of the first level is that of the file, at every place."""

from __future__ import annotations

import csv
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from PIL import Image as Pillow

from redis_consumer.errors import ConsumerError, InvalidImage
from redis_consumer.images.window_writing import TiledPlane, write_ome_zarr
from redis_consumer.web.view.decoders import DecoderLimits, decode
from redis_consumer.web.view.layout import TILE_PX, ViewLayer
from redis_consumer.web.view.making import SMALL_VALUES, make_image, make_result
from redis_consumer.web.view.pyramids import halved
from redis_consumer.web.view.tile_files import read_tile
from support import ome_zarr
from support.formats import GREY

Array = npt.NDArray[Any]


def pixels(*shape: int, dtype: str = "uint16") -> Array:
    return np.random.default_rng(7).integers(0, 60_000, shape).astype(dtype)


def made(path: Path, folder: Path, **asked: Any) -> dict[str, Any]:
    folder.mkdir()
    request = {"path": str(path), "folder": str(folder), "name": path.name, "order": "", "field": "", "is_whole": True}
    assert make_image({**request, "max_bytes": 1 << 28, **asked}, lambda _: None) == {"is_complete": True}
    facts: dict[str, Any] = json.loads((folder / "facts.json").read_text())
    return facts


def layers_in(folder: Path) -> dict[str, ViewLayer]:
    table = json.loads((folder / "view.json").read_text())
    return {layer.name: layer for layer in map(ViewLayer.of, table["layers"])}


def level_of(folder: Path, layer: ViewLayer, level: int = 0, t: int = 0, z: int = 0, c: int = 0) -> Array:
    """A whole level of a plane, put together from its tiles; what is beyond its edge is 0."""
    size = layer.levels[level]
    whole = np.empty((size.rows * TILE_PX, size.cols * TILE_PX), layer.dtype)
    for row in range(size.rows):
        for col in range(size.cols):
            tile = read_tile(folder / f"{layer.name}.tif", layer, layer.plane_of(t, z, c), level, row, col)
            whole[row * TILE_PX :, col * TILE_PX :][:TILE_PX, :TILE_PX] = tile
    assert not whole[size.height :].any()
    assert not whole[:, size.width :].any()
    return whole[: size.height, : size.width]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_the_first_level_has_the_values_of_the_image(tmp_path: Path, dtype: str) -> None:
    image = pixels(700, 1100, dtype=dtype)
    tifffile.imwrite(tmp_path / "a.tif", image, tile=(256, 256), compression="zlib")
    made(tmp_path / "a.tif", tmp_path / "view")
    layer = layers_in(tmp_path / "view")["image"]
    assert (layer.dtype, layer.width, layer.height, layer.channels) == (dtype, 1100, 700, 1)
    np.testing.assert_array_equal(level_of(tmp_path / "view", layer), image)
    np.testing.assert_array_equal(level_of(tmp_path / "view", layer, 1), halved(image))
    np.testing.assert_array_equal(level_of(tmp_path / "view", layer, 2), halved(halved(image)))


def test_any_reader_of_tiff_reads_the_file(tmp_path: Path) -> None:
    image = pixels(2, 600, 520)
    tifffile.imwrite(tmp_path / "a.tif", image, imagej=True, metadata={"axes": "CYX"})
    made(tmp_path / "a.tif", tmp_path / "view")
    with tifffile.TiffFile(tmp_path / "view" / "image.tif") as tif:
        assert [page.shape for page in tif.pages] == [(600, 520), (300, 260)] * 2
        assert tif.pages[0].compression == 8
        np.testing.assert_array_equal(tif.pages[0].asarray(), image[0])
        np.testing.assert_array_equal(tif.pages[2].asarray(), image[1])


@pytest.mark.parametrize("axes", ["TZCYX", "TCZYX", "ZTCYX"])
def test_each_time_plane_and_channel_has_its_own_tiles(tmp_path: Path, axes: str) -> None:
    sides = {"T": 3, "Z": 2, "C": 4, "Y": 40, "X": 50}
    image = pixels(*(sides[axis] for axis in axes), dtype="uint8")
    tifffile.imwrite(tmp_path / "a.ome.tif", image, metadata={"axes": axes})
    facts = made(tmp_path / "a.ome.tif", tmp_path / "view")
    assert (facts["t"], facts["z"], len(facts["channels"])) == (3, 2, 4)
    layer = layers_in(tmp_path / "view")["image"]
    for t, z, c in np.ndindex(3, 2, 4):
        place = tuple({"T": t, "Z": z, "C": c}.get(axis, slice(None)) for axis in axes)
        np.testing.assert_array_equal(level_of(tmp_path / "view", layer, 0, t, z, c), image[place])


def test_a_stack_of_200_pages(tmp_path: Path) -> None:
    image = pixels(200, 24, 32)
    tifffile.imwrite(tmp_path / "a.tif", image, imagej=True, metadata={"axes": "ZYX"})
    facts = made(tmp_path / "a.tif", tmp_path / "view")
    assert (facts["t"], facts["z"], facts["is_sampled"]) == (1, 200, True)
    layer = layers_in(tmp_path / "view")["image"]
    np.testing.assert_array_equal(level_of(tmp_path / "view", layer, 0, 0, 199), image[199])


def test_an_ome_zarr_in_one_file(tmp_path: Path) -> None:
    image = pixels(2, 60, 70)
    ome_zarr.write(tmp_path / "a.zarr", image, axes="cyx")
    facts = made(tmp_path / "a.zarr", tmp_path / "view")
    assert facts["format"] == "OME-Zarr"
    layer = layers_in(tmp_path / "view")["image"]
    np.testing.assert_array_equal(level_of(tmp_path / "view", layer, c=1), image[1])


@pytest.mark.parametrize("dtype", ["int16", "uint32", "float64", "bool"])
def test_other_types_are_shown_as_well(tmp_path: Path, dtype: str) -> None:
    image = (pixels(40, 50).astype(np.int64) - 30_000).astype(dtype)
    np.save(tmp_path / "a.npy", image)
    made(tmp_path / "a.npy", tmp_path / "view")
    layer = layers_in(tmp_path / "view")["image"]
    shown = level_of(tmp_path / "view", layer).astype(np.float64)
    offset = image.min() if dtype == "uint32" and image.min() > 0 else 0
    np.testing.assert_allclose(shown, image.astype(np.float64) - offset, rtol=1e-6)


def test_a_colour_picture_has_three_channels(tmp_path: Path) -> None:
    image = pixels(40, 50, 3, dtype="uint8")
    Pillow.fromarray(image).save(tmp_path / "a.png")
    facts = made(tmp_path / "a.png", tmp_path / "view")
    assert [channel["color"] for channel in facts["channels"]] == ["#ff0000", "#00ff00", "#0000ff"]
    assert {(channel["low"], channel["high"]) for channel in facts["channels"]} == {(0.0, 255.0)}
    layer = layers_in(tmp_path / "view")["image"]
    np.testing.assert_array_equal(level_of(tmp_path / "view", layer, c=2), image[..., 2])


def test_pixels_that_are_nan_are_shown_as_the_lowest_value(tmp_path: Path) -> None:
    image = np.linspace(3, 9, 2000, dtype=np.float32).reshape(40, 50)
    image[5, 6] = np.nan
    tifffile.imwrite(tmp_path / "a.tif", image)
    facts = made(tmp_path / "a.tif", tmp_path / "view")
    assert facts["channels"][0]["min"] == 3
    assert level_of(tmp_path / "view", layers_in(tmp_path / "view")["image"])[5, 6] == 3


def test_facts_of_an_image(tmp_path: Path) -> None:
    image = np.zeros((2, 30, 40), np.uint16)
    image[1] = np.arange(1200).reshape(30, 40)
    metadata = {
        "axes": "CYX", "PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.5,
        "PhysicalSizeYUnit": "µm", "Channel": {"Name": ["Brightfield", "DAPI"]},
    }  # fmt: skip
    tifffile.imwrite(tmp_path / "a.ome.tif", image, metadata=metadata)
    facts = made(tmp_path / "a.ome.tif", tmp_path / "view")
    assert facts["format"] == "TIFF"
    assert facts["axes"] == "CYX"
    assert facts["axes_read"] == "CYX (2, 30, 40), from the file"
    assert facts["pixel_size_um"] == [0.5, 0.5]
    light, dapi = facts["channels"]
    assert (light["name"], light["is_transmitted"], dapi["name"]) == ("Brightfield", True, "DAPI")
    assert (dapi["min"], dapi["max"], sum(dapi["histogram"])) == (0, 1199, 1200)
    assert dapi["percentiles"]["99"] == pytest.approx(np.percentile(image[1], 99))
    assert dapi["low"] < dapi["high"]
    assert light["low"] == light["high"] == 0


def test_a_large_image_has_only_facts_until_it_is_asked_for(tmp_path: Path) -> None:
    side = int(SMALL_VALUES**0.5) + 1
    tifffile.memmap(tmp_path / "a.tif", shape=(side, side), dtype="uint8").flush()
    (tmp_path / "view").mkdir()
    request = {"path": str(tmp_path / "a.tif"), "folder": str(tmp_path / "view"), "name": "a.tif", "max_bytes": 1 << 20}
    asked = {**request, "order": "", "field": "", "is_whole": False}
    assert make_image(asked, lambda _: None) == {"is_complete": False}
    assert [path.name for path in (tmp_path / "view").iterdir()] == ["facts.json"]
    assert json.loads((tmp_path / "view" / "facts.json").read_text())["width"] == side


@pytest.mark.slow
def test_an_image_larger_than_the_memory_of_its_process(tmp_path: Path) -> None:
    side = 24_000
    pixels_on_disk = tifffile.memmap(tmp_path / "a.tif", shape=(side, side), dtype="uint8")
    pixels_on_disk[-600:, -600:] = 77
    pixels_on_disk.flush()
    (tmp_path / "view").mkdir()
    request = {"path": str(tmp_path / "a.tif"), "folder": str(tmp_path / "view"), "name": "a.tif", "max_bytes": 1 << 20}
    limits = DecoderLimits(memory_bytes=250 << 20)
    assert decode("make_image", {**request, "order": "", "field": "", "is_whole": True}, limits, name="a.tif")
    layer = layers_in(tmp_path / "view")["image"]
    last = layer.levels[0].rows - 1
    tile = read_tile(tmp_path / "view" / "image.tif", layer, 0, 0, last, last)
    assert tile[: side - 512 * last, : side - 512 * last].min() == 77


def test_the_thumbnail_is_small_and_has_the_colours_of_the_channels(tmp_path: Path) -> None:
    image = np.zeros((2, 600, 300), np.uint16)
    image[0, :300] = image[1, 300:] = 1000
    metadata = {"axes": "CYX", "Channel": {"Name": ["DAPI", "GFP"]}}
    tifffile.imwrite(tmp_path / "a.ome.tif", image, metadata=metadata)
    made(tmp_path / "a.ome.tif", tmp_path / "view")
    with Pillow.open(tmp_path / "view" / "thumbnail.png") as picture:
        assert max(picture.size) <= 256
        shown = np.asarray(picture)
    assert shown[10, 10, 2] > 200 > shown[-10, 10, 2]
    assert shown[-10, 10, 1] > 200 > shown[10, 10, 1]


def test_the_first_image_of_an_archive_is_shown(tmp_path: Path) -> None:
    image = pixels(40, 50)
    with zipfile.ZipFile(tmp_path / "plate.zip", "w") as archive:
        archive.writestr("notes.txt", "taken on Monday")
        for number in range(3):
            tifffile.imwrite(tmp_path / f"{number}.tif", image + number)
            archive.write(tmp_path / f"{number}.tif", f"plate/{number}.tif")
    facts = made(tmp_path / "plate.zip", tmp_path / "view")
    assert (facts["images"], facts["image_name"]) == (3, "plate/0.tif")
    np.testing.assert_array_equal(level_of(tmp_path / "view", layers_in(tmp_path / "view")["image"]), image)
    assert not list((tmp_path / "view").glob("unpacked-*"))


def test_an_archive_without_images_says_so(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("notes.txt", "taken on Monday")
    with pytest.raises(InvalidImage, match="holds no images"):
        made(tmp_path / "a.zip", tmp_path / "view")


def result_of(path: Path, files: dict[str, Array | bytes]) -> Path:
    """A result zip with these files; arrays are written as workers do."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            file = path.with_name("member")
            if isinstance(content, bytes):
                file.write_bytes(content)
            elif name.endswith(".npy"):
                with file.open("wb") as sink:
                    np.save(sink, content)
            else:
                tifffile.imwrite(file, content.astype(np.float32), photometric="minisblack")
            archive.write(file, name)
    return path


def result_layers(path: Path, folder: Path, name: str = "a.tif", axes: Any = ()) -> dict[str, ViewLayer]:
    folder.mkdir()
    request = {"path": str(path), "folder": str(folder), "name": name, "axes": axes}
    assert make_result(request, lambda _: None) == {"is_complete": True}
    return layers_in(folder)


def labels(*shape: int) -> Array:
    return np.random.default_rng(3).integers(0, 5000, shape).astype(np.uint32)


def test_labels_keep_their_ids_at_every_level(tmp_path: Path) -> None:
    cells, nuclei = labels(600, 700), labels(600, 700)
    zipped = result_of(tmp_path / "r.zip", {"a_feature_0.tif": cells, "a_feature_1.tif": nuclei})
    layers = result_layers(zipped, tmp_path / "view")
    assert list(layers) == ["labels", "labels_2"]
    assert (layers["labels"].dtype, layers["labels"].max_label) == ("uint32", cells.max())
    np.testing.assert_array_equal(level_of(tmp_path / "view", layers["labels"]), cells)
    np.testing.assert_array_equal(level_of(tmp_path / "view", layers["labels"], 1), cells[::2, ::2])
    np.testing.assert_array_equal(level_of(tmp_path / "view", layers["labels_2"]), nuclei)


@pytest.mark.parametrize("frames", [2, 3, 6])
def test_labels_of_a_stack_are_at_their_times_and_planes(tmp_path: Path, frames: int) -> None:
    stack = labels(frames, 40, 50)
    zipped = result_of(tmp_path / "r.zip", {"a_feature_0.tif": stack})
    # Six frames are the image's, three its times with projected planes, two are of no known axis.
    layers = result_layers(zipped, tmp_path / "view", axes=[["T", 3], ["Z", 2]])
    layer = layers["labels"]
    assert (layer.t, layer.z) == {6: (3, 2), 3: (3, 1), 2: (2, 1)}[frames]
    for t, z in np.ndindex(layer.t, layer.z):
        np.testing.assert_array_equal(level_of(tmp_path / "view", layer, 0, t, z), stack[t * layer.z + z])


def test_labels_of_an_ome_zarr(tmp_path: Path) -> None:
    image = labels(600, 520) + 2**25
    plane = TiledPlane((1, 600, 520), 512, np.dtype("uint32"), lambda _, r, c: image[r * 512 :, c * 512 :][:512, :512])
    files = write_ome_zarr(plane, tmp_path / "a_feature_0.zarr")
    with zipfile.ZipFile(tmp_path / "r.zip", "w") as archive:
        for file in files:
            archive.write(file, file.relative_to(tmp_path).as_posix())
    layers = result_layers(tmp_path / "r.zip", tmp_path / "view")
    assert layers["labels"].max_label == image.max()
    np.testing.assert_array_equal(level_of(tmp_path / "view", layers["labels"]), image)


def test_a_result_that_is_no_labels_is_shown_by_its_values(tmp_path: Path) -> None:
    image = np.random.default_rng(0).normal(size=(40, 50)).astype(np.float32)
    layers = result_layers(result_of(tmp_path / "r.zip", {"a_feature_0.tif": image}), tmp_path / "view")
    assert [layer.dtype for layer in layers.values()] == ["float32"]
    np.testing.assert_array_equal(level_of(tmp_path / "view", layers["values"]), image)


def test_points_of_spots(tmp_path: Path) -> None:
    first, second = np.array([[1.5, 2.25], [3, 4]]), np.zeros((0, 2))
    zipped = result_of(tmp_path / "r.zip", {"a_0.npy": first, "a_1.npy": second, "a_0.tif": labels(4, 4)})
    layers = result_layers(zipped, tmp_path / "view", axes=[["T", 2]])
    assert (layers["points"].count, layers["points"].t) == (2, 2)
    assert json.loads((tmp_path / "view" / "points_0.json").read_text()) == {"y": [1.5, 3], "x": [2.25, 4], "cell": []}
    assert json.loads((tmp_path / "view" / "points_1.json").read_text()) == {"y": [], "x": [], "cell": []}


def test_points_in_cells(tmp_path: Path) -> None:
    with (tmp_path / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("x", "y", "cellID0"), (2.25, 1.5, 7), (4, 3, 0)])
    table = (tmp_path / "table.csv").read_bytes()
    files: dict[str, Array | bytes] = {"a_0.csv": table, "a_1.csv": table}
    frames = labels(2, 40, 50)
    files |= {f"a_batch_{number}_feature_0.tif": frames[number] for number in (1, 0)}
    layers = result_layers(result_of(tmp_path / "r.zip", files), tmp_path / "view", axes=[["Z", 2]])
    assert json.loads((tmp_path / "view" / "points_1.json").read_text())["cell"] == [7, 0]
    np.testing.assert_array_equal(level_of(tmp_path / "view", layers["labels"], z=1), frames[1])


@pytest.mark.parametrize(
    "content",
    [np.array([[np.nan, 1.0]]), np.zeros((2, 3)), b"x,y\n1,inf\n", b"x,y\n1\n", b"a,b\n"],
    ids=["nan", "shape", "inf", "row", "columns"],
)
def test_points_that_are_no_numbers_are_refused(tmp_path: Path, content: Array | bytes) -> None:
    name = "a_0.csv" if isinstance(content, bytes) else "a_0.npy"
    zipped = result_of(tmp_path / "r.zip", {name: content, "a_feature_0.tif": labels(20, 30)})
    with pytest.raises(InvalidImage, match="has no points that can be read"):
        result_layers(zipped, tmp_path / "view")


def test_the_result_of_an_archive_shows_the_labels_of_its_first_image(tmp_path: Path) -> None:
    files: dict[str, Array | bytes] = {f"plate/{number}_feature_0.tif": labels(20, 30) + number for number in range(2)}
    zipped = result_of(tmp_path / "r.zip", files)
    layers = result_layers(zipped, tmp_path / "view", "plate/1.tif")
    np.testing.assert_array_equal(level_of(tmp_path / "view", layers["labels"]), files["plate/1_feature_0.tif"])
    with pytest.raises(InvalidImage, match="2 other images"):
        result_layers(zipped, tmp_path / "other", "plate.zip")


@pytest.mark.parametrize("content", [b"", b"PK\3\4 no zip", GREY.tobytes()], ids=["empty", "damaged", "no zip"])
def test_a_damaged_result_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "r.zip").write_bytes(content)
    with pytest.raises(ConsumerError, match=r"r\.zip"):
        result_layers(tmp_path / "r.zip", tmp_path / "view")
