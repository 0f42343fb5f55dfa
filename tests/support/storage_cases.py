"""What every kind of bucket must do: a class of tests that each kind runs with its own fixture `storage`."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from redis_consumer.errors import InvalidJob, ObjectNotFound, SettingsError
from redis_consumer.storage import Storage

# Larger than one part of an upload, and no whole number of parts.
LARGE = os.urandom(1024) * (12 * 1024) + b"end"

ESCAPES = (
    "uploads/../../etc/passwd",
    "../secret",
    "uploads/./a.tif",
    "uploads/..",
    "..",
    "",
    "/",
    "//etc/passwd",
    "uploads//a.tif",
    "uploads/",
    "uploads\\..\\..\\a.tif",
    "C:\\a.tif",
    "uploads/a\0.tif",
    "uploads/a\n.tif",
    "uploads/" + "a" * 256,
    "uploads/" + "a/" * 600 + "b",
    "uploads/a\ud800.tif",
)

AWKWARD = (
    "uploads/a b+c.tif",
    "uploads/100%25 é ü.tif",
    "uploads/細胞/核 (1).tif",
    "uploads/a#b?c&d=e;f.tif",
    "uploads/~tilde'quote\"$*.tif",
    "plain.tif",
)


class StorageCases:
    def test_what_is_uploaded_is_downloaded_again(self, storage: Storage, tmp_path: Path) -> None:
        local = tmp_path / "result.zip"
        local.write_bytes(b"small")
        key, _ = storage.upload(str(local))
        assert key == "output/result.zip"
        path = storage.download(key, str(tmp_path / "down"))
        assert path == str(tmp_path / "down" / "result.zip")
        assert Path(path).read_bytes() == b"small"

    def test_a_large_file_survives_the_way_there_and_back(self, storage: Storage, tmp_path: Path) -> None:
        local = tmp_path / "large.tif"
        local.write_bytes(LARGE)
        key, _ = storage.upload(local, "/plate/1/")
        assert key == "output/plate/1/large.tif"
        assert Path(storage.download(key, tmp_path / "down")).read_bytes() == LARGE

    def test_an_empty_file_survives_too(self, storage: Storage, tmp_path: Path) -> None:
        (tmp_path / "empty.csv").write_bytes(b"")
        key, _ = storage.upload(tmp_path / "empty.csv")
        assert Path(storage.download(key, tmp_path / "down")).read_bytes() == b""

    def test_a_leading_slash_of_a_key_is_dropped(self, storage: Storage, tmp_path: Path) -> None:
        storage.write_bytes("uploads/a/b.tif", b"x")
        assert storage.download("/uploads/a/b.tif", tmp_path) == str(tmp_path / "a" / "b.tif")

    @pytest.mark.parametrize("key", AWKWARD)
    def test_awkward_names_are_found_by_key_and_by_link(self, storage: Storage, tmp_path: Path, key: str) -> None:
        storage.write_bytes(key, key.encode())
        for name in (key, storage.get_public_url(key)):
            assert Path(storage.download(name, tmp_path)).read_bytes() == key.encode()

    @pytest.mark.parametrize("key", ESCAPES)
    def test_no_key_leaves_its_folder(self, storage: Storage, tmp_path: Path, key: str) -> None:
        with pytest.raises(InvalidJob, match="input_file_name"):
            storage.download(key, tmp_path / "down")
        assert not (tmp_path / "down").exists()

    def test_no_upload_leaves_the_output_folder(self, storage: Storage, tmp_path: Path) -> None:
        (tmp_path / "a.zip").write_bytes(b"x")
        with pytest.raises(InvalidJob, match=r"\.\."):
            storage.upload(tmp_path / "a.zip", "../models")

    def test_a_link_to_elsewhere_is_refused(self, storage: Storage, tmp_path: Path) -> None:
        for url in ("https://example.com/a.tif", "s3://another/a.tif", "file:///etc/passwd", "ftp://host/a.tif"):
            with pytest.raises(InvalidJob, match="outside of the bucket"):
                storage.download(url, tmp_path)

    def test_a_missing_object_is_named_with_its_bucket(self, storage: Storage, tmp_path: Path) -> None:
        with pytest.raises(ObjectNotFound, match=r"uploads/nope\.tif in .*there is none; upload it") as caught:
            storage.download("uploads/nope.tif", tmp_path / "down")
        assert caught.value.key == "uploads/nope.tif"
        assert caught.value.__cause__ is not None
        assert not (tmp_path / "down").exists()

    def test_a_missing_local_file_is_no_matter_of_the_bucket(self, storage: Storage, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="no such local file"):
            storage.upload(tmp_path / "nope.zip")

    def test_exists(self, storage: Storage) -> None:
        storage.write_bytes("uploads/a.tif", b"x")
        assert storage.exists("uploads/a.tif")
        assert not storage.exists("uploads/b.tif")

    def test_bytes_are_limited_where_asked(self, storage: Storage) -> None:
        storage.write_bytes("models/N/1/card.toml", b"12345")
        assert storage.read_bytes("models/N/1/card.toml", max_bytes=5) == b"12345"
        with pytest.raises(InvalidJob, match="5 bytes are more than the 4 allowed"):
            storage.read_bytes("models/N/1/card.toml", max_bytes=4)

    def test_a_deleted_object_is_gone(self, storage: Storage) -> None:
        storage.write_bytes("output/a.zip", b"a")
        storage.delete("output/a.zip")
        storage.delete("output/a.zip")
        assert not storage.exists("output/a.zip")

    def test_a_folder_comes_with_all_that_is_in_it(self, storage: Storage, tmp_path: Path) -> None:
        for name in (".zattrs", "0/.zarray", "0/0/1"):
            storage.write_bytes(f"uploads/a.zarr/{name}", name.encode())
        storage.write_bytes("uploads/a.zarr.txt", b"no part of it")
        down = tmp_path / "down"
        folder = Path(storage.download_folder("uploads/a.zarr/", down))
        assert folder == down / "a.zarr"
        files = sorted(path for path in down.rglob("*") if path.is_file())
        assert [(path.relative_to(folder).as_posix(), path.read_text()) for path in files] == [
            (name, name) for name in (".zattrs", "0/.zarray", "0/0/1")
        ]

    def test_a_folder_that_is_not_there_is_named(self, storage: Storage, tmp_path: Path) -> None:
        with pytest.raises(ObjectNotFound, match=r"uploads/a\.zarr/"):
            storage.download_folder("uploads/a.zarr", tmp_path)

    def test_folders_are_listed_one_level_deep(self, storage: Storage) -> None:
        for key in ("models/B/2/model.onnx", "models/A/1/model.onnx", "models/readme.txt", "modelsX/C/a"):
            storage.write_bytes(key, b"x")
        assert storage.list_folders("models/") == ["A", "B"]
        assert storage.list_folders("models/B") == ["2"]
        assert storage.list_folders("") == ["models", "modelsX"]
        assert storage.list_folders("nothing") == []

    def test_a_file_goes_to_exactly_the_key_and_the_path_named(self, storage: Storage, tmp_path: Path) -> None:
        (tmp_path / "a.bin").write_bytes(b"x")
        assert storage.upload_file(tmp_path / "a.bin", "uploads/b.bin") == storage.get_public_url("uploads/b.bin")
        storage.download_file("uploads/b.bin", tmp_path / "c.bin")
        assert (tmp_path / "c.bin").read_bytes() == b"x"
        assert storage.upload(tmp_path / "a.bin", key="/output/d.bin")[0] == "output/d.bin"

    def test_a_download_replaces_what_was_there(self, storage: Storage, tmp_path: Path) -> None:
        for data in (b"first", b"second"):
            storage.write_bytes("uploads/a.tif", data)
            assert Path(storage.download("uploads/a.tif", tmp_path / "down")).read_bytes() == data
        assert os.listdir(tmp_path / "down") == ["a.tif"]

    def test_an_unwritable_folder_is_the_setting_s_fault(self, storage: Storage, tmp_path: Path) -> None:
        storage.write_bytes("uploads/a.tif", b"x")
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(SettingsError, match=r"download folder .* can't be written"):
            storage.download("uploads/a.tif", tmp_path / "file" / "down")

    def test_a_name_that_is_a_folder_already_is_the_job_s_fault(self, storage: Storage, tmp_path: Path) -> None:
        storage.write_bytes("uploads/a.tif", b"x")
        (tmp_path / "down" / "a.tif").mkdir(parents=True)
        with pytest.raises(InvalidJob, match="rename the object"):
            storage.download("uploads/a.tif", tmp_path / "down")
        assert os.listdir(tmp_path / "down") == ["a.tif"]

    def test_four_threads_share_one_storage(self, storage: Storage, tmp_path: Path) -> None:
        def round_trip(number: int) -> bytes:
            storage.write_bytes(f"uploads/{number}.json", json.dumps(number).encode())
            return Path(storage.download(f"uploads/{number}.json", tmp_path / str(number % 4))).read_bytes()

        with ThreadPoolExecutor(4) as pool:
            assert [json.loads(data) for data in pool.map(round_trip, range(24))] == list(range(24))

    def test_check_says_what_answered(self, storage: Storage) -> None:
        assert storage.check().startswith(f"bucket {storage.url} answers; results get public links such as ")
