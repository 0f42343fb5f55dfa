"""`mesmer`: label images of whole cells, nuclei or both from four outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from redis_consumer.processing import mesmer


def outputs(*, cells: int = 2, nuclei: int = 1) -> list[Any]:
    """The outputs for squares of 20 px in a row; a nucleus of 10 px is in each of the first ones."""
    found = []
    for count, margin in ((cells, 2), (nuclei, 7)):
        distance = np.zeros((1, 24, 24 * 3, 1), np.float32)
        classes = np.zeros((1, 24, 24 * 3, 3), np.float32)
        for number in range(count):
            middle = 24 * number + 12
            distance[0, 11:13, middle - 1 : middle + 1, 0] = 1
            classes[0, margin:-margin, 24 * number + margin : 24 * (number + 1) - margin, 1] = 1
        classes[..., 0] = 1 - classes[..., 1]
        found += [distance, classes]
    return found


@pytest.mark.parametrize(
    ("compartment", "wanted"),
    [("whole-cell", [[1, 2]]), ("nuclear", [[1]]), ("both", [[1, 2], [1]])],
)
def test_a_compartment_has_its_own_numbers(compartment: str, wanted: list[list[int]]) -> None:
    labels = mesmer(outputs(), compartment)
    assert labels.shape == (1, 24, 72, len(wanted))
    assert labels.dtype == np.int32
    assert [np.unique(labels[..., each])[1:].tolist() for each in range(len(wanted))] == wanted


def test_cells_keep_their_places() -> None:
    labels = mesmer(outputs(), "both")[0]
    assert labels[12, 12].tolist() == [1, 1]
    assert labels[12, 36].tolist() == [2, 0]


def test_an_unknown_compartment_is_refused() -> None:
    with pytest.raises(ValueError, match=r"compartment is 'membrane'; wanted one of whole-cell, nuclear, both"):
        mesmer(outputs(), "membrane")


@pytest.mark.parametrize(
    "wrong", [outputs()[:3], [each[..., :1] for each in outputs()], [each[0] for each in outputs()]]
)
def test_other_outputs_are_refused(wrong: list[Any]) -> None:
    with pytest.raises(ValueError, match=r"outputs has the shapes .* wanted four of \(B, Y, X, C\)"):
        mesmer(wrong)
