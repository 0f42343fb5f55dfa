"""Additional files in the results of whole jobs of images."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from roifile import ImagejRoi
from scipy import ndimage

from redis_consumer import testing
from redis_consumer.segmentation import frames
from support import ome_zarr
from support.polygons import fill

Array = npt.NDArray[Any]
THRESHOLD: Any = {"postprocess_function": "pixelwise", "scale": "1"}


def squares(*shape: int) -> Array:
    """A picture of three squares, one with a hole, on each plane."""
    image = np.zeros(shape, np.uint8)
    for top, left in ((5, 5), (5, 40), (40, 20)):
        image[..., top : top + 20, left : left + 20] = 200
    image[..., 12:15, 12:15] = 0
    return image


def bright(tiles: Array) -> Array:
    """A model that finds the bright pixels of its first channel."""
    return (tiles[..., :1] > 100).astype(np.float32)


def ran(path: Path, **fields: Any) -> testing.JobRun:
    run = testing.run("image", path, model=bright, **{**THRESHOLD, **fields})
    assert run.status == "done", run.reason
    return run


def rows_of(run: testing.JobRun, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(run.files[name].decode())))


def test_an_image_has_what_its_job_asks_for(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    image = np.stack([squares(70, 80), np.full((70, 80), 7, np.uint8)])
    tifffile.imwrite(path, image, imagej=True, metadata={"axes": "CYX", "unit": "um"}, resolution=(2, 2))
    run = ran(path, channels="0", outputs="all")
    ends = ("_labels.tif", "_labels.ome.tif", "_rois.zip", ".geojson", "_cells.csv", "_cells.parquet", "_overlay.png")
    assert set(run.files) == {"a_feature_0.tif", *(f"a{end}" for end in ends)}
    assert run.fields["objects"] == "3"
    labels = run.outputs["a_labels.tif"]
    assert labels.dtype == np.uint16
    np.testing.assert_array_equal(labels, run.outputs["a_feature_0.tif"])
    np.testing.assert_array_equal(labels, run.outputs["a_labels.ome.tif"])
    rows = rows_of(run, "a_cells.csv")
    assert [(row["area_px"], row["area_um2"]) for row in rows] == [("391", "97.75"), ("400", "100"), ("400", "100")]
    # Each channel of the file, also those that the model doesn't get.
    assert {(row["c0_mean"], row["c1_mean"]) for row in rows} == {("200", "7")}
    for name, content in (("0001", [0, 1, 2, 3]),):
        with zipfile.ZipFile(io.BytesIO(run.files["a_rois.zip"])) as archive:
            assert len(archive.namelist()) == len(content) - 1
            roi = ImagejRoi.frombytes(archive.read(f"{name}.roi"))
        np.testing.assert_array_equal(fill(roi.coordinates(multi=True), (70, 80)), labels == 1)
    assert len(json.loads(run.files["a.geojson"])["features"]) == 3
    with tifffile.TiffFile(io.BytesIO(run.files["a_feature_0.tif"])) as tif:
        assert tif.imagej_metadata is not None
        assert (tif.imagej_metadata["unit"], tif.pages.first.tags["XResolution"].value) == ("um", (2, 1))


def test_a_stack_keeps_its_axes_and_sizes(tmp_path: Path) -> None:
    path = tmp_path / "F3-tzyx.tif"
    metadata = {"axes": "TZYX", "unit": "um", "spacing": 2.0, "finterval": 60.0}
    tifffile.imwrite(path, squares(2, 3, 64, 64), imagej=True, metadata=metadata, resolution=(1 / 0.325, 1 / 0.325))
    run = ran(path, outputs="labels,table")
    for name in ("F3-tzyx_feature_0.tif", "F3-tzyx_labels.tif"):
        with tifffile.TiffFile(io.BytesIO(run.files[name])) as tif:
            assert (tif.series[0].axes, tif.series[0].shape) == ("TZYX", (2, 3, 64, 64))
            assert tif.imagej_metadata is not None
            found = {key: tif.imagej_metadata[key] for key in ("unit", "spacing", "finterval")}
            assert found == {"unit": "um", "spacing": 2.0, "finterval": 60.0}
            across, length = tif.pages.first.tags["XResolution"].value
            assert length / across == pytest.approx(0.325)
    assert {(row["t"], row["z"]) for row in rows_of(run, "F3-tzyx_cells.csv")} == {(t, z) for t in "01" for z in "012"}


def test_frames_in_groups_have_the_same_files_as_all_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, squares(5, 64, 64), metadata={"axes": "TYX"}, photometric="minisblack")
    at_once = ran(path, outputs="all")
    monkeypatch.setattr(frames, "GROUP_BYTES", 2 * 64 * 64 * 4)
    grouped = ran(path, outputs="all")
    assert len(at_once.files) == 8
    for name, content in at_once.files.items():
        if name.endswith((".csv", ".geojson", ".png", "_labels.tif")):
            assert grouped.files[name] == content
    np.testing.assert_array_equal(at_once.outputs["a_feature_0.tif"], grouped.outputs["a_feature_0.tif"])


def test_an_image_in_parts_has_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.tile(squares(70, 80), (5, 5)), tile=(64, 64), metadata={"axes": "YX"})
    whole = ran(path, outputs="all")
    for side in ("HEIGHT", "WIDTH"):
        monkeypatch.setenv(f"MAX_IMAGE_{side}", "128")
    parts = ran(path, outputs="all")
    assert parts.fields["objects"] == whole.fields["objects"] == "75"
    assert set(parts.files) == set(whole.files)

    def shapes(run: testing.JobRun) -> list[list[str]]:
        """The cells by their place; the numbers of labels differ."""
        rows = [[text for name, text in row.items() if name != "label"] for row in rows_of(run, "a_cells.csv")]
        return sorted(rows)

    assert shapes(parts) == shapes(whole)
    np.testing.assert_array_equal(parts.outputs["a_labels.tif"], parts.outputs["a_feature_0.tif"])
    np.testing.assert_array_equal(parts.outputs["a_labels.tif"], parts.outputs["a_labels.ome.tif"])
    for feature in json.loads(parts.files["a.geojson"])["features"]:
        mask = parts.outputs["a_labels.tif"] == feature["properties"]["measurements"]["label"]
        np.testing.assert_array_equal(fill(feature["geometry"]["coordinates"], mask.shape), mask)
    assert parts.files["a_overlay.png"] == whole.files["a_overlay.png"]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"outputs": "masks"}, "InvalidJob: field outputs: 'masks' is unknown; give some of labels, ome"),
        ({"outputs": "rois", "postprocess_function": ""}, "field outputs: model and functions make no label image"),
    ],
)  # fmt: skip
def test_outputs_that_can_not_be_made_are_refused(tmp_path: Path, fields: dict[str, Any], reason: str) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, squares(64, 64))
    run = testing.run("image", path, model=bright, **{**THRESHOLD, **fields})
    assert run.status == "failed"
    assert reason in run.reason


def test_images_of_an_archive_have_what_its_job_asks_for(tmp_path: Path) -> None:
    path = tmp_path / "plate.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("well:1/a*.tif", "well:1/b.tif"):
            data = io.BytesIO()
            tifffile.imwrite(data, squares(64, 64))
            archive.writestr(name, data.getvalue())
    run = testing.run("zip", path, model=bright, outputs="rois,table", **THRESHOLD)
    assert run.status == "done", run.reason
    stems = ("well_1/a_", "well_1/b")
    ends = ("_feature_0.tif", "_rois.zip", "_cells.csv")
    assert set(run.files) == {"summary.csv", *(f"{stem}{end}" for stem in stems for end in ends)}
    assert run.fields["objects"] == "6"
    assert len(rows_of(run, "well_1/b_cells.csv")) == 3


def test_an_archive_with_unknown_outputs_says_so(tmp_path: Path) -> None:
    path = tmp_path / "plate.zip"
    with zipfile.ZipFile(path, "w") as archive:
        data = io.BytesIO()
        tifffile.imwrite(data, squares(64, 64))
        archive.writestr("a.tif", data.getvalue())
    run = testing.run("zip", path, model=bright, outputs="mask")
    assert (run.status, "field outputs: 'mask' is unknown" in run.reason) == ("failed", True)


def test_a_movie_has_files_of_its_tracks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKING_SEGMENT_MODEL", "Fake:1")
    monkeypatch.setenv("TRACKING_POSTPROCESS_FUNCTION", "pixelwise")
    path = tmp_path / "m.tif"
    frames_of = np.stack([np.roll(squares(70, 80), shift, axis=1) for shift in range(4)])
    metadata = {"axes": "TYX", "unit": "um", "finterval": 30.0}
    tifffile.imwrite(path, frames_of, imagej=True, metadata=metadata, resolution=(2, 2))
    run = testing.run("tracking", path, model=bright, outputs="all", **THRESHOLD)
    assert run.status == "done", run.reason
    others = {"lineage.json", "m.trk", "tracks.csv", "tracks.gif"}
    ends = ("_feature_0.tif", "_labels.tif", "_labels.ome.tif", "_rois.zip", ".geojson", "_cells.csv", "_overlay.png")
    assert {*others, *(f"m{end}" for end in ends)} <= set(run.files)
    assert run.fields["objects"] == "3"
    rows = rows_of(run, "m_cells.csv")
    assert [(row["label"], row["t"]) for row in rows] == [(str(label), str(t)) for t in range(4) for label in (1, 2, 3)]
    assert (rows[0]["area_um2"], rows[0]["c0_mean"]) == ("97.75", "200")
    for name in ("m_feature_0.tif", "m_labels.tif"):
        with tifffile.TiffFile(io.BytesIO(run.files[name])) as tif:
            assert tif.series[0].axes == "TYX"
            assert tif.imagej_metadata is not None
            assert tif.imagej_metadata["finterval"] == 30.0
    assert all("outputs" not in child.fields for child in run.children)


@pytest.mark.parametrize("scale", ["1", "1.5", "0.7"])
def test_nuclei_with_dark_nucleoli_have_no_holes(tmp_path: Path, scale: str) -> None:
    y, x = np.mgrid[:160, :160]
    image = np.where(np.hypot(y - 80, x - 80) < 34, 200.0, 10.0)
    for across, along in ((-10, -8), (9, 11), (12, -12)):
        image[np.hypot(y - 80 - across, x - 80 - along) < 6] = 25
    image += np.random.default_rng(0).normal(0, 2, image.shape)
    path = tmp_path / "F23-nucleoli.tif"
    tifffile.imwrite(path, np.clip(image, 0, 255).astype(np.uint8))
    run = testing.run("image", path, scale=scale)
    labels = run.outputs["F23-nucleoli_feature_0.tif"]
    assert labels.any()
    for label in np.unique(labels)[1:]:
        assert np.array_equal(ndimage.binary_fill_holes(labels == label), labels == label)


def peaks(tiles: Array) -> dict[str, Array]:
    """A model whose distances are 0.2, 0.4, … in the middle of the bright objects, by their brightness."""
    inside = tiles[..., :1] > 20
    away = np.stack([ndimage.distance_transform_edt(np.pad(each[..., 0], 1))[1:-1, 1:-1] for each in inside])
    share = np.minimum(away / 10, 1)[..., np.newaxis] * tiles[..., :1] / 250
    return {"distance": share.astype(np.float32), "inside": inside.astype(np.float32)}


DEEP: Any = {"postprocess_function": "deep_watershed", "scale": "1", "channels": "0"}


def three(*shape: int) -> Array:
    image = np.zeros(shape, np.uint8)
    for grey, (top, left) in zip((50, 150, 250), ((5, 5), (5, 40), (40, 20)), strict=True):
        image[..., top : top + 20, left : left + 20] = grey
    return image


def confidences(path: Path, **fields: Any) -> list[dict[str, str]]:
    run = testing.run("image", path, model=peaks, **{**DEEP, "outputs": "table", **fields})
    assert run.status == "done", run.reason
    [name] = [name for name in run.files if name.endswith("_cells.csv")]
    return rows_of(run, name)


@pytest.mark.parametrize("scale", ["1", "1.5"])
def test_each_object_has_its_confidence(tmp_path: Path, scale: str) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, three(70, 80))
    rows = confidences(path, scale=scale)
    found = {(row["c0_max"]): float(row["confidence"]) for row in rows}
    assert found == pytest.approx({"50": 0.2, "150": 0.6, "250": 1.0}, abs=0.02)


def test_confidence_follows_an_object_into_parts_and_through_z(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.tif"
    stack = np.stack([three(70, 80), three(70, 80)[::-1], three(70, 80)])
    tifffile.imwrite(path, stack, metadata={"axes": "ZYX"}, photometric="minisblack")
    linked = confidences(path, z="link")
    assert {(row["c0_max"], row["confidence"]) for row in linked} == {("50", "0.2"), ("150", "0.6"), ("250", "1")}
    tifffile.imwrite(path, np.tile(three(70, 80), (5, 5)), tile=(64, 64), metadata={"axes": "YX"})
    for side in ("HEIGHT", "WIDTH"):
        monkeypatch.setenv(f"MAX_IMAGE_{side}", "128")
    parts = confidences(path)
    assert len(parts) == 75
    assert {(row["c0_max"], row["confidence"]) for row in parts} == {("50", "0.2"), ("150", "0.6"), ("250", "1")}


def test_confidence_is_empty_where_no_peaks_are_known(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, squares(70, 80))
    assert {row["confidence"] for row in rows_of(ran(path, outputs="table"), "a_cells.csv")} == {""}


@pytest.mark.parametrize("axes", ["YX", "TYX"])
@pytest.mark.parametrize("is_large", [False, True])
def test_results_have_the_orientation_of_the_file(
    tmp_path: Path, axes: str, is_large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A viewer turns the image and the label image, or none of them."""
    path = tmp_path / "a.tif"
    image = squares(*(2,) * (len(axes) - 2), 160, 160)
    tifffile.imwrite(path, image, metadata={"axes": axes}, extratags=[(274, "H", 1, 6, False)], tile=(64, 64))
    if is_large:
        monkeypatch.setenv("MAX_IMAGE_HEIGHT", "128")
    run = ran(path, outputs="labels,ome")
    assert "its TIFFs have the same orientation" in run.fields["warning"]
    for name in ("a_feature_0.tif", "a_labels.tif", "a_labels.ome.tif"):
        with tifffile.TiffFile(io.BytesIO(run.files[name])) as tif:
            assert {page.tags[274].value for page in tif.pages} == {6}
        np.testing.assert_array_equal(run.outputs[name] > 0, image > 100)


