"""Turns the outputs of models of tissue with several stains into label images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from redis_consumer.job import COMPARTMENTS
from redis_consumer.processing.labels import Array, Labels, Mask, connected, deep_watershed, drop_small
from redis_consumer.processing.measure import object_areas, usual_area

#: Index of the outputs of a compartment, and the least height of its peaks (contract, section 5.4).
_HEADS = {"whole-cell": (0, 0.075), "nuclear": (2, 0.1)}
#: Names of the maps of `deep_watershed_mibi` (contract, section 5.3).
MAPS = ("inner-distance", "outer-distance", "fgbg-fg", "pixelwise-interior")
#: Smallest seed of `mibi`, in pixels.
_MIN_SEED_PX = 50
#: For `whole_cells`: sigma of the stain's smoothing in pixels, and the percentiles that become 0 and 1.
STAIN_SMOOTH, STAIN_PERCENTILES = 1.0, (1.0, 99.5)
#: Cost of a step of one pixel beside that of a change of the stain from 0 to 1.
STEP_COST = 0.03
#: Largest distance of a cell's border from its nucleus, and half the width of gaps that are closed, in diameters.
REACH, GAP = 1.5, 0.2
#: The stain is bright where its root is above this share of Otsu's threshold.
OTSU_SHARE = 0.7


def peaks_of(compartment: str) -> list[int]:
    """Return the indices of the outputs with the distances to the edge, in the order of the label images of `mesmer`.

    >>> peaks_of("both"), peaks_of("nuclear")
    ([0, 2], [2])
    """
    return [first for name, (first, _) in _HEADS.items() if compartment in (name, "both")]


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


def whole_cells(nuclei: Array, stain: Array) -> Labels:
    """Grow nuclei to whole cells in a channel of membranes or cytoplasm, without a model.

    Each pixel of a cell belongs to the nucleus that is nearest by a distance in which a change of the stain counts as a
    way, so that borders run along membranes or edges: T. R. Jones et al., "Voronoi-based segmentation of cells on image
    manifolds", LNCS 3765, 535-543 (2005). Cells reach as far as the root of the stain is above a share of Otsu's
    threshold, with closed gaps and filled holes around nuclei, and not farther than `REACH` diameters of the median
    nucleus.

    Args:
        nuclei: (Y, X) labels; 0 is background.
        stain: (Y, X) finite real numbers of any range.

    Returns:
        (Y, X) int32, whole cells with the labels of their nuclei.

    Raises:
        ValueError: the shapes differ.
    """
    from scipy import ndimage
    from skimage.graph import MCP_Geometric
    from skimage.segmentation import watershed

    if nuclei.ndim != 2 or nuclei.shape != stain.shape:
        raise ValueError(f"nuclei and stain have the shapes {nuclei.shape} and {stain.shape}; wanted two of (Y, X)")
    seeds = np.asarray(nuclei, np.int32)
    if not seeds.any():
        return seeds
    diameter_px = 2 * math.sqrt(usual_area(object_areas(seeds)) / math.pi)
    grey = ndimage.gaussian_filter(np.asarray(stain, np.float32), STAIN_SMOOTH)
    low, high = np.percentile(grey, STAIN_PERCENTILES)
    grey = np.clip((grey - low) / max(high - low, 1e-6), 0, 1)
    edges = np.hypot(ndimage.sobel(grey, 0), ndimage.sobel(grey, 1)) / 8
    distance = np.asarray(ndimage.distance_transform_edt(seeds == 0))
    mask = _stained(grey, seeds, diameter_px) & (distance <= REACH * diameter_px)
    way, _ = MCP_Geometric(np.where(mask, edges + STEP_COST, np.inf)).find_costs(np.argwhere(seeds > 0))
    return np.asarray(watershed(way, seeds, mask=mask & np.isfinite(way)), np.int32)


def _stained(grey: Array, seeds: Labels, diameter_px: float) -> Mask:
    """Where a stain in 0..1 is bright, without gaps between membranes."""
    from scipy import ndimage
    from skimage.filters import threshold_otsu

    root = np.sqrt(grey)
    bright = (root > OTSU_SHARE * threshold_otsu(root)) | (seeds > 0) if np.ptp(grey) else seeds > 0
    steps = max(round(GAP * diameter_px), 1)
    padded = np.pad(bright, steps + 1, mode="edge")
    closed = ndimage.binary_closing(padded, iterations=steps)[steps + 1 : -steps - 1, steps + 1 : -steps - 1]
    bright |= closed
    # The border of the image closes the cells that it cuts.
    filled = ndimage.binary_fill_holes(np.pad(bright, 1, constant_values=True))[1:-1, 1:-1]
    holes = connected(filled & ~bright, connectivity=1)
    return np.asarray(bright | _are_cells(holes, seeds, math.pi * (REACH * diameter_px) ** 2)[holes])


def _are_cells(holes: Labels, seeds: Labels, most_px: float) -> Mask:
    """Return for each hole, and for 0, whether it is around nuclei, with at most `most_px` pixels for each."""
    from scipy import ndimage

    grown = ndimage.grey_dilation(seeds, size=3)
    pairs = np.unique(np.stack([holes.ravel(), grown.ravel()])[:, (holes > 0).ravel() & (grown > 0).ravel()], axis=1)
    nuclei = np.bincount(pairs[0], minlength=int(holes.max()) + 1)
    return np.asarray((nuclei > 0) & (np.bincount(holes.ravel()) <= most_px * nuclei))


def mibi(prediction: Array, edge_threshold: float = 0.25, interior_threshold: float = 0.25) -> npt.NDArray[Any]:
    """Label the cells of a pixel classifier's class map by growing their interiors to the edges between them.

    Regions of the interior that is no edge are the seeds. They grow and shrink in turns by grey morphology: 8 times two
    steps of growth within the interior and one step that separates neighbours, two more steps of growth, and 2 times
    one step of growth everywhere and two that separate. Numbers and order of the steps are those of the contract,
    section 5.3.

    Args:
        prediction: (B, Y, X, C) or (Y, X, C) float. Channel 0 is the probability of an edge, channel 1 that of the
            interior.
        edge_threshold: a pixel of at least this probability is an edge; 0..1.
        interior_threshold: a pixel of at least this probability is interior; 0..1.

    Returns:
        (B, Y, X, 1) or (Y, X, 1) uint16, or int32 if there are more labels. Seeds of fewer than 50 pixels are dropped.

    Raises:
        ValueError: rank or channel count is wrong, or a value isn't finite.
    """
    if prediction.ndim not in (3, 4) or prediction.shape[-1] < 2:
        raise ValueError(f"prediction has the shape {prediction.shape}; wanted (B, Y, X, C) or (Y, X, C) with C >= 2")
    if not np.isfinite(prediction).all():
        raise ValueError("prediction holds NaN or infinity; wanted finite numbers")
    batch = prediction if prediction.ndim == 4 else prediction[np.newaxis]
    labels = np.zeros(batch.shape[:3], np.int32)
    for item, result in zip(batch, labels, strict=True):
        interior = item[..., 1] >= interior_threshold
        seeds = connected(interior & (item[..., 0] < edge_threshold), connectivity=2)
        result[:] = drop_small(_grown(drop_small(seeds, _MIN_SEED_PX), interior), 1)
    found = labels if labels.max(initial=0) > np.iinfo(np.uint16).max else labels.astype(np.uint16)
    return found.reshape(*prediction.shape[:-1], 1)


def _grown(labels: Labels, interior: Mask) -> Labels:
    for _ in range(8):
        labels = _separated(_dilated(labels, interior, 2), 1)
    labels = _dilated(labels, interior, 2)
    for _ in range(2):
        labels = _separated(_dilated(labels, None, 1), 2)
    return labels


def _dilated(labels: Labels, mask: Mask | None, steps: int) -> Labels:
    """Let labels grow by a cross into pixels without a label, within a mask if there is one."""
    from scipy import ndimage

    for _ in range(steps):
        grown = ndimage.grey_dilation(labels, footprint=_cross(), mode="nearest")
        is_free = labels == 0 if mask is None else (labels == 0) & mask
        labels = np.where(is_free, grown, labels).astype(np.int32)
    return labels


def _separated(labels: Labels, steps: int) -> Labels:
    """Remove the pixels of labels that touch a smaller label or the background."""
    from scipy import ndimage

    for _ in range(steps):
        eroded = ndimage.grey_erosion(labels, footprint=_cross(), mode="nearest")
        labels = np.where(eroded != labels, 0, labels).astype(np.int32)
    return labels


def _cross() -> Mask:
    return np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.bool_)


def deep_watershed_mibi(
    model_output: Mapping[str, Array] | Sequence[Array],
    interior_model: str = "pixelwise-interior",
    maxima_model: str = "inner-distance",
    **options: Any,
) -> Labels:
    """Flood one of a model's maps from the peaks of another one, see `deep_watershed`.

    Args:
        model_output: maps (B, Y, X, C) by name, of `MAPS`. A job gives the list of the model's outputs: the first is
            the map of peaks, and of the last one channel 1 is flooded, or its only channel.
        interior_model: name of the map that is flooded.
        maxima_model: name of the map with the peaks.
        options: as for `deep_watershed`, except for the indices.

    Returns:
        (B, Y, X, 1) int32.

    Raises:
        ValueError: a name is unknown or missing, a rank isn't 4; or as `deep_watershed`.
    """
    if not isinstance(model_output, Mapping):
        first, last = model_output[0], model_output[-1]
        model_output = {maxima_model: first, interior_model: last[..., 1:2] if last.shape[-1] > 1 else last}
    for name in (interior_model, maxima_model):
        if name not in MAPS or name not in model_output:
            raise ValueError(
                f"map {name!r}: wanted one of {', '.join(MAPS)}, of which there are {', '.join(model_output)}"
            )
    ranks = {name: np.ndim(array) for name, array in model_output.items()}
    if set(ranks.values()) != {4}:
        raise ValueError(f"maps have the ranks {ranks}; wanted (B, Y, X, C)")
    return deep_watershed([model_output[maxima_model], model_output[interior_model]], **options)
