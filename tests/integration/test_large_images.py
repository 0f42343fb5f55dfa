"""Images larger than memory, in windows: on a real Redis, a real bucket and a real model server."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from scipy import ndimage

from redis_consumer import settings
from redis_consumer.consumers import ImageFileConsumer
from redis_consumer.images.windows import open_windowed
from redis_consumer.models import ModelStore
from redis_consumer.redis import RedisClient
from redis_consumer.serving.tfs.server import TFServingServer
from redis_consumer.storage import Storage
from support import ome_zarr
from support.running import Result, run_job

Array = npt.NDArray[Any]
Run = Callable[..., Result]

JOB = "predict:cells.tif:1"
CARDS = {"Scaling": "[tile]\nsize_px = 256\noverlap_px = 32\n", "Convolving": "[tile]\nsize_px = 32\noverlap_px = 8\n"}
TILES: dict[str, Any] = {"tile": (256, 256), "compression": "zlib"}


def discs(side_px: int, seed: int = 4) -> tuple[Array, int]:
    """A square image of discs that don't touch, of different brightness, and their number."""
    dice = np.random.default_rng(seed)
    rows, columns = np.indices((side_px, side_px), sparse=True)
    image, count = np.zeros((side_px, side_px), np.uint16), 0
    for y in range(40, side_px - 40, 71):
        for x in range(40, side_px - 40, 71):
            radius = dice.uniform(3, 30)
            box = (slice(y - 35, y + 35), slice(x - 35, x + 35))
            image[box][(rows[box[0]] - y) ** 2 + (columns[:, box[1]] - x) ** 2 < radius**2] = dice.integers(600, 900)
            count += 1
    return image + dice.integers(0, 20, image.shape).astype(np.uint16), count


def connected(outputs: list[Array]) -> Array:
    """Label what is connected; knows nothing of other blocks."""
    labels = [ndimage.label(item[..., 0] > 0.3)[0] for item in outputs[0]]
    return np.stack(labels)[..., np.newaxis].astype(np.int32)


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    folder = tmp_path / "bucket"
    for model, card in CARDS.items():
        (folder / "models" / model / "1").mkdir(parents=True)
        (folder / "models" / model / "1" / "card.toml").write_text(card)
    (folder / "uploads").mkdir()
    return folder


@pytest.fixture
def run(
    bucket: Path, redis_client: RedisClient, redis_db: Any, tf_serving: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Run]:
    """Runs one job with these fields, on a limit of 1024 px; gives its hash and the files of its result."""
    for name, text in {"MAX_IMAGE_HEIGHT": "1024", "MAX_IMAGE_WIDTH": "1024", "HOSTNAME": "pod"}.items():
        monkeypatch.setenv(name, text)
    settings.use(None)
    monkeypatch.setitem(settings.PROCESSING_FUNCTIONS["post"], "connected", connected)
    storage, server = Storage(bucket.as_uri()), TFServingServer(tf_serving)
    consumer = ImageFileConsumer(redis_client, storage, "predict", model_server=server, models=ModelStore(storage))

    def run(file: str, **fields: str) -> Result:
        job = {"input_file_name": f"uploads/{file}", "original_name": file, "model_name": "Scaling", "scale": "1"}
        functions = {"preprocess_function": "percentile_normalize", "postprocess_function": "connected"}
        given = {"status": "new", "model_version": "1", **job, **functions}
        return run_job(consumer, redis_db, JOB, {**given, **fields})

    yield run
    server.close()


def labels_of(files: dict[str, bytes], name: str = "cells_feature_0.tif") -> Array:
    assert list(files) == [name]
    return np.asarray(tifffile.imread(io.BytesIO(files[name])))


def assert_same_regions(labels: Array, truth: Array, count: int) -> None:
    """0 split, 0 merged, numbers 1..count."""
    np.testing.assert_array_equal(labels > 0, truth > 0)
    pairs = np.unique(np.stack([labels[labels > 0], truth[labels > 0]]), axis=1)
    assert pairs.shape[1] == count
    np.testing.assert_array_equal(pairs[0], np.arange(1, count + 1))
    assert len(set(pairs[1])) == count


