"""Draws bright, well separated nuclei of a known number and size, which the shipped models find."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def draw_nuclei(
    side: int = 256, count: int = 28, radius: tuple[float, float] = (9, 14), seed: int = 1
) -> npt.NDArray[np.uint8]:
    """Ellipses on a dark background with noise, (side, side)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    image = np.zeros((side, side))
    placed: list[tuple[float, float, float]] = []
    while len(placed) < count:
        r = rng.uniform(*radius)
        cy, cx = rng.uniform(r + 2, side - r - 2, 2)
        if all(np.hypot(cy - oy, cx - ox) > 1.3 * (r + o) for oy, ox, o in placed):
            placed.append((cy, cx, r))
            long = rng.uniform(0.85, 1.15)
            distance = np.hypot((y - cy) / (r * long), (x - cx) * long / r)
            edge = 1 / (1 + np.exp(np.clip((distance - 1) * r / 1.2, -50, 50)))
            image = np.maximum(image, rng.uniform(0.5, 1) * edge)
    return np.clip(image * 200 + 10 + rng.normal(0, 2, image.shape), 0, 255).astype(np.uint8)
