"""Draws images that show neither cells nor tissue, for the class "other" of the classifier of kinds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage import transform

Floats = npt.NDArray[np.float32]


def draw_other(rng: np.random.Generator, side: int, pictures: Sequence[Floats]) -> Floats:
    """Draw noise, clouds, stripes, a grid, fibres, letters, spots, a flat field or shapes, or cut a piece of a picture.

    Args:
        rng: decides all of it.
        side: of the image, in pixels.
        pictures: (Y, X) each, from which half of the images are cut; none for drawn images only.

    Returns:
        (side, side) float32, grey values of any range.
    """
    if len(pictures) and rng.random() < 0.5:
        return _cut(rng, side, pictures[rng.integers(len(pictures))])
    drawn = _DRAWINGS[rng.integers(len(_DRAWINGS))](rng, side)
    drawn = (drawn - drawn.min()) / max(float(np.ptp(drawn)), 1e-6)
    noise = rng.normal(0, rng.uniform(0, 0.08), drawn.shape)
    return np.asarray(drawn * rng.choice([-1, 1]) + noise, np.float32)


def _cut(rng: np.random.Generator, side: int, picture: Floats) -> Floats:
    size = int(min(side / np.exp(rng.uniform(np.log(0.4), np.log(1.5))), *picture.shape))
    top, left = (int(rng.integers(0, length - size + 1)) for length in picture.shape)
    piece = picture[top : top + size, left : left + size]
    piece = transform.resize(piece, (side, side), order=1, anti_aliasing=size > side, preserve_range=True)
    return np.asarray(piece * rng.choice([-1, 1]), np.float32)


def _clouds(rng: np.random.Generator, side: int) -> Floats:
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side))) + 1 / side
    spectrum = np.fft.fft2(rng.normal(size=(side, side))) * frequency ** -rng.uniform(0, 2.2)
    return np.asarray(np.fft.ifft2(spectrum).real, np.float32)


def _stripes(rng: np.random.Generator, side: int) -> Floats:
    y, x = np.mgrid[:side, :side]
    turn, period = rng.uniform(0, np.pi), np.exp(rng.uniform(np.log(4), np.log(120)))
    waves = np.sin(2 * np.pi * (np.cos(turn) * x + np.sin(turn) * y) / period)
    return np.asarray(np.sign(waves) if rng.random() < 0.5 else waves, np.float32)


def _grid(rng: np.random.Generator, side: int) -> Floats:
    return _stripes(rng, side) * _stripes(rng, side)


def _fibres(rng: np.random.Generator, side: int) -> Floats:
    light = np.zeros((side, side))
    for _ in range(rng.integers(4, 60)):
        place, angle = rng.uniform(0, side, 2), rng.uniform(0, 2 * np.pi)
        for _ in range(side):
            angle += rng.normal(0, 0.06)
            place = place + np.array([np.sin(angle), np.cos(angle)])
            if not ((place >= 0) & (place < side)).all():
                break
            light[tuple(place.astype(int))] += 1
    return np.asarray(ndimage.gaussian_filter(np.minimum(light, 2), rng.uniform(0.5, 2)), np.float32)


def _letters(rng: np.random.Generator, side: int) -> Floats:
    from PIL import Image, ImageDraw

    picture = Image.new("L", (side, side), 255)
    pen, size = ImageDraw.Draw(picture), int(rng.integers(10, 40))
    for top in range(0, side, size + 4):
        words = "".join(chr(rng.integers(33, 120)) if rng.random() < 0.85 else " " for _ in range(40))
        pen.text((int(rng.integers(-8, 8)), top), words, fill=0, font_size=size)
    return np.asarray(picture, np.float32)


def _spots(rng: np.random.Generator, side: int) -> Floats:
    light = np.zeros((side, side))
    places = rng.integers(0, side, (int(np.exp(rng.uniform(np.log(10), np.log(600)))), 2))
    light[tuple(places.T)] = rng.uniform(0.3, 1.5, len(places))
    light = ndimage.gaussian_filter(light, rng.uniform(0.7, 1.8))
    return np.asarray(light / light.max() + rng.uniform(0, 0.5) * _clouds(rng, side) / 3, np.float32)


def _flat(rng: np.random.Generator, side: int) -> Floats:
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    slope = rng.normal(0, 1, 2)
    return np.asarray(slope[0] * y + slope[1] * x + rng.normal(0, rng.uniform(0.05, 2), (side, side)), np.float32)


def _shapes(rng: np.random.Generator, side: int) -> Floats:
    image = np.zeros((side, side))
    for _ in range(rng.integers(2, 25)):
        top, left = rng.integers(0, side, 2)
        height, width = rng.integers(4, side // 2, 2)
        image[top : top + height, left : left + width] = rng.uniform(-1, 1)
    return np.asarray(ndimage.rotate(image, rng.uniform(0, 90), reshape=False, order=1, mode="reflect"), np.float32)


_DRAWINGS: tuple[Callable[[np.random.Generator, int], Floats], ...] = (
    _clouds,
    _stripes,
    _grid,
    _fibres,
    _letters,
    _spots,
    _flat,
    _shapes,
)
