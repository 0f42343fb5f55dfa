"""How jobs read images: axes, channels and grey values, whole and in parts, with the model of the package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from PIL import Image as Pillow

from redis_consumer import settings, testing
from support import ome_zarr

Array = npt.NDArray[Any]


def discs(side_px: int, count: int) -> Array:
    """A square image of bright discs that don't touch."""
    rows, columns = np.indices((side_px, side_px), sparse=True)
    image = np.full((side_px, side_px), 10, np.uint8)
    places = [(y, x) for y in range(22, side_px - 21, 42) for x in range(22, side_px - 21, 42)]
    for y, x in places[:count]:
        image[(rows - y) ** 2 + (columns - x) ** 2 < 121] = 200
    return image


#: Two channels with 5 and 9 objects.
FEW, MANY = discs(128, 5), discs(128, 9)
BOTH = np.stack([FEW, MANY])


@pytest.fixture(params=["whole", "in parts"])
def run(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., testing.JobRun]:
    """Runs a job on a file, at once or part by part."""
    if request.param == "in parts":
        for side in ("HEIGHT", "WIDTH"):
            monkeypatch.setenv(f"MAX_IMAGE_{side}", "64")
    settings.use(None)
    return lambda path, **fields: testing.run("image", path, **{"scale": "1", **fields})


def objects(done: testing.JobRun) -> int:
    assert done.status == "done", done.reason
    labels = done.outputs[next(name for name in done.outputs if name.endswith("_feature_0.tif"))]
    return len(np.unique(labels)) - 1


def write(path: Path, array: Array, **options: Any) -> Path:
    tifffile.imwrite(path, array, **{"photometric": "minisblack", "compression": "zlib", "rowsperstrip": 16, **options})
    return path


@pytest.mark.parametrize(("channels", "count"), [("", 5), ("0", 5), ("1", 9), ("1,", 9)])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("kind", ["npy", "tif"])
def test_two_channels_without_metadata(
    tmp_path: Path, run: Callable[..., testing.JobRun], channels: str, count: int, last: bool, kind: str
) -> None:
    pixels = np.moveaxis(BOTH, 0, -1).copy() if last else BOTH
    path = tmp_path / f"a.{kind}"
    if kind == "npy":
        np.save(path, pixels)
    else:
        write(path, pixels)
    done = run(path, channels=channels)
    assert objects(done) == count
    assert done.fields["axes_read"] == f"{'YXC' if last else 'CYX'} {pixels.shape}, from the shape"
    assert done.fields["channels_read"] == (f"{channels[0]}, from channels" if channels else "0, the first of 0, 1")


@pytest.mark.parametrize("order", ["XYB", "XYC"])
def test_the_order_of_the_page_never_makes_two_rows(
    tmp_path: Path, run: Callable[..., testing.JobRun], order: str
) -> None:
    for name, metadata in (("named", {"axes": "CYX"}), ("plain", None)):
        done = run(write(tmp_path / f"{name}.tif", BOTH, metadata=metadata), dimension_order=order, channels="0,")
        assert done.status == "failed"
        assert f"dimension_order: {order} makes " in done.reason
        assert "(2, 128, 128)" in done.reason
        assert "give CYX, or leave the field empty" in done.reason


def test_the_order_of_the_page_fits_a_plane_and_a_colour(tmp_path: Path, run: Callable[..., testing.JobRun]) -> None:
    done = run(write(tmp_path / "plane.tif", FEW), dimension_order="XYB", channels="0,")
    assert objects(done) == 5
    colour = write(tmp_path / "rgb.tif", np.stack([FEW, MANY, FEW], -1), photometric="rgb")
    done = run(colour, dimension_order="XYB", channels="0,")
    (labels,) = done.outputs.values()
    assert [len(np.unique(frame)) - 1 for frame in labels.reshape(3, 128, 128)] != [0, 0, 0]
    assert done.fields["axes_read"] == "YXB (128, 128, 3), from dimension_order"


def test_the_first_channel_that_shows_no_transmitted_light(tmp_path: Path, run: Callable[..., testing.JobRun]) -> None:
    metadata = {"axes": "CYX", "Channel": {"Name": ["Brightfield", "DAPI"]}}
    path = write(tmp_path / "a.ome.tif", BOTH, metadata=metadata)
    done = run(path)
    assert objects(done) == 9
    assert done.fields["channels_read"] == (
        "1 DAPI, the first that does not show transmitted light of 0 Brightfield, 1 DAPI"
    )
    assert objects(run(path, channels="brightfield")) == 5


