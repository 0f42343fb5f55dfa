"""Writes tracks in the format of the Cell Tracking Challenge.

The result is a folder of label images ``mask000.tif``, … (uint16) and ``res_track.txt``. This file has one line
``label first last parent`` for each track, as in Ulman et al. 2017 (Nature Methods 14:1141). The format has no gaps. A
track with gaps is written as several tracks. Each of them names the previous one as its parent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from redis_consumer.errors import PermanentError
from redis_consumer.tracking.tracks import Track

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Span:
    """One line of ``res_track.txt``.

    Attributes:
        label: label in the label images.
        first: first frame.
        last: last frame. The cell is seen in all frames from `first` to `last`.
        parent: label of the previous span or of the parent's last span, 0 for none.
        track: label of the track to which the span belongs.
    """

    label: int
    first: int
    last: int
    parent: int
    track: int


def spans(tracks: Sequence[Track]) -> list[Span]:
    """Cut tracks at their gaps. The first part keeps the label of the track.

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
    """Write label images and ``res_track.txt``.

    Args:
        folder: folder for the files, made if it doesn't exist.
        frames: (Y, X) labels of the tracks, read frame by frame.
        tracks: the tracks of all labels.
        count: number of frames.

    Returns:
        Paths of the files.

    Raises:
        PermanentError: there are more tracks than uint16 has labels.
        OSError: the files can't be written.
    """
    from tifffile import imwrite

    folder.mkdir(parents=True, exist_ok=True)
    parts = spans(tracks)
    if len(parts) > np.iinfo(np.uint16).max:
        raise PermanentError(
            f"result: {len(parts)} tracks are more than the 65535 of the format ctc; remove ctc from the field outputs"
        )
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
