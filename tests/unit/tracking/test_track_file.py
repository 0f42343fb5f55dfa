"""Track files that we write, that others write, and that are hostile."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import pickle
import tarfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from redis_consumer.errors import InvalidImage, UnsafeArchive
from redis_consumer.tracking.track_file import read_track_file, write_track_file
from redis_consumer.tracking.tracks import Track

RAW = np.random.default_rng(1).random((3, 5, 4)).astype(np.float32)
LABELS = np.arange(60).reshape(3, 5, 4) % 4
TRACKS = [Track(1, (0, 1, 2)), Track(2, (0,), None, (3, 4)), Track(3, (1, 2), 2), Track(4, (1, 2), 2)]


def npy(array: Any, *, is_pickle: bool = False) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=is_pickle)
    return buffer.getvalue()


def packed(path: Path, members: dict[str, bytes], mode: Any = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


GOOD = {"raw.npy": npy(RAW[..., None]), "tracked.npy": npy(LABELS[..., None].astype(np.uint16)), "lineage.json": b"{}"}


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a.trk"
    write_track_file(path, RAW, LABELS, TRACKS, shape=RAW.shape)
    ((raw, labels),) = read_track_file(path).movies()
    np.testing.assert_array_equal(raw[..., 0], RAW)
    np.testing.assert_array_equal(labels, LABELS)
    assert labels.dtype == np.uint16


def test_members_are_those_of_the_contract(tmp_path: Path) -> None:
    path = tmp_path / "a.trk"
    write_track_file(path, RAW, LABELS, TRACKS, shape=RAW.shape)
    with tarfile.open(path) as archive:
        contents = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    assert sorted(contents) == ["lineage.json", "raw.npy", "tracked.npy"]
    assert json.loads(contents["lineage.json"])["2"] == {
        "label": 2,
        "frames": [0],
        "daughters": [3, 4],
        "capped": True,
        "frame_div": 1,
        "parent": None,
    }
    assert np.load(io.BytesIO(contents["tracked.npy"])).shape == (*LABELS.shape, 1)


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_files_of_others_are_read_zipped_or_not(tmp_path: Path, mode: str) -> None:
    members = {f"./folder/{name}": content for name, content in GOOD.items()}
    file = read_track_file(packed(tmp_path / "a.TRK", members, mode))
    np.testing.assert_array_equal(file.labels[..., 0], LABELS)


def test_a_trks_file_holds_several_movies(tmp_path: Path) -> None:
    members = {"raw.npy": npy(np.stack([RAW, RAW])[..., None]), "tracked.npy": npy(np.stack([LABELS] * 2)[..., None])}
    movies = list(read_track_file(packed(tmp_path / "a.trks", members)).movies())
    assert [(raw.shape, labels.shape) for raw, labels in movies] == [((3, 5, 4, 1), (3, 5, 4))] * 2


HOSTILE: dict[str, tuple[dict[str, bytes], str]] = {
    "no labels": ({"raw.npy": GOOD["raw.npy"]}, "has no tracked.npy"),
    "nothing": ({}, "has no raw.npy and no tracked.npy"),
    "pickle": ({**GOOD, "tracked.npy": npy(np.array([[object]], object), is_pickle=True)}, "isn't a readable"),
    "pure pickle": ({**GOOD, "raw.npy": pickle.dumps("x")}, "isn't a readable"),
    "cut off": ({**GOOD, "raw.npy": GOOD["raw.npy"][:-8]}, "isn't a readable"),
    "another shape": ({**GOOD, "tracked.npy": npy(LABELS[:2, ..., None])}, "don't fit together"),
    "one axis": ({**GOOD, "raw.npy": npy(np.zeros(4)), "tracked.npy": npy(np.zeros(4))}, "don't fit together"),
    "no pixels": (
        {"raw.npy": npy(np.zeros((0, 2, 2, 1))), "tracked.npy": npy(np.zeros((0, 2, 2, 1)))},
        "don't fit together",
    ),
    "fractions": ({**GOOD, "tracked.npy": npy(LABELS[..., None] + 0.5)}, "are not labels"),
    "negative": ({**GOOD, "tracked.npy": npy(LABELS[..., None] - 1)}, "are not labels"),
    "text": ({**GOOD, "raw.npy": npy(np.full((*LABELS.shape, 1), "a"))}, "aren't real numbers"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_no_track_file_is_refused_in_words(tmp_path: Path, case: str) -> None:
    members, message = HOSTILE[case]
    with pytest.raises(InvalidImage, match=message):
        read_track_file(packed(tmp_path / "a.trk", members))


def test_a_header_that_promises_more_than_there_is_takes_no_memory(tmp_path: Path) -> None:
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f8", "fortran_order": False, "shape": (1 << 40, 4)})
    path = packed(tmp_path / "a.trk", {**GOOD, "raw.npy": head.getvalue() + b"\0" * 64})
    with pytest.raises(InvalidImage, match="isn't a readable"):
        read_track_file(path)


def test_a_name_of_many_bytes_is_not_read(tmp_path: Path) -> None:
    entry = tarfile.TarInfo("long")
    entry.type, entry.size = tarfile.GNUTYPE_LONGNAME, 64 << 20
    path = tmp_path / "a.trk"
    path.write_bytes(gzip.compress(entry.tobuf() + bytes(entry.size), 1))
    with limited_memory(), pytest.raises(InvalidImage, match="isn't a readable track file"):
        read_track_file(path)


def test_a_header_of_many_bytes_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.trk"
    header = b"\x93NUMPY\x02\0" + (64 << 20).to_bytes(4, "little")
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        entry = tarfile.TarInfo("raw.npy")
        entry.size = len(header) + (64 << 20)
        archive.addfile(entry, io.BytesIO(header + bytes(64 << 20)))
    with limited_memory(), pytest.raises(InvalidImage, match="isn't a readable track file"):
        read_track_file(path)


@contextlib.contextmanager
def limited_memory() -> Iterator[None]:
    """Let Python's own memory grow by 16 MB at most."""
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20


