"""Cells through frames: what is linked, closed, divided and left alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from redis_consumer.errors import InvalidImage
from redis_consumer.options import LinkOptions
from redis_consumer.tracking.linking import Linker, link_movie
from redis_consumer.tracking.tracks import Tracking, check
from support.movies import Movie, Scene, shuffled, simulate, true_labels
from support.track_scores import Scores, score

Disc = tuple[float, float, float]
SIDE = 96


def frame(*discs: Disc) -> Any:
    """A label image of discs (row, column, radius), labelled in their order."""
    rows, columns = np.indices((SIDE, SIDE))
    labels = np.zeros((SIDE, SIDE), np.int32)
    for label, (y, x, radius) in enumerate(discs, start=1):
        labels[np.hypot(rows - y, columns - x) <= radius] = label
    return labels


def tracks_of(*frames: Sequence[Disc], **options: Any) -> dict[int, tuple[tuple[int, ...], int | None]]:
    """Frames and parent of each track."""
    tracking = link_movie((frame(*discs) for discs in frames), LinkOptions(**options))
    check(tracking.tracks)
    return {track.label: (track.frames, track.parent) for track in tracking.tracks}


def scored(movie: Movie) -> tuple[Tracking, Scores]:
    """Tracks and their scores where labels say nothing of which cell is which."""
    truth = true_labels(movie)
    mixed = [shuffled(labels, number) for number, labels in enumerate(truth)]
    tracking = link_movie(mixed)
    found = [tracking.relabel(number, labels) for number, labels in enumerate(mixed)]
    return tracking, score(truth, movie.parents, found, tracking.tracks)


@pytest.mark.parametrize("seed", [21, 22])
def test_cells_are_followed_at_moderate_motion(seed: int) -> None:
    tracking, scores = scored(simulate(Scene(seed=seed)))
    check(tracking.tracks)
    assert scores.link_f1 >= 0.99
    assert scores.division_f1 >= 0.9
    assert scores.tra >= 0.995


def test_a_crowd_is_followed() -> None:
    _, scores = scored(simulate(Scene(cells=160, frames=20, seed=23)))
    assert scores.link_f1 >= 0.99


def test_a_moving_stage_is_followed_by_its_shifts() -> None:
    movie = simulate(Scene(drift_px=15, frames=20, cells=40, seed=24))
    truth = true_labels(movie)
    steps = np.diff(np.rint(movie.offsets).astype(int), axis=0, prepend=0)
    linker = Linker()
    for number, labels in enumerate(truth):
        linker.add(shuffled(labels, number), (int(steps[number, 0]), int(steps[number, 1])))
    tracking = linker.finish()
    found = [tracking.relabel(number, shuffled(labels, number)) for number, labels in enumerate(truth)]
    assert score(truth, movie.parents, found, tracking.tracks).link_f1 >= 0.98


def test_two_cells_that_pass_each_other_keep_their_names() -> None:
    movie = [[(40.0, 20.0 + 4 * step, 8.0), (60.0, 60.0 - 4 * step, 8.0)] for step in range(8)]
    assert tracks_of(*movie) == {1: (tuple(range(8)), None), 2: (tuple(range(8)), None)}


def test_a_cell_that_was_missed_is_the_same_afterwards() -> None:
    here, other = (30.0, 30.0, 8.0), (70.0, 70.0, 8.0)
    assert tracks_of([here, other], [other], [other], [here, other]) == {1: ((0, 3), None), 2: ((0, 1, 2, 3), None)}


def test_a_longer_gap_is_not_closed() -> None:
    here, other = (30.0, 30.0, 8.0), (70.0, 70.0, 8.0)
    seen = tracks_of([here, other], [other], [other], [here, other], max_gap=1)
    assert sorted(frames for frames, _ in seen.values()) == [(0,), (0, 1, 2, 3), (3,)]


def test_a_cell_divides_into_two_beside_it() -> None:
    mother = [(48.0, 48.0, 12.0)]
    daughters = [(48.0, 39.0, 8.5), (48.0, 57.0, 8.5)]
    assert tracks_of(mother, mother, mother, daughters, daughters, daughters) == {
        1: ((0, 1, 2), None),
        2: ((3, 4, 5), 1),
        3: ((3, 4, 5), 1),
    }


def test_a_new_cell_is_no_daughter_of_one_that_stays_as_it_is() -> None:
    old, new = (48.0, 48.0, 10.0), (48.0, 70.0, 10.0)
    assert tracks_of([old], [old], [old, new], [old, new], [old, new]) == {
        1: ((0, 1, 2, 3, 4), None),
        2: ((2, 3, 4), None),
    }


def test_two_cells_that_are_seen_as_one_for_a_frame_are_no_division() -> None:
    apart = [(48.0, 38.0, 9.0), (48.0, 58.0, 9.0)]
    merged = frame(*apart)
    merged[44:53, 38:58] = 1
    merged[merged > 0] = 1
    frames = [frame(*apart), frame(*apart), merged, frame(*apart), frame(*apart)]
    tracks = link_movie(frames).tracks
    assert sorted(track.frames for track in tracks) == [(0, 1, 2, 3, 4), (0, 1, 3, 4)]
    assert all(track.parent is None for track in tracks)


def test_a_cell_may_move_no_further_than_allowed() -> None:
    seen = tracks_of([(20.0, 20.0, 8.0)], [(20.0, 60.0, 8.0)], max_distance_px=30)
    assert seen == {1: ((0,), None), 2: ((1,), None)}


def test_empty_frames_and_movies_have_no_tracks() -> None:
    empty = np.zeros((8, 8), np.uint16)
    assert link_movie([]).tracks == ()
    assert link_movie([empty, empty]).tracks == ()
    tracking = link_movie([empty, np.ones((8, 8), np.uint16), empty])
    assert [track.frames for track in tracking.tracks] == [(1,)]
    assert tracking.relabel(0, empty).tolist() == empty.tolist()


def test_frames_of_two_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="differs from earlier frames"):
        link_movie([np.zeros((8, 8), int), np.zeros((8, 9), int)])


@settings(max_examples=60)
@given(st.lists(arrays(np.uint16, (14, 14), elements=st.integers(0, 5)), min_size=1, max_size=6))
def test_whatever_the_frames_every_region_has_one_track_and_the_lineage_holds(frames: list[Any]) -> None:
    tracking = link_movie(frames)
    check(tracking.tracks)
    seen: dict[int, list[int]] = {}
    for number, labels in enumerate(frames):
        renamed = tracking.relabel(number, labels)
        assert ((renamed > 0) == (labels > 0)).all()
        pairs = {(int(a), int(b)) for a, b in zip(labels.ravel(), renamed.ravel(), strict=True) if a}
        assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
        for label in sorted({b for _, b in pairs}):
            seen.setdefault(label, []).append(number)
    assert {track.label: list(track.frames) for track in tracking.tracks} == seen
    assert list(seen) == sorted(seen) or set(seen) == set(range(1, len(seen) + 1))


def test_frames_of_objects_without_end_are_refused_before_they_are_compared() -> None:
    linker = Linker()
    pixels = np.arange(1, 256 * 256 + 1).reshape(256, 256)
    linker.add(pixels)
    with pytest.raises(InvalidImage, match="hold 65536 and 65536 objects, .* allowed are 4000000 pairs; "):
        linker.add(pixels)
