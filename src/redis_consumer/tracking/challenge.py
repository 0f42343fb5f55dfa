"""How are tracks written for the tools of the Cell Tracking Challenge?

A folder of masks ``mask000.tif``, … (uint16) and ``res_track.txt`` with one line ``label first last parent`` for each
track, as in Ulman et al. 2017 (Nature Methods 14:1141). There a track is seen in each of its frames: one that was
missed in between is written as several, of which each names the one before as its parent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from redis_consumer.errors import PermanentError
from redis_consumer.tracking.lineage import Track

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Span:
    """One line of ``res_track.txt``.

    Attributes:
        label: in the masks.
        first: frame in which it is first seen.
        last: frame in which it is last seen; it is seen in all between.
        parent: label of the span that it came from, 0 for none.
        track: label of the track that it is a part of.
    """

    label: int
    first: int
    last: int
    parent: int
    track: int


def spans(tracks: Sequence[Track]) -> list[Span]:
    """Cut tracks where they have gaps; the first part keeps the track's label.

    >>> [(span.label, span.first, span.last, span.parent) for span in spans([Track(1, (0, 1, 3))])]
    [(1, 0, 1, 0), (2, 3, 3, 1)]
    """
    free = iter(range(max((track.label for track in tracks), default=0) + 1, 1 << 32))
    parts: dict[int, list[tuple[int, int, int]]] = {}
    for track in tracks:
        frames = np.array(track.frames)
        pieces = np.split(frames, np.flatnonzero(np.diff(frames) > 1) + 1)
        labels = [track.label, *(next(free) for _ in pieces[1:])]
        parts[track.label] = [(label, int(p[0]), int(p[-1])) for label, p in zip(labels, pieces, strict=True)]
    result = []
    for track in tracks:
        parent = parts[track.parent][-1][0] if track.parent is not None else 0
        for label, first, last in parts[track.label]:
            result.append(Span(label, first, last, parent, track.label))
            parent = label
    return result


def write_challenge(folder: Path, frames: Iterable[Array], tracks: Sequence[Track], count: int) -> list[Path]:
    """Write masks and ``res_track.txt``.

    Args:
        folder: made where it isn't there.
        frames: (Y, X) labels of the tracks, frame by frame; taken one at a time.
        tracks: of all labels.
        count: number of frames.

    Returns:
        The files.

    Raises:
        PermanentError: there are more tracks than uint16 can tell apart.
        OSError: the files can't be written.
    """
    from tifffile import imwrite

    folder.mkdir(parents=True, exist_ok=True)
    parts = spans(tracks)
    if len(parts) > np.iinfo(np.uint16).max:
        raise PermanentError(f"result: {len(parts)} tracks are more than the masks of the challenge can hold (65535)")
    table = folder / "res_track.txt"
    table.write_text("".join(f"{part.label} {part.first} {part.last} {part.parent}\n" for part in parts))
    later = [part for part in parts if part.label != part.track]
    digits = max(3, len(str(count - 1)))
    files = [table]
    for number, labels in enumerate(frames):
        mask = labels.astype(np.uint16)
        for part in later:
            if part.first <= number <= part.last:
                mask[mask == part.track] = part.label
        files.append(folder / f"mask{number:0{digits}d}.tif")
        imwrite(files[-1], mask, photometric="minisblack", compression="zlib", compressionargs={"level": 1})
    return files