def test_cells_across_borders_get_one_label_each(run: Run, bucket: Path) -> None:
    image, count = discs(3000)
    tifffile.imwrite(bucket / "uploads" / "cells.tif", image, **TILES)
    fields, files = run("cells.tif")
    labels = labels_of(files)
    assert labels.dtype == np.float32
    assert_same_regions(labels, ndimage.label(image > 300)[0], count)
    times = ["download_time", "preprocess_time", "prediction_time", "postprocess_time", "upload_time", "total_time"]
    assert all(float(fields[name]) >= 0 for name in times)


@pytest.mark.parametrize(
    ("name", "options"),
    [("cells.tif", {}), ("cells.tif", {"compression": "lzw", "rowsperstrip": 16}), ("cells.npy", None)],
    ids=["one piece", "strips", "array"],
)
def test_the_layout_of_the_file_does_not_matter(
    run: Run, bucket: Path, name: str, options: dict[str, Any] | None
) -> None:
    image, count = discs(1300)
    if options is None:
        np.save(bucket / "uploads" / name, image)
    else:
        tifffile.imwrite(bucket / "uploads" / name, image, photometric="minisblack", **options)
    assert_same_regions(labels_of(run(name)[1]), ndimage.label(image > 300)[0], count)


def test_no_name_of_an_input_is_in_the_way_of_our_own_files(run: Run, bucket: Path) -> None:
    image, count = discs(1300)
    tifffile.imwrite(bucket / "uploads" / "cells.tif", image, **TILES)
    (bucket / "uploads" / "cells.tif").rename(bucket / "uploads" / "tiles")
    _, files = run("tiles", original_name="cells.tif")
    assert_same_regions(labels_of(files), ndimage.label(image > 300)[0], count)


