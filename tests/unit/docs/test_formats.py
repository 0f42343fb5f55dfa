"""Each row of docs/formats is a file that is read with the right pixels, or refused with the right reason."""

from __future__ import annotations

import re
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from redis_consumer.errors import InvalidImage, InvalidJob
from redis_consumer.images import ImageLimits
from redis_consumer.job import Job
from redis_consumer.segmentation.frames import open_frames
from redis_consumer.segmentation.large_image import open_large
from support.formats import COMPRESSIONS, FILES, REFUSED, Array, Case

PAGE = (Path(__file__).parents[3] / "docs" / "formats.rst").read_text()
LIMITS = ImageLimits(max_frames=60)


def rows(title: str) -> list[str]:
    """First cells of the table below a title of the page."""
    section = re.split(r"\n[=-]{3,}\n", PAGE.split(f"\n{title}\n", 1)[1].split("\n", 1)[1])[0]
    return re.findall(r"^   \* - (.+)$", section, re.MULTILINE)[1:]


@pytest.mark.parametrize(
    ("title", "cases"), [("Files", FILES), ("Compressions of TIFF", COMPRESSIONS), ("Refused files", REFUSED)]
)
def test_each_row_has_a_file_and_each_file_a_row(title: str, cases: dict[str, Case]) -> None:
    assert rows(title) == list(cases)


def read(case: Case, folder: Path) -> Array:
    """The first channel of a file, (y, x), read as its job would."""
    path = folder / f"a{case.suffix}"
    case.write(path)
    job = Job("j", {"input_file_name": path.name})
    with open_frames(path, job, LIMITS, takes_parts=True) as frames:
        if frames is not None:
            return frames.all()[0, ..., 0]
        with open_large(path, job, LIMITS) as image:
            return image.read(0, (slice(0, image.shape[1]), slice(0, image.shape[2])))[0, ..., 0]


def check_read(case: Case, folder: Path) -> None:
    assert case.pixels is not None
    np.testing.assert_allclose(read(case, folder), case.pixels, atol=case.tolerance)


@pytest.mark.parametrize("kind", FILES)
def test_files_are_read(kind: str, tmp_path: Path) -> None:
    check_read(FILES[kind], tmp_path)


@pytest.mark.parametrize("kind", COMPRESSIONS)
def test_compressions_are_read(kind: str, tmp_path: Path) -> None:
    check_read(COMPRESSIONS[kind], tmp_path)


@pytest.mark.parametrize("kind", REFUSED)
def test_others_are_refused_by_their_name(kind: str, tmp_path: Path) -> None:
    case = REFUSED[kind]
    with pytest.raises(InvalidImage, match=rf"^a{case.suffix}: .*({case.reason})"):
        read(case, tmp_path)


def orders() -> list[tuple[str, str, str]]:
    """The rows of the table of axis orders."""
    section = PAGE.split("\nAxis orders\n", 1)[1].split("\nCompressions of TIFF\n", 1)[0]
    return re.findall(r"   \* - (.+)\n     - (.+)\n     - (.+)\n", section)[1:]


@pytest.mark.parametrize(("order", "shape", "expected"), orders())
def test_arrays_are_read_in_the_order_of_their_row(order: str, shape: str, expected: str, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(np.prod(sides(shape))).reshape(sides(shape)) % 7)
    fields = {"input_file_name": "a.npy", "dimension_order": "" if order == "empty" else order.strip("`")}
    refused = pytest.raises((InvalidImage, InvalidJob)) if expected == "Refused" else nullcontext()
    with refused, open_frames(tmp_path / "a.npy", Job("j", fields), LIMITS, takes_parts=True) as frames:
        assert frames is not None
        assert frames.shape == sides(expected)


def sides(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(" x ")))
