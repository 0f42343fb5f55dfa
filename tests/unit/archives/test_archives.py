from __future__ import annotations

import io
import os
import re
import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from redis_consumer.archives import cd, get_image_files_from_dir, get_tempdir, iter_image_archive, zip_files
from redis_consumer.errors import InvalidJob, PermanentError, UnsafeArchive


def make_files(folder: Path, *names: str) -> list[str]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"content of {name}")
    return [str(folder / name) for name in names]


def make_archive(path: Path, *members: str | zipfile.ZipInfo) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for member in members:
            archive.writestr(member, "pixels")
    return path


def link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


def test_archive_has_a_digest_for_a_name_and_members_relative_to_its_folder(tmp_path: Path) -> None:
    path = zip_files(make_files(tmp_path, "a.tif", "well/b.tif"), tmp_path)
    assert re.fullmatch(r"[0-9a-f]{32}\.zip", os.path.basename(path))
    assert os.path.dirname(path) == str(tmp_path)
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["a.tif", "well/b.tif"]
        assert archive.read("well/b.tif") == b"content of well/b.tif"
        assert {member.compress_type for member in archive.infolist()} == {zipfile.ZIP_DEFLATED}


@pytest.mark.parametrize(
    ("content", "method"),
    [
        (np.random.default_rng(1).random((256, 256), np.float32).tobytes(), zipfile.ZIP_STORED),
        (np.repeat(np.arange(256 * 16, dtype=np.float32), 16).tobytes(), zipfile.ZIP_DEFLATED),
    ],
    ids=["probabilities", "labels"],
)
def test_only_what_becomes_much_smaller_is_packed(tmp_path: Path, content: bytes, method: int) -> None:
    (tmp_path / "a.tif").write_bytes(content)
    with zipfile.ZipFile(zip_files([tmp_path / "a.tif"], tmp_path)) as archive:
        (member,) = archive.infolist()
        assert member.compress_type == method
        assert stat.S_IMODE(member.external_attr >> 16) == stat.S_IMODE((tmp_path / "a.tif").stat().st_mode)
        assert archive.read(member) == content


def test_prefix_stands_before_the_digest(tmp_path: Path) -> None:
    path = zip_files(make_files(tmp_path, "a.tif"), tmp_path, "cells")
    assert re.fullmatch(r"cells_[0-9a-f]{32}\.zip", os.path.basename(path))


def test_exact_name(tmp_path: Path) -> None:
    assert zip_files(make_files(tmp_path, "a.tif"), str(tmp_path), name="b.zip") == str(tmp_path / "b.zip")


def test_two_archives_never_share_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time_ns", lambda: 1)
    files = make_files(tmp_path, "a.tif")
    assert zip_files(files, tmp_path) != zip_files(files, tmp_path)


def test_folder_defaults_to_what_the_files_have_in_common(tmp_path: Path) -> None:
    path = zip_files(make_files(tmp_path, "x/a.tif", "x/y/b.tif"))
    assert os.path.dirname(path) == str(tmp_path / "x")
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["a.tif", "y/b.tif"]


def test_a_file_listed_twice_is_packed_once(tmp_path: Path) -> None:
    with zipfile.ZipFile(zip_files(make_files(tmp_path, "a.tif") * 2, tmp_path)) as archive:
        assert archive.namelist() == ["a.tif"]


def test_no_files_is_an_error_in_words(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match="no files to pack"):
        zip_files([], tmp_path)


