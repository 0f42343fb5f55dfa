"""Which track came from which, and how is that written down?"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redis_consumer.errors import InvalidImage


@dataclass(frozen=True)
class Track:
    """One cell through frames.

    Attributes:
        label: the cell's label in all frames, from 1.
        frames: those in which it is seen, rising, from 0; frames in which it was missed are left out.
        parent: label of the cell that divided into this one, None where it wasn't seen to.
        daughters: labels of the cells that it divided into; none, or two.
    """

    label: int
    frames: tuple[int, ...]
    parent: int | None = None
    daughters: tuple[int, ...] = ()


def lineage_map(tracks: Iterable[Track], first_frames: Mapping[int, int]) -> dict[str, dict[str, Any]]:
    """Write tracks as the contract's ``lineage.json`` has them (section 5.7).

    Args:
        tracks: all of a movie.
        first_frames: first frame of each track by its label.
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
    """The text of ``lineage.json``.

    >>> to_json([Track(1, (0, 1))])
    '{"1": {"label": 1, "frames": [0, 1], "daughters": [], "capped": false, "frame_div": null, "parent": null}}'
    """
    return json.dumps(lineage_map(tracks, {track.label: track.frames[0] for track in tracks}))


def check(tracks: Sequence[Track], name: str = "lineage") -> None:
    """Refuse tracks that can't be a lineage.

    Raises:
        InvalidImage: a label comes twice; a track has no frame, or frames that don't rise; a parent isn't there,
            doesn't know its daughter, or lives on after her birth.
    """
    known = {track.label: track for track in tracks}
    if len(known) < len(tracks):
        raise InvalidImage(f"{name}: two tracks have one label; give each its own")
    for track in tracks:
        rises = all(early < late for early, late in zip(track.frames, track.frames[1:], strict=False))
        if not track.frames or not rises or track.frames[0] < 0:
            raise InvalidImage(f"{name}: track {track.label} must list its frames, from 0 and rising")
        if any(daughter not in known or known[daughter].parent != track.label for daughter in track.daughters):
            raise InvalidImage(f"{name}: track {track.label} has a daughter that isn't there or names another parent")
        if track.parent is None:
            continue
        parent = known.get(track.parent)
        if parent is None or track.label not in parent.daughters or parent.frames[-1] >= track.frames[0]:
            raise InvalidImage(f"{name}: track {track.label} names a parent that isn't there, or lives on after it")