@pytest.mark.parametrize("axes", ["yx", "czyx"])
def test_an_ome_zarr_has_what_its_job_asks_for(tmp_path: Path, axes: str) -> None:
    image = three(70, 80) if axes == "yx" else np.stack([three(70, 80), np.full((70, 80), 7, np.uint8)])[:, np.newaxis]
    path = ome_zarr.zipped(ome_zarr.write(tmp_path / "a.zarr", image, axes), tmp_path / "a.ozx")
    run = testing.run("image", path, model=peaks, **{**DEEP, "outputs": "all"})
    assert run.status == "done", run.reason
    ends = ("_labels.tif", "_labels.ome.tif", "_rois.zip", ".geojson", "_cells.csv", "_cells.parquet", "_overlay.png")
    assert {f"a{end}" for end in ends} <= set(run.files)
    rows = rows_of(run, "a_cells.csv")
    assert {(row["c0_max"], row["confidence"]) for row in rows} == {("50", "0.2"), ("150", "0.6"), ("250", "1")}
    assert {row.get("c1_mean") for row in rows} == ({None} if axes == "yx" else {"7"})
    labels = run.outputs["a_labels.tif"]
    assert sorted(np.unique(labels).tolist()) == [0, 1, 2, 3]
    assert (labels[10:20, 45:55] > 0).all()
    for feature in json.loads(run.files["a.geojson"])["features"]:
        mask = labels == feature["properties"]["measurements"]["label"]
        np.testing.assert_array_equal(fill(feature["geometry"]["coordinates"], mask.shape), mask)
