"""The scale of jobs with the shipped model: from the size of pixels or of objects, and what the job says of it."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from redis_consumer import settings
from redis_consumer.redis import RedisClient
from redis_consumer.storage import Storage
from support.nuclei import draw_nuclei
from support.provenance import Site

SMALL = draw_nuclei(128, 8)
LARGE = np.asarray(Image.fromarray(SMALL).resize((512, 512), Image.Resampling.BICUBIC))


@pytest.fixture
def site(redis_client: RedisClient, redis_db: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("MODEL_SERVER", "onnx://")
    settings.use(None)
    site = Site(redis_client, redis_db, Storage(tmp_path.as_uri()))
    site.consumer()
    yield site
    site.close()


def put(site: Site, pixels: np.ndarray, um: tuple[float, float] | None = None) -> None:
    """Upload an OME-TIFF with width and height of its pixels."""
    path = Path(str(site.storage.url).removeprefix("file://"), "a.ome.tif")
    sizes = {} if um is None else {"PhysicalSizeX": um[0], "PhysicalSizeY": um[1]}
    tifffile.imwrite(path, pixels, metadata={"axes": "YX", **sizes})
    site.storage.upload_file(path, "uploads/a.tif")


def test_the_size_of_pixels_sets_the_scale(site: Site) -> None:
    put(site, LARGE, (0.1625, 0.1625))
    after = site.run(scale="")
    assert (after["scale"], after["scale_from"], after["objects"]) == ("0.25", "pixel_size", "8")
    record = site.record(after)
    assert record["job"]["fields"]["scale"] == ""
    assert record["detected"] == {"scale": "0.25", "scale_from": "pixel_size"}
    assert "warning" not in after


def test_a_later_attempt_takes_the_scale_of_the_earlier_one(site: Site) -> None:
    put(site, LARGE, (0.1625, 0.1625))
    after = site.run(scale="0.3", scale_from="pixel_size")
    assert (after["scale"], after["scale_from"]) == ("0.3", "pixel_size")
    record = site.record(after)
    assert record["job"]["fields"]["scale"] == ""
    assert record["detected"] == {"scale": "0.3", "scale_from": "pixel_size"}


def test_without_auto_scale_the_contract_applies(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTO_SCALE", "0")
    settings.use(None)
    put(site, SMALL, (0.1625, 0.1625))
    after = site.run(scale="")
    assert (after["scale"], after["scale_from"], after["objects"]) == ("1", "default", "8")


def test_the_diameter_of_objects_sets_the_scale(site: Site) -> None:
    put(site, LARGE)
    after = site.run(scale="", object_diameter_px="100")
    assert (after["scale"], after["scale_from"], after["objects"]) == ("0.3", "object_diameter_px", "8")


def test_pixels_that_are_not_square_are_named(site: Site) -> None:
    put(site, SMALL, (0.65, 1.3))
    after = site.run(scale="")
    assert "not square (1.3 x 0.65 um)" in after["warning"]
    assert after["scale_from"] != "pixel_size"


def test_objects_of_an_odd_size_are_warned_of(site: Site) -> None:
    put(site, SMALL)
    after = site.run(scale="0.4", my_own="x", modelname="y")
    assert after["warning"].startswith("field 'modelname' is unknown; did you mean model_name?; objects are about ")
    assert "give the true diameter in pixels as object_diameter_px" in after["warning"]


def test_an_image_beyond_the_limits_after_scaling_is_processed_in_parts(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAX_IMAGE_HEIGHT", "256")
    monkeypatch.setenv("MAX_IMAGE_WIDTH", "256")
    settings.use(None)
    half = np.asarray(Image.fromarray(draw_nuclei(256, 12, radius=(12, 16))).resize((128, 128), Image.Resampling.BOX))
    put(site, np.tile(half, (1, 2))[:, :200])
    after = site.run(scale="2")
    assert after["status"] == "done", after["reason"]
    archive = zipfile.ZipFile(io.BytesIO(site.storage.read_bytes(after["output_file_name"])))
    labels = tifffile.imread(io.BytesIO(archive.read("a_feature_0.tif")))
    assert labels.shape == (128, 200)
    assert 17 <= len(np.unique(labels)) - 1 <= 22


@pytest.mark.parametrize("factor", [0.5, 1, 3])
def test_the_scale_is_estimated_where_nothing_says_it(site: Site, factor: float) -> None:
    image = draw_nuclei(256, 28)
    side = round(256 * factor)
    put(site, np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BOX)))
    after = site.run(scale="")
    assert after["scale_from"] == "estimate"
    assert float(after["estimated_diameter_px"]) == pytest.approx(22.5 * factor, rel=0.25)
    assert float(after["scale"]) == pytest.approx(30 / 22.5 / factor, rel=0.25)
    assert 26 <= int(after["objects"]) <= 30


def test_an_empty_image_keeps_scale_1(site: Site) -> None:
    put(site, np.zeros((64, 64), np.uint8))
    after = site.run(scale="")
    assert (after["status"], after["scale"], after["scale_from"], after["objects"]) == ("done", "1", "default", "0")


def test_a_movie_has_one_scale_which_its_children_get(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUCLEAR_MODEL", "NuclearSegmentation:1")
    settings.use(None)
    site.consumer("tracking", "track")
    path = Path(str(site.storage.url).removeprefix("file://"), "m.ome.tif")
    frames = np.stack([LARGE, LARGE, LARGE])
    tifffile.imwrite(path, frames, metadata={"axes": "TYX", "PhysicalSizeX": 0.1625, "PhysicalSizeY": 0.1625})
    site.storage.upload_file(path, "uploads/m.tif")
    after = site.run("track:m.tif:1", "uploads/m.tif", model_name="", model_version="", scale="", original_name="m.tif")
    assert after["status"] == "done", after["reason"]
    assert (after["scale"], after["scale_from"]) == ("0.25", "pixel_size")
    [child] = [site.db.hgetall(key) for key in site.db.keys("*tracking-frame*")]
    assert (child["scale"], child["scale_from"], child["objects"]) == ("0.25", "pixel_size", "24")
    assert site.record(after)["job"]["fields"]["scale"] == ""


@pytest.mark.parametrize(("shared", "found"), [("1", {"0.25"}), ("", {"0.25", "1"})])
def test_images_of_an_archive_have_their_own_scale_or_that_of_the_first(
    site: Site, shared: str, found: set[str]
) -> None:
    site.consumer("zip", "predict-zip")
    folder = Path(str(site.storage.url).removeprefix("file://"))
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.writestr("0.tif", b"II*\0 damaged")
        for name, image, um in (("1.tif", LARGE, 0.1625), ("2.tif", SMALL, 0.65)):
            data = io.BytesIO()
            tifffile.imwrite(data, image, metadata={"axes": "YX", "PhysicalSizeX": um, "PhysicalSizeY": um}, ome=True)
            archive.writestr(name, data.getvalue())
    site.storage.upload_file(folder / "a.zip", "uploads/a.zip")
    after = site.run("predict-zip:a.zip:1", "uploads/a.zip", scale="", original_name="a.zip", scale_shared=shared)
    assert after["status"] == "done", after["reason"]
    children = [site.db.hgetall(key) for key in site.db.keys("predict:*")]
    assert {child["scale"] for child in children if child["status"] == "done"} == found
    assert after.get("scale", "") == ("0.25" if shared else "")
