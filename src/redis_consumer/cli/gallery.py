"""What pictures and tables are made of a result for the demonstration?"""

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

#: What a gallery consists of, the page to open first.
FILES = ("report.html", "overlay.png", "labels.tif")


def write_gallery(folder: Path, image_path: Path, result: Result, fields: dict[str, str], elapsed_s: float) -> str:
    """Write ``labels.tif``, ``overlay.png`` and ``report.html``; give what was found, such as ``2 objects in a.tif``.

    Of a stack, they show the first plane, and say so.

    Args:
        folder: where to.
        image_path: the image that was submitted.
        result: how its job ended, with the downloaded zip.
        fields: the job's hash.
        elapsed_s: seconds from submission to result.

    Raises:
        InvalidImage: the zip holds no label image, or the image can't be read.
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
    """Read the first channel of all images (times, depths, pages) in a file, (B, Y, X) float32."""
    from redis_consumer.images import ImageLimits, read_image, to_batch

    planes: npt.NDArray[np.float32] = to_batch(read_image(path, limits=ImageLimits(None, None)))[..., 0]
    return planes


def read_labels(path: Path) -> npt.NDArray[np.int32]:
    """Read the label image out of a result zip: its first ``*_feature_0.tif``, (Y, X) int32.

    Raises:
        InvalidImage: there is none.
    """
    with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory() as folder:
        names = [name for name in archive.namelist() if name.endswith("_feature_0.tif")]
        if not names:
            raise InvalidImage(f"{path.name}: holds no file *_feature_0.tif; look at the worker's log")
        member = Path(folder) / PurePosixPath(names[0]).name
        member.write_bytes(archive.read(names[0]))
        labels: npt.NDArray[np.int32] = np.rint(read_planes(member)[0]).astype(np.int32)
        return labels


def write_labels(path: Path, labels: npt.NDArray[np.int32]) -> None:
    """Write a label image as integers, which viewers take for labels: uint16, or int32 where that is too small."""
    import tifffile

    dtype: Any = np.uint16 if labels.max(initial=0) < 2**16 else np.int32
    tifffile.imwrite(path, labels.astype(dtype), compression="zlib")
