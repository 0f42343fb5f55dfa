"""Measures the function that turns the outputs of a nuclear model into labels."""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from training.scores import average_precision

from benchmarks.plain_watershed import plain_deep_watershed
from redis_consumer.job import ModelId
from redis_consumer.models.store import ModelStore
from redis_consumer.processing.labels import deep_watershed

SIDE_PX = 2048
OBJECTS = 2000
RUNS = 3
SEED = 16
MODEL = "NuclearSegmentation:1"
#: Labels count as the same from this average precision at an IoU of 0.5, new against old.
SAME_AP = 0.99
NOISE = 0.03

Maps = list[npt.NDArray[np.float32]]


def measure() -> dict[str, Any]:
    """Time `deep_watershed` with the options of the shipped model's card, and the function as it was before.

    The maps are what a model would give for 2048 x 2048 px with 2,000 nuclei, most of which touch others: the distance
    to the edge and the foreground, smooth with a little noise.

    Returns:
        ``same_labels``, whether AP@0.5 of the new labels against the old ones is at least 0.99; ``ap``, that number;
        ``objects``, the labels; ``plain_ms``, the median time of the function before; ``ours_ms``, of ours; ``times``,
        the ratio.
    """
    card = ModelStore().card(ModelId.parse(MODEL))
    options: dict[str, Any] = dict(card.functions["deep_watershed"]) if card else {}
    maps = draw_maps(SIDE_PX, OBJECTS)
    plain, plain_ms = _timed(lambda: plain_deep_watershed(maps, **options))
    ours, ours_ms = _timed(lambda: deep_watershed(maps, **options))
    ap = average_precision([(plain[0, ..., 0], ours[0, ..., 0])], 0.5)
    return {
        "same_labels": ap >= SAME_AP,
        "ap": round(ap, 5),
        "objects": int(ours.max()),
        "plain_ms": round(plain_ms, 1),
        "ours_ms": round(ours_ms, 1),
        "times": round(plain_ms / ours_ms, 2),
    }


def draw_maps(side: int, count: int) -> Maps:
    """Draw maps of distance and foreground, (1, side, side, 1) each in 0..1, of ellipses on a shaken grid."""
    rng = np.random.default_rng(SEED)
    columns = int(np.ceil(np.sqrt(count)))
    pitch = side / columns
    distance, foreground = np.zeros((2, side, side), np.float32)
    for number in range(count):
        centre = (np.array(divmod(number, columns)) + 0.5 + rng.uniform(-0.18, 0.18, 2)) * pitch
        radii = 0.47 * pitch * rng.uniform(0.75, 1.15) * np.array([1, rng.uniform(0.7, 1)])
        turn = rng.uniform(0, np.pi)
        low, high = (np.clip(centre + sign * 2 * radii[0], 0, side).astype(int) for sign in (-1, 1))
        box = np.s_[low[0] : high[0], low[1] : high[1]]
        y, x = (axis - at for axis, at in zip(np.mgrid[box], centre, strict=True))
        along, across = y * np.cos(turn) + x * np.sin(turn), x * np.cos(turn) - y * np.sin(turn)
        depth = 1 - np.hypot(along / radii[0], across / radii[1])
        # Networks give a round top, and an edge that is a few pixels wide.
        np.maximum(distance[box], np.sin(depth.clip(0) * np.pi / 2), out=distance[box])
        np.maximum(foreground[box], 1 / (1 + np.exp(-20 * depth)), out=foreground[box])
    # Convolutions make neighbouring pixels similar, so their noise is smooth.
    noisy = (each + ndimage.gaussian_filter(rng.normal(0, NOISE, each.shape), 1) for each in (distance, foreground))
    return [np.clip(each, 0, 1).astype(np.float32)[np.newaxis, ..., np.newaxis] for each in noisy]


def _timed(run: Any) -> tuple[npt.NDArray[np.int32], float]:
    times = []
    for _ in range(RUNS):
        started = time.perf_counter()
        labels = run()
        times.append(1e3 * (time.perf_counter() - started))
    return labels, statistics.median(times)
