"""Measures how well a model finds objects in images with true labels, beside a threshold and a watershed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage import feature, filters, segmentation
from training.real import RealImage, read, rows_of
from training.scores import Counts, average_precision, count_matches

from redis_consumer.errors import SettingsError
from redis_consumer.job import ModelId
from redis_consumer.testing import JobRun, Workbench

THRESHOLDS = (0.5, 0.6, 0.7, 0.75, 0.8, 0.9)
MODEL = "NuclearSegmentation"
#: Median diameters, in pixels, from which the next group of sizes begins.
SIZES_PX = (15, 30, 60)
#: A scale within this factor of the right one counts as found.
TOLERANCE = 1.25
#: Images below the first precision should have a warning, images from the second one should not.
POOR, GOOD = 0.5, 0.8
#: Smallest distance of two objects and smallest area for the threshold, in pixels, where the scale isn't known.
DISTANCE_PX, AREA_PX = 7, 30

Labels = npt.NDArray[np.int32]


@dataclass(frozen=True)
class _Result:
    """What one method found in one image."""

    image: RealImage
    labels: Labels
    counts: Counts
    fields: Mapping[str, str] = field(default_factory=dict)


def measure(data: Path | None = None, model: str = MODEL, part: str | None = None) -> dict[str, Any]:
    """Segment all images of a folder by jobs of an image consumer in this process, with the scale given and without.

    Args:
        data: folder of images and labels, see `training.real`.
        model: a packaged model, ``name`` or ``name:version``; or the path of an ONNX file beside its ``card.toml``.
        part: only this part of the images: ``train``, ``by id``, ``by experiment``, or ``held out`` for the last two.

    Returns:
        Figures of ``scale_found`` (nothing is known of the scale), ``scale_known`` (the job has the true median
        diameter), ``otsu`` and ``otsu_scale_known``, a threshold and a watershed of distances. For each, in all images
        and by kind and size: pooled average precision at each IoU (``ap``), ``precision``, ``recall`` and the median
        ``count_error`` of an image, as a share of its objects. ``scale_found`` also has ``scale_within_25_percent``,
        the share of images whose scale is right; ``poor_flagged`` and ``good_flagged``, the shares of images with
        AP@0.5 below 0.5 and from 0.8 whose job warns of the quality.

    Raises:
        SettingsError: there is no such folder, model or part.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    if data is None or not data.is_dir():
        raise SettingsError(f"--data: {data or 'nothing'} is no folder; give one with images/ and labels/")
    images = _images(data, part)
    results: dict[str, list[_Result]] = {
        name: [] for name in ("scale_found", "scale_known", "otsu", "otsu_scale_known")
    }
    path = Path(model)
    named = {} if path.is_file() else _model_fields(model)
    with Workbench("image", model=path if path.is_file() else None) as bench:
        for number, image in enumerate(images, start=1):
            known = {"object_diameter_px": f"{image.diameter:.4g}"} if image.diameter else {}
            results["scale_found"].append(_by_job(bench, image, named))
            results["scale_known"].append(_by_job(bench, image, {**named, **known}))
            results["otsu"].append(_by_threshold(image))
            results["otsu_scale_known"].append(_by_threshold(image, image.diameter))
            found = results["scale_found"][-1].counts
            print(
                f"{number} of {len(images)}: {image.name}: {found.true} objects, {found.found} found", file=sys.stderr
            )
    figures: dict[str, Any] = {"model": model, "part": part or "all", "images": len(images)}
    figures |= {name: _figures(each) for name, each in results.items()}
    figures["scale_found"] |= _scale_figures(results) | _warning_figures(results["scale_found"])
    return figures


def _images(data: Path, part: str | None) -> list[RealImage]:
    wanted = {None: None, "held out": ("by id", "by experiment")}.get(part, (part,))
    try:
        images = (read(data, row) for row in rows_of(data))
        chosen = [image for image in images if wanted is None or image.part in wanted]
    except (OSError, ValueError) as error:
        raise SettingsError(f"--data: {error}") from error
    if not chosen:
        raise SettingsError(f"--part: {part!r} has no images; give train, by id, by experiment or held out")
    return chosen


def _model_fields(model: str) -> dict[str, str]:
    known = ModelId.parse(model)
    return {"model_name": known.name, "model_version": str(known.version)}


def _by_job(bench: Workbench, image: RealImage, fields: Mapping[str, str]) -> _Result:
    run = bench.run(image.path, **fields)
    labels = _labels(run, image.labels.shape)
    return _Result(image, labels, count_matches(image.labels, labels, THRESHOLDS), dict(run.fields))