@pytest.mark.parametrize("name", ["raw.npy", "other"])
def test_a_bomb_is_left_before_it_is_unpacked(tmp_path: Path, name: str) -> None:
    path = packed(tmp_path / "a.trk", {**GOOD, name: npy(np.zeros(1 << 20))}, "w:gz")
    with pytest.raises(UnsafeArchive, match="unpacks to more than is allowed"):
        read_track_file(path, max_bytes=1 << 20)


def test_a_member_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.trk"
    with tarfile.open(path, "w") as archive:
        for _ in range(2):
            entry = tarfile.TarInfo("raw.npy")
            entry.size = len(GOOD["raw.npy"])
            archive.addfile(entry, io.BytesIO(GOOD["raw.npy"]))
    with pytest.raises(InvalidImage, match=r"contains raw.npy twice"):
        read_track_file(path)


def test_links_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.trk"
    with tarfile.open(path, "w") as archive:
        link = tarfile.TarInfo("raw.npy")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(InvalidImage, match=r"has no raw.npy"):
        read_track_file(path)


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidImage, match="is not a track file"):
        read_track_file(packed(tmp_path / "a.tar", GOOD))


def _flipped(data: bytes, place: int, bit: int) -> bytes:
    changed = bytearray(data)
    changed[place % len(data)] ^= 1 << bit
    return bytes(changed)


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 1 << 20), st.integers(0, 7), st.booleans(), st.integers(0, 1 << 14))
def test_a_damaged_file_gives_arrays_or_our_error(
    tmp_path: Path, place: int, bit: int, is_zipped: bool, cut: int
) -> None:
    path = packed(tmp_path / "a.trk", GOOD)
    data = gzip.compress(path.read_bytes()) if is_zipped else path.read_bytes()
    path.write_bytes(_flipped(data, place, bit)[: len(data) - cut % 700])
    with contextlib.suppress(InvalidImage, UnsafeArchive):
        assert read_track_file(path, max_bytes=1 << 20).raw.ndim == 4
