"""The planes of an OME-TIFF of several files are one image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from redis_consumer import testing
from redis_consumer.errors import InvalidImage
from redis_consumer.images import ImageLimits, open_image, read_image
from redis_consumer.images.vendors.ome_files import read_ome_files
from redis_consumer.images.windows import open_windowed
from support.ome_files import write_ome_files

IMAGE = np.random.default_rng(0).integers(0, 60000, (2, 3, 2, 40, 50)).astype(np.uint16)  # TZCYX
WAYS: dict[str, tuple[Callable[[int, int, int], str], dict[str, Any]]] = {
    "channels": (lambda t, z, c: f"c{c}.ome.tif", {}),
    "times, tiled": (lambda t, z, c: f"img_t{t}.ome.tiff", {"order": "XYZCT", "tile": (32, 32), "compression": "zlib"}),
    "planes, no identity": (lambda t, z, c: f"{t}{z}{c}.tif", {"order": "XYTZC", "identity": False}),
    "mixed, big-endian": (lambda t, z, c: f"{(t + z + c) % 3} é.tif", {"byteorder": ">", "compression": "lzw"}),
}


@pytest.mark.parametrize("way", WAYS)
def test_files_of_one_folder_are_one_image(tmp_path: Path, way: str) -> None:
    file_of, options = WAYS[way]
    files = write_ome_files(tmp_path, IMAGE, file_of, names=["DAPI", "Membrane"], **options)
    for path in (files[0], files[-1]):
        with open_image(path, limits=ImageLimits(), name=path.name) as opened:
            image = opened.read()
            source = opened.source
        expected = {"XYCZT": "TZC", "XYZCT": "TCZ", "XYTZC": "CZT"}[options.get("order", "XYCZT")]
        assert (image.axes, image.pixel_size_um, source.spacing_um) == (f"{expected}YX", 0.5, 2.0)
        wanted = IMAGE.transpose(*("TZC".index(axis) for axis in expected), 3, 4)
        np.testing.assert_array_equal(image.array, wanted)
        assert [channel.name for channel in source.channels] == ["DAPI", "Membrane"]
        with open_windowed(path, name=path.name) as windowed:
            part = windowed.read(1, (slice(5, 23), slice(10, 37)))
            whole = windowed.read(1, (slice(0, 40), slice(0, 50)))
        assert (part[0] == whole[0, 5:23, 10:37]).all()


def test_a_renamed_file_is_found_by_its_identity(tmp_path: Path) -> None:
    first, second = write_ome_files(tmp_path, IMAGE, lambda t, z, c: f"c{c}.tif")
    first = first.rename(tmp_path / "d41d8cd98f00b204e9800998ecf8427e.tif")
    np.testing.assert_array_equal(read_image(first).array, IMAGE)
    with pytest.raises(InvalidImage, match=r"of which 1 are missing \(c0.tif\); put them into the same folder"):
        read_image(second)


def test_one_file_that_was_renamed_keeps_its_axes(tmp_path: Path) -> None:
    (path,) = write_ome_files(tmp_path, IMAGE, lambda t, z, c: "old.tif", identity=False)
    path = path.rename(tmp_path / "new.tif")
    assert read_image(path).axes == "TZCYX"
    np.testing.assert_array_equal(read_image(path).array, IMAGE)


def test_colours_in_several_files(tmp_path: Path) -> None:
    image = np.random.default_rng(1).integers(0, 255, (2, 1, 1, 40, 50, 3)).astype(np.uint8)
    path, _ = write_ome_files(tmp_path, image, lambda t, z, c: f"t{t}.tif")
    assert read_image(path).axes == "TYXS"
    np.testing.assert_array_equal(read_image(path).array, image[:, 0, 0])


@pytest.mark.parametrize("strange", ["../b.tif", "/etc/passwd", "a\\b.tif", "..", "", "x" * 300, "&#46;&#46;/b.tif"])
def test_a_name_outside_the_folder_is_refused(tmp_path: Path, strange: str) -> None:
    path, _ = write_ome_files(
        tmp_path, IMAGE, lambda t, z, c: f"c{c}.tif", in_xml=lambda file: strange if file == "c1.tif" else file
    )
    with pytest.raises(InvalidImage, match="which is not in the same folder"):
        read_image(path)


def test_too_many_files_are_refused(tmp_path: Path) -> None:
    image = np.zeros((300, 1, 1, 2, 2), np.uint8)
    path, *_ = write_ome_files(tmp_path, image, lambda t, z, c: f"t{t}.tif")
    with pytest.raises(InvalidImage, match="OME-TIFF of 300 files, allowed are 256"):
        read_image(path)


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path, second = write_ome_files(tmp_path, IMAGE, lambda t, z, c: f"c{c}.tif")
    cut = second.read_bytes()
    second.write_bytes(cut[: len(cut) // 2])
    with pytest.raises(InvalidImage, match="c1.tif: the file is cut off"):
        read_image(path)
    second.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(50))
    with pytest.raises(InvalidImage, match="c1.tif is no TIFF"):
        read_image(path)
    write_ome_files(tmp_path, IMAGE[..., :30], lambda t, z, c: "c1.tif")
    with pytest.raises(InvalidImage, match="c1.tif has planes of 40 x 30 px"):
        read_image(path)
    write_ome_files(tmp_path, IMAGE[:1, :1], lambda t, z, c: "c1.tif")
    with pytest.raises(InvalidImage, match="of file c1.tif, which has 2"):
        read_image(path)


def test_a_file_without_metadata_names_the_one_that_has_them(tmp_path: Path) -> None:
    path = tmp_path / "b.tif"
    xml = '<OME UUID="urn:uuid:1"><BinaryOnly MetadataFile="a.companion.ome" UUID="urn:uuid:2"/></OME>'
    tifffile.imwrite(path, IMAGE[0, 0, 0], description=xml, metadata=None)
    with pytest.raises(InvalidImage, match="whose metadata are in a.companion.ome; submit a.companion.ome"):
        read_image(path)
    files = read_ome_files(path, path.name)
    assert files is not None
    assert files.others() == ["a.companion.ome"]


def test_a_run_of_a_test_finds_the_other_files(tmp_path: Path) -> None:
    path, _ = write_ome_files(tmp_path, IMAGE, lambda t, z, c: f"c{c}.tif", names=["BF", "DAPI"])
    run = testing.run("image", path, model=testing.fake_model, scale="1", channels="dapi")
    assert (run.status, run.fields["channels_read"]) == ("done", "1 DAPI, from channels"), run.reason
