"""Patterns of arrivals."""

from __future__ import annotations

import numpy as np
import pytest
from simulation.arrivals import DAY_S, burst, daily, steady

IMAGES = 20_000


def test_a_burst_comes_at_once() -> None:
    assert burst(3) == [0.0, 0.0, 0.0]


def test_steady_images_come_at_their_rate_and_independently() -> None:
    pauses = np.diff(steady(IMAGES, 50.0, seed=1))
    assert np.mean(pauses) == pytest.approx(1 / 50, rel=0.03)
    assert np.std(pauses) == pytest.approx(1 / 50, rel=0.03)


def test_most_of_a_day_s_images_come_around_noon() -> None:
    times = daily(IMAGES, seed=1)
    counts, _ = np.histogram(times, bins=4, range=(0, DAY_S))
    # Integral of 1 - 0.9 cos over a quarter of the day before and after noon.
    assert (counts[1] + counts[2]) / IMAGES == pytest.approx(0.5 + 0.9 / np.pi, rel=0.02)
    assert times == sorted(times)
