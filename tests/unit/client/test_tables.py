"""Unpacked results, and one table of the cells in several results."""

from __future__ import annotations

import csv
import zipfile
from pathlib import Path

import pytest

from redis_consumer.client.tables import join_tables, unpack_result
from redis_consumer.errors import UnsafeArchive


def packed(path: Path, **members: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in members.items():
            archive.writestr(name.replace("__", "/") + "_cells.csv", text)
        archive.writestr("plate/a_feature_0.tif", b"pixels")
    return path


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("is_unzipped", [False, True])
def test_tables_of_several_results_are_one(tmp_path: Path, is_unzipped: bool) -> None:
    one = packed(tmp_path / "a-result.zip", a="label,area_px\n1,10\n2,20\n")
    many = packed(tmp_path / "p-result.zip", w1__b="label,c1_mean\n1,0.5\n", w2__b="label,area_px\n")
    results = [("=a.tif", one), ("p.zip", many)]
    if is_unzipped:
        results = [(name, unpack_result(path)) for name, path in results]
    assert join_tables(results, tmp_path / "cells.csv") == 3
    assert rows_of(tmp_path / "cells.csv") == [
        {"image": "'=a.tif", "label": "1", "area_px": "10", "c1_mean": ""},
        {"image": "'=a.tif", "label": "2", "area_px": "20", "c1_mean": ""},
        {"image": "p.zip/w1/b", "label": "1", "area_px": "", "c1_mean": "0.5"},
    ]


def test_one_table_is_not_joined(tmp_path: Path) -> None:
    one = packed(tmp_path / "a-result.zip", a="label\n1\n")
    other = packed(tmp_path / "b-result.zip")
    assert join_tables([("a.tif", one), ("b.tif", other)], tmp_path / "cells.csv") == 0
    assert not (tmp_path / "cells.csv").exists()


def test_a_result_is_unpacked_into_a_folder(tmp_path: Path) -> None:
    path = packed(tmp_path / "a-result.zip", a="label\n")
    folder = unpack_result(path)
    assert folder == tmp_path / "a-result"
    assert (folder / "plate" / "a_feature_0.tif").read_bytes() == b"pixels"
    assert not path.exists()


@pytest.mark.parametrize("name", ["../a.txt", "/a.txt"])
def test_a_member_that_leads_out_of_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a-result.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, "x")
    with pytest.raises(UnsafeArchive, match="leads out of its folder"):
        unpack_result(path)
    assert path.exists()
