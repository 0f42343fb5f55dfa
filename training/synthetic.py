"""Makes images of nuclei as under a fluorescence microscope, by rule, with their true labels.

An image is drawn in three steps: where nuclei lie (`_scatter`), how bright each pixel of them is (`_shade`),
and what optics and camera make of it (`_photograph`). All sizes are in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from redis_consumer.processing.normalization import percentile_normalize

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]

SMALLEST_DIAMETER_PX = 14.0
LARGEST_DIAMETER_PX = 56.0
#: A nucleus of which the others leave less than this share is not drawn at all.
LEAST_VISIBLE = 0.75
#: Fewer visible pixels at the border of the image than this share of a nucleus are no label.
LEAST_AT_BORDER = 0.04


@dataclass(frozen=True)
class Sample:
    """A synthetic image.

    Attributes:
        image: (Y, X) float32 in 0..1, normalised as the model's users do it.
        labels: (Y, X) int32, 0 is background.
        diameter: the typical nucleus of the image, in pixels.
    """

    image: Floats
    labels: Labels
    diameter: float


@dataclass(frozen=True)
class _Nucleus:
    """One nucleus cut out of the image: its box, which pixels of the box it covers, its brightness."""

    box: tuple[slice, slice]
    shape: npt.NDArray[np.bool_]
    depth: Floats
    brightness: float


def make_sample(rng: np.random.Generator, side: int = 224, *, has_debris: bool = False) -> Sample:
    """Draw one square image with nuclei of about one diameter.

    Args:
        rng: decides all of it.
        side: of the image, in pixels.
        has_debris: whether half of the images also show small, faint or stretched things without a label.
    """
    diameter = float(np.exp(rng.uniform(np.log(SMALLEST_DIAMETER_PX), np.log(LARGEST_DIAMETER_PX))))
    nuclei, labels = _scatter(rng, side, diameter)
    light = _shade(rng, nuclei, labels, diameter)
    if has_debris and rng.random() < 0.5:
        light += _debris(rng, labels, diameter)
    image = _photograph(rng, light, diameter)
    low, high = rng.uniform(0.0, 3.0), rng.choice([99.0, 99.5, 99.8, 99.9, 100.0])
    return Sample(percentile_normalize(image[None, ..., None], low, high)[0, ..., 0], labels, diameter)


def make_targets(labels: Labels) -> tuple[Floats, Floats]:
    """Return the network's two outputs for a label image.

    Returns:
        Distance to the label's edge divided by its largest value in the label, and foreground, both
        (Y, X) float32 in 0..1.
    """
    inner = np.zeros(labels.shape, np.float32)
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None:
            continue
        # The image border is no edge: nuclei continue beyond it.
        padding = [(int(s.start > 0), int(s.stop < side)) for s, side in zip(box, labels.shape, strict=True)]
        region = np.pad(labels[box] == label, padding)
        distance = ndimage.distance_transform_edt(region)
        crop = tuple(slice(p[0], region.shape[i] - p[1]) for i, p in enumerate(padding))
        inner[box] += (distance / max(distance.max(), 1))[crop] * region[crop]
    return inner, (labels > 0).astype(np.float32)


def _scatter(rng: np.random.Generator, side: int, diameter: float) -> tuple[list[_Nucleus], Labels]:
    """Place nuclei, alone and in clusters, until the wanted share of the image is covered."""
    labels = np.zeros((side, side), np.int32)
    nuclei: list[_Nucleus] = []
    wanted = rng.uniform(0.03, 0.6) * side**2
    clustering, covered = rng.uniform(0, 0.9), 0.0
    centre = rng.uniform(0, side, 2)
    spread, roughness = rng.uniform(0.05, 0.25), rng.uniform(0.01, 0.09)
    shades = rng.uniform(0.1, 0.6)
    for _ in range(int(4 * wanted / diameter**2) + 3):
        if covered > wanted:
            break
        if rng.random() < clustering:
            angle, step = rng.uniform(0, 2 * np.pi), diameter * rng.uniform(0.75, 1.2)
            place = centre + step * np.array([np.sin(angle), np.cos(angle)])
        else:
            place = rng.uniform(-0.3 * diameter, side + 0.3 * diameter, 2)
        nucleus = _make_nucleus(rng, side, place, diameter * np.exp(rng.normal(0, spread)), roughness, shades)
        if nucleus is None:
            continue
        here = labels[nucleus.box]
        is_free = nucleus.shape & (here == 0)
        if is_free.sum() < LEAST_VISIBLE * nucleus.shape.sum():
            continue
        nuclei.append(nucleus)
        here[is_free] = len(nuclei)
        covered, centre = covered + float(is_free.sum()), place
    return nuclei, _keep_visible(labels, diameter)


def _make_nucleus(
    rng: np.random.Generator,
    side: int,
    place: npt.NDArray[np.float64],
    diameter: float,
    roughness: float,
    shades: float,
) -> _Nucleus | None:
    """Draw an ellipse with a wavy outline; None if it lies outside the image."""
    reach = int(0.85 * diameter) + 2
    start = np.maximum(place.astype(int) - reach, 0)
    stop = np.minimum(place.astype(int) + reach + 1, side)
    if (stop <= start).any():
        return None
    y, x = np.mgrid[start[0] : stop[0], start[1] : stop[1]].astype(np.float32)
    y, x = y - place[0], x - place[1]
    stretch, turn = 1 + abs(rng.normal(0, 0.3)), rng.uniform(0, np.pi)
    along, across = np.cos(turn) * x + np.sin(turn) * y, np.cos(turn) * y - np.sin(turn) * x
    angle = np.arctan2(across * stretch, along)
    turns = np.arange(2, 6, dtype=np.float32)[:, None, None]
    heights = rng.normal(0, roughness, turns.shape).astype(np.float32) / (turns - 1)
    shifts = rng.uniform(0, 2 * np.pi, turns.shape).astype(np.float32)
    radius = diameter / 2 * (1 + (heights * np.cos(turns * angle + shifts)).sum(axis=0))
    depth = 1 - np.hypot(along / np.sqrt(stretch), across * np.sqrt(stretch)) / radius
    if not (depth > 0).any():
        return None
    brightness = float(np.exp(rng.normal(0, shades))) * (np.exp(rng.uniform(0.7, 3.2)) if rng.random() < 0.06 else 1)
    return _Nucleus((slice(start[0], stop[0]), slice(start[1], stop[1])), depth > 0, depth, brightness)


def _keep_visible(labels: Labels, diameter: float) -> Labels:
    """Drop slivers, and keep the largest piece of a label that another nucleus has cut in two."""
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None:
            continue
        pieces, count = ndimage.label(labels[box] == label)
        sizes = np.bincount(pieces.ravel())[1:]
        keep = int(np.argmax(sizes)) + 1 if sizes.max() >= LEAST_AT_BORDER * diameter**2 else count + 1
        labels[box][(pieces > 0) & (pieces != keep)] = 0
    return labels


def _noise(rng: np.random.Generator, shape: tuple[int, ...], scale: float) -> Floats:
    """Draw smooth noise of mean 0 and standard deviation 1, features about `scale` pixels wide."""
    coarse = [int(n / max(scale, 1)) + 4 for n in shape]
    grid = rng.normal(size=coarse).astype(np.float32)
    # A zoom by splines is smooth at any scale and costs the same, unlike a wide Gaussian.
    wide = ndimage.zoom(grid, [(n + 2) / (c - 3) for n, c in zip(shape, coarse, strict=True)], order=2)
    field = wide[: shape[0], : shape[1]]
    return np.asarray((field - field.mean()) / (field.std() + 1e-6))


def _shade(rng: np.random.Generator, nuclei: list[_Nucleus], labels: Labels, diameter: float) -> Floats:
    """Add up what each nucleus shines: a dome or a disc, with texture, holes and spots."""
    light = np.zeros(labels.shape, np.float32)
    dome, ring = rng.uniform(0, 1), rng.uniform(0, 0.35) * (rng.random() < 0.3)
    for nucleus in nuclei:
        profile = np.clip(nucleus.depth * rng.uniform(3, 9), 0, 1)
        profile = (1 - dome) * profile + dome * np.sqrt(np.clip(nucleus.depth, 0, 1))
        light[nucleus.box] += nucleus.brightness * profile * (1 - ring * np.clip(nucleus.depth, 0, 1))
    strength = rng.uniform(0, 0.3)
    light *= np.clip(1 + strength * _noise(rng, light.shape, diameter * rng.uniform(0.08, 0.4)), 0.15, None)
    if rng.random() < 0.6:
        most = rng.integers(1, 16)
        for nucleus in nuclei:
            _put_spots(rng, light, nucleus, diameter, rng.integers(0, most + 1))
    return light


def _put_spots(rng: np.random.Generator, light: Floats, nucleus: _Nucleus, diameter: float, count: int) -> None:
    """Brighten (heterochromatin) or darken (nucleoli) a few round places of a nucleus, in place."""
    inside = np.argwhere(nucleus.depth > 0.2)
    if not len(inside):
        return
    y, x = (np.arange(n, dtype=np.float32) for n in nucleus.depth.shape)
    factor = np.ones(nucleus.depth.shape, np.float32)
    for centre in inside[rng.integers(len(inside), size=count)]:
        spread = 2 * (diameter * rng.uniform(0.02, 0.1)) ** 2
        spot = np.outer(np.exp(-((y - centre[0]) ** 2) / spread), np.exp(-((x - centre[1]) ** 2) / spread))
        factor *= 1 + rng.uniform(-0.6, 1.2) * spot
    light[nucleus.box] *= np.where(nucleus.shape, factor, 1)


def _photograph(rng: np.random.Generator, light: Floats, diameter: float) -> Floats:
    """Blur, add stray light and background, count photons, read out."""
    shape = light.shape
    blur = np.exp(rng.uniform(np.log(0.4), np.log(min(4.0, 0.09 * diameter + 0.6))))
    seen = ndimage.gaussian_filter(light, blur)
    # Glare: much near by, a little at a distance, so only over-exposed nuclei show a wide halo.
    near = ndimage.gaussian_filter(light, diameter * rng.uniform(0.15, 0.5), truncate=3.0)
    far = ndimage.gaussian_filter(light, diameter * rng.uniform(0.5, 1.0), truncate=2.5)
    seen = seen + rng.uniform(0, 0.3) * near + rng.uniform(0, 0.08) * far
    if rng.random() < 0.5:
        seen += _out_of_focus(rng, shape, diameter)
    background = np.exp(rng.uniform(np.log(0.01), np.log(0.8)))
    uneven = rng.uniform(0, 0.5) * _noise(rng, shape, shape[0] * rng.uniform(0.3, 1.0))
    seen += background * np.clip(1 + uneven, 0.1, None)
    seen *= np.clip(1 + rng.uniform(0, 0.25) * _noise(rng, shape, shape[0]), 0.4, None)
    photons = np.exp(rng.uniform(np.log(15), np.log(1500)))
    seen = rng.poisson(seen * photons) / photons + rng.normal(0, rng.uniform(0, 0.05), shape)
    if rng.random() < 0.25:
        seen = ndimage.gaussian_filter(seen, rng.uniform(0.4, 1.0))
    if rng.random() < 0.25:
        seen = np.clip(seen, 0, None) ** rng.uniform(0.6, 1.4)
    if rng.random() < 0.3:
        seen = np.minimum(seen, np.percentile(seen, rng.uniform(90, 100)))
    # Eight bits and no more is what many files hold.
    return np.asarray(np.round(255 * seen / seen.max()) if rng.random() < 0.5 else seen)


def _debris(rng: np.random.Generator, labels: Labels, diameter: float) -> Floats:
    """Light of pieces of nuclei, dirt and fibres: smaller than a nucleus, or much fainter, and without a label."""
    light = np.zeros(labels.shape, np.float32)
    y, x = np.mgrid[: labels.shape[0], : labels.shape[1]].astype(np.float32)
    for _ in range(rng.integers(1, 14)):
        cy, cx = rng.uniform(0, labels.shape[0]), rng.uniform(0, labels.shape[1])
        is_faint = rng.random() < 0.4
        radius = diameter * (rng.uniform(0.3, 0.6) if is_faint else rng.uniform(0.04, 0.16))
        turn, stretch = rng.uniform(0, np.pi), np.exp(rng.uniform(0, 1.5))
        along = (np.cos(turn) * (x - cx) + np.sin(turn) * (y - cy)) / stretch
        across = (np.cos(turn) * (y - cy) - np.sin(turn) * (x - cx)) * np.sqrt(stretch)
        shape = np.exp(-(((along**2 + across**2) / radius**2) ** rng.uniform(0.8, 3)))
        light += shape * (rng.uniform(0.03, 0.15) if is_faint else rng.uniform(0.2, 1.5))
    return np.where(labels > 0, 0, light)


def _out_of_focus(rng: np.random.Generator, shape: tuple[int, ...], diameter: float) -> Floats:
    """Light of nuclei in another plane and of debris, which have no label."""
    light = np.zeros(shape, np.float32)
    y, x = np.mgrid[: shape[0], : shape[1]]
    for _ in range(rng.integers(1, 6)):
        cy, cx = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
        width = diameter * rng.uniform(0.35, 0.8)
        light += rng.uniform(0.05, 0.35) * np.exp(
            -((((y - cy) ** 2 + (x - cx) ** 2) / (2 * width**2)) ** rng.uniform(0.8, 2))
        )
    if rng.random() < 0.3:
        for _ in range(rng.integers(1, 12)):
            cy, cx = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
            width = rng.uniform(0.4, 1.6)
            light += rng.uniform(0.5, 4) * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * width**2))
    return light
