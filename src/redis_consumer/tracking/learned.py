"""Links cells by the probabilities of a model (contract, section 5.7, "Model common to both")."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from redis_consumer.options import LearnedOptions
from redis_consumer.tracking.features import Cells
from redis_consumer.tracking.regions import Regions
from redis_consumer.tracking.tracks import Track, Tracking

Array = npt.NDArray[Any]
Place = tuple[int, int]
"""Frame of a cell, and the index of the cell in that frame."""

Score = Callable[[Sequence[Sequence[Place]], int], Array]
"""Takes the last places of n tracks and a frame of m cells. Returns (n, m, 3): the probabilities that a track and a
cell are different cells, the same cell, or parent and daughter. NaN for pairs that are too far apart."""

_SAME, _DAUGHTER = 1, 2
#: Several divisions in one family within this number of frames can be errors of the model.
SUSPICIOUS_FRAMES = 9


@dataclass
class _Growing:
    """A track while frames are added."""

    places: list[Place]
    parent: int | None = None
    daughters: list[int] = field(default_factory=list)
    is_capped: bool = False

    def last(self, count: int) -> list[Place]:
        """Return the last places. If there are fewer, the last one is repeated."""
        recent = self.places[-count:]
        return recent + recent[-1:] * (count - len(recent))


def link_learned(frames: Sequence[Cells], score: Score, options: LearnedOptions, *, clean_up: bool) -> Tracking:
    """Link the cells of a movie by the probabilities of a model.

    Args:
        frames: the cells of each frame.
        score: the model.
        options: how the probabilities are used.
        clean_up: undo divisions with only one daughter, in families with several divisions close in time.
    """
    tracks: list[_Growing] = []
    for frame, cells in enumerate(frames):
        if not tracks:
            tracks += [_Growing([(frame, index)]) for index in range(len(cells))]
        elif len(cells):
            _extend(tracks, frame, score([track.last(options.track_length) for track in tracks], frame), options)
    if clean_up:
        while _merge_false_division(tracks):
            pass
    return _tracking(tracks, frames)


def _extend(tracks: list[_Growing], frame: int, chances: Array, options: LearnedOptions) -> None:
    from scipy.optimize import linear_sum_assignment

    old, new = chances.shape[:2]
    rows, columns = linear_sum_assignment(_costs(tracks, chances, options))
    extended = {int(row): int(column) for row, column in zip(rows, columns, strict=True) if row < old and column < new}
    for row, column in extended.items():
        tracks[row].places.append((frame, column))
    divided: set[int] = set()
    for column in sorted(set(range(new)) - set(extended.values())):
        chance = np.nan_to_num(chances[:, column, _DAUGHTER])
        chance[[track.is_capped for track in tracks[:old]]] = 0
        best = int(chance.argmax())
        parent = best if chance[best] > options.division else None
        tracks.append(_Growing([(frame, column)], parent))
        if parent is not None:
            tracks[parent].daughters.append(len(tracks) - 1)
            divided.add(parent)
    for mother in sorted(divided):
        tracks[mother].is_capped = True
        if mother in extended:
            tracks.append(_Growing([tracks[mother].places.pop()], mother))
            tracks[mother].daughters.append(len(tracks) - 1)


def _costs(tracks: Sequence[_Growing], chances: Array, options: LearnedOptions) -> Array:
    """Return the cost matrix. Rows are the tracks, then "no track". Columns are the cells, then "no cell"."""
    old, new = chances.shape[:2]
    pairs = 1 - np.nan_to_num(chances[..., _SAME])
    pairs[[track.is_capped for track in tracks]] = 1
    costs = np.ones((old + new, old + new))
    costs[:old, :new] = pairs
    costs[old:, new:] = pairs.T
    costs[np.arange(old), new + np.arange(old)] = options.death
    costs[old + np.arange(new), np.arange(new)] = options.birth
    return costs


def _merge_false_division(tracks: list[_Growing]) -> bool:
    """Join one parent to its only daughter, if this is an error of the model; return False if there is none."""
    for family in _families(tracks):
        frames = [tracks[label].places[-1][0] for label in family if tracks[label].daughters]
        if len(frames) < 2 or max(frames) - min(frames) > SUSPICIOUS_FRAMES:
            continue
        for label in family:
            mother = tracks[label]
            if len(mother.daughters) == 1 and len(mother.places) > 1:
                _merge(tracks, mother, label)
                return True
    return False


def _merge(tracks: list[_Growing], mother: _Growing, label: int) -> None:
    daughter = tracks[mother.daughters[0]]
    mother.places += daughter.places
    mother.daughters, daughter.daughters = daughter.daughters, []
    for each in mother.daughters:
        tracks[each].parent = label
    daughter.places, daughter.parent = [], None


def _families(tracks: Sequence[_Growing]) -> list[list[int]]:
    """Group tracks by their first common ancestor. Parents come before their daughters."""
    founders: list[int] = []
    families: dict[int, list[int]] = {}
    for label, track in enumerate(tracks):
        founders.append(label if track.parent is None else founders[track.parent])
        families.setdefault(founders[-1], []).append(label)
    return list(families.values())


def _tracking(tracks: Sequence[_Growing], frames: Sequence[Cells]) -> Tracking:
    kept = [number for number, track in enumerate(tracks) if track.places]
    labels = {number: label for label, number in enumerate(kept, start=1)}
    owners = [np.zeros(len(cells), np.uint32) for cells in frames]
    for number in kept:
        for frame, index in tracks[number].places:
            owners[frame][index] = labels[number]
    found = tuple(_finished(tracks[number], labels[number], labels) for number in kept)
    regions = tuple(map(_regions, frames))
    return Tracking(found, tuple(cells.labels for cells in frames), tuple(owners), regions)


def _finished(track: _Growing, label: int, labels: dict[int, int]) -> Track:
    parent = None if track.parent is None else labels.get(track.parent)
    daughters = tuple(sorted(labels[daughter] for daughter in track.daughters))
    return Track(label, tuple(frame for frame, _ in track.places), parent, daughters)


def _regions(cells: Cells) -> Regions:
    roundness = np.sqrt(1 - cells.morphologies[:, 2].astype(np.float64) ** 2)
    centroids_px = cells.centroids_px.astype(np.float64)
    return Regions(cells.labels, cells.areas_px, centroids_px, roundness, cells.at_border)
