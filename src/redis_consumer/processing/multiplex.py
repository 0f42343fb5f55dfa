"""Turns the outputs of a model of whole cells and nuclei into label images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from redis_consumer.job import COMPARTMENTS
from redis_consumer.processing.labels import Array, Labels, deep_watershed

#: Index of the outputs of a compartment, and the least height of its peaks (contract, section 5.4).
_HEADS = {"whole-cell": (0, 0.075), "nuclear": (2, 0.1)}


def mesmer(outputs: Sequence[Array], compartment: str = "whole-cell") -> Labels:
    """Label whole cells, nuclei or both from the outputs of a Mesmer model.

    The method is `deep_watershed` on the outputs of each compartment, as in N. F. Greenwald et al., "Whole-cell
    segmentation of tissue images with human-level performance using large-scale data annotation and deep learning",
    Nature Biotechnology 40, 555-565 (2022). The parameters are those of the contract, section 5.4.

    Args:
        outputs: four (B, Y, X, C) float arrays with the same B, Y and X: for whole cells the distance to the edge of
            the cell (channel 0) and the probabilities of classes (channel 1 is the interior), then the same for nuclei.
        compartment: ``whole-cell``, ``nuclear`` or ``both``.

    Returns:
        (B, Y, X, 1) int32; for ``both`` (B, Y, X, 2), the whole cells and the nuclei. Each compartment is numbered
        1..n by itself.

    Raises:
        ValueError: the compartment is unknown, number, shape or channels of the outputs are wrong, or a value isn't
            finite.
    """
    if compartment not in COMPARTMENTS:
        raise ValueError(f"compartment is {compartment!r}; wanted one of {', '.join(COMPARTMENTS)}")
    shapes = [np.shape(output) for output in outputs]
    if len(shapes) != 4 or any(len(shape) != 4 for shape in shapes) or any(shape[3] < 2 for shape in shapes[1::2]):
        raise ValueError(
            f"outputs has the shapes {shapes}; wanted four of (B, Y, X, C): distance and classes of whole cells, then "
            "of nuclei, with two classes or more"
        )
    labels = [
        deep_watershed(
            [outputs[first], outputs[first + 1][..., 1:2]],
            radius=2,
            maxima_threshold=least,
            interior_threshold=0.2,
            interior_smooth=2,
            small_objects_threshold=15,
            fill_holes_threshold=15,
        )
        for name, (first, least) in _HEADS.items()
        if compartment in (name, "both")
    ]
    return np.concatenate(labels, axis=-1)
