from __future__ import annotations

from pathlib import PurePosixPath

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redis_consumer.consumers.results import MAX_FOLDERS, MAX_PART_BYTES, count_objects, result_stem, shown_name


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("HeLa.tif", "HeLa"),
        ("plate 1/well A,3/HeLa cell.ome.tif", "plate 1/well A,3/HeLa cell.ome"),
        ("/absolute/a.tif", "absolute/a"),
        ("../../etc/passwd", "etc/passwd"),
        ("..tif", "image"),
        ("...", "image"),
        ("", "image"),
        ("a\0b\n.tif", "ab"),
        ("caf\udce9.tif", "caf"),
    ],
)
def test_names_stay_what_they_are_where_they_may(name: str, stem: str) -> None:
    assert result_stem(name) == PurePosixPath(stem)


def test_a_long_name_is_cut_between_characters() -> None:
    assert result_stem("日" * 300 + ".tif").name == "日" * (MAX_PART_BYTES // 3)


@pytest.mark.parametrize(("name", "shown"), [("a/b\0.tif", "b.tif"), ("", "image"), ("x" * 300, "x" * 200)])
def test_messages_show_a_name_of_one_line(name: str, shown: str) -> None:
    assert shown_name(name) == shown


@given(st.text())
def test_any_name_gives_a_short_path_inside_the_result(name: str) -> None:
    stem = result_stem(name)
    assert not stem.is_absolute()
    assert len(stem.parts) <= MAX_FOLDERS + 1
    for part in stem.parts:
        assert part not in ("", ".", "..")
        assert len(part.encode()) <= MAX_PART_BYTES


@pytest.mark.parametrize("label", [5, 1 << 40, (1 << 64) - 1])
def test_labels_are_counted_however_high_they_are(label: int) -> None:
    labels = np.zeros((1, 2, 2, 1), np.uint64)
    labels[0, 0, :, 0] = label
    assert count_objects(labels) == {"objects": 1}
