"""How probabilities become tracks (contract, section 5.7)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from redis_consumer.options import LearnedOptions
from redis_consumer.tracking.features import Cells
from redis_consumer.tracking.learned import Place, link_learned
from redis_consumer.tracking.tracks import check

Chances = dict[tuple[int, int], tuple[float, float]]


def cells(count: int) -> Cells:
    return Cells(
        labels=np.arange(1, count + 1),
        areas_px=np.ones(count),
        centroids_px=np.zeros((count, 2), np.float32),
        appearances=np.zeros((count, 2, 2, 1), np.float32),
        morphologies=np.zeros((count, 3), np.float32),
        at_border=np.zeros(count, bool),
    )


def linked(counts: Sequence[int], answers: dict[int, Chances], *, clean_up: bool = False, **options: Any) -> list[Any]:
    """Frames, parent and daughters of each track.

    Args:
        counts: number of cells of each frame.
        answers: for a frame by track and cell (both from 0), the probabilities of "same" and "daughter"; others are 0.
        clean_up: see `link_learned`.
        options: of `LearnedOptions`.
    """

    def score(histories: Sequence[Sequence[Place]], frame: int) -> Any:
        chances = np.zeros((len(histories), counts[frame], 3))
        for (track, cell), (same, daughter) in answers.get(frame, {}).items():
            chances[track, cell, 1:] = same, daughter
        return chances

    frames = [cells(count) for count in counts]
    tracks = link_learned(frames, score, LearnedOptions(**options), clean_up=clean_up).tracks
    check(tracks)
    return [(track.frames, track.parent, track.daughters) for track in tracks]


def test_a_cell_goes_on_where_that_is_likelier_than_birth_and_death() -> None:
    assert linked([1, 1], {1: {(0, 0): (0.5, 0)}}) == [((0, 1), None, ())]
    assert linked([1, 1], {1: {(0, 0): (0.005, 0)}}) == [((0,), None, ()), ((1,), None, ())]


def test_two_daughters_cap_their_mother() -> None:
    found = linked([1, 2], {1: {(0, 0): (0.0, 0.95), (0, 1): (0.0, 0.95)}})
    assert found == [((0,), None, (2, 3)), ((1,), 1, ()), ((1,), 1, ())]


def test_a_mother_that_was_extended_gives_that_cell_to_a_second_daughter() -> None:
    found = linked([1, 2], {1: {(0, 0): (0.9, 0.1), (0, 1): (0.0, 0.95)}})
    assert found == [((0,), None, (2, 3)), ((1,), 1, ()), ((1,), 1, ())]


def test_a_capped_track_is_neither_extended_nor_a_mother_again() -> None:
    answers: dict[int, Chances] = {
        1: {(0, 0): (0.0, 0.95), (0, 1): (0.0, 0.95)},
        2: {(0, 0): (1.0, 1.0), (1, 1): (0.9, 0.0), (2, 2): (0.9, 0.0)},
    }
    found = linked([1, 2, 3], answers)
    assert found[0] == ((0,), None, (2, 3))
    assert found[3] == ((2,), None, ())


def test_no_cell_is_the_daughter_of_one_that_begins_with_it() -> None:
    assert linked([1, 3], {1: {(0, 0): (0.99, 0.0)}}) == [((0, 1), None, ()), ((1,), None, ()), ((1,), None, ())]


def test_the_best_mother_is_taken_above_the_limit() -> None:
    answers: dict[int, Chances] = {1: {(0, 0): (0.9, 0), (1, 1): (0.9, 0), (0, 2): (0, 0.4), (1, 2): (0, 0.5)}}
    assert linked([2, 3], answers, division=0.3)[2] == ((1,), 2, ())
    assert all(parent is None for _, parent, _ in linked([2, 3], answers, division=0.6))


def test_empty_frames_end_nothing() -> None:
    assert linked([0, 1, 0, 1], {3: {(0, 0): (0.9, 0)}}) == [((1, 3), None, ())]
    assert linked([0, 0], {}) == []


def test_pairs_out_of_range_are_no_pairs() -> None:
    def score(histories: Sequence[Sequence[Place]], frame: int) -> Any:
        return np.full((len(histories), 1, 3), np.nan)

    tracks = link_learned([cells(1), cells(1)], score, LearnedOptions(), clean_up=False).tracks
    assert [(track.frames, track.parent) for track in tracks] == [((0,), None), ((1,), None)]


def test_the_model_is_told_of_the_last_places_and_the_last_again() -> None:
    told = []

    def score(histories: Sequence[Sequence[Place]], frame: int) -> Any:
        told.append(list(histories[0]))
        return np.array([[[0, 0.9, 0]]])

    link_learned([cells(1)] * 4, score, LearnedOptions(track_length=2), clean_up=False)
    assert told == [[(0, 0), (0, 0)], [(0, 0), (1, 0)], [(1, 0), (2, 0)]]


# One daughter each in frames 2 and 4, as a model says that loses a cell and finds it again.
FLAWED: dict[int, Chances] = {
    1: {(0, 0): (0.9, 0)},
    2: {(0, 0): (0, 0.95)},
    3: {(1, 0): (0.9, 0)},
    4: {(1, 0): (0, 0.95)},
    5: {(2, 0): (0.9, 0)},
}


@pytest.mark.parametrize("clean_up", [True, False])
def test_divisions_with_one_daughter_close_in_time_are_undone(clean_up: bool) -> None:
    found = linked([1] * 6, FLAWED, clean_up=clean_up)
    if clean_up:
        assert len(found) == 2
        assert sorted(frame for frames, *_ in found for frame in frames) == [0, 1, 2, 3, 4, 5]
    else:
        assert [frames for frames, *_ in found] == [(0, 1), (2, 3), (4, 5)]


def test_a_single_division_with_one_daughter_is_kept() -> None:
    answers = {frame: FLAWED[frame] for frame in (1, 2, 3)}
    assert linked([1] * 4, answers, clean_up=True) == [((0, 1), None, (2,)), ((2, 3), 1, ())]