def _labels(run: JobRun, shape: tuple[int, ...]) -> Labels:
    """The label image of a job; empty if the job failed, so that its objects count as missed."""
    planes = [array for name, array in run.outputs.items() if "feature_0" in name]
    if run.status != "done" or not planes:
        print(f"{run.job.get('original_name')}: {run.reason.strip() or 'no label image'}", file=sys.stderr)
        return np.zeros(shape, np.int32)
    return np.asarray(planes[0], np.int32).reshape(shape)


def _by_threshold(image: RealImage, diameter: float = 0.0) -> _Result:
    """Label by Otsu's threshold and a watershed of the distance to the background. Objects are the rarer side of it."""
    grey = filters.gaussian(image.image, 1, preserve_range=True)
    mask = grey > filters.threshold_otsu(grey) if np.ptp(grey) else np.zeros(grey.shape, np.bool_)
    if mask.mean() > 0.5:
        mask = ~mask
    distance = filters.gaussian(ndimage.distance_transform_edt(mask), 1)
    apart = round(diameter / 3) if diameter else DISTANCE_PX
    peaks = feature.peak_local_max(distance, min_distance=max(apart, 2), labels=mask.astype(np.int32))
    seeds = np.zeros(mask.shape, np.int32)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    labels = np.asarray(segmentation.watershed(-distance, seeds, mask=mask), np.int32)
    least = diameter**2 / 8 if diameter else AREA_PX
    labels[np.bincount(labels.ravel())[labels] < least] = 0
    return _Result(image, labels, count_matches(image.labels, labels, THRESHOLDS))


def _figures(results: Sequence[_Result]) -> dict[str, Any]:
    return {
        **_pooled(results),
        "by_kind": _grouped(results, lambda image: image.kind),
        "by_size": _grouped(results, _size),
    }


def _grouped(results: Sequence[_Result], group: Callable[[RealImage], str]) -> dict[str, dict[str, Any]]:
    names = sorted({group(result.image) for result in results})
    return {name: _pooled([each for each in results if group(each.image) == name]) for name in names}


def _size(image: RealImage) -> str:
    edges = (0, *SIZES_PX)
    number = int(np.searchsorted(SIZES_PX, image.diameter, side="right"))
    return f"{edges[number]} to {SIZES_PX[number]} px" if number < len(SIZES_PX) else f"from {SIZES_PX[-1]} px"


def _pooled(results: Sequence[_Result]) -> dict[str, Any]:
    counts = [result.counts for result in results]
    true, found = sum(each.true for each in counts), sum(each.found for each in counts)
    hits = {f"{at:g}": sum(each.hits[number] for each in counts) for number, at in enumerate(THRESHOLDS)}
    errors = [abs(each.found - each.true) / max(each.true, 1) for each in counts]
    first = hits[f"{THRESHOLDS[0]:g}"]
    return {
        "images": len(counts),
        "objects": true,
        "ap": {at: _share(matched, true + found - matched) for at, matched in hits.items()},
        "precision": _share(first, found),
        "recall": _share(first, true),
        "count_error": round(float(np.median(errors)), 4),
    }


def _scale_figures(results: Mapping[str, Sequence[_Result]]) -> dict[str, float | None]:
    """The share of images whose scale is near the scale of the job with the true diameter."""
    pairs = [
        (float(found.fields["scale"]), float(known.fields["scale"]))
        for found, known in zip(results["scale_found"], results["scale_known"], strict=True)
        if found.fields.get("scale") and known.fields.get("scale") and known.image.diameter
    ]
    near = sum(max(found / right, right / found) <= TOLERANCE for found, right in pairs)
    return {"scale_within_25_percent": _share(near, len(pairs))}


def _warning_figures(results: Iterable[_Result]) -> dict[str, Any]:
    """How many poor and good images have a warning of their quality."""
    rows = [
        (
            average_precision([(each.image.labels, each.labels)], 0.5),
            "quality of this result is poor" in each.fields.get("warning", ""),
        )
        for each in results
    ]
    poor, good = [flag for ap, flag in rows if ap < POOR], [flag for ap, flag in rows if ap >= GOOD]
    return {
        "poor_images": len(poor),
        "poor_flagged": _share(sum(poor), len(poor)),
        "good_images": len(good),
        "good_flagged": _share(sum(good), len(good)),
    }


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None
