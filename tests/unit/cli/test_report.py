"""Is the page complete, safe and on its own?"""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from redis_consumer.cli.report import Report, _bins, histogram_svg, write_report

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
