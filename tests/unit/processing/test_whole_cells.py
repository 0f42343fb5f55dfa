"""Whole cells by a classical method."""

from __future__ import annotations

import numpy as np
import pytest
from skimage import segmentation
from training.scores import average_precision
from training.two_channels import Cells, draw_cells

from redis_consumer.processing.multiplex import whole_cells


@pytest.fixture(scope="module")
def images() -> list[Cells]:
    """Images with membranes and with cytoplasm."""
    rng = np.random.default_rng(3)
    return [draw_cells(rng, 160) for _ in range(8)]


def test_whole_cells_are_better_than_nuclei_grown_by_any_fixed_radius(images: list[Cells]) -> None:
    assert {image.is_membrane for image in images} == {True, False}
    ours = average_precision([(image.cells, whole_cells(image.nuclei, image.stain)) for image in images], 0.5)
    grown = [
        average_precision([(image.cells, segmentation.expand_labels(image.nuclei, radius)) for image in images], 0.5)
        for radius in (4, 7, 10, 14)
    ]
    assert ours > max(0.8, *grown)


def test_each_cell_holds_its_nucleus_and_has_its_label(images: list[Cells]) -> None:
    image = images[0]
    found = whole_cells(image.nuclei, image.stain)
    assert found.dtype == np.int32
    assert (found[image.nuclei > 0] == image.nuclei[image.nuclei > 0]).all()


def test_brightness_and_offset_do_not_matter(images: list[Cells]) -> None:
    image = images[1]
    again = whole_cells(image.nuclei, 1000 * image.stain.astype(np.float64) - 300)
    assert (again == whole_cells(image.nuclei, image.stain)).mean() > 0.99


def test_borders_run_along_membranes() -> None:
    nuclei = np.zeros((60, 100), np.int32)
    nuclei[20:40, 12:32], nuclei[20:40, 62:82] = 1, 2
    stain = np.zeros((60, 100))
    stain[10, 5:95] = stain[49, 5:95] = stain[10:50, 5] = stain[10:50, 94] = stain[10:50, 40] = 1.0
    found = whole_cells(nuclei, stain)
    # The membrane is nearer to the first nucleus than the middle between both is.
    assert found[30, 37] == 1
    assert found[30, 44] == 2
    assert not found[:5].any()


@pytest.mark.parametrize("stain", [np.zeros((20, 20)), np.full((20, 20), 7.0)])
def test_a_flat_stain_leaves_nuclei(stain: np.ndarray) -> None:
    nuclei = np.zeros((20, 20), np.int32)
    nuclei[5:10, 5:10] = 3
    assert (whole_cells(nuclei, stain) == nuclei).all()


def test_no_nuclei_give_no_cells() -> None:
    assert not whole_cells(np.zeros((9, 9), np.int32), np.eye(9)).any()


def test_other_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(9, 9\) and \(8, 9\)"):
        whole_cells(np.zeros((9, 9), np.int32), np.zeros((8, 9)))
