"""Files are processed with a real Redis, bucket and worker by command-line tools alone."""

from __future__ import annotations

import json
import os
import re
import zipfile
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import redis

from support import ome_zarr
from support.cli import CommandLine
from support.formats import GREY
from support.redis_server import RedisServer, free_port


@pytest.fixture
def cli(tmp_path: Path, redis_server: RedisServer, redis_db: redis.Redis) -> CommandLine:
    return CommandLine.make(tmp_path, redis_server.port)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "Cells.tif"
    path.write_bytes(b"pixels")
    return path


def test_job_is_pushed_as_the_web_server_does(cli: CommandLine, image: Path, redis_db: redis.Redis) -> None:
    result = cli.run("submit", image, "--model", "Nuclear:3", "--scale", "0.5", "--field", "cuts=2")
    job_id = result.stdout.strip()
    fields: Any = redis_db.hgetall(job_id)
    assert result.returncode == 0
    assert re.fullmatch(r"predict:Cells\.tif:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", job_id)
    assert redis_db.lrange("predict", 0, -1) == [job_id]
    expected = {
        "original_name": "Cells.tif",
        "model_name": "Nuclear",
        "model_version": "3",
        "scale": "0.5",
        "cuts": "2",
        "preprocess_function": "",
        "postprocess_function": "",
        "label": "",
        "channels": "",
        "dimension_order": "",
        "status": "new",
    }
    assert {name: fields[name] for name in expected} == expected
    assert datetime.fromisoformat(fields["created_at"]).tzinfo is not None
    assert fields["identity_upload"]
    assert (cli.folder / "bucket" / fields["input_file_name"]).read_bytes() == b"pixels"


def test_job_that_no_replica_has_is_told(cli: CommandLine, image: Path, redis_db: redis.Redis) -> None:
    result = cli.run("submit", image, REDIS_WAIT_REPLICAS="1")
    assert result.returncode == 0
    assert "is on 0 of 1 replicas" in result.stderr
    assert redis_db.lrange("predict", 0, -1) == [result.stdout.strip()]


def test_zip_goes_to_its_own_queue(cli: CommandLine, tmp_path: Path, redis_db: redis.Redis) -> None:
    path = tmp_path / "plate.ZIP"
    path.write_bytes(b"PK")
    job_id = cli.run("submit", path, "--queue", "Track").stdout.strip()
    assert job_id.startswith("track-zip:plate.ZIP:")
    assert redis_db.lrange("track-zip", 0, -1) == [job_id]


def test_an_ome_zarr_is_one_image(cli: CommandLine, tmp_path: Path, redis_db: redis.Redis) -> None:
    folder = ome_zarr.write(tmp_path / "Cells.zarr", GREY, "yx")
    packed = [ome_zarr.zipped(folder, tmp_path / name) for name in ("a.zarr.zip", "b.ozx", "c.zip")]
    job_ids = cli.run("submit", folder, *packed).stdout.split()
    assert redis_db.lrange("predict", 0, -1) == job_ids[::-1]
    assert redis_db.llen("predict-zip") == 0
    key = redis_db.hget(job_ids[0], "input_file_name")
    assert (cli.folder / "bucket" / str(key) / "0" / ".zarray").read_bytes() == (folder / "0" / ".zarray").read_bytes()


def test_a_folder_of_images_needs_recursive(cli: CommandLine, image: Path, redis_db: redis.Redis) -> None:
    (image.parent / "plate").mkdir()
    (image.parent / "plate" / "a.tif").write_bytes(b"II*\0")
    (image.parent / "plate" / "notes.txt").write_text("no image")
    refused = cli.run("submit", image.parent / "plate", "--json")
    assert refused.returncode == 1
    (row,) = json.loads(refused.stdout)
    assert row["reason"].endswith("is a folder; submit the images in it with --recursive")
    done = cli.run("submit", image.parent / "plate", "--recursive")
    assert redis_db.lrange("predict", 0, -1) == [done.stdout.strip()]
    assert "Not submitted: 1 other files" in done.stderr


def test_results_come_back(cli: CommandLine, image: Path, tmp_path: Path) -> None:
    worker = cli.start("run", HOSTNAME="worker-1")
    try:
        result = cli.run("submit", image, "--output", tmp_path / "out", "--timeout", "50")
    finally:
        worker.terminate()
        worker.communicate()
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == str(tmp_path / "out" / "Cells-result.zip")
    with zipfile.ZipFile(tmp_path / "out" / "Cells-result.zip") as archive:
        assert archive.read("Cells.tif") == b"pixels"
    assert "Cells.tif: done" in result.stderr
    assert worker.returncode == 0


def test_failed_job_says_why(cli: CommandLine, image: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.tif"
    empty.touch()
    worker = cli.start("run")
    try:
        result = cli.run("submit", image, empty, "--wait", "--json", "--timeout", "50")
    finally:
        worker.terminate()
        worker.communicate()
    good, bad = json.loads(result.stdout)
    assert result.returncode == 1
    assert (good["status"], Path(good["result"]).name) == ("done", "Cells-result.zip")
    assert (bad["status"], bad["result"]) == ("failed", None)
    assert bad["reason"] == "InvalidImage: empty.tif: the file is empty; upload it again"


def test_time_that_is_up_is_told_from_failure(cli: CommandLine, image: Path, redis_db: Any) -> None:
    result = cli.run("submit", image, "--wait", "--timeout", "0.2")
    assert result.returncode == 3
    [job_id] = redis_db.lrange("predict", 0, -1)
    assert f"Cells.tif: not ready, new ({job_id})" in result.stderr


@pytest.mark.parametrize("options", [[], ["--json"], ["--wait", "--timeout", "0.2"], ["--json", "--output", "out"]])
def test_a_name_that_is_no_utf_8_is_submitted(cli: CommandLine, redis_db: Any, options: list[str]) -> None:
    path = cli.folder / os.fsdecode(b"\xff\xfe.tif")
    path.write_bytes(b"pixels")
    result = cli.run("submit", path, *options, *(["--timeout", "0.2"] if "--output" in options else []))
    assert "Traceback" not in result.stderr
    [job_id] = redis_db.lrange("predict", 0, -1)
    assert redis_db.hget(job_id, "original_name") == "??.tif"
    assert job_id in result.stdout + result.stderr


def test_absent_redis_is_named(cli: CommandLine, image: Path) -> None:
    result = cli.run("submit", image, "--redis", f"127.0.0.1:{free_port()}")
    assert result.returncode == 3
    assert "check REDIS_HOST and REDIS_PORT" in result.stderr
    assert "Traceback" not in result.stderr


def test_interrupt_leaves_at_once(cli: CommandLine, image: Path) -> None:
    process = cli.start("submit", image, "--wait")
    assert process.stderr is not None
    assert process.stderr.readline().startswith("Cells.tif: submitted as predict:Cells.tif:")
    process.send_signal(2)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in errors
