from __future__ import annotations

import json
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from redis_consumer.errors import InvalidImage
from redis_consumer.images import ImageLimits
from redis_consumer.images.fields import SeveralImages
from redis_consumer.images.ome_zarr import is_ome_zarr
from redis_consumer.images.windows import is_large, open_windowed
from support.ome_zarr import array_metadata, plate, write, write_array, write_json, zipped

WHOLE = (slice(0, 70), slice(0, 90))


def pixels(*shape: int, dtype: str = "uint16") -> npt.NDArray[Any]:
    return np.random.default_rng(5).integers(1, 250, shape).astype(dtype)


def read(path: Path, window: tuple[slice, slice] = WHOLE, frame: int = 0) -> npt.NDArray[Any]:
    with open_windowed(path, name="a.zarr") as image:
        return image.read(frame, window)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("packing", ["folder", "zip", "zip of a folder"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_a_window_is_what_was_written_there(tmp_path: Path, version: str, packing: str, dtype: str) -> None:
    image = pixels(2, 3, 1, 70, 90, dtype=dtype)
    path = write(tmp_path / "a.zarr", image, "tczyx", version=version)
    if packing != "folder":
        path = zipped(path, tmp_path / "a.ozx", below="a.zarr/" if packing == "zip of a folder" else "")
    with open_windowed(path, name="a.zarr") as opened:
        assert (opened.shape, opened.pixel_size_um) == ((2, 70, 90, 3), 0.5)
        for frame in range(2):
            part = opened.read(frame, (slice(20, 70), slice(31, 65)))
            np.testing.assert_array_equal(part[0], np.moveaxis(image[frame, :, 0, 20:70, 31:65], 0, -1))


def test_a_group_with_one_image_is_that_image(tmp_path: Path) -> None:
    write_json(tmp_path / "a.zarr" / ".zgroup", {"zarr_format": 2})
    write_json(tmp_path / "a.zarr" / ".zattrs", {"bioformats2raw.layout": 3})
    image = pixels(70, 90)
    write(tmp_path / "a.zarr" / "0", image, "yx")
    np.testing.assert_array_equal(read(tmp_path / "a.zarr")[0, ..., 0], image)
    write(tmp_path / "a.zarr" / "1", image, "yx")
    with pytest.raises(InvalidImage, match=r"holds 2 images \(0, 1\); name one in field field_of_view"):
        read(tmp_path / "a.zarr")


@pytest.mark.parametrize("axes", [["y", "x"], None])
def test_older_versions_name_axes_otherwise_or_not_at_all(tmp_path: Path, axes: list[str] | None) -> None:
    image = pixels(*([70, 90] if axes else [1, 1, 1, 70, 90]))
    path = write(tmp_path / "a.zarr", image, "tczyx"[-image.ndim :], version="0.3")
    attributes = json.loads((path / ".zattrs").read_text())
    del attributes["multiscales"][0]["axes"]
    if axes:
        attributes["multiscales"][0]["axes"] = axes
    write_json(path / ".zattrs", attributes)
    np.testing.assert_array_equal(read(path)[0, ..., 0], image.reshape(70, 90))


@pytest.mark.parametrize("fill", ["0", "7.0", ""])
def test_a_fill_value_that_is_a_text_and_no_filters_as_a_list_are_read(tmp_path: Path, fill: str) -> None:
    image = pixels(70, 90)
    path = write(tmp_path / "a.zarr", image, "yx")
    write_json(path / "0" / ".zarray", {**array_metadata(image, [32, 32]), "fill_value": fill, "filters": []})
    (path / "0" / "1" / "1").unlink()
    part = read(path)[0, ..., 0]
    np.testing.assert_array_equal(part[:32], image[:32])
    assert (part[32:64, 32:64] == float(fill or 0)).all()


@pytest.mark.parametrize("is_sharded", [False, True])
def test_a_codec_of_zarr_3_that_is_not_read_is_named(tmp_path: Path, is_sharded: bool) -> None:
    path = write(tmp_path / "a.zarr", pixels(70, 90), "yx", version="0.5")
    table = json.loads((path / "0" / "zarr.json").read_text())
    codecs = [{"name": "bytes"}, {"name": "numcodecs.lzma"}]
    table["codecs"] = [{"name": "sharding_indexed", "configuration": {"codecs": codecs}}] if is_sharded else codecs
    write_json(path / "0" / "zarr.json", table)
    with pytest.raises(InvalidImage, match=r"codec numcodecs\.lzma, which can't be read; write it with blosc"):
        read(path)


def test_chunks_that_are_missing_are_background(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", pixels(70, 90), "yx")
    (path / "0" / "1" / "1").unlink()
    part = read(path)[0, ..., 0]
    assert not part[32:64, 32:64].any()
    assert part[:32].all()


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("is_zipped", [False, True])
def test_each_field_of_a_plate_is_an_image(tmp_path: Path, version: str, is_zipped: bool) -> None:
    images = [pixels(70, 90), pixels(70, 90) + 1, pixels(70, 90) + 2]
    path = plate(tmp_path / "a.zarr", {"A/1": images[:2], "B/12": images[2:]}, version)
    path = zipped(path, tmp_path / "a.ozx") if is_zipped else path
    with pytest.raises(SeveralImages) as caught, open_windowed(path, name="a.zarr"):
        pass
    assert caught.value.fields == ("A/1/0", "A/1/1", "B/12/0")
    for field, image in zip(caught.value.fields, images, strict=True):
        with open_windowed(path, name="a.zarr", field=field) as opened:
            np.testing.assert_array_equal(opened.read(0, WHOLE)[0, ..., 0], image)
    refused = pytest.raises(InvalidImage, match=r"there is no 'C/1/0'; give one of A/1/0, A/1/1, B/12/0")
    with refused, open_windowed(path, name="a.zarr", field="C/1/0"):
        pass


def test_a_group_lists_its_images(tmp_path: Path) -> None:
    write_json(tmp_path / "a.zarr" / ".zgroup", {"zarr_format": 2})
    write_json(tmp_path / "a.zarr" / ".zattrs", {"bioformats2raw.layout": 3})
    write_json(tmp_path / "a.zarr" / "OME" / ".zattrs", {"series": ["left", "right"]})
    for name in ("left", "right"):
        write(tmp_path / "a.zarr" / name, pixels(70, 90), "yx")
    with (
        pytest.raises(SeveralImages, match=r"holds 2 images \(left, right\)"),
        open_windowed(tmp_path / "a.zarr", name="a"),
    ):
        pass


def test_a_well_outside_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "a.zarr" / ".zgroup", {"zarr_format": 2})
    write_json(tmp_path / "a.zarr" / ".zattrs", {"plate": {"wells": [{"path": "../../A"}]}})
    with pytest.raises(InvalidImage, match="is damaged"):
        read(tmp_path / "a.zarr")


@pytest.mark.parametrize("attributes", [{}, {"labels": ["cells"]}])
def test_what_is_no_single_image_is_refused(tmp_path: Path, attributes: dict[str, Any]) -> None:
    write_json(tmp_path / "a.zarr" / ".zgroup", {"zarr_format": 2})
    write_json(tmp_path / "a.zarr" / ".zattrs", attributes)
    with pytest.raises(InvalidImage, match=r"^a.zarr: is a Zarr, but no image"):
        read(tmp_path / "a.zarr")


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "|O", "filters": [{"id": "pickle"}]},
        {"dtype": "|O", "filters": [{"id": "json2"}]},
        {"filters": [{"id": "pickle"}]},
        {"compressor": {"id": "pickle"}},
        {"shape": [70]},
        {"shape": "all"},
    ],
)
def test_objects_and_nonsense_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    image = pixels(70, 90)
    path = write(tmp_path / "a.zarr", image, "yx")
    write_json(path / "0" / ".zarray", {**array_metadata(image, [32, 32]), **change})
    wanted = "looks like OME-Zarr but is damaged|names 2 axes|is an OME-Zarr with codec (pickle|json2), "
    with pytest.raises(InvalidImage, match=rf"^a.zarr: ({wanted})"):
        read(path)


