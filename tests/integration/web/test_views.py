"""Views over HTTP: tiles of uploads and of jobs, labels, points and values."""

from __future__ import annotations

import io
import zipfile
import zlib
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from PIL import Image as Pillow

from support.web_server import Web

Array = npt.NDArray[Any]


def tiff(image: Array, **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, image, **options)
    return file.getvalue()


def pixels(*shape: int) -> Array:
    return np.random.default_rng(1).integers(0, 4000, shape).astype(np.uint16)


def tile_of(reply: httpx.Response, dtype: str) -> Array:
    assert reply.headers["Content-Encoding"] == "deflate"
    assert reply.headers["Content-Type"] == "application/octet-stream"
    return np.frombuffer(reply.content, np.dtype(dtype).newbyteorder("<")).reshape(512, 512)


def add_job(web: Web, upload: str, name: str = "cells.tif", **fields: str) -> str:
    """A job as it is while it waits."""
    key = web.context.client.hget(f"redis-consumer:upload:{upload}", "key")
    job = f"predict:{name}:1"
    web.context.client.hset(job, mapping={"status": "new", "input_file_name": key, "original_name": name, **fields})
    return job


def finish(web: Web, job: str, files: dict[str, bytes]) -> None:
    """End it as a worker does."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    web.context.storage.write_bytes("output/r.zip", packed.getvalue())
    web.context.client.hset(job, mapping={"status": "done", "output_file_name": "output/r.zip"})


def test_tiles_of_an_upload_have_the_values_of_its_image(web: Web) -> None:
    image = pixels(600, 700)
    base = f"/uploads/{web.put('cells.tif', tiff(image))['id']}/view"
    view = web.until(base, "ready", True)
    assert (view["width"], view["height"], view["tile"], view["t"], view["z"]) == (700, 600, 512, 1, 1)
    assert view["progress"] == 100
    assert view["levels"] == [
        {"width": 700, "height": 600, "rows": 2, "cols": 2},
        {"width": 350, "height": 300, "rows": 1, "cols": 1},
    ]
    assert [(layer["name"], layer["dtype"], layer["channels"]) for layer in view["layers"]] == [("image", "uint16", 1)]
    reply = web.ask("GET", f"{base}/image/0/0/0/1/1?c=0")
    assert reply.headers["Cache-Control"] == "private, max-age=31536000, immutable"
    tile = tile_of(reply, "uint16")
    np.testing.assert_array_equal(tile[:88, :188], image[512:, 512:])
    assert not tile[88:].any()
    again = web.ask("GET", f"{base}/image/0/0/0/1/1?c=0", 304, headers={"If-None-Match": reply.headers["ETag"]})
    assert again.content == b""


def test_a_light_tile_is_a_picture_of_the_roots(web: Web) -> None:
    image = np.linspace(100, 4000, 512 * 512).astype(np.uint16).reshape(512, 512)
    base = f"/uploads/{web.put('cells.tif', tiff(image))['id']}/view"
    web.until(base, "ready", True)
    reply = web.ask("GET", f"{base}/image/0/0/0/0/0?c=0&light")
    assert reply.headers["Content-Type"] == "image/jpeg"
    with Pillow.open(io.BytesIO(reply.content)) as picture:
        grey = np.asarray(picture).astype(float)
    shown = 100 + (grey / 255) ** 2 * 3900
    assert np.abs(shown - image).max() < 100


@pytest.mark.parametrize(
    "tile", ["image/0/0/0/2/0", "image/0/0/1/0/0", "image/1/0/0/0/0", "image/0/3/0/0/0", "labels/0/0/0/0/0",
             "image/0/0/0/0/0?c=1"],
)  # fmt: skip
def test_tiles_that_are_not_there(web: Web, tile: str) -> None:
    base = f"/uploads/{web.put('cells.tif', tiff(pixels(40, 50)))['id']}/view"
    web.until(base, "ready", True)
    assert web.ask("GET", f"{base}/{tile}", 404).json()["detail"]


def test_a_view_of_a_file_that_is_no_image_says_why(web: Web) -> None:
    upload = web.put("cells.tif", b"II*\0" + bytes(100))["id"]
    view = web.ask("GET", f"/uploads/{upload}/view").json()
    assert (view["ready"], view["layers"]) == (False, [])
    assert "cut off" in view["problem"]["detail"]
    web.ask("GET", f"/uploads/{upload}/view/image/0/0/0/0/0", 409)


def test_a_job_shows_its_image_and_then_its_labels(web: Web) -> None:
    image = pixels(2, 600, 520)
    labels = np.arange(600 * 520).reshape(600, 520) % 3000
    data = tiff(image, imagej=True, metadata={"axes": "CYX"})
    job = add_job(web, web.put("cells.tif", data)["id"])
    base = f"/jobs/{job}/view"
    before = web.until(base, "ready", True)
    assert [layer["name"] for layer in before["layers"]] == ["image"]
    files = {"cells_feature_0.tif": tiff(labels.astype(np.float32)), "cells_feature_1.tif": tiff(labels // 2 * 1.0)}
    finish(web, job, files)
    view = web.until(base, "ready", True)
    assert [layer["name"] for layer in view["layers"]] == ["image", "labels", "labels_2"]
    assert view["layers"][1]["max_label"] == 2999
    assert view["version"] != before["version"]
    reply = web.ask("GET", f"{base}/labels/0/0/0/0/0?v={view['version']}")
    assert "immutable" in reply.headers["Cache-Control"]
    np.testing.assert_array_equal(tile_of(reply, "uint32"), labels[:512, :512])
    assert web.ask("GET", f"{base}/labels/0/0/0/0/0").headers["Cache-Control"] == "private, no-cache"
    np.testing.assert_array_equal(
        tile_of(web.ask("GET", f"{base}/image/0/0/0/1/0?c=1"), "uint16")[:88], image[1, 512:, :512]
    )
    value = web.ask("GET", f"{base}/at?x=515&y=599").json()
    place = (599, 515)
    assert value["values"] == [image[0][place], image[1][place]]
    assert (value["label"], value["label_2"]) == (labels[place], labels[place] // 2)
    web.ask("GET", f"{base}/at?x=520&y=0", 404)


def test_a_job_shows_its_points(web: Web) -> None:
    job = add_job(web, web.put("cells.tif", tiff(pixels(40, 50)))["id"])
    spots = io.BytesIO()
    np.save(spots, np.array([[1.5, 2.0], [3, 4]]))
    finish(web, job, {"cells_0.npy": spots.getvalue(), "cells_0.tif": tiff(np.zeros((40, 50, 3), np.uint8))})
    view = web.until(f"/jobs/{job}/view", "ready", True)
    assert {"name": "points", "t": 1, "z": 1, "count": 2} in view["layers"]
    assert web.ask("GET", f"/jobs/{job}/view/points/0/0").json() == {"y": [1.5, 3.0], "x": [2.0, 4.0], "cell": []}


def test_a_damaged_result_leaves_the_image(web: Web) -> None:
    job = add_job(web, web.put("cells.tif", tiff(pixels(40, 50)))["id"])
    web.context.storage.write_bytes("output/r.zip", b"PK\3\4damaged")
    web.context.client.hset(job, mapping={"status": "done", "output_file_name": "output/r.zip"})
    view = web.until(f"/jobs/{job}/view", "ready", True)
    assert [layer["name"] for layer in view["layers"]] == ["image"]
    assert view["problem"]["detail"]


def test_another_user_sees_no_tiles_of_a_job(web: Web) -> None:
    job = add_job(web, web.put("cells.tif", tiff(pixels(40, 50)))["id"], owner="ann")
    web.ask("GET", f"/jobs/{job}/view", user="ann")
    web.ask("GET", f"/jobs/{job}/view", 404, user="ben")
    web.ask("GET", f"/jobs/{job}/view/image/0/0/0/0/0", 404, user="ben")
    web.ask("GET", "/jobs/predict:none:1/view", 404)


def test_the_tiles_of_a_job_with_other_axes_are_read_anew(web: Web) -> None:
    image = pixels(3, 40, 50)
    upload = web.put("cells.tif", tiff(image, photometric="minisblack"))["id"]
    assert web.until(f"/uploads/{upload}/view", "ready", True)["layers"][0]["channels"] == 3
    job = add_job(web, upload, dimension_order="BXY")
    view = web.until(f"/jobs/{job}/view", "ready", True)
    assert (view["t"], view["layers"][0]["channels"]) == (3, 1)
    reply = web.ask("GET", f"/jobs/{job}/view/image/2/0/0/0/0?c=0")
    np.testing.assert_array_equal(tile_of(reply, "uint16")[:40, :50], image[2])


def test_stored_bytes_are_sent_as_they_are(web: Web) -> None:
    base = f"/uploads/{web.put('cells.tif', tiff(pixels(512, 512)))['id']}/view"
    web.until(base, "ready", True)
    with web.http.stream("GET", f"{web.url}{base}/image/0/0/0/0/0?c=0") as reply:
        packed = b"".join(reply.iter_raw())
    assert len(zlib.decompress(packed)) == 512 * 512 * 2
