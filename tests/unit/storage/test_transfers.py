from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from redis_consumer.storage import Storage, transfers
from redis_consumer.storage.transfers import MOST_LISTED, Moved, Transfers


@pytest.fixture
def notes() -> Iterator[Transfers]:
    notes = Transfers()
    transfers.current.set(notes)
    yield notes
    transfers.current.set(None)


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
    assert transfers.new_digest("uploads/a.tif") is None


def test_what_nobody_wants_to_know_of_is_neither_listed_nor_counted(notes: Transfers, tmp_path: Path) -> None:
    storage = Storage("memory://")
    storage.write_bytes("output/child.zip", b"zip")
    notes.not_wanted.add("output/child.zip")
    for _ in range(MOST_LISTED + 3):
        storage.download("output/child.zip", tmp_path)
    assert transfers.new_digest("output/child.zip") is None
    assert (notes.downloads, notes.left_out) == ([], 0)


def test_a_list_has_an_end() -> None:
    notes = Transfers()
    for number in range(MOST_LISTED + 3):
        notes.add(Moved(str(number), 1, ""))
    assert (len(notes.downloads), notes.left_out) == (MOST_LISTED, 3)
