"""Objects are named after their content."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import tifffile

from redis_consumer.client.inputs import find_inputs, upload_key
from redis_consumer.client.submit import Result, Submission, submit_file
from redis_consumer.client.watch import JobState
from redis_consumer.consumers.zip_file import ARCHIVES
from redis_consumer.errors import InvalidImage
from redis_consumer.redis import RedisClient
from redis_consumer.storage import Storage
from support import ome_zarr
from support.formats import GREY
from support.ome_files import write_ome_files


def test_key_is_the_digest_with_the_extension(tmp_path: Path) -> None:
    path = tmp_path / "Cells One.TIF"
    path.write_bytes(b"pixels")
    assert upload_key(path) == f"uploads/{hashlib.md5(b'pixels').hexdigest()}.tif"


def test_file_without_extension(tmp_path: Path) -> None:
    path = tmp_path / "cells"
    path.write_bytes(b"")
    assert upload_key(path) == f"uploads/{hashlib.md5(b'').hexdigest()}"


@pytest.mark.parametrize("suffix", [".tar.gz", ".zarr.zip", ".zip", ".tgz"])
def test_the_key_of_an_archive_is_one_that_workers_take(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"Plate.1{suffix.upper()}"
    path.write_bytes(b"")
    key = upload_key(path)
    assert key == f"uploads/{hashlib.md5(b'').hexdigest()}{suffix}"
    assert key.endswith(ARCHIVES)


def test_an_ome_zarr_has_the_key_of_one_image_whatever_its_name(tmp_path: Path) -> None:
    folder = ome_zarr.write(tmp_path / "a.zarr", GREY, "yx")
    assert upload_key(folder).endswith(".zarr")
    assert upload_key(ome_zarr.zipped(folder, tmp_path / "a.ozx")).endswith(".ozx")
    assert upload_key(ome_zarr.zipped(folder, tmp_path / "a.zarr.zip")).endswith(".zarr.zip")
    assert upload_key(ome_zarr.zipped(folder, tmp_path / "plate.zip")).endswith(".ozx")
    other = ome_zarr.write(tmp_path / "b.zarr", GREY, "yx")
    assert upload_key(other) == upload_key(folder)
    (other / "0" / "0" / "0").write_bytes(b"other pixels")
    assert upload_key(other) != upload_key(folder)


def test_folders_are_searched_for_images(tmp_path: Path) -> None:
    plate = tmp_path / "plate"
    (plate / "t").mkdir(parents=True)
    for name in ("t10.tif", "t2.tif", "t/noext"):
        tifffile.imwrite(plate / name, GREY, photometric="minisblack")
    ome_zarr.write(plate / "cells.zarr", GREY, "yx")
    for name in ("notes.txt", ".DS_Store"):
        (plate / name).write_text("no image")
    (plate / "more.zip").write_bytes(b"PK")
    found = find_inputs([plate, plate / "notes.txt", tmp_path / "gone.tif"], is_recursive=True)
    names = [str(path.relative_to(tmp_path)) for path in found.paths]
    expected = ["cells.zarr", "more.zip", "t/noext", "t2.tif", "t10.tif", "notes.txt"]
    assert names == [*(f"plate/{name}" for name in expected), "gone.tif"]
    assert found.others == [plate / "notes.txt"]


def test_folders_need_to_be_asked_for(tmp_path: Path) -> None:
    found = find_inputs([tmp_path, ome_zarr.write(tmp_path / "a.zarr", GREY, "yx")], is_recursive=False)
    assert (found.paths, found.folders) == ([tmp_path / "a.zarr"], [tmp_path])


def test_data_for_scripts() -> None:
    state = JobState("predict:a:1", "failed", 100, reason="Traceback\nInvalidImage: a.tif: empty")
    data = Result(Submission("predict:a:1", Path("a.tif")), state).as_data()
    assert (data["status"], data["reason"], data["result"]) == ("failed", "InvalidImage: a.tif: empty", None)


def test_the_files_of_an_ome_tiff_are_uploaded_together(tmp_path: Path) -> None:
    image = np.zeros((1, 1, 3, 8, 8), np.uint8)
    files = write_ome_files(tmp_path, image, lambda t, z, c: f"c{c}.ome.tif")
    found = find_inputs([files[1], files[0], files[2]], is_recursive=False)
    assert (found.paths, set(found.parts)) == ([files[1]], {files[0], files[2]})
    client, storage = FakeRedis(), Storage("memory://")
    sent = submit_file(cast("RedisClient", client), storage, files[1], "predict", {})
    folder, _, name = sent.fields["input_file_name"].rpartition("/")
    assert name == "c1.ome.tif"
    for file in files:
        assert storage.read_bytes(f"{folder}/{file.name}") == file.read_bytes()
    files[2].unlink()
    with pytest.raises(InvalidImage, match=r"c0.ome.tif: is one of the 3 files .* not beside it \(c2.ome.tif\)"):
        submit_file(cast("RedisClient", client), storage, files[0], "predict", {})


class FakeRedis:
    """Answers commands as a server would."""

    def batch(self, *commands: object) -> list[int]:
        return [1] * len(commands)