def test_a_missing_file_raises_and_leaves_no_archive(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        zip_files([*make_files(tmp_path, "a.tif"), tmp_path / "b.tif"], tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["a.tif"]


def test_a_file_outside_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(ValueError, match="is outside"):
        zip_files(make_files(tmp_path, "a.tif"), tmp_path / "x")


@pytest.mark.parametrize("prefix", ["a/b", "..\\a"])
def test_a_prefix_with_folders_is_refused(tmp_path: Path, prefix: str) -> None:
    with pytest.raises(InvalidJob, match="not a plain file name"):
        zip_files(make_files(tmp_path, "a.tif"), tmp_path, prefix)


def test_unpacks_all_and_yields_images_only(tmp_path: Path) -> None:
    members = ("a.tif", "well/b.PNG", "README", ".DS_Store", "__MACOSX/a.tif", "well/__MACOSX/._b.PNG")
    path = make_archive(tmp_path / "a.zip", *members, "empty.d/")
    out = tmp_path / "out"
    assert list(iter_image_archive(path, out)) == [str(out / "a.tif"), str(out / "well" / "b.PNG")]
    assert all((out / member).is_file() for member in members)


def test_round_trip(tmp_path: Path) -> None:
    files = make_files(tmp_path / "in", "a.tif", "b/c.tif")
    unpacked = list(iter_image_archive(zip_files(files, tmp_path / "in"), str(tmp_path / "out")))
    assert [Path(path).read_text() for path in unpacked] == ["content of a.tif", "content of b/c.tif"]


@pytest.mark.parametrize(
    ("member", "part"),
    [
        ("../a.tif", "leads out"),
        ("b/../../a.tif", "leads out"),
        ("/a.tif", "leads out"),
        ("b\\..\\a.tif", "leads out"),
        ("C:/a.tif", "leads out"),
        (".", "leads out"),
        (link("a.tif"), "is a link"),
        ("b" * 300 + ".tif", "too long a name"),
    ],
    ids=["parent", "deep parent", "absolute", "backslash", "drive", "dot", "link", "long"],
)
def test_unsafe_members_are_refused(tmp_path: Path, member: str | zipfile.ZipInfo, part: str) -> None:
    path = make_archive(tmp_path / "a.zip", member)
    with pytest.raises(UnsafeArchive, match=rf"^a\.zip: .*{part}"):
        list(iter_image_archive(path, tmp_path / "out"))
    assert not list((tmp_path / "out").rglob("*"))


@pytest.mark.parametrize("members", [("a", "a/b.tif"), ("a/b.tif", "a")])
def test_members_in_each_others_way_are_refused(tmp_path: Path, members: tuple[str, str]) -> None:
    with pytest.raises(UnsafeArchive, match="both a file and a folder"):
        list(iter_image_archive(make_archive(tmp_path / "a.zip", *members), tmp_path / "out"))


def test_two_members_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        path = make_archive(tmp_path / "a.zip", "a.tif", "a.tif")
    with pytest.raises(UnsafeArchive, match="two files with the same name"):
        list(iter_image_archive(path, tmp_path / "out"))


def test_a_bomb_is_stopped_while_it_unpacks(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for index in range(3):
            archive.writestr(f"{index}.tif", b"\0" * 4_000_000)
    with pytest.raises(UnsafeArchive, match="unpacks to more"):
        list(iter_image_archive(tmp_path / "a.zip", tmp_path / "out", max_bytes=5_000_000))
    assert sum(file.stat().st_size for file in (tmp_path / "out").iterdir()) <= 5_000_000


def test_an_encrypted_member_is_refused(tmp_path: Path) -> None:
    path = make_archive(tmp_path / "a.zip", "a.tif")
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(UnsafeArchive, match="encrypted"):
        list(iter_image_archive(path, tmp_path / "out"))


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut off"])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(UnsafeArchive, match=r"^a\.zip: isn't a readable zip"):
        list(iter_image_archive(tmp_path / "a.zip", tmp_path / "out"))


def whole_archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.tif", "pixels" * 9)
        archive.writestr("b/c.tif", "pixels")
    return buffer.getvalue()


@given(position=st.integers(0, 400), change=st.binary(min_size=1, max_size=6))
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_archive_gives_files_inside_or_a_refusal(tmp_path: Path, position: int, change: bytes) -> None:
    whole = whole_archive()
    at = position % len(whole)
    (tmp_path / "a.zip").write_bytes(whole[:at] + change + whole[at + len(change) :])
    try:
        with get_tempdir() as out:
            assert all(Path(out) in Path(path).parents for path in iter_image_archive(tmp_path / "a.zip", out))
    except UnsafeArchive:
        pass
    assert os.listdir(tmp_path) == ["a.zip"]


def test_files_of_an_archive_live_as_long_as_the_generator(tmp_path: Path) -> None:
    files = get_image_files_from_dir(make_archive(tmp_path / "a.zip", "a.tif", "b.tif"))
    first = Path(next(files))
    assert first.read_text() == "pixels"
    files.close()  # type: ignore[attr-defined]
    assert not first.exists()


def test_files_of_an_archive_go_where_they_are_wanted(tmp_path: Path) -> None:
    path = make_archive(tmp_path / "a.zip", "a.tif")
    assert list(get_image_files_from_dir(path, tmp_path / "out")) == [str(tmp_path / "out" / "a.tif")]


def test_a_single_file_stands_for_itself(tmp_path: Path) -> None:
    (path,) = make_files(tmp_path, "a.tif")
    assert list(get_image_files_from_dir(path)) == [path]


def test_a_folder_stands_for_its_images(tmp_path: Path) -> None:
    make_files(tmp_path, "b/c.tif", "a.tif", "README")
    assert list(get_image_files_from_dir(tmp_path)) == [str(tmp_path / "a.tif"), str(tmp_path / "b" / "c.tif")]


def test_tempdir_is_deleted_and_nobody_moves(tmp_path: Path) -> None:
    before = os.getcwd()
    with get_tempdir() as folder:
        assert os.getcwd() == before
        make_files(Path(folder), "a/b.tif")
    assert not os.path.exists(folder)


def test_cd_goes_back_and_cleans_up_after_an_error(tmp_path: Path) -> None:
    before, cleaned = os.getcwd(), []
    (tmp_path / "x").mkdir()

    def fail_inside() -> None:
        with cd(tmp_path / "x", lambda: cleaned.append(True)):
            assert os.path.samefile(os.getcwd(), tmp_path / "x")
            raise KeyError

    with pytest.raises(KeyError):
        fail_inside()
    assert (os.getcwd(), cleaned) == (before, [True])


def test_a_member_without_a_name_is_refused(tmp_path: Path) -> None:
    path = make_archive(tmp_path / "a.zip", "a.tif")
    path.write_bytes(path.read_bytes().replace(b"a.tif", b"\0.tif"))  # a name ends at its first zero byte
    with pytest.raises(UnsafeArchive, match="leads out of its folder"):
        list(iter_image_archive(path, tmp_path / "out"))
