"""Label images of tissue: whole cells, nuclei or both from four outputs, and cells by interiors and edges."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from redis_consumer.processing import deep_watershed, deep_watershed_mibi, mesmer, mibi


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


def classes(*squares: tuple[int, int, int], edge: tuple[slice, slice] | None = None) -> Any:
    """The class map of a pixel classifier: edge, interior and background."""
    prediction = np.zeros((1, 80, 80, 3), np.float32)
    for row, column, side in squares:
        prediction[0, row : row + side, column : column + side, 1] = 0.9
    if edge is not None:
        prediction[0, edge[0], edge[1], 0] = 0.9
    prediction[..., 2] = 1 - prediction[..., 1]
    return prediction


def test_interiors_apart_are_cells() -> None:
    labels = mibi(classes((10, 10, 20), (45, 45, 20)))
    assert (labels.shape, labels.dtype.name) == ((1, 80, 80, 1), "uint16")
    assert [labels[0, 20, 20, 0], labels[0, 55, 55, 0]] == [1, 2]
    # Eight rounds and the last two leave the square, without its outermost pixels: growth everywhere adds one twice,
    # separation takes two twice.
    assert np.array_equal(np.unique(labels), [0, 1, 2])


def test_an_edge_divides_an_interior() -> None:
    labels = mibi(classes((10, 10, 40), edge=(slice(10, 50), slice(28, 32))))[0, ..., 0]
    assert (labels[30, 15], labels[30, 45]) == (1, 2)


def test_small_seeds_are_no_cells() -> None:
    assert mibi(classes((10, 10, 7))).max() == 0


def test_a_class_map_without_batch_works() -> None:
    whole = classes((10, 10, 20))
    np.testing.assert_array_equal(mibi(whole[0]), mibi(whole)[0])


@pytest.mark.parametrize("wrong", [np.zeros((4, 4, 1)), np.zeros((4, 4)), np.full((4, 4, 3), np.nan)])
def test_another_class_map_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="prediction"):
        mibi(wrong)


def test_maps_are_found_by_their_names() -> None:
    distance, interior = outputs()[:2]
    maps = {"inner-distance": distance, "pixelwise-interior": interior[..., 1:2], "fgbg-fg": distance}
    expected = deep_watershed([distance, interior[..., 1:2]], radius=5)
    np.testing.assert_array_equal(deep_watershed_mibi(maps, radius=5), expected)
    np.testing.assert_array_equal(deep_watershed_mibi([distance, interior], radius=5), expected)
    assert deep_watershed_mibi(maps, interior_model="fgbg-fg").max() == 2


def test_unknown_maps_are_refused() -> None:
    distance, interior = outputs()[:2]
    with pytest.raises(ValueError, match="map 'outer-distance': wanted one of inner-distance, outer-distance"):
        deep_watershed_mibi({"inner-distance": distance, "pixelwise-interior": interior}, maxima_model="outer-distance")
    with pytest.raises(ValueError, match="have the ranks"):
        deep_watershed_mibi({"inner-distance": distance, "pixelwise-interior": interior[0]})
