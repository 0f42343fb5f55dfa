"""A corpus of good, odd and hostile archives: each one is taken or refused in words, and nothing leaves the folder."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from redis_consumer.archives import ArchiveLimits, iter_members
from redis_consumer.errors import UnsafeArchive
from support import archives as make

TIF = make.TIF
MIB = 1 << 20
LIMITS = ArchiveLimits(max_bytes=20 * MIB, max_members=50)

REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    # Not archives.
    "empty file": (lambda: b"", "isn't a readable archive"),
    "text": (lambda: b"hello", "isn't a readable archive"),
    "an image": (lambda: TIF, "isn't a readable archive"),
    "7z": (lambda: b"7z\xbc\xaf\x27\x1c" + bytes(200), "is a 7z file, which can't be read"),
    "zip magic only": (lambda: b"PK\x03\x04", "isn't a readable archive"),
    "zip cut off": (lambda: make.make_zip({"a.tif": bytes(9000)})[:-30], "isn't a readable archive"),
    "zip whose directory lies before the file": (
        lambda: make.make_zip({"a.tif": TIF})[-22:], "isn't a readable archive",
    ),
    "zip with a damaged directory": (
        lambda: make.make_zip({"a.tif": TIF}).replace(b"PK\x01\x02", b"PK\x01\x03"), "isn't a readable archive",
    ),
    "empty tar": (lambda: make.make_tar({}), "isn't a readable archive"),
    "gzip of no tar": (lambda: gzip.compress(b"hello" * 999), "isn't a readable archive"),
    "gzip cut off": (lambda: make.make_tar({"a.tif": bytes(range(256)) * 99}, "w:gz")[:200], "is damaged|isn't a read"),
    "gzip with a wrong checksum": (lambda: make.make_tar({"a.tif": TIF}, "w:gz")[:-8] + bytes(8), "isn't a readable"),
    "tar cut off in a file": (lambda: make.make_tar({"a.tif": bytes(9000)})[:5000], "is damaged|isn't a readable"),
    "tar cut off between files": (
        lambda: make.make_tar({"a.tif": TIF, "b.tif": TIF}, form=tarfile.USTAR_FORMAT)[:1024], "isn't a readable",
    ),
    "tar with a damaged second header": (make.tar_corrupt_header, "isn't a readable"),
    "tar followed by something": (lambda: make.make_tar({"a.tif": TIF}) + b"x" * 10240, "isn't a readable"),
    # Names.
    "zip ..": (lambda: make.zip_with("../a.tif"), "leads out of its folder"),
    "zip inner ..": (lambda: make.zip_with("x/../../a.tif"), "leads out of its folder"),
    "zip absolute": (lambda: make.zip_with("/etc/a.tif"), "leads out of its folder"),
    "zip drive": (lambda: make.zip_with("C:\\a.tif"), "leads out of its folder"),
    "zip backslash ..": (lambda: make.zip_with("..\\..\\a.tif"), "leads out of its folder"),
    "zip share": (lambda: make.zip_with("\\\\server\\a.tif"), "leads out of its folder"),
    "zip without a name": (lambda: make.zip_with(""), "leads out of its folder"),
    "zip dot": (lambda: make.zip_with("."), "leads out of its folder"),
    "zip long name": (lambda: make.zip_with("x" * 2000 + ".tif"), "too long a name"),
    "tar ..": (lambda: make.make_tar({"../a.tif": TIF}), "leads out of its folder"),
    "tar absolute": (lambda: make.make_tar({"/etc/a.tif": TIF}), "leads out of its folder"),
    "tar.gz ..": (lambda: make.make_tar({"x/../../a.tif": TIF}, "w:gz"), "leads out of its folder"),
    "zip twice the same name": (lambda: _twice(), "two files with the name"),
    "zip twice the same name in two ways": (
        lambda: make.make_zip([("x/a.tif", TIF), ("./x//a.tif", TIF)]), "two files with the name",
    ),
    "tar twice the same name": (lambda: _tar_twice(), "two files with the name"),
    # Kinds.
    "zip link": (lambda: make.zip_of_kind(make.LINK), "is a link"),
    "zip device": (lambda: make.zip_of_kind(make.CHARACTER_DEVICE), "is a device"),
    "zip fifo": (lambda: make.zip_of_kind(make.FIFO), "is a device"),
    "zip socket": (lambda: make.zip_of_kind(make.SOCKET), "is a device"),
    "tar symbolic link": (lambda: make.tar_of_kind(tarfile.SYMTYPE), "is a link"),
    "tar hard link": (lambda: make.tar_of_kind(tarfile.LNKTYPE, "a.tif"), "is a link"),
    "tar character device": (lambda: make.tar_of_kind(tarfile.CHRTYPE), "is a device"),
    "tar block device": (lambda: make.tar_of_kind(tarfile.BLKTYPE), "is a device"),
    "tar fifo": (lambda: make.tar_of_kind(tarfile.FIFOTYPE), "is a device"),
    "zip link, and a file behind it": (make.zip_through_link, "'x' is a link"),
    "tar link, and a file behind it": (
        lambda: _tar_through_link(),
        "'x' is a link",
    ),
    "tar of an unknown kind": (lambda: make.tar_of(make.tar_block("a.tif", b"Z", TIF)), "is a device"),
    "tar with holes": (lambda: make.tar_of_kind(tarfile.GNUTYPE_SPARSE), "is a sparse file"),
    "tar with holes, by its extended header": (
        lambda: make.tar_extended({"GNU.sparse.size": "99999999999", "GNU.sparse.map": "0,10"}), "is a sparse file",
    ),
    # What a second header says.
    "tar .. by its extended header": (lambda: make.tar_extended({"path": "../../a.tif"}), "leads out of its folder"),
    "tar with a NUL in a name": (lambda: make.tar_extended({"path": "a\0b.tif"}), "has a NUL in its name"),
    "tar with a size by its extended header": (lambda: make.tar_extended({"size": str(1 << 40)}), "is damaged"),
    "tar with a size below zero": (lambda: make.tar_extended({"size": "-512"}), "isn't a readable"),
    "tar with a number without end": (
        lambda: make.tar_of(make.tar_block("x", tarfile.XHDTYPE, b"1" * (MIB - 10240))), "isn't a readable",
    ),
    "tar with such a number for all": (
        lambda: make.tar_of(make.tar_block("x", tarfile.XGLTYPE, b"1" * (MIB - 10240))), "isn't a readable",
    ),
    "tar of headers upon headers": (
        lambda: make.tar_of(*[make.tar_block("L", tarfile.GNUTYPE_LONGNAME, b"a.tif\0")] * 900), "isn't a readable",
    ),
    "zip whose zip64 record lies": (lambda: make.zip_with_zip64(1 << 60), "isn't a readable"),
    "zip whose zip64 record has less": (lambda: make.zip_with_zip64(10), "isn't a readable"),
    "zip with a directory cut short": (lambda: make.zip_patched(b"PK\x05\x06", 12, "<L", 20), "isn't a readable"),
    "zip with a member behind its end": (
        lambda: make.zip_patched(b"PK\x01\x02", 42, "<L", 0x7FFFFFFF), "is damaged",
    ),
    "zip with another name in the member": (
        lambda: make.make_zip({"a.tif": TIF}).replace(b"a.tif", b"b.txt", 1), "is damaged",
    ),
    "zip followed by more than a comment": (
        lambda: make.make_zip({"a.tif": TIF}) + b"x" * (1 << 17), "isn't a readable",
    ),
    "gzip followed by something": (lambda: make.make_tar({"a.tif": TIF}, "w:gz") + b"x" * 99, "isn't a readable"),
    "gzip of gzip": (lambda: gzip.compress(make.make_tar({"a.tif": TIF}, "w:gz")), "isn't a readable"),
    # Packed in ways that aren't read.
    "encrypted": (lambda: make.zip_flagged(0x1), "is encrypted"),
    "strongly encrypted": (lambda: make.zip_flagged(0x41), "is encrypted"),
    "packed by LZMA": (lambda: make.make_zip({"a.tif": TIF}, zipfile.ZIP_LZMA), "is packed by method 14"),
    "packed by an unknown method": (lambda: make.zip_method(99), "is packed by method 99"),
    "damaged": (make.zip_corrupt, "is damaged"),
    "a size that is no size": (lambda: make.tar_saying_size(-4096), "isn't a readable"),
    "a size that isn't there": (lambda: make.tar_saying_size(1 << 32), "is damaged|isn't a readable|more than the"),
    # Too much.
    "zip bomb": (lambda: make.make_zip({"a.tif": bytes(21 * MIB)}), "unpacks to more than the"),
    "zip bomb of many": (
        lambda: make.make_zip({f"{number}.tif": bytes(MIB) for number in range(21)}), "unpacks to more than the",
    ),
    "zip bomb of overlapping entries": (lambda: make.zip_overlapping(30, MIB), "unpacks to more than the|is damaged"),
    "tar.gz bomb": (lambda: make.gzip_bomb(21 * MIB), "unpacks to more than the"),
    "tar.gz bomb in what is skipped": (
        lambda: make.make_tar({"a.txt": bytes(21 * MIB)}, "w:gz"), "unpacks to more than the",
    ),
    "a member that is larger than it says": (make.zip_lying_about_size, "is damaged"),
    "zip of too many": (lambda: make.make_zip({f"{n}.tif": TIF for n in range(51)}), "more than the 50 files"),
    "tar of too many": (lambda: make.make_tar({f"{n}.txt": TIF for n in range(51)}), "more than the 50 files"),
    "tar of too many folders": (lambda: _tar_of_folders(60), "more than the 50 files"),
    "zip that counts wrongly": (lambda: _miscounted(make.make_zip({f"{n}.tif": TIF for n in range(60)})), "more than"),
    "tar with an endless name": (lambda: make.tar_long_name(3 * MIB), "header of more than 1 MiB"),
}  # fmt: skip

TAKEN: dict[str, tuple[Callable[[], bytes], list[str]]] = {
    "zip": (lambda: make.make_zip({"a.tif": TIF, "plate 1/b.TIF": TIF}), ["a.tif", "plate 1/b.TIF"]),
    "zip, stored": (lambda: make.make_zip({"a.tif": TIF}, zipfile.ZIP_STORED), ["a.tif"]),
    "zip, bzip2": (lambda: make.make_zip({"a.tif": TIF}, zipfile.ZIP_BZIP2), ["a.tif"]),
    "zip with something before it": (lambda: b"PK\x03\x04junk" * 9 + make.make_zip({"a.tif": TIF}), ["a.tif"]),
    "zip with a comment": (lambda: make.zip_commented(b"of the microscope"), ["a.tif"]),
    "zip with the longest comment": (lambda: make.zip_commented(b"x" * 65535), ["a.tif"]),
    "zip with an end in its comment": (lambda: make.zip_commented(b"PK\5\6" + bytes(40)), []),
    "zip followed by something": (lambda: make.make_zip({"a.tif": TIF}) + b"x" * 99, ["a.tif"]),
    "empty zip": (lambda: make.make_zip({}), []),
    "tar": (lambda: make.make_tar({"a.tif": TIF, "d/b.tif": TIF}), ["a.tif", "d/b.tif"]),
    "tar, GNU": (lambda: make.make_tar({"a.tif": TIF, "x" * 200 + ".tif": TIF}, form=tarfile.GNU_FORMAT),
                 ["a.tif", "x" * 200 + ".tif"]),
    "tar, old": (lambda: make.make_tar({"a.tif": TIF}, form=tarfile.USTAR_FORMAT), ["a.tif"]),
    "tar.gz": (lambda: make.make_tar({"a.tif": TIF}, "w:gz"), ["a.tif"]),
    "tar.gz in several streams": (lambda: _in_streams(make.make_tar({"a.tif": TIF})), ["a.tif"]),
    "folders of Windows": (lambda: make.zip_with("plate 1\\a.tif"), ["plate 1/a.tif"]),
    "here": (lambda: make.make_tar({"./a.tif": TIF}), ["a.tif"]),
    "a colon": (lambda: make.zip_with("12:30/a.tif"), ["12:30/a.tif"]),
    "umlauts": (lambda: make.make_zip({"Präparat/ä.tif": TIF}), ["Präparat/ä.tif"]),
    "umlauts in the encoding of DOS": (lambda: _dos_name(), ["├ñ.tif"]),
    "a tar's name that isn't UTF-8": (lambda: _latin_tar(), ["?.tif"]),
    "a control character": (lambda: make.make_tar({"a\nb.tif": TIF}), ["a\nb.tif"]),
    "a name like an option": (lambda: make.make_zip({"-rf.tif": TIF, "$(x).tif": TIF}), ["-rf.tif", "$(x).tif"]),
    "what a Mac puts in": (
        lambda: make.make_zip({"a.tif": TIF, "__MACOSX/._a.tif": TIF, "._a.tif": TIF, ".DS_Store": b"x"}), ["a.tif"],
    ),
    "what Windows puts in": (lambda: make.make_zip({"a.tif": TIF, "Thumbs.db": b"x", "desktop.ini": b"y"}), ["a.tif"]),
    "names that differ by case": (lambda: make.make_zip({"a.tif": TIF, "A.TIF": TIF}), ["a.tif", "A.TIF"]),
    "names that differ by how an accent is written": (
        lambda: make.make_zip({"\u00e9.tif": TIF, "e\u0301.tif": TIF}), ["\u00e9.tif", "e\u0301.tif"],
    ),
    "names of Windows' devices": (
        lambda: make.make_zip({"CON.tif": TIF, "LPT1/nul.tif": TIF}), ["CON.tif", "LPT1/nul.tif"],
    ),
    "a file and a folder of one name": (
        lambda: make.make_zip({"a.tif": TIF, "a.tif/b.tif": TIF}), ["a.tif", "a.tif/b.tif"],
    ),
    "folders": (lambda: make.make_zip([("x/", b""), ("x/a.tif", TIF)]), ["x/a.tif"]),
}  # fmt: skip


def _tar_through_link() -> bytes:
    link = make.tar_block("x", tarfile.SYMTYPE, linkname="/tmp")
    return make.tar_of(link, make.tar_block("x/a.tif", tarfile.REGTYPE, TIF))


def _twice() -> bytes:
    return make.make_zip([("a.tif", TIF), ("b.tif", TIF)]).replace(b"b.tif", b"a.tif")


def _tar_twice() -> bytes:
    once = make.make_tar({"a.tif": TIF}, form=tarfile.USTAR_FORMAT)
    return once[:1024] + once


def _tar_of_folders(count: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for number in range(count):
            entry = tarfile.TarInfo(str(number))
            entry.type = tarfile.DIRTYPE
            archive.addfile(entry)
    return buffer.getvalue()


def _miscounted(data: bytes) -> bytes:
    """A zip whose end record counts one member only."""
    at = data.rindex(b"PK\x05\x06")
    return data[: at + 8] + b"\1\0\1\0" + data[at + 12 :]


def _in_streams(tar: bytes) -> bytes:
    return make.concatenated(tar[:600], tar[600:])


def _dos_name() -> bytes:
    """What is UTF-8, without the flag that says so."""
    data = bytearray(make.make_zip({"ä.tif": TIF}))
    for magic, offset in ((b"PK\x03\x04", 7), (b"PK\x01\x02", 9)):
        data[data.index(magic) + offset] &= 0xF7
    return bytes(data)


def _latin_tar() -> bytes:
    return make.make_tar({"\udce4.tif": TIF}, form=tarfile.GNU_FORMAT)


def only_tif(name: str) -> str:
    return "" if name.lower().endswith(".tif") else "is no image"


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "a" / "b" / "work"
    folder.mkdir(parents=True)
    return folder


def unpack(data: bytes, work: Path, limits: ArchiveLimits = LIMITS) -> list[str]:
    """Names of the images; each file that was unpacked is looked at and removed."""
    archive = work.parent / "archive"
    archive.write_bytes(data)
    names = []
    for member in iter_members(archive, work, label="cells.zip", why_skipped=only_tif, limits=limits):
        if member.path is not None:
            assert member.path.read_bytes() == TIF
            member.path.unlink()
            names.append(member.name)
    return names


def outside(work: Path) -> list[Path]:
    """Files that lie where none should be."""
    root = work.parents[1]
    return [path for path in root.rglob("*") if path.is_file() and work not in path.parents and path.name != "archive"]


@pytest.mark.parametrize("case", REFUSED)
def test_hostile_archives_are_refused_in_words(case: str, work: Path) -> None:
    data, reason = REFUSED[case]
    with pytest.raises(UnsafeArchive, match=reason) as caught:
        _drain(data(), work)
    assert str(caught.value).startswith("cells.zip: ")
    assert "; " in str(caught.value)
    assert outside(work) == []


def _drain(data: bytes, work: Path, limits: ArchiveLimits = LIMITS) -> None:
    archive = work.parent / "archive"
    archive.write_bytes(data)
    for member in iter_members(archive, work, label="cells.zip", why_skipped=only_tif, limits=limits):
        if member.path is not None:
            member.path.unlink()


def words_of(data: bytes, work: Path) -> str:
    """Why an archive is refused; what one that is taken says is as good."""
    for path in work.iterdir():
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    try:
        _drain(data, work)
    except UnsafeArchive as error:
        return str(error)
    return "cells.zip: "


@pytest.mark.parametrize("case", TAKEN)
def test_odd_archives_are_taken(case: str, work: Path) -> None:
    data, names = TAKEN[case]
    assert unpack(data(), work) == names
    assert outside(work) == []


def test_what_is_skipped_is_named(work: Path) -> None:
    archive = work / "archive"
    archive.write_bytes(make.make_zip({"notes.txt": b"x", "a.tif": TIF, "empty.tif": b""}))
    found = list(iter_members(archive, work, label="cells.zip", why_skipped=only_tif))
    assert [(member.name, member.reason) for member in found] == [
        ("notes.txt", "is no image"), ("a.tif", ""), ("empty.tif", "is empty"),
    ]  # fmt: skip


def test_a_small_archive_may_not_unpack_to_hundreds_of_times_its_size(work: Path) -> None:
    data = make.make_zip({f"{n}.tif": bytes(64 * MIB) for n in range(5)})
    with pytest.raises(UnsafeArchive, match="200 times its size"):
        _drain(data, work, ArchiveLimits(max_bytes=1 << 40, max_ratio=200))


def test_files_come_one_at_a_time(work: Path) -> None:
    archive = work.parent / "archive"
    archive.write_bytes(make.make_zip({f"{n}.tif": TIF for n in range(9)}))
    for member in iter_members(archive, work, label="cells.zip", why_skipped=only_tif):
        assert [path for path in work.rglob("*") if path.is_file()] == [member.path]
        assert member.path is not None
        member.path.unlink()


def test_a_million_members_are_refused_at_once(work: Path) -> None:
    header = b"PK\x01\x02" + bytes(24) + b"\1\0" + bytes(16) + b"x"
    count = 1_000_000
    end = b"PK\x05\x06" + bytes(4) + b"\xff\xff\xff\xff" + (len(header) * count).to_bytes(4, "little") + bytes(6)
    archive = work.parent / "archive"
    with archive.open("wb") as file:
        file.write(b"PK\x03\x04")
        for _ in range(100):
            file.write(header * (count // 100))
        file.write(end)
    with pytest.raises(UnsafeArchive, match="more than the 100000 files"):
        list(iter_members(archive, work, label="cells.zip", why_skipped=only_tif))


@given(data=st.binary(max_size=2000), head=st.sampled_from([b"", b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b\x08\0"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
def test_any_bytes_give_files_or_words(work: Path, head: bytes, data: bytes) -> None:
    assert words_of(head + data, work).startswith("cells.zip: ")


@given(cuts=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), min_size=1, max_size=6), gz=st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
def test_any_flipped_bytes_give_files_or_words(work: Path, cuts: list[tuple[int, int]], gz: bool) -> None:
    source = make.make_tar({"a.tif": TIF, "b.txt": TIF}, "w:gz" if gz else "w")
    data = bytearray(source if gz else make.make_zip({"a.tif": TIF, "b/c.tif": TIF * 20}))
    for at, value in cuts:
        data[at % len(data)] = value
    assert words_of(bytes(data), work).startswith("cells.zip: ")
    assert outside(work) == []
