from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from redis_consumer.reproduce.comparison import compare_images, compare_sums, compare_zips, count_labels

LABELS = np.array([[0, 1, 1], [0, 0, 2]], np.float32)


def tiff(image: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, image, compression="zlib")
    return buffer.getvalue()


def pack(path: Path, **files: Any) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            if isinstance(content, np.ndarray):
                archive.writestr(f"{name}.tif", tiff(content))
            else:
                archive.writestr(name.replace("_", "."), content)
    return path


def test_the_same_pixels_are_identical_whatever_the_zip_says_of_times(tmp_path: Path) -> None:
    old = pack(tmp_path / "a.zip", labels=LABELS, summary_csv=b"1 s", x_gif=b"a", lineage_json=b"{}")
    new = pack(tmp_path / "b.zip", labels=LABELS, summary_csv=b"2 s", x_gif=b"b", lineage_json=b"{}")
    assert [(each.name, each.is_identical) for each in compare_zips(old, new)] == [
        ("labels.tif", True),
        ("lineage.json", True),
    ]


def test_pixels_and_objects_that_differ_are_counted() -> None:
    other = LABELS.copy()
    other[0, 1:] = 0
    found = compare_images("a.tif", LABELS, other)
    assert (found.is_identical, found.pixels, found.total, found.objects) == (False, 2, 6, (2, 1))
    assert found.in_words() == "a.tif: 2 of 6 pixels differ; 2 objects before, 1 now"


def test_of_probabilities_the_largest_difference_is_told() -> None:
    found = compare_images("a.tif", LABELS / 4, LABELS / 4 + 0.125)
    assert (found.objects, found.largest) == (None, 0.125)
    assert found.in_words() == "a.tif: 6 of 6 pixels differ, by 0.125 at most"


def test_no_number_is_the_same_as_no_number() -> None:
    image = np.array([[np.nan, 0.5, 2]], np.float32)
    assert compare_images("a.tif", image, image.copy()).is_identical
    found = compare_images("a.tif", image, np.array([[1, 0.5, 3]], np.float32))
    assert (found.pixels, found.largest) == (2, 1)


@pytest.mark.parametrize(
    "content",
    [b"no image", tiff(LABELS)[:60], tiff(np.zeros((1 << 14, (1 << 14) + 1), np.uint8)), tiff(LABELS.astype(complex))],
)
def test_what_is_no_image_that_fits_is_told_apart_by_its_checksum(tmp_path: Path, content: bytes) -> None:
    old, new = pack(tmp_path / "a.zip", a=LABELS), pack(tmp_path / "b.zip")
    with zipfile.ZipFile(new, "a") as archive:
        archive.writestr("a.tif", content)
    for before, is_identical in ((old, False), (new, True)):
        assert [each.is_identical for each in compare_zips(before, new)] == [is_identical]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ({"a": LABELS}, {"a": LABELS[:1]}, "a.tif: shape (1, 3) now, (2, 3) before"),
        ({"a": LABELS}, {}, "a.tif: missing now"),
        ({}, {"a": LABELS}, "a.tif: new file"),
        ({"a_json": b"1"}, {"a_json": b"2"}, "a.json: the checksum differs"),
    ],
)
def test_what_can_not_be_counted_is_said(tmp_path: Path, old: Any, new: Any, words: str) -> None:
    (found,) = compare_zips(pack(tmp_path / "a.zip", **old), pack(tmp_path / "b.zip", **new))
    assert (found.is_identical, found.in_words()) == (False, words)


def test_checksums_tell_where_the_recorded_result_is_gone(tmp_path: Path) -> None:
    new = pack(tmp_path / "b.zip", a_json=b"1", b_json=b"2")
    entry = zipfile.ZipFile(new).getinfo("a.json")
    recorded = [
        {"name": "a.json", "bytes": 1, "crc32": f"{entry.CRC:08x}"},
        {"name": "b.json", "bytes": 1, "crc32": "00000000"},
    ]
    assert [each.is_identical for each in compare_sums(recorded, new)] == [True, False]
    assert [each.is_identical for each in compare_sums(recorded[:1], new)] == [True, False]
    assert [each.is_identical for each in compare_sums(recorded[:1], new, is_complete=False)] == [True]


@pytest.mark.parametrize(
    ("image", "count"),
    [
        (LABELS, 2),
        (np.stack([LABELS, LABELS]), 4),
        (LABELS / 2, None),
        (-LABELS, None),
        (np.zeros((1, 2)), 0),
        (np.array([[0, 2.0**40, 2.0**40]]), 1),
        (np.array([[0, 2**63]], np.uint64), None),
        (np.array([[0, np.inf]]), None),
    ],
)
def test_labels_are_whole_numbers(image: Any, count: int | None) -> None:
    assert count_labels(image) == count
