"""Reads real images with true masks, and draws held-out parts and crops for training.

A folder holds ``images`` and ``labels`` with the same names in both; labels are integers, 0 is background. An
``index.json`` may say the ``id`` (the name without ending), ``kind`` and ``median_diameter`` in pixels of each image.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage import io, transform

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]
#: What an index says about an image.
Row = dict[str, object]

#: Heights and widths of experiments that training never sees: images of one size come from one microscope.
HELD_OUT_SIZES = {(512, 640), (603, 1272), (260, 347)}
#: Images whose id begins like this are held out too; of kind ``phase``, those whose id ends like this.
HELD_OUT_IDS, HELD_OUT_ENDS = ("0", "1"), ("0", "5")
#: Kinds whose objects are dark or bright, so that training shows both.
TURNED_KINDS = ("histology", "brightfield-gray")
#: Diameters to which nuclei are resized in training, in pixels.
SMALLEST_PX, LARGEST_PX = 14.0, 52.0
HIGH_PERCENTILES = (99.0, 99.5, 99.8, 99.9, 100.0)


@dataclass(frozen=True)
class RealImage:
    """An image with its true labels.

    Attributes:
        name: the id in the index.
        kind: ``fluorescence``, ``histology``, ``phase`` and so on.
        image: (Y, X) float32, grey values of the file.
        labels: (Y, X) int32, 0 is background.
        diameter: median diameter of its objects in pixels, of a disc of equal area.
        part: ``train``, ``by id`` or ``by experiment``.
        path: the file of the image.
    """

    name: str
    kind: str
    image: Floats
    labels: Labels
    diameter: float
    part: str
    path: Path


def load(folder: Path, kinds: Sequence[str] = ("fluorescence",)) -> list[RealImage]:
    """Read all images of some kinds, in the order of the index.

    Raises:
        FileNotFoundError: the folder has no ``index.json``, or an image or its labels are missing.
    """
    return [read(folder, row) for row in rows_of(folder) if row.get("kind") in kinds]


def rows_of(folder: Path) -> list[Row]:
    """List the images of a folder that have labels. Without an index, their kind is ``image``.

    Raises:
        FileNotFoundError: there are none.
    """
    index = folder / "index.json"
    if index.is_file():
        rows: list[Row] = json.loads(index.read_text())
    else:
        names = sorted(path.stem for path in (folder / "images").glob("*") if _file(folder / "labels", path.stem))
        rows = [{"id": name, "kind": "image"} for name in names]
    if not rows:
        raise FileNotFoundError(f"{folder}: no image in images/ has labels of the same name in labels/; add both")
    return rows


def read(folder: Path, row: Row) -> RealImage:
    """Read an image and its labels.

    Raises:
        FileNotFoundError: one of them is missing.
        ValueError: they have different sizes, or the labels are no (Y, X) integers.
    """
    name, kind = str(row["id"]), str(row.get("kind", "image"))
    path, labels_path = _file(folder / "images", name), _file(folder / "labels", name)
    if path is None or labels_path is None:
        raise FileNotFoundError(f"{folder}: {name} is missing in images/ or labels/")
    pixels, labels = io.imread(path), io.imread(labels_path)
    if labels.ndim != 2 or labels.dtype.kind not in "iu" or pixels.shape[:2] != labels.shape:
        raise ValueError(
            f"{labels_path}: {labels.dtype} of shape {labels.shape} for an image of {pixels.shape}; labels must be "
            "(y, x) integers of the same size"
        )
    grey = pixels[..., :3].mean(axis=-1) if pixels.ndim == 3 else pixels
    labels = np.asarray(labels, np.int32)
    diameter = float(str(row.get("median_diameter") or _median_diameter(labels)))
    return RealImage(name, kind, np.asarray(grey, np.float32), labels, diameter, part_of(row, labels.shape), path)


def _file(folder: Path, name: str) -> Path | None:
    """The file of this name without ending."""
    return next(iter(sorted(path for path in folder.glob(f"{name}.*") if path.stem == name)), None)


def _median_diameter(labels: Labels) -> float:
    areas = np.bincount(labels.ravel())[1:]
    return float(np.median(2 * np.sqrt(areas[areas > 0] / np.pi))) if areas.any() else 0.0


def part_of(row: Row, shape: tuple[int, ...]) -> str:
    """Return the part of the data that an image belongs to, by its row and its size."""
    return _part(str(row["id"]), str(row.get("kind", "image")), shape)


def _part(name: str, kind: str, shape: tuple[int, ...]) -> str:
    if shape in HELD_OUT_SIZES:
        return "by experiment"
    if kind == "phase":
        return "by id" if name.endswith(HELD_OUT_ENDS) else "train"
    return "by id" if name.startswith(HELD_OUT_IDS) else "train"


def draw_crop(rng: np.random.Generator, source: RealImage, side: int) -> tuple[Floats, Labels]:
    """Cut a square piece, resized so that nuclei get a random size, and change its light, noise and sharpness.

    Returns:
        Image in 0..1 and labels, each (side, side).
    """
    wanted = np.exp(rng.uniform(np.log(SMALLEST_PX), np.log(LARGEST_PX)))
    scale = float(np.clip(wanted / source.diameter, 0.2, 5.0)) * np.exp(rng.normal(0, 0.1, 2))
    image, labels = _cut(rng, source, side, scale)
    is_turned = source.kind in TURNED_KINDS and rng.random() < 0.5
    image, whole = (-image, -source.image) if is_turned else (image, source.image)
    low, high = np.percentile(whole, [rng.uniform(0, 3), rng.choice(HIGH_PERCENTILES)])
    image = _photograph(rng, (image - low) / max(high - low, 1e-3))
    turns, is_flipped = int(rng.integers(4)), rng.random() < 0.5
    image, labels = np.rot90(image, turns), np.rot90(labels, turns)
    if is_flipped:
        image, labels = image[:, ::-1], labels[:, ::-1]
    return np.ascontiguousarray(image), np.ascontiguousarray(labels)


def _cut(
    rng: np.random.Generator, source: RealImage, side: int, scale: npt.NDArray[np.float64]
) -> tuple[Floats, Labels]:
    """Resize a random window to (side, side); what lies outside the image is mirrored."""
    window = np.ceil(side / scale).astype(int)
    missing = np.maximum(window - source.image.shape, 0)
    padding = [(0, int(n)) for n in missing]
    image, labels = source.image, source.labels
    top, left = (int(rng.integers(0, max(n - w, 0) + 1)) for n, w in zip(image.shape, window, strict=True))
    box = np.s_[top : top + window[0], left : left + window[1]]
    image = np.pad(image[box], padding, mode="symmetric")
    # Mirrored labels would join those that they touch: what is outside the image has labels of its own.
    labels = np.pad(labels[box], padding, mode="symmetric")
    if missing.any():
        labels = _split(labels)
    small = transform.resize(image, (side, side), order=1, anti_aliasing=bool(scale.min() < 1), preserve_range=True)
    return small.astype(np.float32), _resize_labels(labels, side, float(scale.max()))


def _resize_labels(labels: Labels, side: int, scale: float) -> Labels:
    rows, columns = (np.clip((np.arange(side) + 0.5) * n / side, 0, n - 1).astype(int) for n in labels.shape)
    resized = labels[rows[:, None], columns]
    # Enlarged pixels have corners, which no nucleus has.
    return np.asarray(ndimage.median_filter(resized, 2 * round(scale) + 1) if scale > 1.3 else resized)


def _split(labels: Labels) -> Labels:
    """Return each connected piece of a label a number of its own."""
    pieces = np.zeros_like(labels)
    count = 0
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is not None:
            found, more = ndimage.label(labels[box] == label)
            pieces[box] = np.where(found > 0, found + count, pieces[box])
            count += more
    return pieces


def _photograph(rng: np.random.Generator, image: Floats) -> Floats:
    """Change light, sharpness and noise of a normalised image; the result is cut to 0..1."""
    seen = np.clip(image, 0, 1.5)
    if rng.random() < 0.3:
        seen = ndimage.gaussian_filter(seen, np.exp(rng.uniform(np.log(0.4), np.log(2.5))))
    if rng.random() < 0.5:
        seen = seen ** np.exp(rng.normal(0, 0.3))
    if rng.random() < 0.3:
        y, x = np.mgrid[-1 : 1 : seen.shape[0] * 1j, -1 : 1 : seen.shape[1] * 1j]
        slope = rng.normal(0, 0.5, 2)
        seen = seen * np.clip(1 + slope[0] * y + slope[1] * x, 0.3, None)
    if rng.random() < 0.3:
        seen = seen + rng.uniform(0, 0.3)
    if rng.random() < 0.4:
        photons = np.exp(rng.uniform(np.log(30), np.log(2000)))
        seen = rng.poisson(np.clip(seen, 0, None) * photons) / photons
        seen = seen + rng.normal(0, rng.uniform(0, 0.04), seen.shape)
    if rng.random() < 0.2:
        seen = np.minimum(seen, np.percentile(seen, rng.uniform(85, 100)))
    low, high = np.percentile(seen, [rng.uniform(0, 2), rng.uniform(99, 100)])
    return np.asarray(np.clip((seen - low) / max(high - low, 0.05), 0, 1).astype(np.float32))
