"""Bytes get from the bucket to the disk and back, complete or not at all."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from redis_consumer.errors import StorageUnavailable
from redis_consumer.storage import Storage, transfer
from redis_consumer.storage.keys import BucketAddress
from redis_consumer.storage.stores import StorageOptions, open_store
from redis_consumer.storage.transfer import MOST_LISTED, Moved, Transfers


@pytest.mark.parametrize("left", [0, 4])
def test_an_object_that_shrinks_meanwhile_never_becomes_a_file(tmp_path: Path, left: int) -> None:
    (tmp_path / "bucket").mkdir()
    (tmp_path / "down").mkdir()
    (tmp_path / "bucket" / "a.tif").write_bytes(b"0123456789")
    address = BucketAddress("file", str(tmp_path / "bucket"))
    incoming = transfer.start(open_store(address, StorageOptions(), 0), address, "a.tif", None)
    os.truncate(tmp_path / "bucket" / "a.tif", left)
    with pytest.raises(StorageUnavailable, match="try again later"):
        incoming.save(str(tmp_path / "down" / "a.tif"))
    assert os.listdir(tmp_path / "down") == []


@pytest.fixture
def notes() -> Iterator[Transfers]:
    notes = Transfers()
    transfer.recorded.set(notes)
    yield notes
    transfer.recorded.set(None)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_what_is_moved_is_noted(notes: Transfers, tmp_path: Path) -> None:
    storage = Storage("memory://")
    storage.write_bytes("uploads/a.tif", b"image")
    path = storage.download("uploads/a.tif", tmp_path)
    key, _ = storage.upload(path)
    assert notes.downloads == [Moved("uploads/a.tif", 5, sha256(b"image"))]
    assert notes.uploads == [Moved(key, 5, sha256(b"image"))]


def test_a_folder_has_one_digest_of_all_its_objects(notes: Transfers, tmp_path: Path) -> None:
    storage = Storage("memory://")
    for name in ("b", "a"):
        storage.write_bytes(f"uploads/x.zarr/{name}", name.encode())
    storage.download_folder("uploads/x.zarr", tmp_path)
    lines = "".join(sorted(f"{sha256(name.encode())}  uploads/x.zarr/{name}\n" for name in ("a", "b")))
    assert notes.downloads == [Moved("uploads/x.zarr/", 2, sha256(lines.encode()))]


def test_other_threads_are_not_listened_to(notes: Transfers, tmp_path: Path) -> None:
    storage = Storage("memory://")
    storage.write_bytes("uploads/a.tif", b"image")
    thread = threading.Thread(target=storage.download, args=("uploads/a.tif", tmp_path))
    thread.start()
    thread.join()
    assert notes.downloads == []


def test_nothing_is_noted_or_digested_unless_somebody_wants_to_know(tmp_path: Path) -> None:
    storage = Storage("memory://")
    storage.write_bytes("uploads/a.tif", b"image")
    storage.download("uploads/a.tif", tmp_path)
    assert transfer.new_digest("uploads/a.tif") is None


def test_what_nobody_wants_to_know_of_is_neither_listed_nor_counted(notes: Transfers, tmp_path: Path) -> None:
    storage = Storage("memory://")
    storage.write_bytes("output/child.zip", b"zip")
    notes.not_wanted.add("output/child.zip")
    for _ in range(MOST_LISTED + 3):
        storage.download("output/child.zip", tmp_path)
    assert transfer.new_digest("output/child.zip") is None
    assert (notes.downloads, notes.left_out) == ([], 0)


def test_a_list_has_an_end() -> None:
    notes = Transfers()
    for number in range(MOST_LISTED + 3):
        notes.add(Moved(str(number), 1, ""))
    assert (len(notes.downloads), notes.left_out) == (MOST_LISTED, 3)