@pytest.mark.parametrize("place", ["../secret", "/secret"])
def test_an_array_outside_is_refused(tmp_path: Path, place: str) -> None:
    write_array(tmp_path / "secret", pixels(70, 90), is_modern=False, chunk_px=32)
    place = place if place.startswith("..") else str(tmp_path / "secret")
    path = write(tmp_path / "a.zarr", pixels(70, 90), "yx", datasets=[{"path": place}])
    with pytest.raises(InvalidImage, match="lies outside of it"):
        read(path)


@pytest.mark.parametrize("axes", ["yx", "zx", "tcyx"])
def test_axes_that_make_no_plane_of_this_array_are_refused(tmp_path: Path, axes: str) -> None:
    path = write(tmp_path / "a.zarr", pixels(1, 70, 90), axes)
    with pytest.raises(InvalidImage, match=r"^a.zarr: (names|its axes)"):
        read(path)


def test_chunks_too_large_to_be_read_whole_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.zarr", pixels(70, 90), "yx")
    monkeypatch.setattr("redis_consumer.images.ome_zarr.MAX_SEGMENT_BYTES", 2000)
    with pytest.raises(InvalidImage, match="write it with smaller chunks"):
        read(path)


def test_a_chunk_that_unpacks_to_more_than_it_may_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", pixels(70, 90), "yx")
    (path / "0" / "0" / "0").write_bytes(zlib.compress(bytes(1 << 26)))
    with pytest.raises(InvalidImage, match="is damaged"):
        read(path)


