from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from redis_consumer.archives import ResultZip, check_result_zip
from redis_consumer.errors import UnsafeArchive
from support import archives as make


def zip_at(folder: Path, name: str, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    path = folder / name
    path.write_bytes(make.make_zip(members, method))
    return path


def test_members_keep_folders_and_packing(tmp_path: Path) -> None:
    with ResultZip(tmp_path / "all.zip") as result:
        result.add_zip(zip_at(tmp_path, "1.zip", {"plate 1/a.tif": bytes(1000)}))
        result.add_zip(zip_at(tmp_path, "2.zip", {"b.tif": b"xyz"}, zipfile.ZIP_STORED))
        (tmp_path / "t.csv").write_text("table")
        result.add_file(tmp_path / "t.csv", "summary.csv")
    with zipfile.ZipFile(tmp_path / "all.zip") as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == {
            "plate 1/a.tif": bytes(1000), "b.tif": b"xyz", "summary.csv": b"table",
        }  # fmt: skip
        kinds = [entry.compress_type for entry in archive.infolist()]
        assert kinds == [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]
        assert archive.testzip() is None


def test_equal_names_get_numbers(tmp_path: Path) -> None:
    with ResultZip(tmp_path / "all.zip") as result:
        for number in range(3):
            result.add_zip(zip_at(tmp_path, f"{number}.zip", {"x/a.tif": b"%d" % number}))
    with zipfile.ZipFile(tmp_path / "all.zip") as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == {
            "x/a.tif": b"0", "x/a-2.tif": b"1", "x/a-3.tif": b"2",
        }  # fmt: skip


def test_so_do_names_that_are_equal_on_other_disks(tmp_path: Path) -> None:
    with ResultZip(tmp_path / "all.zip") as result:
        for number, name in enumerate(("\u00e9.tif", "e\u0301.tif", "\u00c9.tif")):
            result.add_zip(zip_at(tmp_path, f"{number}.zip", {name: b"x"}))
    with zipfile.ZipFile(tmp_path / "all.zip") as archive:
        assert archive.namelist() == ["\u00e9.tif", "e\u0301-2.tif", "\u00c9-3.tif"]


@pytest.mark.parametrize(
    "data",
    [b"", b"no zip", make.zip_corrupt(), make.zip_with("../a.tif"), make.zip_of_kind(make.LINK), make.zip_flagged(1),
     make.make_zip({"a.tif": bytes(9000)})[:-30]],
    ids=["empty", "no zip", "damaged", "unsafe", "link", "encrypted", "cut off"],
)  # fmt: skip
def test_a_result_that_is_not_sound_is_told(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "r.zip").write_bytes(data)
    with pytest.raises(UnsafeArchive, match=r"^a.tif: "):
        check_result_zip(tmp_path / "r.zip", "a.tif")


def test_a_sound_result_is_taken(tmp_path: Path) -> None:
    check_result_zip(zip_at(tmp_path, "r.zip", {"x/a.tif": b"1"}), "a.tif")
