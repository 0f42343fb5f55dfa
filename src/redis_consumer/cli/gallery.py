"""Writes the label image, the overlay and the report of the demo."""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from redis_consumer.cli.report import Report, write_report
from redis_consumer.cli.results import Result
from redis_consumer.errors import InvalidImage

#: The files; the page to open is the first one.
FILES = ("report.html", "overlay.png", "labels.tif")


def write_gallery(folder: Path, image_path: Path, result: Result, fields: dict[str, str], elapsed_s: float) -> str:
    """Write ``labels.tif``, ``overlay.png`` and ``report.html``. Return a text such as ``2 objects in a.tif``.

    For a stack, they show only the first plane, and the text says so.

    Args:
        folder: where the files are written.
        image_path: the image that was submitted.
        result: how its job ended, and the path of the downloaded zip.
        fields: the job's hash.
        elapsed_s: seconds from submission to result.

    Raises:
        InvalidImage: the zip contains no label image, or the image cannot be read.
    """
    from redis_consumer.processing.render import overlay_outlines, to_png_bytes

    planes = read_planes(image_path)
    image, where = planes[0], image_path.name
    if len(planes) > 1:
        where = f"the first of the {len(planes)} planes of {where}"
    labels = read_labels(result.path or folder)
    write_labels(folder / "labels.tif", labels)
    overlay = to_png_bytes(overlay_outlines(image, labels, thickness=2))
    (folder / "overlay.png").write_bytes(overlay)
    areas = np.bincount(labels.ravel())[1:]
    areas = areas[areas > 0]
    plain = to_png_bytes(overlay_outlines(image, np.zeros_like(labels)))
    report = Report(where, plain, overlay, areas, result.state.job_id, fields, elapsed_s)
    write_report(folder / "report.html", report)
    return f"{len(areas)} objects in {where}"


def read_planes(path: Path) -> npt.NDArray[np.float32]:
    """Read the first channel of all images in a file (times, depths, pages) as (B, Y, X) float32."""
    from redis_consumer.images import ImageLimits, read_image, to_batch

    planes: npt.NDArray[np.float32] = to_batch(read_image(path, limits=ImageLimits(None, None)))[..., 0]
    return planes


def read_labels(path: Path) -> npt.NDArray[np.int32]:
    """Read the label image from a result zip: its first ``*_feature_0.tif``, as (Y, X) int32.

    Raises:
        InvalidImage: the zip has no such file.
    """
    with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory() as folder:
        names = [name for name in archive.namelist() if name.endswith("_feature_0.tif")]
        if not names:
            raise InvalidImage(f"{path.name}: contains no file *_feature_0.tif; see the worker's log")
        member = Path(folder) / PurePosixPath(names[0]).name
        member.write_bytes(archive.read(names[0]))
        labels: npt.NDArray[np.int32] = np.rint(read_planes(member)[0]).astype(np.int32)
        return labels


def write_labels(path: Path, labels: npt.NDArray[np.int32]) -> None:
    """Write a label image as integers, so that viewers show labels: uint16, or int32 for larger values."""
    import tifffile

    dtype: Any = np.uint16 if labels.max(initial=0) < 2**16 else np.int32
    tifffile.imwrite(path, labels.astype(dtype), compression="zlib")
