"""Writes a CSV table with the position of each cell in each frame."""

from __future__ import annotations

import csv
from pathlib import Path

from redis_consumer.tracking.tracks import Tracking

COLUMNS = ("track", "frame", "y_px", "x_px", "area_px", "parent", "source_label")


def write_table(path: Path, tracking: Tracking, offsets_px: list[tuple[int, int]] | None = None) -> None:
    """Write a CSV file with one row for each cell and frame, track by track.

    The columns are:

    * ``track``: label of the track in the labelled movie
    * ``frame``: number of the frame, from 0
    * ``y_px`` and ``x_px``: centroid in the input movie
    * ``area_px``: number of pixels
    * ``parent``: label of the track that divided into this one, empty for none
    * ``source_label``: label in the segmentation of that frame

    Args:
        path: path of the file.
        tracking: result of the linker.
        offsets_px: for each frame, the movement of the scene since the first frame; none by default.

    Raises:
        OSError: the file can't be written.
    """
    parents = {track.label: "" if track.parent is None else str(track.parent) for track in tracking.tracks}
    rows: list[tuple[int, int, str, str, int, str, int]] = []
    for frame, (regions, owners) in enumerate(zip(tracking.regions, tracking.track_labels, strict=True)):
        offset = offsets_px[frame] if offsets_px else (0, 0)
        places = (regions.centroids_px + offset).tolist()
        columns = zip(owners.tolist(), places, regions.areas_px.tolist(), regions.labels.tolist(), strict=True)
        for track, (y, x), area, source in columns:
            rows.append((track, frame, f"{y:.2f}", f"{x:.2f}", int(area), parents[track], source))
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(sorted(rows))
