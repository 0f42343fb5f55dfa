"""Scores of tracks, on cases that are counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from redis_consumer.tracking.tracks import Track
from support.track_scores import score

TRUTH = [np.array([[1, 1, 0, 2]]), np.array([[1, 1, 0, 2]]), np.array([[3, 4, 0, 2]])]
PARENTS = {3: 1, 4: 1}
TRACKS = [Track(1, (0, 1), None, (3, 4)), Track(2, (0, 1, 2)), Track(3, (2,), 1), Track(4, (2,), 1)]
WHOLE = 10 * 7 + 1.5 * 5


def test_the_truth_itself_is_perfect() -> None:
    assert vars(score(TRUTH, PARENTS, TRUTH, TRACKS)) == {"link_f1": 1, "division_f1": 1, "tra": 1}


def test_a_missed_division_costs_two_edges() -> None:
    scores = score(TRUTH, PARENTS, TRUTH, [Track(label, (0,)) for label in (1, 2, 3, 4)])
    assert scores.link_f1 == pytest.approx(2 * 3 / 8)
    assert scores.division_f1 == 0
    assert scores.tra == pytest.approx(1 - 2 * 1.5 / WHOLE)


def test_a_missed_cell_costs_itself_and_its_edges() -> None:
    found = [labels.copy() for labels in TRUTH]
    found[1][found[1] == 2] = 0
    scores = score(TRUTH, PARENTS, found, TRACKS)
    assert scores.tra == pytest.approx(1 - (10 + 2 * 1.5 + 1) / WHOLE)


def test_two_cells_seen_as_one_are_a_split() -> None:
    found = [labels.copy() for labels in TRUTH]
    found[2][found[2] == 4] = 3
    scores = score(TRUTH, PARENTS, found, [Track(1, (0,), None, (3,)), Track(2, (0,)), Track(3, (2,), 1)])
    assert scores.tra == pytest.approx(1 - (5 + 2 * 1.5) / WHOLE)
    assert scores.division_f1 == 0


def test_a_cell_that_is_not_there_costs_one() -> None:
    found = [labels.copy() for labels in TRUTH]
    found[0][0, 2] = 9
    assert score(TRUTH, PARENTS, found, TRACKS).tra == pytest.approx(1 - 1 / WHOLE)