def test_a_chosen_channel_without_signal_is_refused(tmp_path: Path, run: Callable[..., testing.JobRun]) -> None:
    path = write(tmp_path / "a.tif", np.stack([np.zeros_like(FEW), FEW]), metadata={"axes": "CYX"})
    for channels in ("", "0"):
        done = run(path, channels=channels)
        assert "channel 0 has no signal, all its pixels are 0; the channels are 0, 1: name another" in done.reason
    assert objects(run(path, channels="1")) == 5


@pytest.mark.parametrize("blue", ["equal", "only", "most"])
def test_colours_are_grey(tmp_path: Path, run: Callable[..., testing.JobRun], blue: str) -> None:
    rest = {"equal": FEW, "only": np.zeros_like(FEW), "most": FEW // 4}[blue]
    done = run(write(tmp_path / "a.tif", np.stack([rest, rest, FEW], -1), photometric="rgb"))
    assert objects(done) == 5
    read = {"equal": "grey, 0 red, 1 green, 2 blue are equal", "only": "2 blue, the only one", "most": "grey, the mean"}
    assert done.fields["channels_read"].startswith(read[blue])


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_min_is_white(tmp_path: Path, run: Callable[..., testing.JobRun], dtype: str) -> None:
    most = np.iinfo(dtype).max
    assert objects(run(write(tmp_path / "a.tif", most - FEW.astype(dtype), photometric="miniswhite"))) == 5


def test_integers_beyond_what_float32_holds(tmp_path: Path, run: Callable[..., testing.JobRun]) -> None:
    done = run(write(tmp_path / "a.tif", FEW.astype(np.uint32) // 10 + np.uint32(1 << 31)))
    assert objects(done) == 5
    assert done.fields["warning"] == (
        "a channel has values beyond 2^24; its lowest value is subtracted, so that float32 keeps the differences"
    )


def test_a_mosaic_with_nan(tmp_path: Path, run: Callable[..., testing.JobRun]) -> None:
    mosaic = FEW.astype(np.float32)
    mosaic[100:, 100:] = np.nan
    done = run(write(tmp_path / "a.tif", mosaic))
    assert objects(done) == 5
    assert done.fields["warning"] == "pixels that are NaN have the lowest value of their channel"


def test_a_worker_can_require_channels(
    tmp_path: Path, run: Callable[..., testing.JobRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHANNELS_REQUIRED", "1")
    settings.use(None)
    path = write(tmp_path / "a.tif", BOTH, metadata={"axes": "CYX"})
    done = run(path)
    assert "has channels 0, 1, and the job names none (CHANNELS_REQUIRED); give the field channels" in done.reason
    assert objects(run(path, channels="1")) == 9
    assert objects(run(write(tmp_path / "b.tif", np.stack([FEW] * 3, -1), photometric="rgb"))) == 5


def test_pictures(tmp_path: Path) -> None:
    Pillow.fromarray(FEW).convert("P").save(tmp_path / "palette.png")
    Pillow.fromarray(np.stack([FEW] * 3, -1)).save(tmp_path / "colour.png")
    grey = Pillow.fromarray(FEW)
    grey.putalpha(Pillow.fromarray(MANY))
    grey.save(tmp_path / "alpha.png")
    for name in ("palette", "colour", "alpha"):
        assert objects(testing.run("image", tmp_path / f"{name}.png", scale="1")) == 5


def test_a_picture_beyond_the_limits_names_tiff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAX_IMAGE_WIDTH", "64")
    settings.use(None)
    Pillow.fromarray(FEW).save(tmp_path / "a.png")
    done = testing.run("image", tmp_path / "a.png", scale="1")
    assert (
        "128 px wide, allowed are 64 px (MAX_IMAGE_WIDTH); save it as TIFF, which is processed in parts" in done.reason
    )


def test_an_ome_zarr_names_its_channels(tmp_path: Path) -> None:
    ome_zarr.write(tmp_path / "a.zarr", BOTH, "cyx", channels=["Phase", "DAPI"])
    done = testing.run("image", tmp_path / "a.zarr", scale="1", channels="dapi")
    assert done.status == "done", done.reason
    assert done.fields["axes_read"] == "CYX (2, 128, 128), from the file"
    assert done.fields["channels_read"] == "1 DAPI, from channels"


def test_images_of_an_archive_say_how_they_were_read(tmp_path: Path) -> None:
    folder = tmp_path / "plate"
    folder.mkdir()
    np.save(folder / "a.npy", BOTH)
    write(folder / "b.tif", 255 - MANY, photometric="miniswhite")
    done = testing.run("zip", folder, scale="1")
    assert done.status == "done", done.reason
    assert [child.fields["axes_read"] for child in done.children] == [
        "CYX (2, 128, 128), from the shape",
        "YX (128, 128), from the file",
    ]
    assert [child.fields["objects"] for child in done.children] == ["5", "9"]
