"""The additional files of a result, for whole frames and by windows."""

from __future__ import annotations

import csv
import json
import zipfile
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from PIL import Image as Pillow
from roifile import ROI_TYPE, ImagejRoi
from scipy import ndimage

from redis_consumer.images.calibration import Calibration
from redis_consumer.outputs import ENDINGS, cells, overlay, rois
from redis_consumer.outputs.cells import LabelImages, Window
from redis_consumer.outputs.files import write_outputs
from support.geojson_schema import FEATURE_COLLECTION
from support.polygons import fill

Array = npt.NDArray[Any]


def blobs(frames: int, side: int = 60, seed: int = 1) -> Array:
    """Label images of many sizes of cells, some with holes and several parts."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random((frames, side, side + 7)), (0, 1.5, 1.5))
    labels = np.stack([ndimage.label(frame > np.quantile(frame, 0.6))[0] for frame in noise])
    labels[:, 1, 1], labels[:, -1, -1] = 1, 1
    labels[:, 30:37, 30:37], labels[:, 33, 33:35] = 900, 0
    return labels.astype(np.uint32)


def images_of(labels: Array, tile_px: int = 0, calibration: Calibration | None = None) -> LabelImages:
    grey = np.random.default_rng(2).normal(500, 20, (*labels.shape, 2)).astype(np.float32)

    def read(frame: int, window: Window) -> Array:
        return np.asarray(labels[frame][window])

    return LabelImages(
        labels.shape,
        read,
        lambda frame, window: grey[frame][window],
        lambda frame, window: grey[frame][window][..., 0],
        tile_px,
        calibration or Calibration().fitting(len(labels)),
    )


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def rois_of(path: Path) -> list[ImagejRoi]:
    found = ImagejRoi.fromfile(path)
    return found if isinstance(found, list) else [found]


def rings_of(roi: ImagejRoi) -> list[Any]:
    return list(roi.coordinates(multi=True)) if roi.composite else [roi.coordinates()]


@pytest.mark.parametrize("tile_px", [0, 16])
def test_rois_and_polygons_fill_the_same_pixels(tmp_path: Path, tile_px: int) -> None:
    labels = blobs(1)
    set_path, geojson = write_outputs(["rois", "geojson"], images_of(labels, tile_px), tmp_path / "a")
    assert (set_path.name, geojson.name) == ("a_rois.zip", "a.geojson")
    found = {int(roi.name): roi for roi in rois_of(set_path)}
    document = json.loads(geojson.read_text("utf-8"))
    features = {feature["properties"]["measurements"]["label"]: feature for feature in document["features"]}
    jsonschema.validate(document, FEATURE_COLLECTION)
    assert set(found) == set(features) == set(np.unique(labels)) - {0}
    for label, roi in found.items():
        mask = labels[0] == label
        np.testing.assert_array_equal(fill(rings_of(roi), mask.shape), mask)
        geometry = features[label]["geometry"]
        polygons = geometry["coordinates"] if geometry["type"] == "MultiPolygon" else [geometry["coordinates"]]
        np.testing.assert_array_equal(fill([ring for polygon in polygons for ring in polygon], mask.shape), mask)
        assert features[label]["properties"]["measurements"]["area_px"] == mask.sum()
    kinds = {
        (geometry["type"], len(geometry["coordinates"]) > 1) for geometry in (f["geometry"] for f in features.values())
    }
    assert kinds == {("Polygon", False), ("Polygon", True), ("MultiPolygon", True)}


def test_windows_give_the_files_of_whole_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels, names = blobs(2), ["rois", "geojson", "table", "labels", "ome", "overlay"]
    whole = write_outputs(names, images_of(labels), tmp_path / "whole")
    monkeypatch.setattr(cells, "_MOST_ROW_AREA", 300)
    monkeypatch.setattr(cells, "_LEAST_ROW_PX", 4)
    assert {side.stop - side.start for side in images_of(labels, 16).rows()[:-1]} == {4}
    parts = write_outputs(names, images_of(labels, 16), tmp_path / "parts")
    table = [sorted((tuple(row.items()) for row in rows_of(files[-1])), key=str) for files in (whole, parts)]
    assert table[0] == table[1]
    features = [sorted(json.loads(path.read_text())["features"], key=str) for path in (whole[-2], parts[-2])]
    assert features[0] == features[1]
    with zipfile.ZipFile(whole[-3]) as one, zipfile.ZipFile(parts[-3]) as other:
        assert {name: one.read(name) for name in one.namelist()} == {
            name: other.read(name) for name in other.namelist()
        }
    for one_path, other_path in zip(whole[:2], parts[:2], strict=True):
        np.testing.assert_array_equal(tifffile.imread(one_path), tifffile.imread(other_path))
        np.testing.assert_array_equal(tifffile.imread(one_path), labels)
    assert whole[2].read_bytes() == parts[2].read_bytes()


def test_the_table_is_in_pixels_and_micrometres(tmp_path: Path) -> None:
    labels = np.zeros((1, 10, 12), np.uint16)
    labels[0, 2:4, 3:8] = 7
    [path] = write_outputs(["table"], images_of(labels, 0, Calibration((), (0.5, 0.5))), tmp_path / "a")
    assert path.name == "a_cells.csv"
    [row] = rows_of(path)
    assert (row["label"], row["frame"], row["area_px"], row["area_um2"]) == ("7", "0", "10", "2.5")
    assert (row["centroid_y_px"], row["centroid_x_um"], row["solidity"], row["touches_border"]) == (
        "2.5",
        "2.5",
        "1",
        "0",
    )
    assert {f"c{c}_{what}" for c in (0, 1) for what in ("mean", "sd", "min", "max", "sum")} <= set(row)


@pytest.mark.parametrize(
    ("sides", "expected"),
    [
        (None, {"area_um2": "", "perimeter_um": "", "centroid_x_um": ""}),
        ((0.5, 1.0), {"area_um2": "5", "perimeter_um": "", "centroid_y_um": "1.25", "centroid_x_um": "5"}),
    ],
)
def test_what_is_not_known_in_micrometres_is_empty(tmp_path: Path, sides: Any, expected: dict[str, str]) -> None:
    labels = np.zeros((1, 10, 12), np.uint16)
    labels[0, 2:4, 3:8] = 7
    [path] = write_outputs(["table"], images_of(labels, 0, Calibration((), sides)), tmp_path / "a")
    [row] = rows_of(path)
    assert {name: row[name] for name in expected} == expected


def test_parquet_holds_the_same_table(tmp_path: Path) -> None:
    from pyarrow import parquet

    csv_path, path = write_outputs(["table", "parquet"], images_of(blobs(2)), tmp_path / "a")
    table = parquet.read_table(path)
    rows = rows_of(csv_path)
    assert table.column_names == list(rows[0])
    assert table["label"].to_pylist() == [int(row["label"]) for row in rows]
    np.testing.assert_allclose(table["c1_sd"].to_numpy(), [float(row["c1_sd"]) for row in rows], rtol=1e-6)


def test_a_stack_says_the_place_of_each_cell(tmp_path: Path) -> None:
    calibration = Calibration((("T", 2), ("Z", 3)), (0.325, 0.325), 2.0, 60.0)
    names = ["labels", "ome", "rois", "geojson", "table"]
    images = images_of(blobs(6), 0, calibration)
    labels, ome, set_path, geojson, table = write_outputs(names, images, tmp_path / "a")
    with tifffile.TiffFile(labels) as tif:
        assert (tif.series[0].axes, tif.series[0].shape, tif.series[0].dtype) == ("TZYX", (2, 3, 60, 67), np.uint16)
        assert tif.imagej_metadata is not None
        assert {name: tif.imagej_metadata[name] for name in ("spacing", "finterval", "unit")} == {
            "spacing": 2.0,
            "finterval": 60.0,
            "unit": "um",
        }
    with tifffile.TiffFile(ome) as tif:
        assert (tif.series[0].axes, tif.series[0].shape) == ("TZYX", (2, 3, 60, 67))
        for text in ('PhysicalSizeX="0.325"', 'PhysicalSizeZ="2.0"', 'TimeIncrement="60.0"', 'Name="labels"'):
            assert text in (tif.ome_metadata or "")
    last = rows_of(table)[-1]
    assert (last["frame"], last["t"], last["z"]) == ("5", "1", "2")
    roi = rois_of(set_path)[-1]
    assert (roi.z_position, roi.t_position) == (3, 2)
    planes = [feature["geometry"]["plane"] for feature in json.loads(geojson.read_text())["features"]]
    assert planes[-1] == {"c": -1, "z": 2, "t": 1}


def test_rois_of_a_stack_of_one_axis_have_its_position(tmp_path: Path) -> None:
    [path] = write_outputs(["rois"], images_of(blobs(2), 0, Calibration((("Z", 2),))), tmp_path / "a")
    assert {roi.position for roi in rois_of(path)} == {1, 2}
    with zipfile.ZipFile(path) as archive:
        assert {"0001-0001.roi", "0002-0001.roi"} <= set(archive.namelist())


def test_many_rois_are_several_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rois, "MOST_ROIS", 10)
    labels = blobs(1)
    paths = write_outputs(["rois"], images_of(labels), tmp_path / "a")
    assert [path.name for path in paths][:2] == ["a_rois.zip", "a_rois_2.zip"]
    names = [name for path in paths for name in zipfile.ZipFile(path).namelist()]
    assert len(names) == len(set(names)) == len(np.unique(labels)) - 1


def test_coordinates_beyond_16_bits_are_exact() -> None:
    far = np.array([[40_000, 50_001], [40_003, 50_001], [40_003, 50_004], [40_000, 50_004]])
    roi = ImagejRoi.frombytes(rois.roi_of([[far]], "1", None))
    assert (roi.roitype, np.asarray(roi.coordinates()).tolist()) == (ROI_TYPE.TRACED, far.tolist())
    with_hole = ImagejRoi.frombytes(rois.roi_of([[far, far[::-1]]], "1", None))
    assert with_hole.composite
    assert [ring[:4].tolist() for ring in with_hole.coordinates(multi=True)] == [far.tolist(), far[::-1].tolist()]


def test_labels_above_16_bits_are_uint32(tmp_path: Path) -> None:
    labels = np.array([[[0, 70_000]]], np.uint32)
    for path in write_outputs(["labels", "ome"], images_of(labels), tmp_path / "a"):
        pixels = tifffile.imread(path)
        assert pixels.dtype == np.uint32
        assert pixels.tolist() == [[0, 70_000]]


def test_a_large_plane_has_levels(tmp_path: Path) -> None:
    labels = np.zeros((1, 2100, 600), np.uint16)
    labels[0, 1000:1100, 200:300] = 5
    [path] = write_outputs(["ome"], images_of(labels, 512), tmp_path / "a")
    with tifffile.TiffFile(path) as tif:
        levels = tif.series[0].levels
        assert [level.shape for level in levels] == [(2100, 600), (1050, 300)]
        np.testing.assert_array_equal(levels[1].asarray(), labels[0, ::2, ::2])


def test_a_large_overlay_shows_every_other_pixel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlay, "MOST_PX", 40)
    [path] = write_outputs(["overlay"], images_of(blobs(1)), tmp_path / "a")
    with Pillow.open(path) as picture:
        assert picture.size == (34, 30)


def test_label_images_after_the_first_have_their_number_in_their_names(tmp_path: Path) -> None:
    paths = write_outputs(list(ENDINGS), images_of(blobs(1)), tmp_path / "a", number=1)
    assert {path.name for path in paths} == {f"a_1{ending}" for ending in ENDINGS.values()}


def test_without_cells_all_files_are_empty_but_valid(tmp_path: Path) -> None:
    paths = write_outputs(list(ENDINGS), images_of(np.zeros((1, 20, 30), np.uint16)), tmp_path / "a")
    assert [path.name for path in paths] == [
        f"a{ENDINGS[name]}" for name in ("labels", "ome", "overlay", "rois", "geojson", "table", "parquet")
    ]
    assert json.loads(paths[4].read_text()) == {"type": "FeatureCollection", "features": []}
    assert zipfile.ZipFile(paths[3]).namelist() == []
    assert paths[5].read_text().startswith("label,frame,area_px,")
