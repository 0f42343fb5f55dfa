"""How far a stage has moved, and movies brought back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redis_consumer.processing.drift import correct_drift, measure_shift
from support.movies import Scene, simulate

SCENE = np.random.default_rng(3).random((180, 180))


def cut(row: int, column: int) -> Any:
    return SCENE[30 - row : 150 - row, 30 - column : 140 - column]


@given(st.integers(-20, 20), st.integers(-20, 20))
def test_the_shift_of_a_scene_is_found(row: int, column: int) -> None:
    assert measure_shift(cut(0, 0), cut(row, column)) == (row, column)


def test_drift_is_found_among_moving_cells_and_noise() -> None:
    movie = simulate(Scene(drift_px=8, frames=8, step=0.1, seed=31))
    steps = np.diff(np.rint(movie.offsets), axis=0)
    found = [measure_shift(movie.image(number), movie.image(number + 1)) for number in range(7)]
    assert np.abs(found - steps).max() <= 2


def test_blank_frames_have_not_moved() -> None:
    blank = np.zeros((8, 9))
    assert measure_shift(blank, blank) == (0, 0)


def test_a_movie_is_brought_back_with_its_labels() -> None:
    movie = np.stack([cut(0, 0), cut(3, -2), cut(3, 1)])
    labels = (movie > 0.5).astype(np.uint16)
    images, moved = correct_drift(movie, labels)
    for frame in images:
        np.testing.assert_array_equal(frame[4:-4, 4:-4], movie[0][4:-4, 4:-4])
    np.testing.assert_array_equal(moved[2][4:-4, 4:-4], labels[0][4:-4, 4:-4])
    assert (images[2][-3:] == 0).all()
    assert moved.dtype == np.uint16


def test_channels_move_together() -> None:
    movie = np.stack([np.stack([cut(0, 0)] * 2, -1), np.stack([cut(5, 5)] * 2, -1)])
    images = correct_drift(movie)
    assert isinstance(images, np.ndarray)
    np.testing.assert_array_equal(images[1, 6:-6, 6:-6], movie[0, 6:-6, 6:-6])


@pytest.mark.parametrize(("X", "y"), [(np.zeros((3, 3)), None), (np.zeros((2, 3, 3)), np.zeros((2, 3, 3, 1)))])
def test_other_ranks_are_refused(X: Any, y: Any) -> None:  # noqa: N803
    with pytest.raises(ValueError, match="same rank"):
        correct_drift(X, y)
