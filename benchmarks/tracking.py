"""Measures how fast and how well cells are linked in movies whose truth is known."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.track_segment import segment
from redis_consumer.tracking import Linker, Track, Tracking, write_challenge
from support.movies import Movie, Scene, shuffled, simulate
from support.track_scores import Scores, score

Labels = npt.NDArray[Any]

#: 500 cells in 200 frames.
LARGE = Scene(cells=500, frames=200, side_px=1024, arrivals=1.0, cycle=150.0, seed=3)
#: The scenes that are scored, by name. Steps are in diameters a frame.
SCENES = {
    "slow": Scene(step=0.08, seed=11),
    "moderate": Scene(step=0.15, seed=12),
    "crowded": Scene(step=0.15, cells=160, seed=13),
    "fast": Scene(step=0.3, seed=14),
    "very_fast": Scene(step=0.5, seed=15),
}
#: Where `make peers` puts the library that scores the same tracks.
LIBRARY = Path(__file__).parents[1] / ".tools" / "peers" / "traccuracy" / "bin" / "python"
#: The nuclei of the scenes are as large as those that the model was trained on.
MODEL_SCALE = 1.0


@dataclass(frozen=True)
class _Run:
    """Label images that were linked, and the tracks.

    Attributes:
        frames: what the linker was given, packed: only so its own memory is seen in that of the process.
        tracking: the tracks.
        seconds: of linking and relabelling.
        peak_rss_mb: of the process until then.
    """

    frames: list[_Packed]
    tracking: Tracking
    seconds: float
    peak_rss_mb: int

    def found(self) -> list[Labels]:
        """The labels of the tracks, frame by frame."""
        return [self.tracking.relabel(number, frame.open()) for number, frame in enumerate(self.frames)]


class _Packed:
    """A label image that takes little memory."""

    def __init__(self, labels: Labels) -> None:
        self.shape = labels.shape
        self.data = zlib.compress(labels.astype(np.uint32).tobytes(), 1)

    def open(self) -> Labels:
        """The image."""
        return np.frombuffer(zlib.decompress(self.data), np.uint32).reshape(self.shape)


def measure() -> dict[str, Any]:
    """Link simulated movies and compare with their truth.

    Returns:
        ``s``, ``frames_per_s`` and ``peak_rss_mb`` of a large movie, without drawing it; ``link_f1``,
        ``division_f1``, ``tra`` of it; the same scores of each of `SCENES` with true labels; ``model`` with the
        shipped model's labels; ``library`` what traccuracy says of the large one, where `make peers` has been run.
    """
    movie = simulate(LARGE)
    run = _linked(_true_labels(movie))
    truth, found = list(_true_labels(movie, is_shuffled=False)), run.found()
    return {
        "s": round(run.seconds, 3),
        "frames_per_s": round(LARGE.frames / run.seconds, 1),
        "cells": sum(len(regions) for regions in run.tracking.regions),
        "peak_rss_mb": run.peak_rss_mb,
        **_rounded(score(truth, movie.parents, found, run.tracking.tracks)),
        "scenes": {name: _rounded(_scored(simulate(scene))) for name, scene in SCENES.items()},
        "model": _rounded(_scored_with_model(simulate(SCENES["moderate"]))),
        "library": _by_library(truth, movie.parents, found, run.tracking.tracks),
    }


def _true_labels(movie: Movie, *, is_shuffled: bool = True) -> Iterator[Labels]:
    """True label images; shuffled, their labels are unrelated, as those of a segmentation."""
    for number in range(movie.scene.frames):
        labels = movie.labels(number)
        yield shuffled(labels, number) if is_shuffled else labels


def _linked(images: Iterable[Labels]) -> _Run:
    linker, seconds = Linker(), 0.0
    frames = []
    for labels in images:
        started = time.perf_counter()
        linker.add(labels)
        seconds += time.perf_counter() - started
        frames.append(_Packed(labels))
    started = time.perf_counter()
    tracking = linker.finish()
    seconds += time.perf_counter() - started
    for number, frame in enumerate(frames):
        labels = frame.open()
        started = time.perf_counter()
        tracking.relabel(number, labels)
        seconds += time.perf_counter() - started
    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    return _Run(frames, tracking, seconds, round(peak_kb / 1024))


def _scored(movie: Movie) -> Scores:
    run = _linked(_true_labels(movie))
    return score(list(_true_labels(movie, is_shuffled=False)), movie.parents, run.found(), run.tracking.tracks)


def _scored_with_model(movie: Movie) -> Scores:
    """Scores where the shipped model has found the nuclei in the movie's images."""
    run = _linked(segment(map(movie.image, range(movie.scene.frames)), MODEL_SCALE))
    return score(list(_true_labels(movie, is_shuffled=False)), movie.parents, run.found(), run.tracking.tracks)


def _rounded(scores: Scores) -> dict[str, float]:
    return {name: round(value, 4) for name, value in vars(scores).items()}


def _by_library(
    truth: Sequence[Labels], parents: dict[int, int], found: Sequence[Labels], tracks: Sequence[Track]
) -> dict[str, Any]:
    """What traccuracy says of the same tracks, in an environment of its own."""
    if not LIBRARY.exists():
        return {"missing": "run `make peers` first"}
    with tempfile.TemporaryDirectory() as name:
        folders = Path(name, "truth"), Path(name, "found")
        write_challenge(folders[0], truth, _true_tracks(truth, parents), len(truth))
        write_challenge(folders[1], found, tracks, len(found))
        command = [str(LIBRARY), "-m", "benchmarks.peers.traccuracy", *map(str, folders)]
        reply = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    figures: dict[str, Any] = json.loads(reply.stdout.splitlines()[-1])
    return figures


def _true_tracks(truth: Sequence[Labels], parents: dict[int, int]) -> list[Track]:
    frames: dict[int, list[int]] = {}
    for number, labels in enumerate(truth):
        for label in np.unique(labels[labels > 0]).tolist():
            frames.setdefault(label, []).append(number)
    return [
        Track(label, tuple(seen), parents.get(label) if parents.get(label) in frames else None)
        for label, seen in sorted(frames.items())
    ]