def test_an_image_in_parts_gives_what_the_whole_one_gives(
    run: Run, bucket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, count = discs(1300)
    tifffile.imwrite(bucket / "uploads" / "cells.tif", image, **TILES)
    in_parts = labels_of(run("cells.tif")[1])
    for name in ("MAX_IMAGE_HEIGHT", "MAX_IMAGE_WIDTH"):
        monkeypatch.setenv(name, "1300")
    settings.use(None)
    whole = labels_of(run("cells.tif")[1])
    assert_same_regions(in_parts, whole.astype(int), count)


def test_another_scale_gives_labels_at_the_size_of_the_image(run: Run, bucket: Path) -> None:
    image, count = discs(1500)
    tifffile.imwrite(bucket / "uploads" / "cells.tif", image, **TILES)
    labels = labels_of(run("cells.tif", scale="0.5")[1])
    assert labels.shape == image.shape
    assert labels.max() == count
    truth = ndimage.label(image > 300)[0]
    inside = ndimage.binary_erosion(truth, iterations=2)
    pairs = np.unique(np.stack([truth[inside & (labels > 0)], labels[inside & (labels > 0)]]), axis=1)
    assert len(set(pairs[0])) == len(set(pairs[1])) == pairs.shape[1]


def test_each_frame_of_a_stack_is_labelled_alone(run: Run, bucket: Path) -> None:
    frames = [discs(1100, seed) for seed in (1, 2)]
    stack = np.stack([image for image, _ in frames])
    tifffile.imwrite(
        bucket / "uploads" / "cells.tif", stack, metadata={"axes": "TYX"}, photometric="minisblack", **TILES
    )
    labels = labels_of(run("cells.tif")[1])
    for frame, (image, count) in enumerate(frames):
        assert_same_regions(labels[frame], ndimage.label(image > 300)[0], count)


def test_without_functions_the_outputs_are_saved_as_they_are(run: Run, bucket: Path) -> None:
    image = np.random.default_rng(1).random((2, 1040, 1100), dtype=np.float32)
    tifffile.imwrite(bucket / "uploads" / "cells.ome.tif", image, metadata={"axes": "CYX"}, tile=(256, 256))
    functions = {"preprocess_function": "", "postprocess_function": ""}
    fields, files = run("cells.ome.tif", model_name="Convolving", **functions)
    assert sorted(files) == [f"cells.ome_feature_{channel}.tif" for channel in range(4)], fields
    planes = [tifffile.imread(io.BytesIO(data)) for data in files.values()]
    assert {(plane.shape, plane.dtype) for plane in planes} == {((1040, 1100), np.dtype(np.float32))}


def test_chosen_channels_are_used(run: Run, bucket: Path) -> None:
    image, count = discs(1100)
    both = np.stack([np.zeros_like(image), image])
    tifffile.imwrite(
        bucket / "uploads" / "cells.tif", both, metadata={"axes": "CYX"}, photometric="minisblack", **TILES
    )
    assert_same_regions(labels_of(run("cells.tif", channels="1")[1]), ndimage.label(image > 300)[0], count)


@pytest.mark.parametrize(("version", "name"), [("0.4", "cells.zarr.zip"), ("0.5", "cells.ozx")])
def test_an_ome_zarr_gives_an_ome_zarr(run: Run, bucket: Path, tmp_path: Path, version: str, name: str) -> None:
    image, count = discs(600)
    folder = ome_zarr.write(tmp_path / "cells.zarr", image, "yx", version=version, chunk_px=128)
    ome_zarr.zipped(folder, bucket / "uploads" / name)
    _, files = run(name, original_name="cells.ozx")
    for member, data in files.items():
        assert member.startswith("cells_feature_0.zarr/")
        path = tmp_path / "result" / member
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    with open_windowed(tmp_path / "result" / "cells_feature_0.zarr", name="result") as result:
        assert (result.shape, result.pixel_size_um) == ((1, 600, 600, 1), 0.5)
        labels = result.read(0, (slice(0, 600), slice(0, 600)))[0, ..., 0]
    assert_same_regions(labels, ndimage.label(image > 300)[0], count)


def test_progress_is_written_to_the_job(run: Run, bucket: Path) -> None:
    tifffile.imwrite(bucket / "uploads" / "cells.tif", discs(1500)[0], **TILES)
    fields, _ = run("cells.tif")
    assert 0 < float(fields["progress"]) <= 100


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"preprocess_function": "own"}, "InvalidJob: function own: can't be"),
        ({"channels": "3"}, "InvalidImage: cells.tif: field channels asks for channel 3"),
        ({"dimension_order": "XYC"}, "dimension_order: XYC makes 1 image(s) of 2 x 1100 px with 1100 channel(s)"),
        ({"model_name": "Convolving"}, "ModelMismatch: "),
    ],
)
def test_a_job_that_does_not_fit_fails_in_words(run: Run, bucket: Path, fields: dict[str, str], message: str) -> None:
    image = discs(1100)[0]
    stack = np.stack([image, image]) if "dimension_order" in fields else image
    tifffile.imwrite(bucket / "uploads" / "cells.tif", stack, photometric="minisblack", **TILES)
    after, _ = run("cells.tif", **fields)
    assert after["status"] == "failed"
    assert message in after["reason"]


def test_a_damaged_tile_fails_the_job_in_words(run: Run, bucket: Path) -> None:
    path = bucket / "uploads" / "cells.tif"
    tifffile.imwrite(path, discs(1100)[0], **TILES)
    with tifffile.TiffFile(path) as tif:
        offset = tif.pages.first.dataoffsets[-1]
    data = bytearray(path.read_bytes())
    data[offset : offset + 50] = b"\xff" * 50
    path.write_bytes(data)
    after, _ = run("cells.tif")
    assert after["status"] == "failed"
    damaged = "InvalidImage: cells.tif: looks like TIFF but is damaged or cut off; "
    assert after["reason"] == f"{damaged}export it again and upload the whole file"


def test_a_picture_that_is_too_large_is_still_refused(run: Run, bucket: Path) -> None:
    from PIL import Image

    Image.new("L", (1100, 1100)).save(bucket / "uploads" / "cells.png")
    after, _ = run("cells.png")
    assert after["status"] == "failed"
    assert "1100 px high, allowed are 1024 px (MAX_IMAGE_HEIGHT)" in after["reason"]
