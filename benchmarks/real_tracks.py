"""Measures links and divisions on tracks of real cells, whose points are drawn as discs."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from redis_consumer.errors import SettingsError
from redis_consumer.options import LinkOptions
from redis_consumer.tracking import Tracking, link_movie

#: Each n-th frame of the movie is used.
STEPS = (1, 6, 12)
#: Radius of the discs, and the largest distance of a link, in pixels.
RADIUS_PX, MOST_PX = 8, 40.0
#: A division counts as found if it is off by at most so many of the used frames.
FRAMES_OFF = 1
_ARRAYS = ("frame", "x", "y", "track", "man_track")

Labels = npt.NDArray[Any]
#: A link: number of the used frame, and the true tracks of its two ends.
Link = tuple[int, int, int]
#: Frame of the first daughter and the two daughters, by the parent.
Divisions = dict[int, tuple[int, frozenset[int]]]


@dataclass(frozen=True)
class _Points:
    """Points of a movie: ``frame``, ``x``, ``y`` in pixels and ``track``, all (n,), and the parent of each track."""

    frame: npt.NDArray[Any]
    yx: npt.NDArray[np.float64]
    track: npt.NDArray[Any]
    parents: Mapping[int, int]

    @classmethod
    def read(cls, path: Path) -> _Points:
        """Read the arrays of a file.

        Raises:
            SettingsError: the file isn't there, is no ``.npz`` or misses an array.
        """
        try:
            with np.load(path) as file:
                frame, x, y, track, tracks = (file[name] for name in _ARRAYS)
        except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise SettingsError(f"--data: {path}: {error}; give an .npz with {', '.join(_ARRAYS)}") from error
        parents = {int(label): int(parent) for label, _, _, parent in tracks if parent}
        return cls(frame, np.stack([y, x], axis=-1).astype(np.float64), track, parents)

    def at(self, frame: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[Any]]:
        """Places and tracks of the points of a frame."""
        is_here = self.frame == frame
        return self.yx[is_here], self.track[is_here]


def measure(path: Path) -> dict[str, Any]:
    """Link the points of a movie at every frame and at fewer ones.

    Args:
        path: an ``.npz`` with arrays frame, x, y (px) and track, (n,), and man_track (m, 4): track, begin, end, parent.

    Returns:
        For each step ``every_<n>`` the ``link_f1`` and ``division_f1`` of our linker and ``link_f1_by_distance``, that
        of the linear assignment of least distance. A true link joins the points of a track in successive used frames,
        or the last one of a parent to the first one of its daughter. A division counts if the parent and both daughters
        are right and its frame is off by one used frame at most.

    Raises:
        SettingsError: the file can't be used.
    """
    points = _Points.read(path)
    return {f"every_{step}": _scores(points, range(0, int(points.frame.max()) + 1, step)) for step in STEPS}


def _scores(points: _Points, frames: Sequence[int]) -> dict[str, float]:
    places = [points.at(frame) for frame in frames]
    shape = tuple(int(most) + 1 for most in points.yx.max(axis=0))
    images = (_discs(yx, (shape[0], shape[1])) for yx, _ in places)
    tracking = link_movie(images, LinkOptions(max_distance_px=MOST_PX))
    tracks = [track for _, track in places]
    truth, true_divisions = _truth(points, tracks)
    found, divisions = _found(tracking, tracks)
    right = sum(_is_found(division, true_divisions) for division in divisions)
    return {
        "links": len(truth),
        "link_f1": _f1(len(found & truth), len(found), len(truth)),
        "link_f1_by_distance": _f1(len((near := _nearest(places)) & truth), len(near), len(truth)),
        "divisions": len(true_divisions),
        "division_f1": _f1(right, len(divisions), len(true_divisions)),
    }


def _discs(yx: npt.NDArray[np.float64], shape: tuple[int, int]) -> Labels:
    """Draw a disc around each point, with labels 1, 2, … in their order; a pixel belongs to the nearest point."""
    labels = np.zeros(shape, np.int32)
    if len(yx):
        grid = np.argwhere(np.ones((2 * RADIUS_PX + 1, 2 * RADIUS_PX + 1))) - RADIUS_PX
        pixels = np.unique((np.round(yx)[:, None] + grid).reshape(-1, 2).astype(int), axis=0)
        pixels = pixels[((pixels >= 0) & (pixels < shape)).all(axis=1)]
        distance, nearest = cKDTree(yx).query(pixels)
        is_inside = distance <= RADIUS_PX
        labels[tuple(pixels[is_inside].T)] = nearest[is_inside] + 1
    return labels


def _truth(points: _Points, tracks: Sequence[npt.NDArray[Any]]) -> tuple[set[Link], Divisions]:
    """True links and divisions in two."""
    links: set[Link] = set()
    first: dict[int, int] = {}
    for number, here in enumerate(tracks):
        for track in here.tolist():
            first.setdefault(track, number)
    for number, (before, after) in enumerate(pairwise(tracks)):
        known = set(before.tolist())
        for track in after.tolist():
            origin: int | None = track
            while origin is not None and origin not in known:
                origin = points.parents.get(origin)
            if origin is not None and (origin == track or first[track] == number + 1):
                links.add((number, origin, track))
    daughters: dict[int, set[int]] = {}
    for track, parent in points.parents.items():
        if track in first and parent in first:
            daughters.setdefault(parent, set()).add(track)
    return links, {
        parent: (min(first[track] for track in both), frozenset(both))
        for parent, both in daughters.items()
        if len(both) == 2
    }


def _found(
    tracking: Tracking, tracks: Sequence[npt.NDArray[Any]]
) -> tuple[set[Link], list[tuple[int, int, frozenset[int]]]]:
    """Links of successive frames, and divisions: frame of the daughters, parent and daughters, all as true tracks."""
    true: dict[tuple[int, int], int] = {}
    for number, (source, target) in enumerate(zip(tracking.source_labels, tracking.track_labels, strict=True)):
        for label, track in zip(source.tolist(), target.tolist(), strict=True):
            true[number, track] = int(tracks[number][label - 1])
    known = {track.label: track for track in tracking.tracks}
    links: set[Link] = set()
    divisions = []
    for track in tracking.tracks:
        for early, late in pairwise(track.frames):
            if late == early + 1:
                links.add((early, true[early, track.label], true[late, track.label]))
        if track.daughters:
            end = track.frames[-1]
            starts = [(known[label].frames[0], label) for label in track.daughters]
            links |= {(end, true[end, track.label], true[at, label]) for at, label in starts if at == end + 1}
            divisions.append(
                (min(starts)[0], true[end, track.label], frozenset(true[at, label] for at, label in starts))
            )
    return links, divisions


def _is_found(division: tuple[int, int, frozenset[int]], truth: Mapping[int, tuple[int, frozenset[int]]]) -> bool:
    frame, parent, daughters = division
    # A division that is found a frame too late has a daughter as its parent; one too early, the parent as a daughter.
    for mother, (first, both) in truth.items():
        if abs(frame - first) <= FRAMES_OFF and parent in {mother, *both} and daughters <= {mother, *both}:
            return True
    return False


def _nearest(places: Sequence[tuple[npt.NDArray[np.float64], npt.NDArray[Any]]]) -> set[Link]:
    """Links of the linear assignment of least distance, of which those above `MOST_PX` are impossible."""
    return {
        (number, int(tracks[0][row]), int(tracks[1][column]))
        for number, ((before, one), (after, other)) in enumerate(pairwise(places))
        for tracks in [(one, other)]
        for row, column in _assigned(cdist(before, after))
    }


def _assigned(distances: npt.NDArray[np.float64]) -> Iterator[tuple[int, int]]:
    far = 1e6
    costs = np.where(distances <= MOST_PX, distances, far)
    rows, columns = linear_sum_assignment(costs)
    return ((int(row), int(column)) for row, column in zip(rows, columns, strict=True) if costs[row, column] < far)


def _f1(hits: int, found: int, true: int) -> float:
    return round(2 * hits / max(found + true, 1), 4)
