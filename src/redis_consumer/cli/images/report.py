"""Writes the label image, the overlay and the HTML report of the demo. The page needs no other file."""

from __future__ import annotations

import base64
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path, PurePosixPath
from string import Template
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from redis_consumer.client.submit import Result
from redis_consumer.errors import InvalidImage
from redis_consumer.images import read_planes
from redis_consumer.processing.render import overlay_outlines, to_png_bytes
from redis_consumer.text import decimal

#: The files; the page to open is the first one.
FILES = ("report.html", "overlay.png", "labels.tif")
#: Field of the job, name on the page and colour, in the order of the stages.
STAGES = (
    ("download_time", "Download and read", "--s1"),
    ("preprocess_time", "Pre-process", "--s2"),
    ("prediction_time", "Predict", "--s3"),
    ("postprocess_time", "Post-process", "--s4"),
    ("upload_time", "Save and upload", "--s5"),
)
WIDTH, HEIGHT, LEFT, BOTTOM = 560, 260, 36, 40
MAX_BINS = 16


@dataclass(frozen=True)
class Report:
    """Content of the page.

    Attributes:
        name: file name of the image, with the plane if it has several.
        image_png: the image.
        overlay_png: the image with the outlines of its objects.
        areas_px: area of each object in pixels, rank 1.
        job_id: key of the job.
        fields: the job's hash.
        elapsed_s: seconds from submission to result.
    """

    name: str
    image_png: bytes
    overlay_png: bytes
    areas_px: npt.NDArray[np.int64]
    job_id: str
    fields: Mapping[str, str]
    elapsed_s: float


def write_results(folder: Path, image_path: Path, result: Result, fields: dict[str, str], elapsed_s: float) -> str:
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
    dtype: Any = np.uint16 if labels.max(initial=0) < 2**16 else np.int32
    tifffile.imwrite(path, labels.astype(dtype), compression="zlib")


def write_report(path: Path, report: Report) -> None:
    """Write the page."""
    template = Template((Path(__file__).parent / "report.html").read_text(encoding="utf-8"))
    model = f"{report.fields.get('model_name', '')}:{report.fields.get('model_version', '')}"
    rows = [("job", report.job_id), *sorted(report.fields.items())]
    page = template.substitute(
        title=escape(f"{len(report.areas_px)} objects in {report.name}"),
        subtitle=escape(f"Segmented by {model} at scale {report.fields.get('scale', '') or '1'}"),
        numbers=_numbers(report),
        image=base64.b64encode(report.image_png).decode("ascii"),
        overlay=base64.b64encode(report.overlay_png).decode("ascii"),
        histogram=histogram_svg(report.areas_px),
        stages=_stages(report.fields),
        fields="".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows),
    )
    path.write_text(page, encoding="utf-8")


def histogram_svg(areas_px: npt.NDArray[np.int64]) -> str:
    """Draw a histogram of the areas of objects.

    Args:
        areas_px: area of each object in pixels, rank 1; may be empty.
    """
    if not len(areas_px):
        return "<p>No objects were found.</p>"
    counts, edges = _bins(areas_px)
    top = int(counts.max())
    width, height = WIDTH - LEFT, HEIGHT - BOTTOM - 10
    step = width / len(counts)
    parts = [_grid_line(value, top, height) for value in sorted({0, top // 2, top})]
    for index, count in enumerate(counts):
        tall = height * int(count) / top
        words = f"{count} objects of {edges[index]:.0f} to {edges[index + 1]:.0f} px"
        parts.append(
            f'<rect class="bar" x="{LEFT + index * step + 1:.1f}" y="{10 + height - tall:.1f}" width="{step - 2:.1f}" '
            f'height="{tall:.1f}" rx="2"><title>{words}</title></rect>'
        )
    for index in sorted({0, len(counts) // 2, len(counts)}):
        anchor = {0: "start", len(counts): "end"}.get(index, "middle")
        x = LEFT + index * step
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 22}" text-anchor="{anchor}">{edges[index]:,.0f}</text>')
    parts.append(f'<text x="{LEFT + width / 2:.1f}" y="{HEIGHT - 4}" text-anchor="middle">area in pixels</text>')
    label = "Histogram of the objects' areas"
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _bins(areas_px: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Count areas in bins of a round width, starting at zero."""
    largest = float(areas_px.max())
    rough = largest / MAX_BINS
    magnitude = 10.0 ** np.floor(np.log10(rough))
    width = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= rough)
    edges = np.arange(0, np.ceil(largest / width) + 1) * width
    counts, edges = np.histogram(areas_px, bins=edges)
    return counts, edges


def _grid_line(value: int, top: int, height: float) -> str:
    y = 10 + height * (1 - value / top)
    line = f'<line class="grid" x1="{LEFT}" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>'
    return f'{line}<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value}</text>'


def _numbers(report: Report) -> str:
    median = f"{np.median(report.areas_px):,.0f} px" if len(report.areas_px) else "-"
    shown = (
        (f"{len(report.areas_px)}", "objects"),
        (median, "median area"),
        (report.fields.get("quality") or "-", "quality, the share of usual objects"),
        (f"{_seconds(report.fields, 'total_time'):.2f} s", "in the worker"),
        (f"{report.elapsed_s:.2f} s", "from submission to result"),
    )
    return "".join(f"<div><strong>{escape(number)}</strong><span>{words}</span></div>" for number, words in shown)


def _stages(fields: Mapping[str, str]) -> str:
    total_s = _seconds(fields, "total_time")
    known = [(words, colour, _seconds(fields, name)) for name, words, colour in STAGES if name in fields]
    rest = max(total_s - sum(took_s for _, _, took_s in known), 0.0)
    shown = [*known, ("Everything else", "--rest", rest)]
    bars = "".join(
        f'<i style="flex:{took_s:.6f};background:var({colour})" title="{words}: {took_s:.3f} s"></i>'
        for words, colour, took_s in shown
    )
    rows = "".join(
        f'<tr><th><span class="dot" style="background:var({colour})"></span>{words}</th>'
        f'<td class="number">{took_s:.3f} s</td></tr>'
        for words, colour, took_s in shown
    )
    whole = f'<tr><th>Total</th><td class="number">{total_s:.3f} s</td></tr>'
    return f'<div class="stages">{bars}</div><table>{rows}{whole}</table>'


def _seconds(fields: Mapping[str, str], name: str) -> float:
    try:
        return decimal(fields.get(name, ""))
    except ValueError:
        return 0.0