@pytest.mark.parametrize("is_zipped", [False, True])
def test_a_chunk_of_blosc_that_claims_more_than_it_may_is_refused(tmp_path: Path, is_zipped: bool) -> None:
    import imagecodecs

    image = pixels(32, 32)
    path = write(tmp_path / "a.zarr", image, "yx")
    write_json(path / "0" / ".zarray", {**array_metadata(image, [32, 32]), "compressor": {"id": "blosc"}})
    chunk = path / "0" / "0" / "0"
    chunk.write_bytes(imagecodecs.blosc_encode(image.tobytes()))
    small = (slice(0, 32), slice(0, 32))
    np.testing.assert_array_equal(read(path, small)[0, ..., 0], image)
    chunk.write_bytes(imagecodecs.blosc_encode(bytes(1 << 20)))
    with pytest.raises(InvalidImage, match="is damaged"):
        read(zipped(path, tmp_path / "a.ozx") if is_zipped else path, small)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"multiscales": []}', '{"multiscales": [{"datasets": 3}]}', "null"])
def test_metadata_that_says_nonsense_is_refused(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "a.zarr", pixels(70, 90), "yx")
    (path / ".zattrs").write_text(text)
    with pytest.raises(InvalidImage, match=r"^a.zarr: "):
        read(path)


def test_each_is_read_by_window_whatever_its_size(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", pixels(70, 90), "yx")
    assert is_large(path, ImageLimits())


def test_other_folders_and_archives_are_none(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.txt").write_text("a")
    assert not is_ome_zarr(tmp_path / "folder")
    assert not is_ome_zarr(zipped(tmp_path / "folder", tmp_path / "a.zip"))
    assert not is_ome_zarr(tmp_path / "absent")


def test_a_worker_without_the_extra_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.zarr", pixels(70, 90), "yx")
    monkeypatch.setitem(sys.modules, "tensorstore", None)
    with pytest.raises(InvalidImage, match=r"pip install kiosk-redis-consumer\[zarr\]"):
        read(path)
