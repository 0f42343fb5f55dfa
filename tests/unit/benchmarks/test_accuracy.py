"""The accuracy of a model on a folder of images with labels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from benchmarks import accuracy
from scipy import ndimage
from skimage import io
from training.real import rows_of

from redis_consumer.errors import SettingsError


def draw(folder: Path, name: str, radius: int, ending: str = "png") -> None:
    """Write an image of four discs on a dark ground, and its labels."""
    y, x = np.mgrid[: 6 * radius, : 6 * radius]
    centres = [(1.5, 1.5), (1.5, 4.5), (4.5, 1.5), (4.5, 4.5)]
    labels = np.zeros(y.shape, np.uint16)
    for number, (down, right) in enumerate(centres, start=1):
        labels[np.hypot(y - down * radius, x - right * radius) < radius] = number
    grey = 20 + 150 * ndimage.gaussian_filter((labels > 0).astype(float), 1)
    for part, array in {"images": grey.astype(np.uint8), "labels": labels}.items():
        (folder / part).mkdir(exist_ok=True)
        io.imsave(folder / part / f"{name}.{ending}", array, check_contrast=False)


def test_a_folder_without_an_index_is_measured_with_and_without_known_scale(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw(tmp_path, "small", 10)
    draw(tmp_path, "large.day2", 20, "tif")
    (tmp_path / "images/without_labels.png").write_bytes(b"")
    figures = accuracy.measure(tmp_path)
    assert figures["images"] == 2
    for method in ("scale_found", "scale_known", "otsu", "otsu_scale_known"):
        assert figures[method]["objects"] == 8
        assert figures[method]["recall"] >= 0.75
        assert 0.75 <= figures[method]["ap"]["0.5"] <= 1
        assert figures[method]["ap"]["0.9"] <= figures[method]["ap"]["0.5"]
        assert set(figures[method]["by_size"]) == {"15 to 30 px", "30 to 60 px"}
        assert set(figures[method]["by_kind"]) == {"image"}
    assert figures["scale_found"]["scale_within_25_percent"] == 1
    assert "2 of 2: small: 4 objects" in capsys.readouterr().err


def test_an_index_names_kinds_and_ids_decide_the_part(tmp_path: Path) -> None:
    for name in ("0a", "5b"):
        draw(tmp_path, name, 10)
    rows = [{"id": name, "kind": "fluorescence", "median_diameter": 20.0} for name in ("0a", "5b")]
    (tmp_path / "index.json").write_text(json.dumps(rows))
    (image,) = accuracy._images(tmp_path, "held out")
    assert (image.name, image.kind, image.part, image.diameter) == ("0a", "fluorescence", "by id", 20.0)
    assert len(accuracy._images(tmp_path, None)) == 2


def test_folders_and_parts_without_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no image in images/ has labels of the same name"):
        accuracy.measure(tmp_path)
    with pytest.raises(SettingsError, match="missing is no folder"):
        accuracy.measure(tmp_path / "missing")
    draw(tmp_path, "5b", 8)
    with pytest.raises(SettingsError, match="--part: 'others' has no images"):
        accuracy.measure(tmp_path, part="others")
    io.imsave(tmp_path / "labels/5b.png", np.zeros((5, 5, 3), np.uint8), check_contrast=False)
    with pytest.raises(SettingsError, match=r"labels must be \(y, x\) integers of the same size"):
        accuracy.measure(tmp_path)
    assert [row["id"] for row in rows_of(tmp_path)] == ["5b"]
