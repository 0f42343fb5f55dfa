"""Describes tracks with parents and daughters, checks them, and writes ``lineage.json``."""

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
        rises = all(early < late for early, late in zip(track.frames, track.frames[1:], strict=False))
        if not track.frames or not rises or track.frames[0] < 0:
            raise InvalidImage(f"{name}: track {track.label} must list its frames, from 0 and rising")
        if any(daughter not in known or known[daughter].parent != track.label for daughter in track.daughters):
            raise InvalidImage(
                f"{name}: track {track.label} has a daughter that doesn't exist or names another parent; correct it"
            )
        if track.parent is None:
            continue
        parent = known.get(track.parent)
        if parent is None or track.label not in parent.daughters or parent.frames[-1] >= track.frames[0]:
            raise InvalidImage(
                f"{name}: track {track.label} names a parent that doesn't exist, doesn't list it as daughter, or "
                "continues after it begins; correct it"
            )
