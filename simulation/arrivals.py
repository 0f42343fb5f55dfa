"""Patterns of arrivals of images, in seconds, in order."""

from __future__ import annotations

import numpy as np

DAY_S = 86_400.0


def burst(images: int) -> list[float]:
    """All at once."""
    return [0.0] * images


def steady(images: int, images_per_s: float, *, seed: int) -> list[float]:
    """One by one, independent of one another (a Poisson process)."""
    pauses = np.random.default_rng(seed).exponential(1 / images_per_s, images)
    times: list[float] = np.cumsum(pauses).tolist()
    return times


def daily(images: int, *, seed: int) -> list[float]:
    """Over a day, independent of one another: at noon nearly twice as many as on average, at midnight nearly none."""
    day = np.linspace(0, DAY_S, 24 * 60 + 1)
    # The integral of 1 - 0.9 cos(2 pi t / day), from 0 to 1.
    come = day / DAY_S - 0.9 * np.sin(2 * np.pi * day / DAY_S) / (2 * np.pi)
    times: list[float] = np.interp(np.sort(np.random.default_rng(seed).random(images)), come, day).tolist()
    return times
