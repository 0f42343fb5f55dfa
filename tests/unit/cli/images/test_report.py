"""Label image, overlay and page are made from a result zip; the page is complete, safe, and needs no other files."""

from __future__ import annotations

import re
import zipfile
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import tifffile

from redis_consumer.cli.images.report import (
    Report,
    _bins,
    histogram_svg,
    read_labels,
    write_labels,
    write_report,
    write_results,
)
from redis_consumer.client.submit import Result, Submission
from redis_consumer.client.watch import JobState
from redis_consumer.errors import InvalidImage

FIELDS = {
    "status": "done",
    "model_name": "NuclearSegmentation",
    "model_version": "1",
    "scale": "0.5",
    "download_time": "0.1",
    "prediction_time": "1.5",
    "total_time": "2.0",
    "original_name": "<script>alert(1)</script>",
}


@pytest.fixture
def page(tmp_path: Path) -> str:
    path = tmp_path / "report.html"
    areas = np.array([120, 400, 2500])
    write_report(path, Report("<b>.tif", b"\x89PNG-1", b"\x89PNG-2", areas, "predict:<b>.tif:1", FIELDS, 3.25))
    return path.read_text(encoding="utf-8")


def test_page_says_how_many_objects(page: str) -> None:
    assert "<strong>3</strong><span>objects</span>" in page


def test_page_needs_no_other_file(page: str) -> None:
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(sources) == 2
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert "url(" not in page
    assert "@import" not in page


def test_texts_of_the_job_are_no_markup(page: str) -> None:
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<b>.tif" not in page


def test_page_shows_stages_and_the_rest(page: str) -> None:
    assert "Predict: 1.500 s" in page
    assert "Everything else: 0.400 s" in page


def test_page_shows_the_whole_hash(page: str) -> None:
    assert all(f"<th>{name}</th>" in page for name in FIELDS)


def test_page_is_well_formed(page: str) -> None:
    open_tags: list[str] = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            if tag not in {"meta", "img"}:
                open_tags.append(tag)

        def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            return

        def handle_endtag(self, tag: str) -> None:
            assert open_tags.pop() == tag

    Parser().feed(page)
    assert open_tags == []


@pytest.mark.parametrize("areas", [[1], [7, 7, 7], [1, 100_000], list(range(1, 500))])
def test_histogram_counts_every_object(areas: list[int]) -> None:
    counts, edges = _bins(np.array(areas))
    assert counts.sum() == len(areas)
    assert edges[0] == 0
    assert len(counts) <= 17


def test_histogram_is_a_picture() -> None:
    root = ElementTree.fromstring(histogram_svg(np.array([10, 20, 30])))
    assert len(root.findall("rect")) > 0


def test_histogram_without_objects() -> None:
    assert "No objects" in histogram_svg(np.array([], dtype=np.int64))


@pytest.fixture
def result(tmp_path: Path) -> Result:
    labels = np.zeros((20, 30), np.float32)
    labels[2:6, 2:6], labels[10:15, 10:20] = 1, 3
    tifffile.imwrite(tmp_path / "labels.tif", labels)
    with zipfile.ZipFile(tmp_path / "a-result.zip", "w") as archive:
        archive.write(tmp_path / "labels.tif", "folder/a_feature_0.tif")
    (tmp_path / "labels.tif").unlink()
    state = JobState("predict:a.tif:1", "done", 100)
    return Result(Submission("predict:a.tif:1", tmp_path / "a.tif"), state, tmp_path / "a-result.zip")


def test_results_are_written(tmp_path: Path, result: Result) -> None:
    image = tmp_path / "a.tif"
    tifffile.imwrite(image, np.arange(600, dtype=np.uint16).reshape(20, 30))
    found = write_results(tmp_path, image, result, {"status": "done"}, 1.0)
    assert found == "2 objects in a.tif"
    labels = tifffile.imread(tmp_path / "labels.tif")
    assert (str(labels.dtype), labels.shape) == ("uint16", (20, 30))
    assert np.unique(labels).tolist() == [0, 1, 3]
    assert (tmp_path / "overlay.png").read_bytes().startswith(b"\x89PNG")
    assert "2 objects in a.tif" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_stack_is_said_to_be_one(tmp_path: Path, result: Result) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((5, 20, 30), np.uint8), photometric="minisblack")
    found = write_results(tmp_path, tmp_path / "a.tif", result, {}, 1.0)
    assert found == "2 objects in the first of the 5 planes of a.tif"
    assert f"<title>{found}" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_zip_without_label_image(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("readme.txt", "nothing")
    with pytest.raises(InvalidImage, match=r"a\.zip"):
        read_labels(tmp_path / "a.zip")


def test_many_labels_need_a_wider_type(tmp_path: Path) -> None:
    write_labels(tmp_path / "labels.tif", np.array([[0, 70_000]], np.int32))
    assert tifffile.imread(tmp_path / "labels.tif").tolist() == [[0, 70_000]]
