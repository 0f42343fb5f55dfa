"""Writes the HTML report of a result. The page needs no other file."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template

import numpy as np
import numpy.typing as npt

from redis_consumer.text import decimal

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
