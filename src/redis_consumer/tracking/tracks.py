"""Describes the tracks of a movie with parents and daughters, checks them, and writes ``lineage.json``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from redis_consumer.errors import InvalidImage
from redis_consumer.tracking.regions import Regions


@dataclass(frozen=True)
class Track:
    """One cell through frames.

    Attributes:
        label: label of the cell in all frames, from 1.
        frames: frames in which the cell is seen, rising, from 0. Frames in which it was missed are left out.
        parent: label of the cell that divided into this one, None if there is none.
        daughters: labels of the two cells that it divided into; empty if it didn't divide.
    """

    label: int
    frames: tuple[int, ...]
    parent: int | None = None
    daughters: tuple[int, ...] = ()


def lineage_map(tracks: Iterable[Track], first_frames: Mapping[int, int]) -> dict[str, dict[str, Any]]:
    """Return tracks in the format of the contract's ``lineage.json`` (section 5.7).

    Args:
        tracks: all tracks of a movie.
        first_frames: first frame of each track, by its label.
    """
    return {
        str(track.label): {
            "label": track.label,
            "frames": list(track.frames),
            "daughters": list(track.daughters),
            "capped": bool(track.daughters),
            "frame_div": min(first_frames[label] for label in track.daughters) if track.daughters else None,
            "parent": track.parent,
        }
        for track in tracks
    }


def to_json(tracks: Sequence[Track]) -> str:
    """Return the text of ``lineage.json``.

    >>> to_json([Track(1, (0, 1))])
    '{"1": {"label": 1, "frames": [0, 1], "daughters": [], "capped": false, "frame_div": null, "parent": null}}'
    """
    return json.dumps(lineage_map(tracks, {track.label: track.frames[0] for track in tracks}))


def check(tracks: Sequence[Track], name: str = "lineage") -> None:
    """Check that tracks are a lineage.

    Raises:
        InvalidImage: a label occurs twice; a track has no frames, or frames that don't rise; a parent doesn't exist,
            doesn't list its daughter, or continues after the daughter begins.
    """
    known = {track.label: track for track in tracks}
    if len(known) < len(tracks):
        raise InvalidImage(f"{name}: two tracks have the same label; give each track its own label")
    for track in tracks:
        problem = _problem(track, known)
        if problem:
            raise InvalidImage(f"{name}: track {track.label} {problem}")


def _problem(track: Track, known: Mapping[int, Track]) -> str:
    """Say what is wrong with a track; empty for nothing."""
    rises = all(early < late for early, late in pairwise(track.frames))
    if not track.frames or not rises or track.frames[0] < 0:
        return "must list its frames, from 0 and rising"
    if any(daughter not in known or known[daughter].parent != track.label for daughter in track.daughters):
        return "has a daughter that doesn't exist or names another parent; correct it"
    if track.parent is None:
        return ""
    parent = known.get(track.parent)
    if parent is None or track.label not in parent.daughters or parent.frames[-1] >= track.frames[0]:
        return (
            "names a parent that doesn't exist, doesn't list it as daughter, or continues after it begins; correct it"
        )
    return ""


Array = npt.NDArray[Any]
Indices = npt.NDArray[np.intp]
Floats = npt.NDArray[np.float64]


@dataclass
class Links:
    """The regions of one frame and their links to the next frame.

    Attributes:
        regions: the n regions of the frame. The movement of the stage is subtracted from their centroids.
        next: (n,) index of the same cell in the next frame, -1 for none.
        costs: (n,) cost of this link, `LINK_LIMIT` for none.
        sigma_px: standard deviation of the cells' movement along an axis to the next frame.
        families: (m, 3) triples that can be a division: a region of this frame, the region of the next frame that it
            is linked to, and a region of the next frame without a link to this frame.
        family_costs: (m,) costs of these triples.
    """

    regions: Regions
    next: Indices
    costs: Floats
    sigma_px: float = 1.0
    families: Indices = field(default_factory=lambda: np.zeros((0, 3), np.intp))
    family_costs: Floats = field(default_factory=lambda: np.zeros(0))


@dataclass(frozen=True)
class Tracking:
    """The tracks of a movie.

    Attributes:
        tracks: the tracks in rising order of their labels, which begin at 1 and have no gaps.
        source_labels: for each frame the labels of its regions in the input, rising.
        track_labels: for each frame the labels of the tracks of these regions.
        regions: for each frame its measured regions. The movement of the stage is subtracted from their centroids.
    """

    tracks: tuple[Track, ...]
    source_labels: tuple[Array, ...]
    track_labels: tuple[npt.NDArray[np.uint32], ...]
    regions: tuple[Regions, ...]

    def relabel(self, frame: int, labels: Array) -> npt.NDArray[np.uint32]:
        """Return the label image of a frame with the labels of its tracks.

        Args:
            frame: number of the frame, from 0.
            labels: (Y, X) label image that was linked as this frame.
        """
        source, target = self.source_labels[frame], self.track_labels[frame]
        if not len(source):
            return np.zeros(labels.shape, np.uint32)
        result = np.zeros(labels.shape, np.uint32)
        inside = labels != 0
        result[inside] = target[np.searchsorted(source, labels[inside])]
        return result
