"""Tests the figures about points of real tracks, on points that are made up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from benchmarks import real_tracks

from redis_consumer.errors import SettingsError


def _write(path: Path, *, frames: int = 25) -> Path:
    """A cell that divides at frame 12, and one that crawls; tracks 1 → 2 and 3, and 4."""
    rows = []
    for frame in range(frames):
        rows.append((frame, 150.0, 40.0 + frame, 4))
        if frame < 12:
            rows.append((frame, 60.0, 60.0, 1))
        else:
            rows += [(frame, 52.0 - (frame - 12), 60.0, 2), (frame, 68.0 + (frame - 12), 60.0, 3)]
    frame, x, y, track = np.array(rows).T
    parents = np.array([(1, 0, 11, 0), (2, 12, frames - 1, 1), (3, 12, frames - 1, 1), (4, 0, frames - 1, 0)])
    np.savez(path, frame=frame.astype(int), x=x, y=y, track=track.astype(int), man_track=parents)
    return path


def test_plain_movement_is_linked_at_every_step_and_its_division_is_found(tmp_path: Path) -> None:
    figures = real_tracks.measure(_write(tmp_path / "points.npz"))

    assert list(figures) == ["every_1", "every_6", "every_12"]
    assert figures["every_1"] == {
        "links": 24 + 11 + 2 + 24,
        "link_f1": 1.0,
        # One daughter is linked to the parent.
        "link_f1_by_distance": pytest.approx(2 * 60 / 121, abs=1e-4),
        "divisions": 1,
        "division_f1": 1.0,
    }
    assert figures["every_6"]["division_f1"] == 1.0
    assert figures["every_12"]["links"] == 2 + 2 + 2


def test_a_link_is_wrong_if_it_joins_other_tracks() -> None:
    assert real_tracks._f1(3, 4, 4) == 0.75
    assert not real_tracks._is_found((5, 1, frozenset({2, 4})), {1: (5, frozenset({2, 3}))})
    assert real_tracks._is_found((6, 1, frozenset({2, 3})), {1: (5, frozenset({2, 3}))})
    assert not real_tracks._is_found((7, 1, frozenset({2, 3})), {1: (5, frozenset({2, 3}))})


def test_discs_of_near_points_share_their_pixels_by_distance() -> None:
    labels = real_tracks._discs(np.array([[20.0, 20.0], [20.0, 30.0]]), (40, 50))

    assert labels[20, 24] == 1
    assert labels[20, 26] == 2
    assert not labels[20, 11]
    assert labels[20, 12] == 1
    assert not labels[20, 39]


@pytest.mark.parametrize("content", [None, b"no archive"])
def test_a_file_that_is_no_archive_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "points.npz"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(SettingsError, match=r"points\.npz.*frame, x, y, track, man_track"):
        real_tracks.measure(path)


def test_a_missing_array_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "points.npz", frame=np.zeros(1, int))

    with pytest.raises(SettingsError, match="'x"):
        real_tracks.measure(tmp_path / "points.npz")
