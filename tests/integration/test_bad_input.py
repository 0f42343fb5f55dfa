"""Each kind of bad input ends as ``failed`` with a readable reason, and the real worker process runs the next job."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from support import onnx_models
from support.redis_server import RedisServer
from support.worker import environment, running_worker, wait_for

MODEL = {"model_name": "NuclearSegmentation", "model_version": "1"}


def tiff(array: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def png(size: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", size).save(buffer, "png")
    return buffer.getvalue()


def grey(height: int = 64, width: int = 64) -> Any:
    return np.random.default_rng(1).integers(0, 255, (height, width), dtype=np.uint8)


# name, content of the file (None: not uploaded), fields besides, and the reason's last line.
CASES: dict[str, tuple[str, bytes | None, dict[str, str], str]] = {
    "no input field": ("a.tif", None, {"input_file_name": ""}, "InvalidJob: field input_file_name: missing"),
    "unknown model": ("a.tif", tiff(grey()), {"model_name": "Nope"}, "ModelNotFound: model Nope:1: .*there are models"),
    "unknown version": ("a.tif", tiff(grey()), {"model_version": "9"}, "ModelNotFound: .*:9: .*there are versions 1"),
    "malformed version": ("a.tif", tiff(grey()), {"model_version": "a/b"}, "InvalidJob: field model_version: 'a/b'"),
    "version label": ("a.tif", tiff(grey()), {"model_version": "stable"}, "ModelNotFound: .*servers know labels"),
    "malformed scale": ("a.tif", tiff(grey()), {"scale": "big"}, "InvalidJob: field scale: 'big' can't be read"),
    "scale beyond the limit": ("a.tif", tiff(grey()), {"scale": "100"}, "InvalidJob: field scale: 100 is out of range"),
    "unknown function": (
        "a.tif", tiff(grey()), {"postprocess_function": "nope"}, "InvalidJob: field postprocess_function: 'nope'",
    ),
    "missing object": ("gone.tif", None, {}, "ObjectNotFound: .*uploads/gone.tif"),
    "key outside of the bucket": ("a.tif", None, {"input_file_name": "../../etc/passwd"}, "InvalidJob: field input_"),
    "empty file": ("a.tif", b"", {}, "InvalidImage: a.tif: the file is empty; upload it again"),
    "text renamed": ("a.tif", b"day,cells\n1,20\n", {}, "InvalidImage: a.tif: isn't an image of a known format"),
    "truncated TIFF": ("a.tif", tiff(grey())[:1500], {}, "InvalidImage: a.tif: .*; "),
    "zip for an image": ("a.zip", b"PK\3\4", {}, "InvalidJob: a.zip: not a file for queue 'predict'"),
    "wrong channel count": (
        "a.tif", tiff(np.zeros((64, 64, 3), np.uint8), photometric="rgb"), {"channels": "0,1"},
        "ModelMismatch: a.tif: field channels names 2 channels",
    ),
    "channel that isn't there": ("a.tif", tiff(grey()), {"channels": "4"}, "InvalidImage: a.tif: field channels"),
    "no channel at all": ("a.tif", tiff(grey()), {"channels": ","}, "InvalidJob: field channels: ',' names none"),
    "several roles without a model": (
        "a.npy",
        npy(np.zeros((64, 64, 2), np.float32)),
        {"channels": "0,1", "model_name": ""},
        "InvalidJob: field channels: '0,1' fills several roles",
    ),
    "more field than image": (
        "a.tif", tiff(grey()), {"model_name": "Scaling", "scale": "1", "cuts": "1", "field_size": "16001"},
        "InvalidJob: field field_size: 16001",
    ),
    "too many frames": (
        "a.tif",
        tiff(np.zeros((61, 8, 8), np.uint8), metadata={"axes": "TYX"}),
        {},
        "InvalidImage: a.tif: 61 frames, allowed are 60",
    ),
    "NaN pixels only": ("a.tif", tiff(grey() * np.float32("nan")), {}, "InvalidImage: a.tif: "),
    "no pixels": ("a.npy", npy(np.zeros((0, 5))), {}, "InvalidImage: a.npy: "),
    "objects in an array": ("a.npy", npy(np.array([{}], dtype=object)), {}, "InvalidImage: a.npy: "),
    "too high": ("a.png", png((8, 3000)), {}, "InvalidImage: a.png: .*3000.*2048"),
    "too wide": ("a.png", png((3000, 8)), {}, "InvalidImage: a.png: .*3000.*2048"),
    "dimension order that doesn't fit": ("a.tif", tiff(np.zeros((2, 9, 64, 64), np.uint8), metadata={"axes": "TZYX"}),
        {"dimension_order": "XYC"}, "InvalidImage: a.tif: field dimension_order"),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bad-input")


@pytest.fixture(scope="module")
def _worker(folder: Path, redis_server: RedisServer) -> Iterator[None]:
    (folder / "bucket" / "uploads").mkdir(parents=True)
    onnx_models.save(folder / "bucket" / "models", "Scaling", 1, onnx_models.scaling(2.0))
    with running_worker(folder, environment(redis_server, (folder / "bucket").as_uri(), LOG_LEVEL="INFO")) as process:
        yield
        assert process.poll() is None, "the worker didn't live through all bad input"


@pytest.fixture
def submit(folder: Path, redis_db: Any, _worker: None) -> Callable[..., str]:
    def submit(name: str, content: bytes | None, **fields: str) -> str:
        if content is not None:
            (folder / "bucket" / "uploads" / name).write_bytes(content)
        key = f"predict:{name}:{len(redis_db.keys('predict:*'))}"
        values = {"status": "new", "original_name": name, "input_file_name": f"uploads/{name}", **MODEL, **fields}
        redis_db.hset(key, mapping=values)
        redis_db.lpush("predict", key)
        return key

    return submit


def ended(db: Any, key: str, folder: Path) -> dict[str, str]:
    wait_for(lambda: db.hget(key, "status") in ("done", "failed"), f"the end of {key}", folder)
    fields: dict[str, str] = db.hgetall(key)
    return fields


@pytest.mark.parametrize("case", CASES)
def test_bad_input_fails_in_words(case: str, submit: Callable[..., str], redis_db: Any, folder: Path) -> None:
    name, content, fields, reason = CASES[case]
    bad = ended(redis_db, submit(name, content, **fields), folder)
    assert bad["status"] == "failed"
    assert re.match(reason, bad["reason"].splitlines()[-1]), bad["reason"]
    assert ";" in bad["reason"].splitlines()[-1], "the reason doesn't say what to do"
    assert str(folder) not in bad["reason"]
    assert "Traceback" not in bad["reason"]
    assert "output_url" not in bad
    assert redis_db.keys("processing-*") == []


def test_the_worker_goes_on_with_the_next_job(submit: Callable[..., str], redis_db: Any, folder: Path) -> None:
    redis_db.lpush("predict", "predict:gone.tif:hash-expired")
    redis_db.set("predict:odd.tif:no-hash", "text")
    redis_db.lpush("predict", "predict:odd.tif:no-hash")
    for name, content, fields, _ in CASES.values():
        submit(name, content, **fields)
    good = ended(redis_db, submit("good.tif", tiff(grey())), folder)
    assert good["status"] == "done", good.get("reason")
    log = (folder / "worker.log").read_text()
    assert "Dropped job predict:gone.tif:hash-expired" in log
    assert "Dropped job predict:odd.tif:no-hash" in log
