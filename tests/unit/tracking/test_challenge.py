"""Tracks in the format of the Cell Tracking Challenge."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from redis_consumer.errors import PermanentError
from redis_consumer.tracking.challenge import write_challenge
from redis_consumer.tracking.tracks import Track


def test_masks_and_table_are_written(tmp_path: Path) -> None:
    frames = [np.array([[1, 0]]), np.array([[2, 3]])]
    tracks = [Track(1, (0,), None, (2, 3)), Track(2, (1,), 1), Track(3, (1,), 1)]
    files = write_challenge(tmp_path / "01_RES", frames, tracks, 2)
    assert [file.name for file in files] == ["res_track.txt", "mask000.tif", "mask001.tif"]
    assert files[0].read_text() == "1 0 0 0\n2 1 1 1\n3 1 1 1\n"
    mask = tifffile.imread(files[2])
    assert mask.dtype == np.uint16
    assert mask.tolist() == [[2, 3]]


def test_a_track_with_a_gap_becomes_two_of_which_one_is_the_others_parent(tmp_path: Path) -> None:
    frames = [np.array([[1]]), np.array([[0]]), np.array([[1]]), np.array([[2]])]
    tracks = [Track(1, (0, 2), None, (2,)), Track(2, (3,), 1)]
    table, *masks = write_challenge(tmp_path, frames, tracks, 4)
    assert table.read_text() == "1 0 0 0\n3 2 2 1\n2 3 3 3\n"
    assert [int(tifffile.imread(mask)[0, 0]) for mask in masks] == [1, 0, 3, 2]


def test_more_tracks_than_uint16_has_are_refused(tmp_path: Path) -> None:
    tracks = [Track(label, (0,)) for label in range(1, 65537)]
    with pytest.raises(PermanentError, match="65536 tracks are more than"):
        write_challenge(tmp_path, [], tracks, 0)
