"""The reasons on the page about errors are those that bad input gets."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import tifffile

from redis_consumer import errors
from redis_consumer.consumers import ImageFileConsumer
from redis_consumer.errors import describe
from redis_consumer.images import ImageLimits, read_image, select_channels
from redis_consumer.job import Job, ModelId
from redis_consumer.models import ModelStore
from redis_consumer.processing import registry
from redis_consumer.processing.cuts import plan_cuts
from redis_consumer.processing.whole_image import Sampler, fit
from redis_consumer.redis import RedisClient
from redis_consumer.segmentation.frames import check_needed
from redis_consumer.serving import ModelSpec, TensorSpec, check_outputs
from redis_consumer.serving.onnx.server import OnnxServer
from redis_consumer.storage import Storage
from support import attacks
from support.documents import DOCS

TEXT = (DOCS / "errors.rst").read_text(encoding="utf-8")
ROWS = {
    name: " ".join(reason.split())
    for name, reason in re.findall(r"^   \* - ([a-zA-Z ',-]+)\n     - ``([^`]+)``$", TEXT, re.MULTILINE)
}


def read(content: bytes | Any, name: str = "cells.tif") -> None:
    path = Path(name)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content)
    read_image(path, name=name, limits=ImageLimits(max_frames=60))


def cut_off() -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.zeros((64, 64), np.uint8))
    return buffer.getvalue()[:1500]


def picture(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.new("L", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


def answer(*shape: int, value: float = 0) -> None:
    tensors = tuple(TensorSpec(name, np.dtype(np.float32), (None, None, None, 1)) for name in ("image", "prediction"))
    spec = ModelSpec(inputs=tensors[:1], outputs=tensors[1:])
    check_outputs(spec, {"prediction": np.full(shape, value, np.float32)}, ModelId("Scaling", 1))


PROVOKED: dict[str, Callable[[], object]] = {
    "no input named": lambda: Job("j").input_file_name,
    "no such object": lambda: Storage("memory://").download("uploads/cells.tif", "."),
    "a key outside the bucket": lambda: Storage("memory://").download("../cells.tif", "."),
    "a scale that isn't a number": lambda: Job("j", {"scale": "big"}).scale,
    "digits that aren't plain": lambda: Job("j", {"cuts": "1_0"}).cuts,
    "an invalid version": lambda: Job("j", {"model_name": "Nuclei", "model_version": "1.5"}).model,
    "no such model": lambda: ModelStore(None).find(ModelId("Nuclei", 1)),
    "an unknown function": lambda: registry.get_function("post", "watershet"),
    "an empty file": lambda: read(b""),
    "a text file, renamed": lambda: read(b"day,cells\n1,20\n"),
    "a TIFF that is cut off": lambda: read(cut_off()),
    "no pixels": lambda: read(np.zeros((0, 8)), "cells.npy"),
    "NaN pixels": lambda: read(np.full((8, 8), np.nan), "cells.npy"),
    "too large": lambda: read(picture(8, 4096), "cells.png"),
    "too many frames": lambda: read(np.zeros((61, 8, 8, 1), np.uint8), "cells.npy"),
    "more memory than a job may need": lambda: check_needed("cells.tif", 2 * 10**9, 10**9, "frames"),
    "too much field": lambda: plan_cuts((64, 64), 1, 16_001),
    "a prediction with NaN": lambda: answer(1, 8, 8, 1, value=np.nan),
    "an output that differs from the metadata": lambda: answer(1, 8, 8, 2),
    "a label for onnx": lambda: ModelStore(None).find(ModelId("Nuclei", label="stable")),
    "too large for a function": lambda: fit(["own"], Sampler((4096, 4096, 1)), {}),
    "too many channels named": lambda: Job("j", {"channels": ",".join("0" * 65)}).channels,
    "too many functions named": lambda: Job("j", {"preprocess_function": "normalize," * 65}).preprocess_functions,
    "metadata that name more planes than the file has": lambda: read(
        attacks.described(attacks.ome("SizeT=2000000000"))
    ),
    "a channel that isn't there": lambda: select_channels(np.zeros((1, 8, 8, 1)), [2], "cells.tif"),
}


def assert_is(error: BaseException, reason: str) -> None:
    pattern = ".*".join(re.escape(part) for part in reason.split("…"))
    assert re.fullmatch(pattern, describe(error)), describe(error)


@pytest.mark.parametrize("name", PROVOKED)
def test_the_reason_is_as_the_page_says(name: str) -> None:
    with pytest.raises(errors.PermanentError) as caught:
        PROVOKED[name]()
    assert_is(caught.value, ROWS[name])


def reason_of_a_job(consumer: ImageFileConsumer, name: str, **fields: str) -> Any:
    values = {"status": "new", "input_file_name": f"uploads/{name}", "original_name": name, **fields}
    consumer.redis.hset("predict:1", mapping=values)
    consumer.redis.lpush("predict", "predict:1")
    job = consumer.job_queue.claim()
    assert job is not None
    consumer.run(job)
    return consumer.redis.hget("predict:1", "reason")


@pytest.mark.usefixtures("redis_db")
def test_too_many_channels(redis_client: RedisClient, onnx_server: OnnxServer, tmp_path: Path) -> None:
    storage = Storage("memory://")
    tifffile.imwrite(tmp_path / "cells.tif", np.zeros((8, 8, 3), np.uint8), photometric="rgb")
    storage.upload_file(tmp_path / "cells.tif", "uploads/cells.tif")
    consumer = ImageFileConsumer(redis_client, storage, "predict", model_server=onnx_server, models=ModelStore(None))
    reason = reason_of_a_job(consumer, "cells.tif", model_name="Scaling", model_version="1", channels="0,1")
    assert reason == ROWS["too many channels"]


@pytest.mark.usefixtures("redis_db")
def test_a_zip_among_images(redis_client: RedisClient) -> None:
    consumer = ImageFileConsumer(redis_client, Storage("memory://"), "predict", name="pod-1")
    assert reason_of_a_job(consumer, "plate.zip") == ROWS["a zip among images"]


def test_each_row_of_the_page_is_provoked() -> None:
    assert set(ROWS) == {*PROVOKED, "too many channels", "a zip among images"}


def test_every_class_is_on_the_page() -> None:
    kinds = [name for name, kind in vars(errors).items() if isinstance(kind, type)]
    assert [name for name in kinds if f"redis_consumer.errors.{name}>" not in TEXT] == []
